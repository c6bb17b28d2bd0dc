"""The commands ``headgate notify ...``: the webhooks that a document names. What they are told is headgate/notify's business.

Each is one call of the admin API. Next: session.py.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from headgate.cli import completion
from headgate.cli import session as cli
from headgate.cli.client import segment
from headgate.cli.exits import EXIT_NO
from headgate.cli.groups import Group
from headgate.cli.output import Lines, Table
from headgate.cli.session import Session


@click.group(cls=Group)
def notify() -> None:
    """Try the webhooks of an endpoint.

    \b
    Example:
      headgate notify test digits
    """


@notify.command(name="test")
@click.argument("endpoint", shell_complete=completion.endpoints)
@click.option("--reason", "-m", metavar="TEXT", help="Why; kept in the audit and not sent.")
@cli.client_options
def test_(session: Session, endpoint: str, reason: str | None) -> None:
    """Send a test message to each webhook of an endpoint.

    They are those of its document (notify). Says which took it, and why another did not; then the exit code is 1.

    \b
    Example:
      headgate notify test digits
      headgate notify test digits --json
    """
    with session.client() as client:
        path = f"/endpoints/{segment(endpoint)}/notify:test"
        found = client.ask(path, {"reason": reason}).body
    session.show(
        found,
        lambda data: _table(data["webhooks"]),
        lambda data: [one["webhook"] for one in data["webhooks"]],
    )
    if any(one["status"] != "delivered" for one in found["webhooks"]):
        sys.exit(EXIT_NO)


def _table(webhooks: Sequence[Mapping[str, Any]]) -> Lines:
    made = Table("WEBHOOK", "EVENTS", "STATUS", "WHY")
    for one in webhooks:
        made.row(one["webhook"], ", ".join(one["events"]), one["status"], one["detail"])
    return made.lines()

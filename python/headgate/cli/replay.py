"""The command ``replay``: captured requests put to a version, and what came of it. Next: replay_view.py."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from headgate.cli import completion
from headgate.cli import session as cli
from headgate.cli.client import AdminClient, problem_error, segment
from headgate.cli.exits import EXIT_NO, EXIT_TRY_AGAIN
from headgate.cli.output import words
from headgate.cli.replay_view import replay_view, was_cancelled
from headgate.cli.session import Session
from headgate.errors import HeadgateError


@click.command()
@click.argument("endpoint", shell_complete=completion.endpoints)
@click.argument("version", shell_complete=completion.versions)
@click.option(
    "--requests", "count", metavar="N", type=click.IntRange(min=1), help="At most so many, the oldest first."
)
@click.option("--since", metavar="TIME", help="Those from then on, such as 2027-03-01T03:12:04Z.")
@click.option("--until", metavar="TIME", help="Those before that time.")
@click.option(
    "--against", metavar="VERSION", help="Those that this version answered. [default: the champion]"
)
@click.option(
    "--compare",
    "compared",
    multiple=True,
    metavar="OUTPUT=FORM",
    help='How an output is compared: exact, label, or JSON such as {"within": 0.02}; may be repeated.',
)
@click.option("--timeout", metavar="TIME", help="How long a run may take. [default: as long as a request]")
@click.option(
    "--wait",
    "wait_seconds",
    metavar="SECONDS",
    default=900.0,
    show_default=True,
    type=click.FloatRange(0),
    help="How long to wait for the end.",
)
@cli.client_options
def replay(
    session: Session,
    endpoint: str,
    version: str,
    count: int | None,
    since: str | None,
    until: str | None,
    against: str | None,
    compared: tuple[str, ...],
    timeout: str | None,
    wait_seconds: float,
) -> None:
    """Put captured requests to a version, and compare its answers with those that were given.

    It runs as an operation, which goes on after Ctrl-C. A replay that somebody ended exits with 1.

    \b
    Example:
      headgate replay digits v2
      headgate replay digits v2 --requests 1000 --since 2027-03-01T00:00:00Z
      headgate replay digits v2 --compare 'probabilities={"within": 0.02}'
    """
    body: dict[str, Any] = {
        "version": version,
        "against": against,
        "since": since,
        "until": until,
        "max_requests": count,
        "timeout": timeout,
        "compare": dict(_form(one) for one in compared) or None,
    }
    wanted = {name: value for name, value in body.items() if value is not None}
    with session.client() as client:
        place = f"/endpoints/{segment(endpoint)}/replays"
        begun = client.ask(place, wanted).body
        words(f"the replay is operation {begun['id']}")
        try:
            ended = client.operation(begun["id"], wait_seconds)
        except KeyboardInterrupt:
            words(f"the replay goes on; follow it with `headgate operations {begun['id']} --wait`")
            words(f"end it with DELETE /v1{place}/{_number(client, place, version)}")
            raise
    if ended["problem"] is not None:
        raise problem_error(ended["problem"])
    if ended["status"] == "running":
        words(f"the replay goes on; follow it with `headgate operations {ended['id']} --wait`")
        sys.exit(EXIT_TRY_AGAIN)
    session.show(ended["result"], replay_view, lambda data: [str(data["id"])])
    if was_cancelled(ended["result"]):
        sys.exit(EXIT_NO)


def _number(client: AdminClient, place: str, version: str) -> str:
    """The number of the replay of this version that runs; where it is not known which, how to find it."""
    try:
        found = client.get(place).body["replays"]
    except HeadgateError:
        found = []
    running = [one["id"] for one in found if one["state"] == "running" and one["version"] == version]
    return str(running[0]) if len(running) == 1 else f"<number>, which GET /v1{place} has"


def _form(written: str) -> tuple[str, Any]:
    name, equals, form = written.partition("=")
    if not equals or not name:
        raise click.UsageError(f"--compare {written!r}: write it as OUTPUT=FORM")
    try:
        return name, json.loads(form) if form.startswith("{") else form
    except ValueError:
        raise click.UsageError(f"--compare {written!r}: {form!r} is not JSON") from None

"""The command ``delete``: takes an endpoint away. Next: changes.py for the other changes."""

from __future__ import annotations

import sys

import click

from headgate.cli import completion
from headgate.cli import session as cli
from headgate.cli.changes import change_options, dry, show_change
from headgate.cli.client import if_match, segment
from headgate.cli.session import Session
from headgate.cli.text import escape


@click.command()
@click.argument("endpoint", shell_complete=completion.endpoints)
@click.option("--force", is_flag=True, help="Even if it answered a request in the last minute.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask on a terminal.")
@change_options
@cli.client_options
def delete(
    session: Session, endpoint: str, force: bool, yes: bool, reason: str | None, dry_run: bool
) -> None:
    """Take an endpoint away; its history stays.

    Refused while it has traffic, unless forced. On a terminal it says what that does, and asks first. `restore` brings
    it back.

    \b
    Example:
      headgate delete digits --reason "moved to the other cluster"
      headgate delete digits --yes --force
    """
    path = f"/endpoints/{segment(endpoint)}"
    with session.client() as client:
        live = client.get(f"{path}/traffic")
        params = ({"force": "true"} if force else {}) | ({"reason": reason} if reason else {})
        if not (yes or dry_run) and is_terminal():
            plan = client.delete(path, if_match(live.revision), params | dry(dry_run=True)).body
            click.confirm(f"{escape(plan['text'])}\nGo on?", abort=True, err=True)
        answer = client.delete(path, if_match(live.revision), params | dry(dry_run)).body
    show_change(session, answer, dry_run)


def is_terminal() -> bool:
    """Whether somebody is there to answer."""
    return sys.stdin.isatty()

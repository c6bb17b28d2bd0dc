"""The command ``events``: what happened, and with --follow what happens. Next: event_stream.py, which reads and reconnects."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click

from headgate.cli import completion
from headgate.cli import session as cli
from headgate.cli.event_stream import follow, stored
from headgate.cli.output import Lines, Table, show_next, words
from headgate.cli.session import Session


@click.command()
@click.argument("endpoint", required=False, shell_complete=completion.endpoints)
@click.option("--follow", "-f", "following", is_flag=True, help="Go on with what happens, until Ctrl-C.")
@click.option("--after", metavar="ID", type=click.IntRange(min=0), help="Only events after that id.")
@click.option(
    "--limit",
    default=50,
    show_default=True,
    type=click.IntRange(1, 10_000),
    help="The newest so many; not for --follow.",
)
@cli.client_options
def events(session: Session, endpoint: str | None, following: bool, after: int | None, limit: int) -> None:
    """Show what happened, or follow what happens.

    --follow shows events from now on, or from --after on. It reconnects when the gateway restarts and misses nothing.

    \b
    Example:
      headgate events
      headgate events digits --follow
      headgate events --follow --after 4711 --json
    """
    with session.client() as client:
        if following:
            for event in follow(client, endpoint, after, session.environment.timing.sleep, words):
                show_next(session.form, event, _line, lambda one: [one["id"]])
            return
        found = {"events": list(stored(client, endpoint, after or 0, limit))}
    session.show(
        found, lambda data: _table(data["events"]), lambda data: [one["id"] for one in data["events"]]
    )


def _line(event: dict[str, Any]) -> Lines:
    return ["  ".join("-" if cell in (None, "") else str(cell) for cell in _cells(event))]


def _table(events: Iterable[dict[str, Any]]) -> Lines:
    made = Table("ID", "WHEN", "TYPE", "ENDPOINT", "REVISION", "WHO", "WHAT", "REASON")
    for event in events:
        made.row(*_cells(event))
    return made.lines()


def _cells(event: dict[str, Any]) -> tuple[Any, ...]:
    return (
        event["id"],
        event["when"],
        event["type"],
        event["endpoint"],
        event["revision"],
        event["who"],
        _what(event["data"]),
        event["reason"],
    )


def _what(data: dict[str, Any]) -> str:
    """The plain values of an event, its shadows and its rollout: ``kind=traffic champion=v1 shadows=v2:off rollout=r1:paused``."""
    shadows, rollout = data.get("shadows", {}), data.get("rollout")
    plain = {**data, "shadows": ",".join(f"{name}:{share}" for name, share in shadows.items())}
    if rollout:
        plain["rollout"] = f"{rollout['id']}:{rollout['phase']}"
    return " ".join(
        f"{name}={value}" for name, value in plain.items() if isinstance(value, str | int) and value != ""
    )

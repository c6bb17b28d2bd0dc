"""Commands that tell who did what: audit, operations, whoami. Next: session.py."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from headgate.cli import completion
from headgate.cli import session as cli
from headgate.cli.client import problem_error
from headgate.cli.exits import EXIT_NO, EXIT_TRY_AGAIN, fail
from headgate.cli.output import Lines, Table, words
from headgate.cli.replay_view import REPLAY, replay_view, was_cancelled
from headgate.cli.session import Session

_PAGE = 1000


@click.command()
@click.argument("endpoint", required=False, shell_complete=completion.endpoints)
@click.option(
    "--limit", default=50, show_default=True, type=click.IntRange(1, 1000), help="How many, newest first."
)
@click.option("--before", metavar="ID", type=click.IntRange(min=1), help="Only entries below that id.")
@click.option("--all", "every", is_flag=True, help="Everything that is kept; without --limit.")
@cli.client_options
def audit(session: Session, endpoint: str | None, limit: int, before: int | None, every: bool) -> None:
    """Show who changed what, and how it ended.

    \b
    Example:
      headgate audit
      headgate audit digits --limit 200 -o json
      headgate audit --all -o json
    """
    with session.client() as client:
        params = {"endpoint": endpoint, "limit": _PAGE if every else limit, "before": before}
        found = client.get("/audit", params).body
        page = found["entries"]
        while every and len(page) == _PAGE:
            page = client.get("/audit", {**params, "before": page[-1]["id"]}).body["entries"]
            found["entries"] += page
    session.show(
        found, lambda data: _entries(data["entries"]), lambda data: [one["id"] for one in data["entries"]]
    )
    entries = found["entries"]
    if session.for_person and len(entries) == limit and not every:
        named = "" if endpoint is None else f"{endpoint} "
        words(f"older ones: headgate audit {named}--before {entries[-1]['id']}")


@click.command()
@click.argument("operation_id", metavar="[ID]", required=False)
@click.option("--wait", is_flag=True, help="Until it has ended.")
@click.option(
    "--limit",
    default=20,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="How many without an ID, newest first.",
)
@click.option(
    "--timeout",
    metavar="SECONDS",
    default=900.0,
    show_default=True,
    type=click.FloatRange(0),
    help="For --wait.",
)
@cli.client_options
def operations(session: Session, operation_id: str | None, wait: bool, timeout: float, limit: int) -> None:
    """List changes that outlived their requests, or show one, or wait for its end.

    With an ID it exits as the change would have: 0 when it is done, the code of its error when it failed, 1 for a replay that was
    cancelled, 3 while it runs and --wait was over.

    \b
    Example:
      headgate operations
      headgate operations 3f9a1c0b2d4e5f60
      headgate operations 3f9a1c0b2d4e5f60 --wait
    """
    if operation_id is None:
        if wait:
            raise click.UsageError("--wait needs the ID of an operation")
        _list_operations(session, limit)
        return
    with session.client() as client:
        found = client.operation(operation_id, timeout if wait else 0.0)
    session.show(found, _operation, lambda data: [data["id"]])
    if found["status"] == "failed":
        fail(problem_error(found["problem"]))
    if found["kind"] == REPLAY and was_cancelled(found["result"]):
        sys.exit(EXIT_NO)
    if wait and found["status"] == "running":
        sys.exit(EXIT_TRY_AGAIN)


@click.command()
@cli.client_options
def whoami(session: Session) -> None:
    """Say which gateway is called, and as whom.

    \b
    Example:
      headgate whoami
      headgate whoami --context production
    """
    with session.client() as client:
        who = client.get("/whoami").body | {"admin": str(client.address)}
    session.show(
        who,
        lambda data: [f"{data['name']} ({data['role']}), token {data['token']}, at {data['admin']}"],
        lambda data: [data["name"]],
    )


def _list_operations(session: Session, limit: int) -> None:
    with session.client() as client:
        found = client.get("/operations", {"limit": limit}).body
    session.show(
        found,
        lambda data: _operations(data["operations"]),
        lambda data: [one["id"] for one in data["operations"]],
    )


def _operations(operations: list[dict[str, Any]]) -> Lines:
    made = Table("ID", "ENDPOINT", "KIND", "STATUS", "STARTED", "FINISHED", "MESSAGE")
    for one in operations:
        said = one["problem"]["detail"] if one["problem"] else (one["result"] or {}).get("message")
        made.row(
            one["id"], one["endpoint"], one["kind"], one["status"], one["started"], one["finished"], said
        )
    return made.lines()


def _entries(entries: list[dict[str, Any]]) -> Lines:
    made = Table("ID", "WHEN", "WHO", "ROLE", "ACTION", "ENDPOINT", "REVISION", "OUTCOME", "REASON", "DETAIL")
    for one in entries:
        made.row(
            one["id"],
            one["when"],
            one["who"],
            one["role"],
            one["action"],
            one["endpoint"],
            one["revision"],
            one["outcome"],
            one["reason"],
            _detail(one["detail"]),
        )
    return made.lines()


def _detail(detail: dict[str, Any]) -> str:
    """``name=ci role=viewer``; what is no plain value, as JSON; nothing about what is empty."""
    return " ".join(
        f"{name}={value if isinstance(value, str | int) else json.dumps(value, ensure_ascii=False)}"
        for name, value in detail.items()
        if value not in (None, "", [], {})
    )


def _operation(one: dict[str, Any]) -> Lines:
    until = "" if one["finished"] is None else f" until {one['finished']}"
    lines = [
        f"{one['id']}  {one['kind']} of {one['endpoint']}: {one['status']} (since {one['started']}{until})"
    ]
    result = one["result"]
    if result is None:
        return lines
    if one["kind"] == REPLAY:
        return [*lines, *replay_view(result)]
    message, revision = result["message"] or result["status"], result["revision"] or "not on disk yet"
    return [*lines, f"  {message} (revision {revision})"]

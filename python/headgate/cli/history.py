"""The command ``history``: the revisions of an endpoint, or one with its differences. Next: session.py."""

from __future__ import annotations

from typing import Any

import click

from headgate.cli import completion
from headgate.cli import session as cli
from headgate.cli.client import segment
from headgate.cli.output import Lines, Table, words
from headgate.cli.session import Session
from headgate.cli.traffic_view import traffic_words


@click.command()
@click.argument("endpoint", shell_complete=completion.endpoints)
@click.argument("revision", required=False, type=click.IntRange(min=1))
@click.option(
    "--limit", default=20, show_default=True, type=click.IntRange(1, 500), help="How many, newest first."
)
@click.option("--before", metavar="N", type=click.IntRange(min=1), help="Only revisions below N.")
@cli.client_options
def history(session: Session, endpoint: str, revision: int | None, limit: int, before: int | None) -> None:
    """List the revisions of an endpoint, or show one with its differences.

    \b
    Example:
      headgate history digits
      headgate history digits --before 22
      headgate history digits 41
    """
    with session.client() as client:
        base = f"/endpoints/{segment(endpoint)}/revisions"
        if revision is not None:
            one = client.get(f"{base}/{revision}").body
            session.show(one, _revision, lambda data: [data["revision"]])
            return
        found = client.get(base, {"limit": limit, "before": before}).body
    revisions = found["revisions"]
    session.show(
        found,
        lambda data: _revisions(data["revisions"]),
        lambda data: [one["revision"] for one in data["revisions"]],
    )
    if session.for_person and len(revisions) == limit and revisions[-1]["revision"] > 1:
        words(f"older ones: headgate history {endpoint} --before {revisions[-1]['revision']}")


def _revisions(revisions: list[dict[str, Any]]) -> Lines:
    made = Table("REVISION", "KIND", "STATUS", "TRAFFIC", "WHEN", "WHO", "REASON", "MESSAGE")
    for one in revisions:
        made.row(
            one["revision"],
            one["kind"],
            one["status"],
            traffic_words(one),
            one["when"],
            one["who"],
            one["reason"],
            _message(one),
        )
    return made.lines()


def _message(one: dict[str, Any]) -> str | None:
    """Why it failed, or what it did to a rollout, without what its reason says already."""
    rollout: str | None = one.get("rollout")
    if one["message"] or rollout is None:
        message: str | None = one["message"]
        return message
    reason = one["reason"]
    return rollout.removesuffix(reason).rstrip(" .:") if reason and rollout.endswith(reason) else rollout


def _revision(one: dict[str, Any]) -> Lines:
    lines = [
        f"revision {one['revision']}  {one['kind']}  {one['status']}  {one['when']}  {one['who']}",
        f"traffic: {traffic_words(one)}",
    ]
    lines += [f"reason: {one['reason']}"] if one["reason"] else []
    lines += [f"message: {one['message']}"] if one["message"] else []
    lines += [one["rollout"]] if one.get("rollout") else []
    lines += [f"{pair}: {slots / 100:g}% of keys" for pair, slots in one["moves"].items()]
    return [*lines, "", *one["diff"].splitlines()] if one["diff"] else lines

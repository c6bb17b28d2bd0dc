"""The commands ``models`` and ``models unpin``: what versions stand for, and what was refused or did not load. Next: session.py."""

from __future__ import annotations

import sys
from typing import Any

import click

from headgate.cli import completion, text
from headgate.cli import session as cli
from headgate.cli.client import AdminClient, segment
from headgate.cli.exits import EXIT_NO
from headgate.cli.groups import Group
from headgate.cli.output import Lines, Table, words
from headgate.cli.session import Session
from headgate.errors import ModelNotReady, NotFound


@click.group(cls=Group, invoke_without_command=True)
@click.option("--check", is_flag=True, help="Exit 1 when any model is refused or did not load.")
@cli.client_options
def models(session: Session, check: bool) -> None:
    """List models, and what was refused or did not load.

    \b
    Example:
      headgate models
      headgate models --check
      headgate models unpin digits v3
    """
    if click.get_current_context().invoked_subcommand is not None:
        return
    with session.client() as client:
        found = client.get("/models").body
        refused = {one["endpoint"] for one in found["refusals"]}
        failed = _not_loaded(client)
        # What was never served is among the refusals already.
        found["not_loaded"] = [
            one for one in failed if one["version"] is not None or one["endpoint"] not in refused
        ]
    session.show(
        found,
        lambda data: _models(data["models"]),
        lambda data: [f"{one['endpoint']}/{one['version']}" for one in data["models"]],
    )
    missing = [*map(_refusal, found["refusals"]), *map(_failure, found["not_loaded"])]
    for line in missing if session.for_person else []:
        words(line)
    if check and missing:
        sys.exit(EXIT_NO)


@models.command()
@click.argument("endpoint", shell_complete=completion.endpoints)
@click.argument("version")
@click.option("--reason", "-m", metavar="TEXT", help="Why; kept in the audit.")
@cli.client_options
def unpin(session: Session, endpoint: str, version: str, reason: str | None) -> None:
    """Let a version's name stand for other bytes from now on.

    Refused while the endpoint has the version: what is served never changes under its name. The audit keeps the
    digest that it stood for.

    \b
    Example:
      headgate models unpin digits v3 --reason "trained again before anyone used it"
    """
    with session.client() as client:
        gone = client.delete(
            f"/models/{segment(endpoint)}/{segment(version)}", params={"reason": reason}
        ).body
    session.show(
        gone,
        lambda data: [f"{data['endpoint']} {data['version']} stands for {data['digest']} no more"],
        lambda data: [f"{data['endpoint']}/{data['version']}"],
    )


def _models(models: list[dict[str, Any]]) -> Lines:
    made = Table("ENDPOINT", "VERSION", "IN USE", "SIZE", "PINNED", "DIGEST")
    for one in models:
        made.row(
            one["endpoint"],
            one["version"],
            "yes" if one["in_use"] else "no",
            None if one["size"] is None else text.size(one["size"]),
            one["pinned"],
            one["digest"],
        )
    return made.lines()


def _not_loaded(client: AdminClient) -> list[dict[str, Any]]:
    """The versions of endpoints that did not load, with the reason."""
    found = []
    for one in client.get("/endpoints").body["endpoints"]:
        # Only an endpoint with such a version has an alarm: the others need not be asked for.
        if not one["alarms"]:
            continue
        alarms = "; ".join(one["alarms"])
        try:
            versions = client.get(f"/endpoints/{segment(one['name'])}").body["versions"]
        except (ModelNotReady, NotFound):  # nothing of it is known, or it has just been deleted
            found.append({"endpoint": one["name"], "version": None, "message": alarms})
            continue
        found += [
            {"endpoint": one["name"], "version": name, "message": version["message"] or alarms}
            for name, version in versions.items()
            if version["state"] == "failed"
        ]
    return found


def _refusal(one: dict[str, Any]) -> str:
    """A model of a folder that was refused; what has no name is named by its folder."""
    names = [one[key] for key in ("endpoint", "version") if one[key] is not None]
    return text.escape(f"refused: {' '.join(names) or one.get('folder')}: {one['message']}")


def _failure(one: dict[str, Any]) -> str:
    names = [one[key] for key in ("endpoint", "version") if one[key] is not None]
    return text.escape(f"did not load: {' '.join(names)}: {one['message']}")

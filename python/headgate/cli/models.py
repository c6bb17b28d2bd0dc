"""The command ``models``: what versions stand for, and what was refused. Next: session.py."""

from __future__ import annotations

import sys
from typing import Any

import click

from headgate.cli import session as cli
from headgate.cli import text
from headgate.cli.exits import EXIT_NO
from headgate.cli.output import Lines, Table, words
from headgate.cli.session import Session


@click.command()
@click.option("--check", is_flag=True, help="Exit 1 when any model is refused.")
@cli.client_options
def models(session: Session, check: bool) -> None:
    """List models, and what was refused.

    \b
    Example:
      headgate models
      headgate models --check
    """
    with session.client() as client:
        found = client.get("/models").body
    session.show(
        found,
        lambda data: _models(data["models"]),
        lambda data: [f"{one['endpoint']}/{one['version']}" for one in data["models"]],
    )
    refused = _refusals(found["refusals"])
    for line in refused if session.for_person else []:
        words(line)
    if check and refused:
        sys.exit(EXIT_NO)


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


def _refusals(refusals: list[dict[str, Any]]) -> Lines:
    return [
        text.escape(f"refused: {one['endpoint']} {one['version']}: {one['message']} (found {one['found']})")
        for one in refusals
    ]

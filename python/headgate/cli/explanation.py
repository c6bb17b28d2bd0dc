"""The command ``explain``: which version answers a caller, and why. Next: session.py."""

from __future__ import annotations

from typing import Any

import click

from headgate.cli import completion
from headgate.cli import session as cli
from headgate.cli.client import segment
from headgate.cli.output import Lines
from headgate.cli.session import Session


@click.command()
@click.argument("endpoint", shell_complete=completion.endpoints)
@click.option("--key", metavar="KEY", help="A sticky key's value.")
@click.option(
    "--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="A request header; may be repeated."
)
@click.option(
    "--at", metavar="REVISION", type=click.IntRange(min=1), help="As it was at that revision. [default: now]"
)
@cli.client_options
def explain(
    session: Session, endpoint: str, key: str | None, headers: tuple[str, ...], at: int | None
) -> None:
    """Say which version answers a caller, and why.

    \b
    Example:
      headgate explain digits --key user-42
      headgate explain digits --key user-42 --at 38
      headgate explain digits --header 'x-user-id: user-42'
    """
    if key is not None and headers:
        raise click.UsageError("--key and --header exclude each other")
    given = dict(_header(written) for written in headers)
    body: dict[str, Any] = {"headers": given} if headers else {"key": key}
    with session.client() as client:
        answer = client.ask(f"/endpoints/{segment(endpoint)}:explain", body | {"revision": at}).body
    session.show(answer, _explanation, lambda data: [data["version"] or ""])


def _header(written: str) -> tuple[str, str]:
    name, colon, value = written.partition(":")
    if not colon or not name.strip():
        raise click.UsageError(f"--header {written!r}: write it as 'NAME: VALUE'")
    return name.strip().lower(), value.strip()


def _explanation(answer: dict[str, Any]) -> Lines:
    if answer["version"] is None:
        shares = ", ".join(f"{share} {name}" for name, share in answer["shares"].items())
        return [f"each request draws its own version: {shares}", answer["why"]]
    slot = "" if answer["slot"] is None else f" (slot {answer['slot']})"
    return [f"{answer['version']} by {answer['by']}{slot}", answer["why"]]

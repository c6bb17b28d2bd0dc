"""The command ``explain``: which version answers a request, and why. Next: session.py."""

from __future__ import annotations

import json
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
    "--parameter",
    "parameters",
    multiple=True,
    metavar="NAME=VALUE",
    help="A request parameter; may be repeated.",
)
@click.option("--version", "named", metavar="VERSION", help="A version that the request names itself.")
@click.option(
    "--at",
    metavar="REVISION|TIME",
    help="As it was at that revision, or at a time such as 2027-03-01T03:12:04Z. [default: now]",
)
@cli.client_options
def explain(
    session: Session,
    endpoint: str,
    key: str | None,
    headers: tuple[str, ...],
    parameters: tuple[str, ...],
    named: str | None,
    at: str | None,
) -> None:
    """Say which version answers a request, which shadows get a copy, and why.

    \b
    Example:
      headgate explain digits --key user-42
      headgate explain digits --key user-42 --at 38
      headgate explain digits --header 'x-user-id: user-42' --parameter tier=3
    """
    if key is not None and headers:
        raise click.UsageError("--key and --header exclude each other")
    body: dict[str, Any] = {"key": key}
    if headers:
        body = {"headers": dict(_header(written) for written in headers)}
    if parameters:
        body["parameters"] = dict(_parameter(written) for written in parameters)
    body |= {"version": named, **_when(at)}
    with session.client() as client:
        answer = client.ask(f"/endpoints/{segment(endpoint)}:explain", body).body
    session.show(answer, _explanation, lambda data: [data["version"] or ""])


def _when(at: str | None) -> dict[str, Any]:
    if at is None:
        return {}
    is_revision = at.isdecimal() and len(at) < len("9999-12-31T23:59:59Z")
    return {"revision": int(at)} if is_revision else {"at": at}


def _parameter(written: str) -> tuple[str, Any]:
    """A number and a boolean are sent as such."""
    name, equals, value = written.partition("=")
    if not equals or not name:
        raise click.UsageError(f"--parameter {written!r}: write it as NAME=VALUE")
    try:
        read = json.loads(value)
    except ValueError:
        return name, value
    return name, read if isinstance(read, bool | int | float) else value


def _header(written: str) -> tuple[str, str]:
    name, colon, value = written.partition(":")
    if not colon or not name.strip():
        raise click.UsageError(f"--header {written!r}: write it as 'NAME: VALUE'")
    return name.strip().lower(), value.strip()


def _explanation(answer: dict[str, Any]) -> Lines:
    copies = [_copy(copied) for copied in [*answer["shadows"], answer["capture"]] if copied is not None]
    words = [answer["why"], *answer["notes"], *copies]
    if answer["version"] is None:
        shares = ", ".join(f"{share} {name}" for name, share in answer["shares"].items())
        return [f"each request draws its own version: {shares}", *words]
    slot = "" if answer["slot"] is None else f" (slot {answer['slot']})"
    return [f"{answer['version']} by {answer['by']}{slot}", *words]


def _copy(copied: dict[str, Any]) -> str:
    name = "capture" if copied["version"] is None else f"shadow {copied['version']}"
    chosen = {None: "perhaps", True: "yes", False: "no"}[copied["chosen"]]
    return f"{name}: {chosen}, {copied['why']}"

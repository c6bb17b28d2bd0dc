"""The commands ``headgate context add|use|list|remove``: names for gateways. The file is contexts.py's; next: that one."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from headgate.cli import completion
from headgate.cli import session as cli
from headgate.cli.address import admin_address
from headgate.cli.contexts import Context, Contexts, check_name, contexts_file, read_contexts, write_contexts
from headgate.cli.exits import failures
from headgate.cli.groups import Group
from headgate.cli.output import Format, Lines, Table, show, words
from headgate.errors import Conflict, InvalidArgument, PermissionDenied

_name = click.argument("name", shell_complete=completion.contexts)


@click.group(cls=Group)
def context() -> None:
    """Name gateways, each with its address and its token.

    They are kept in $XDG_CONFIG_HOME/headgate/contexts.json, else in ~/.config/headgate; only you may read the file.

    \b
    Example:
      headgate context add production --admin https://gate.example --token-file ~/.headgate-token
      headgate context use production
      headgate get --context staging
    """


def _on_file(command: Callable[..., None]) -> Callable[..., None]:
    """Hands the command the path of the file first, and ends it as every other command."""

    @click.pass_context
    def wrapped(found: click.Context, /, **given: Any) -> None:
        with failures():
            command(contexts_file(cli.environment_of(found).variables), **given)

    return functools.update_wrapper(wrapped, command, updated=())


@context.command()
@click.argument("name")
@click.option(
    "--admin",
    required=True,
    metavar="URL",
    help="Its admin API: HOST:PORT on this machine, else https://HOST.",
)
@click.option(
    "--token-file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file its token is in.",
)
@click.option(
    "--token", metavar="TOKEN", help="Its token; - reads it from stdin, and on a terminal it is asked for."
)
@click.option("--replace", is_flag=True, help="If there is one of that name, put this one in its place.")
@_on_file
def add(path: Path, name: str, admin: str, token_file: Path | None, token: str | None, replace: bool) -> None:
    """Name a gateway.

    \b
    Example:
      headgate context add production --admin https://gate.example --token-file ~/.headgate-token
      headgate token create --name me --role operator | headgate context add here --admin 127.0.0.1:8003 --token -
    """
    if token is not None and token_file is not None:
        raise click.UsageError("--token and --token-file exclude each other")
    contexts = read_contexts(path)
    if check_name(name) in contexts.by_name and not replace:
        raise Conflict(
            f"there is a context {name} already ({contexts.by_name[name].admin}); --replace puts this in its place"
        )
    address = admin_address(admin)
    if not address.is_private:
        raise PermissionDenied(
            f"{address} takes clear text on another machine: a token is never sent there; give https://, or the local end "
            "of a tunnel"
        )
    if token_file is not None:
        made = Context(str(address), token_file=str(token_file.expanduser().absolute()))
    else:
        made = Context(str(address), token=_token(token))
    write_contexts(path, contexts.with_context(name, made))
    if contexts.current is None:
        words(f"context {name} is kept; `headgate context use {name}` makes it the one that commands call")


@context.command()
@_name
@_on_file
def use(path: Path, name: str) -> None:
    """Call that gateway from now on, if a command names no other.

    \b
    Example:
      headgate context use production
    """
    contexts = read_contexts(path).using(name)
    write_contexts(path, contexts)
    words(f"commands call {contexts.get(name).admin} now")


@context.command("list")
@cli.output_options
@_on_file
def list_contexts(path: Path, form: Format) -> None:
    """List the contexts without their tokens; * is the one in use.

    \b
    Example:
      headgate context list
    """
    contexts = read_contexts(path)
    found = [_view(name, contexts) for name in sorted(contexts.by_name)]
    show(
        form,
        {"contexts": found},
        lambda data: _table(data["contexts"]),
        lambda data: [one["name"] for one in data["contexts"]],
    )


@context.command()
@_name
@_on_file
def remove(path: Path, name: str) -> None:
    """Forget a gateway and its token; the token stays good until it is revoked.

    \b
    Example:
      headgate context remove staging
    """
    write_contexts(path, read_contexts(path).without(name))


def _token(written: str | None) -> str:
    if written == "-":
        written = sys.stdin.readline()
    elif written is None and sys.stdin.isatty():
        written = click.prompt("token", hide_input=True, err=True)
    token = (written or "").strip()
    if not token:
        raise InvalidArgument(
            "a context needs a token: give --token-file FILE, or --token - and the token on stdin"
        )
    return token


def _view(name: str, contexts: Contexts) -> dict[str, Any]:
    one = contexts.by_name[name]
    return {
        "name": name,
        "admin": one.admin,
        "token_file": one.token_file,
        "current": name == contexts.current,
    }


def _table(found: list[dict[str, Any]]) -> Lines:
    made = Table("", "NAME", "ADMIN", "TOKEN")
    for one in found:
        made.row("*" if one["current"] else " ", one["name"], one["admin"], one["token_file"] or "kept here")
    return made.lines()

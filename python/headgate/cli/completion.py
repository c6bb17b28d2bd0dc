"""What a shell offers while a command is typed: names that the gateway knows. Silent and quick: a shell waits for it.

Commands and options are completed by click. Next: shells.py for the command ``completion``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import click

    from headgate.cli.client import AdminClient

_SECONDS = 1.0
_WORD = re.compile(r"[A-Za-z0-9._:-]+", re.ASCII)
"""What the script of a shell may be handed: it puts a word on its command line unquoted."""

Completer = Callable[["click.Context", "click.Parameter", str], list[str]]


def endpoints(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """The endpoints that begin so."""
    return _asked(context, incomplete, _names_of_endpoints)


def versions(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """The versions of the endpoint that is on the command line already."""
    from headgate.cli.client import segment

    endpoint = context.params.get("endpoint") or _first_word(context)
    if not endpoint:
        return []
    return _asked(
        context, incomplete, lambda admin: admin.get(f"/endpoints/{segment(endpoint)}").body["versions"]
    )


def plans(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """The stored rollout plans that begin so."""
    return _asked(
        context, incomplete, lambda admin: [one["name"] for one in admin.get("/plans").body["plans"]]
    )


def contexts(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """The contexts that begin so; from their file."""
    from headgate.cli.contexts import contexts_file, read_contexts
    from headgate.cli.session import environment_of

    def known() -> Iterable[str]:
        return read_contexts(contexts_file(environment_of(context).variables)).by_name

    return _silently(known, incomplete)


def _first_word(context: click.Context) -> str | None:
    """The first word behind the command: click reads no arguments while the value of an option is missing."""
    from click.shell_completion import split_arg_string

    words = split_arg_string(os.environ.get("COMP_WORDS", ""))
    if context.info_name not in words:
        return None
    behind = words[words.index(context.info_name) + 1 :]
    return next((word for word in behind if not word.startswith("-")), None)


def _names_of_endpoints(admin: AdminClient) -> list[str]:
    return [one["name"] for one in admin.get("/endpoints").body["endpoints"]]


def _asked(context: click.Context, incomplete: str, ask: Callable[[AdminClient], Iterable[Any]]) -> list[str]:
    from headgate.cli.client import Timing
    from headgate.cli.session import environment_of
    from headgate.cli.target import GatewayOptions

    environment, given = environment_of(context), context.params

    def known() -> Iterable[Any]:
        options = GatewayOptions(given.get("admin"), given.get("state"), given.get("context"))
        with environment.client(options, Timing(read_seconds=_SECONDS, connect_seconds=_SECONDS)) as admin:
            return ask(admin)

    return _silently(known, incomplete)


def _silently(known: Callable[[], Iterable[Any]], incomplete: str) -> list[str]:
    """Whatever goes wrong, the line that is being typed must not be disturbed."""
    try:
        names = [str(name) for name in known()]
    except Exception:
        return []
    return sorted(name for name in names if name.startswith(incomplete) and _WORD.fullmatch(name))

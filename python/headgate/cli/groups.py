"""Groups of commands: imported when they are called, with options before or after the command, and near names for mistyped ones.

Not here: which commands there are (``__init__``). Next: session.py.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import click
from click.exceptions import NoSuchCommand
from click.shell_completion import CompletionItem

_TRY_AGAIN = 3
"""As in ``exits``, which help does not import."""

Arity = Mapping[str, bool]
"""Each option, and whether a value follows it."""


class Group(click.Group):
    """A group of commands that takes a command's options before its name as well: ``headgate --state DIR get``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Moves the options that stand before a command behind it."""
        return super().parse_args(ctx, self._moved(ctx, args))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is called; a mistyped one is told what it is near to."""
        if (
            args
            and not ctx.resilient_parsing
            and not args[0].startswith("-")
            and self.get_command(ctx, args[0]) is None
        ):
            raise NoSuchCommand(args[0], possibilities=self.list_commands(ctx), ctx=ctx)
        return super().resolve_command(ctx, args)

    def _moved(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = {name for option in self.get_params(ctx) for name in option.opts}
        if not args or not args[0].startswith("-") or args[0] in own:
            return args
        commands = [
            at for at, word in enumerate(args) if not word.startswith("-") and self.get_command(ctx, word)
        ]
        for at in commands:
            command = self.get_command(ctx, args[at])
            if command is not None and _options_end(args, dict(_options_of(command))) == at:
                return _command_first(args, at)
        end = _options_end(args, self.shared_options)
        if end is not None and end < len(args) and not ctx.resilient_parsing:
            raise NoSuchCommand(args[end], possibilities=self.list_commands(ctx), ctx=ctx)
        # An option that no command has: the command that follows says what it is near to.
        return _command_first(args, commands[0]) if commands else args

    shared_options: Arity = {
        "--admin": True,
        "--state": True,
        "--context": True,
        "-o": True,
        "--output": True,
        "--json": False,
    }
    """The options that most commands have: they tell where a mistyped command stands."""


@dataclass(frozen=True)
class Entry:
    """A command that is not imported yet: the module it is in, and the first sentence of its help."""

    module: str
    help: str


class LazyGroup(Group):
    """Commands that are imported when they are called: a short command must not wait for a gateway's imports."""

    def __init__(self, *args: object, entries: Mapping[str, Entry], **more: object) -> None:
        super().__init__(*args, **more)  # type: ignore[arg-type]
        self._entries = entries

    def main(self, *args: Any, **more: Any) -> Any:
        """Runs the command line; output that cannot be written, on a full disk, is one line and no traceback."""
        try:
            return super().main(*args, **more)
        except OSError as error:
            # What is buffered cannot be written either, and Python would say so at its end.
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            click.echo(f"headgate: the output could not be written: {error.strerror or error}", err=True)
            sys.exit(_TRY_AGAIN)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        """All of them, in the order in which help lists them."""
        return list(self._entries)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The list of commands in the help, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in self._entries.items()])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command, imported."""
        if cmd_name not in self._entries:
            return None
        module = importlib.import_module(f"headgate.cli.{self._entries[cmd_name].module}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The commands that begin so, without importing them."""
        if incomplete.startswith("-"):
            return super(click.Group, self).shell_complete(ctx, incomplete)
        found = self._entries.items()
        return [CompletionItem(name, help=entry.help) for name, entry in found if name.startswith(incomplete)]


def _command_first(args: Sequence[str], at: int) -> list[str]:
    """The command at that place first, then the options before it, then the rest."""
    return [args[at], *args[:at], *args[at + 1 :]]


def _options_of(command: click.Command) -> Iterator[tuple[str, bool]]:
    """The options of a command, or of all commands in a group."""
    if isinstance(command, click.Group):
        for child in command.commands.values():
            yield from _options_of(child)
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            takes_value = not (parameter.is_flag or parameter.count)
            for name in (*parameter.opts, *parameter.secondary_opts):
                yield name, takes_value


def _options_end(args: Sequence[str], arity: Arity) -> int | None:
    """Where the first word stands that is neither an option nor its value; ``None`` where an option is not known."""
    at = 0
    while at < len(args) and args[at].startswith("-"):
        name, equals, _ = args[at].partition("=")
        if name not in arity:
            short = args[at][:2]  # a short option may carry its value: -ojson
            if args[at].startswith("--") or not arity.get(short, False):
                return None
            equals = "="
        at += 2 if arity.get(name, False) and not equals else 1
    return at

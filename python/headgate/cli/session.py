"""What every client command shares: options, the client, output, exit codes.

stdout is data, stderr is words. A command gets a :class:`Session` first; it prints through ``show`` and ends through
``exits``. Not here: which gateway is called (``target``). Next: endpoints.py for commands that use it.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headgate.cli import completion, output
from headgate.cli.address import AdminAddress
from headgate.cli.client import AdminClient, Timing
from headgate.cli.exits import EXIT_TRY_AGAIN, exit_code, fail, failures
from headgate.cli.output import FORMATS, Format, Names, View, words
from headgate.cli.suggestions import suggestion
from headgate.cli.target import GatewayOptions, find_target
from headgate.cli.transport import Transport
from headgate.errors import InvalidArgument

if TYPE_CHECKING:
    from headgate.bench.native import Generator
    from headgate.gateway.checks import Machine

__all__ = [
    "EXIT_TRY_AGAIN",
    "CliEnvironment",
    "Session",
    "client_options",
    "environment_of",
    "exit_code",
    "fail",
    "failures",
    "output_options",
    "words",
]


@dataclass(frozen=True)
class CliEnvironment:
    """What the command line takes from outside itself; the tests hand in another one as click's ``obj``."""

    variables: Mapping[str, str] = field(default_factory=lambda: os.environ)
    make_transport: Callable[[AdminAddress], Transport] | None = None
    """What carries requests to an address; HTTP if it is not given."""
    timing: Timing = field(default_factory=Timing)
    machine: Machine | None = None
    make_generator: Callable[[], Generator] | None = None
    """What sends the loads of a measurement; the data plane's if it is not given."""

    def generator(self) -> Generator:
        """What sends the loads of a measurement."""
        if self.make_generator is not None:
            return self.make_generator()
        # Imported here: no other command waits for it.
        from headgate.bench.native import NativeGenerator

        return NativeGenerator()

    def client(self, options: GatewayOptions, timing: Timing) -> AdminClient:
        """The admin API of the gateway that ``options`` and the variables name."""
        target = find_target(options, self.variables)
        return AdminClient(
            target, None if self.make_transport is None else self.make_transport(target.address), timing
        )


@dataclass(frozen=True)
class Session:
    """One client command: where it calls and how it prints."""

    environment: CliEnvironment
    options: GatewayOptions
    form: Format

    @contextmanager
    def client(self) -> Iterator[AdminClient]:
        """The admin API of the gateway that was named, or of the one on this machine."""
        with self.environment.client(self.options, self.environment.timing) as client:
            yield client

    def state_folder(self) -> Path:
        """The state folder that is named, for a command that works on it without the gateway."""
        if self.options.admin is not None or self.options.context is not None:
            raise InvalidArgument("--offline works on a state folder: name it with --state, not a gateway")
        return self.options.state_folder(self.environment.variables)

    def show(self, data: Any, view: View, names: Names) -> None:
        """Prints an answer: as a table that ``view`` draws, as JSON or YAML, or only its ``names``."""
        output.show(self.form, data, view, names)

    @property
    def for_person(self) -> bool:
        """Whether the output is a table, so that words beside it help."""
        return self.form == "table"


def environment_of(context: click.Context) -> CliEnvironment:
    """What this invocation takes from outside."""
    found = context.find_object(CliEnvironment)
    return found if found is not None else CliEnvironment()


def client_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds ``--admin``, ``--state``, ``--context`` and the options of the output, and hands the command a
    :class:`Session` first.
    """

    @click.option(
        "--admin",
        metavar="URL",
        help="The admin API. [HEADGATE_ADMIN; default: the gateway's on this machine]",
    )
    @click.option(
        "--state",
        metavar="DIR",
        type=click.Path(path_type=Path),
        help="The gateway's state folder, for its token and address. [HEADGATE_STATE]",
    )
    @click.option(
        "--context",
        metavar="NAME",
        shell_complete=completion.contexts,
        help="A gateway that `headgate context add` named. [HEADGATE_CONTEXT; default: the one in use]",
    )
    @output_options
    @click.pass_context
    def wrapped(
        context: click.Context,
        /,
        admin: str | None,
        state: Path | None,
        form: Format,
        **rest: Any,
    ) -> None:
        session = Session(environment_of(context), GatewayOptions(admin, state, rest.pop("context")), form)
        with failures(lambda error: suggestion(error, rest, session.client)):
            command(session, **rest)

    return functools.update_wrapper(wrapped, command, updated=())


def output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds ``-o`` and ``--json``; the command gets what they say as ``form``."""

    @click.option(
        "-o",
        "--output",
        "written",
        type=click.Choice(FORMATS),
        metavar="FORMAT",
        help="json, yaml, name (one a line) or table. [default: table]",
    )
    @click.option("--json", "as_json", is_flag=True, help="Print JSON: the same as -o json.")
    def wrapped(*given: Any, written: Format | None, as_json: bool, **rest: Any) -> Any:
        if as_json and written not in (None, "json"):
            raise click.UsageError(f"--json and -o {written} exclude each other")
        form: Format = "json" if as_json else written or "table"
        return command(*given, form=form, **rest)

    # click collects the options of what it wraps from here.
    return functools.update_wrapper(wrapped, command, updated=("__dict__",))

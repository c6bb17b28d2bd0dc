"""What every client command shares: options, the client, output, exit codes.

stdout is data, stderr is words. Exit codes: 0 done, 1 the check said no, 2 wrong usage or document, 3 could
not reach the gateway or try again. No command prints or exits in another way. Next: endpoints.py for
commands that use it.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import click
import httpx
from rich.console import Console, RenderableType
from rich.table import Table

from headgate.cli.client import AdminClient, Target, UnreachableError, read_addresses
from headgate.errors import HeadgateError, InvalidArgument, Unauthenticated
from headgate.gateway.checks import Machine
from headgate.gateway.settings import default_state
from headgate.gateway.units import parse_address

EXIT_NO = 1
EXIT_USAGE = 2
EXIT_TRY_AGAIN = 3

_EXIT_BY_CODE = {
    "conflict": EXIT_NO,
    "model_load_failed": EXIT_NO,
    "unreachable": EXIT_TRY_AGAIN,
    "revision_conflict": EXIT_TRY_AGAIN,
    "rate_limited": EXIT_TRY_AGAIN,
    "overloaded": EXIT_TRY_AGAIN,
    "model_not_ready": EXIT_TRY_AGAIN,
    "draining": EXIT_TRY_AGAIN,
    "storage_failed": EXIT_TRY_AGAIN,
    "deadline_exceeded": EXIT_TRY_AGAIN,
    "backend_failed": EXIT_TRY_AGAIN,
    "internal": EXIT_TRY_AGAIN,
}
_PIPE_WIDTH = 4_000
"""Wide enough that a table that is not read by eye is never folded or cut."""


@dataclass(frozen=True)
class Surroundings:
    """What the command line takes from outside itself; the tests hand in another one as click's ``obj``."""

    variables: Mapping[str, str] = field(default_factory=lambda: os.environ)
    transport: httpx.BaseTransport | None = None
    machine: Machine | None = None


@dataclass(frozen=True)
class Session:
    """One client command: where it calls and how it prints."""

    surroundings: Surroundings
    admin: str | None
    state: Path | None
    as_json: bool

    @contextmanager
    def client(self) -> Iterator[AdminClient]:
        """The admin API of the gateway that was named, or of the one on this machine."""
        with AdminClient(self._target()) as client:
            yield client

    def show(self, data: Any, render: Callable[[], RenderableType]) -> None:
        """Prints ``data``: as JSON when asked for, else as ``render`` draws it."""
        if self.as_json:
            click.echo(json.dumps(data, indent=2, ensure_ascii=False))
        else:
            draw(render())

    def _target(self) -> Target:
        variables = self.surroundings.variables
        state = self.state or (Path(variables["HEADGATE_STATE"]) if variables.get("HEADGATE_STATE") else None)
        folder = state or default_state(variables)
        written = self.admin or variables.get("HEADGATE_ADMIN") or read_addresses(folder).get("admin")
        return Target(
            url=admin_url(written or "127.0.0.1:8003"),
            token=_token(variables, folder),
            transport=self.surroundings.transport,
        )


def admin_url(text: str) -> str:
    """``http://HOST:PORT`` of an address or URL; an address that means every interface becomes loopback."""
    if text.startswith("https://"):
        return text.rstrip("/")
    try:
        address = parse_address(text)
    except ValueError as error:
        raise InvalidArgument(f"--admin: {error}") from error
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)  # noqa: S104
    return f"http://[{host}]:{address.port}" if ":" in host else f"http://{host}:{address.port}"


def _token(variables: Mapping[str, str], folder: Path) -> str:
    given = variables.get("HEADGATE_TOKEN")
    if given:
        return given.strip()
    path = folder / "admin-token"
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise Unauthenticated(
            f"no token: HEADGATE_TOKEN is not set and {path} cannot be read ({error.strerror}); set the variable, or "
            "name the gateway's state folder with --state DIR"
        ) from error


def surroundings_of(context: click.Context) -> Surroundings:
    """What this invocation takes from outside."""
    found = context.find_object(Surroundings)
    return found if found is not None else Surroundings()


def client_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds ``--admin``, ``--state`` and ``--json``, and hands the command a :class:`Session` first."""

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
    @json_option
    @click.pass_context
    def wrapped(
        context: click.Context, /, admin: str | None, state: Path | None, as_json: bool, **rest: Any
    ) -> None:
        session = Session(surroundings_of(context), admin, state, as_json)
        with failures():
            command(session, **rest)

    return functools.update_wrapper(wrapped, command, updated=())


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


@contextmanager
def failures() -> Iterator[None]:
    """Turns every error of ours into words on stderr and an exit code."""
    try:
        yield
    except HeadgateError as error:
        fail(error)


def fail(error: HeadgateError, *, conflict: int = EXIT_NO) -> NoReturn:
    """Says the error and everything it lists, then exits with the code of its kind.

    ``conflict`` is the exit code of a conflict: for a gateway that cannot start because another one runs it
    is 3.
    """
    words(f"headgate: {error.message}")
    faults = error.detail.get("faults", [])
    # The message of a document read here lists its faults itself; one from the gateway may not.
    for fault in faults if "\n" not in error.message else []:
        words(f"  {fault['path']}: {fault['message']}" if isinstance(fault, dict) else f"  {fault}")
    if error.code == "revision_conflict":
        words("  somebody else changed it meanwhile; look with `headgate get`, then run the command again")
    sys.exit(conflict if error.code == "conflict" else exit_code(error))


def exit_code(error: HeadgateError) -> int:
    """1 for a refusal, 3 for what may work later, 2 for everything that the caller has to write differently."""
    if isinstance(error, UnreachableError):
        return EXIT_TRY_AGAIN
    return _EXIT_BY_CODE.get(error.code, EXIT_USAGE)


def words(text: str) -> None:
    """A sentence for the person, on stderr."""
    click.echo(text, err=True)


def draw(item: RenderableType) -> None:
    """Draws a table or text on stdout; markup in data means nothing."""
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    Console(file=sys.stdout, width=width, markup=False, highlight=False, emoji=False, soft_wrap=True).print(
        item
    )


def table(*columns: str) -> Table:
    """An empty table without lines, in the way of ``ps``."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def row(made: Table, *cells: object) -> None:
    """Adds a row; ``None`` is shown as a dash."""
    made.add_row(*("-" if cell is None or cell == "" else str(cell) for cell in cells))

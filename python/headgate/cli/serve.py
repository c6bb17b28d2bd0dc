"""The command ``headgate serve``: settings in, a gateway process, one JSON line out.

The process itself is gateway/process.py, the settings are gateway/settings.py. Next: those two.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from headgate import runtime_library
from headgate.cli import session as cli
from headgate.errors import HeadgateError
from headgate.gateway import logs, signals, supervise, units
from headgate.gateway import settings as gateway_settings
from headgate.gateway.settings import Settings
from headgate.gateway.settings_table import SETTINGS
from headgate.gateway.sockets import bind
from headgate.gateway.streams import Output
from headgate.gateway.supervise import SupervisorHandles

_log = logging.getLogger(__name__)


def setting_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds an option for each setting, as text: types and precedence are settled by gateway/settings.py."""
    command = click.option(
        "--config",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="A YAML file of `setting: value` lines, named as the options are. [HEADGATE_CONFIG]",
    )(command)
    for setting in reversed(SETTINGS):
        described = f"{setting.help} [{setting.variable}; default: {setting.default}]"
        names = f"--{setting.name}/--no-{setting.name}" if setting.flag else f"--{setting.name}"
        shape: dict[str, Any] = (
            {"default": None} if setting.flag else {"metavar": setting.metavar, "multiple": setting.many}
        )
        command = click.option(names, setting.key, help=described, **shape)(command)
    return command


def _text(given: Any) -> Any:
    """What click parsed as it would have been written."""
    return ("on" if given else "off") if isinstance(given, bool) else given


def read_settings(
    given: Mapping[str, Any], documents: Sequence[Path], variables: Mapping[str, str]
) -> Settings:
    """Command line over environment over file; ``given`` is what click parsed, by parameter name."""
    written = {setting.name: _text(given.get(setting.key)) for setting in SETTINGS}
    layers = [gateway_settings.command_line(written), gateway_settings.environment(variables)]
    config = given.get("config") or (
        Path(variables["HEADGATE_CONFIG"]) if variables.get("HEADGATE_CONFIG") else None
    )
    if config is not None:
        layers.append(gateway_settings.configuration_file(config))
    return gateway_settings.resolve(
        gateway_settings.validate(layers), documents, variables, units.cores, units.memory
    )


@click.command()
@click.argument("documents", nargs=-1, metavar="[DOCUMENT.yaml]...", type=click.Path(path_type=Path))
@setting_options
@click.pass_context
def serve(context: click.Context, /, documents: tuple[Path, ...], **given: Any) -> None:
    """Serve until SIGTERM or Ctrl-C, then drain.

    A drained gateway exits 0. What was applied last is served again after a restart; a document given here
    is applied only if these bytes were never applied from that file before. When the start is over, one JSON
    line on stdout tells the bound addresses (port 0 takes any free one); the log is on stderr. SIGHUP opens
    the access log anew. The command line goes before HEADGATE_* variables, those before --config.

    \b
    Example:
      headgate serve digits.yaml
      headgate serve --models models --http 0.0.0.0:8000
    """
    signals.take()
    with cli.failures():
        settings = read_settings(given, documents, cli.environment_of(context).variables)
    for_a_person = logs.configure(settings.log_format, settings.log_level)
    try:
        supervised = supervise.inherited(os.environ)
        if settings.supervise and supervised is None:
            context.exit(_supervise(settings))
        _serve(settings, supervised)
    except HeadgateError as error:
        _fail(error, for_a_person)
    finally:
        signals.ignore()


def _fail(error: HeadgateError, for_a_person: bool) -> NoReturn:
    """Says what kept the gateway from serving, in the form of the log."""
    if for_a_person:
        cli.fail(error, conflict=cli.EXIT_TRY_AGAIN)
    _log.error("%s", error.message, extra={"code": error.code, **error.detail})
    sys.exit(cli.EXIT_TRY_AGAIN if error.code == "conflict" else cli.exit_code(error))


def _supervise(settings: Settings) -> int:
    """Runs this same command again, below a parent that is as small as it can be."""
    ports = ("http", "grpc", "observe", "admin")
    sockets = {port: bind(getattr(settings, port), port) for port in ports}
    command = [sys.executable, *sys.orig_argv[1:]]
    return supervise.Supervisor(command, sockets).run()


def _serve(settings: Settings, supervised: SupervisorHandles | None) -> None:
    # Imported here: no other command should wait for the gateway's imports.
    from headgate.gateway import native_module
    from headgate.gateway.process import DataPlaneSource, run

    source = DataPlaneSource(native_module.load(), runtime_library.find())
    run(settings, source, _Announcer(), supervised)


class _Announcer:
    """Tells the program on stdout; a person gets the token on the terminal."""

    def bound(self, addresses: dict[str, str]) -> None:
        if not Output(sys.stdout.fileno()).write(json.dumps(addresses)):
            _log.warning("the addresses could not be written to stdout: it is closed, or nobody reads it")
        _log.info(
            "serving: inference http://%s and grpc://%s  admin http://%s",
            *(addresses[port] for port in ("http", "grpc", "admin")),
        )

    def first_token(self, token: str, path: Path) -> None:
        # A log is kept and read by others: the token stands in its file alone.
        _log.info("an admin token was made and is kept in %s", path)
        if sys.stderr.isatty():
            Output(sys.stderr.fileno()).write(f"admin token, shown this once:\n  {token}")

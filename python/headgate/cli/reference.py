"""Writes docs/reference/cli.md from the commands themselves: ``python -m headgate.cli.reference >
docs/reference/cli.md``.

A test compares the committed page with what this gives, so that help texts and page never differ. It holds
no text about commands of its own. Next: __init__.py, the list of commands.
"""

from __future__ import annotations

from collections.abc import Iterator

import click

from headgate.cli import COMMANDS, main
from headgate.cli.exits import MEANINGS
from headgate.gateway.settings_table import SETTINGS

_WIDTH = 100

_HEAD = """# Command line

Made by `python -m headgate.cli.reference`; edit the commands, not this page.

stdout is data, stderr is words. `-o json`, `-o yaml` and `-o name` print for programs; `--json` is the same as `-o json`.
Options stand before or after the command.

## Which gateway is called, and with which token

The address is, in this order: `--admin`; that of `--context`; the one that the gateway left in the folder of `--state`
(`addresses.json`); `HEADGATE_ADMIN`; the one left in `HEADGATE_STATE`; that of `HEADGATE_CONTEXT`; that of the context in use
(`headgate context use`); the one left in the usual state folder (`$XDG_STATE_HOME/headgate`, else `~/.local/state/headgate`); and
`127.0.0.1:8003`.

A token is sent only to the address it was made for: `HEADGATE_TOKEN` to `HEADGATE_ADMIN` (if that is not set, to whatever is
called), the token of a context to its address, the file `admin-token` of a state folder to the address beside it. Of several that
fit, the first is sent. Beyond this machine a token is sent over TLS only: name the gateway as `https://HOST`, behind a proxy that
ends TLS, or call it through a tunnel (`ssh -L 8003:127.0.0.1:8003 HOST`).
"""


def page() -> str:
    """The whole page, as Markdown."""
    return "\n".join([_HEAD, *_exit_codes(), "", *_settings(), "", *_commands()]).rstrip("\n") + "\n"


def _exit_codes() -> Iterator[str]:
    yield "## Exit codes\n"
    yield "| code | meaning |"
    yield "|---|---|"
    for code, meaning in MEANINGS.items():
        yield f"| {code} | {meaning} |"


def _settings() -> Iterator[str]:
    yield "## Settings of serve\n"
    yield "The command line goes before the environment, that before the YAML file of `--config`.\n"
    yield "| option and key | variable | default | meaning |"
    yield "|---|---|---|---|"
    for setting in SETTINGS:
        metavar = "" if setting.flag else " " + setting.metavar.replace("|", "\\|")
        option = f"--[no-]{setting.name}" if setting.flag else f"--{setting.name}"
        yield f"| `{option}{metavar}` | `{setting.variable}` | {setting.default} | {setting.help} |"


def _commands() -> Iterator[str]:
    settings = {**main.context_settings, "max_content_width": _WIDTH, "terminal_width": _WIDTH}
    root = click.Context(main, info_name="headgate", **settings)
    for name in COMMANDS:
        command = main.get_command(root, name)
        if command is None:
            raise LookupError(f"the command {name} is listed and not there")
        yield from _section(command, root, name)


def _section(command: click.Command, parent: click.Context, name: str) -> Iterator[str]:
    context = click.Context(
        command, parent=parent, info_name=name, max_content_width=_WIDTH, terminal_width=_WIDTH
    )
    yield f"## {context.command_path}\n"
    yield f"```\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for child_name, child in command.commands.items():
            yield from _section(child, context, child_name)


if __name__ == "__main__":
    click.echo(page(), nl=False)

"""Writes docs/reference/cli.md from the commands themselves: ``python -m headgate.cli.reference >
docs/reference/cli.md``.

A test compares the committed page with what this gives, so that help texts and page never differ. It holds
no text about commands of its own. Next: __init__.py, the list of commands.
"""

from __future__ import annotations

from collections.abc import Iterator

import click

from headgate.cli import COMMANDS, main
from headgate.gateway.settings_table import SETTINGS

_WIDTH = 100

_HEAD = """# Command line

Made by `python -m headgate.cli.reference`; edit the commands, not this page.

stdout is data, stderr is words; `--json` prints JSON. Exit codes of every command:

| code | meaning |
|---|---|
| 0 | done |
| 1 | the check said no: a conflict, a model that does not load, a failing `--check` or `doctor` |
| 2 | wrong usage or document; also a missing or too weak token |
| 3 | could not reach the gateway, or try again: draining, the store failed, somebody else changed it |

Client commands call the admin API at `--admin`, else `HEADGATE_ADMIN`, else the address that the gateway left in its
state folder (`addresses.json`), else `127.0.0.1:8003`. The token is `HEADGATE_TOKEN`, else the file `admin-token` in
the state folder (`--state`, else `HEADGATE_STATE`, else `$XDG_STATE_HOME/headgate`, else `~/.local/state/headgate`).
"""


def page() -> str:
    """The whole page, as Markdown."""
    return "\n".join([_HEAD, *_settings(), "", *_commands()]).rstrip("\n") + "\n"


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

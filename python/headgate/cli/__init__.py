"""The command line: one file per command group, each loaded when its command is called.

A command parses, calls, prints and exits; it decides nothing about serving. Next: session.py for what all
client commands share, serve.py for the one that runs a gateway.
"""

from __future__ import annotations

import importlib

import click

import headgate

COMMANDS: dict[str, str] = {
    "serve": "serve",
    "validate": "documents",
    "plan": "documents",
    "apply": "documents",
    "get": "endpoints",
    "traffic": "changes",
    "rollback": "changes",
    "abort": "changes",
    "restore": "changes",
    "block": "changes",
    "unblock": "changes",
    "freeze": "changes",
    "unfreeze": "changes",
    "explain": "endpoints",
    "history": "endpoints",
    "drift": "endpoints",
    "models": "endpoints",
    "token": "tokens",
    "doctor": "doctor",
}
"""Every command and the file it is in, in the order in which help lists them."""


class _Commands(click.Group):
    """Commands that are imported when they are called: a short command must not wait for a gateway's
    imports.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"headgate.cli.{COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, cmd_name)
        return command


@click.command(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(headgate.__version__, prog_name="headgate")
def main() -> None:
    """Serve models, split their traffic, and decide with numbers.

    stdout is data, stderr is words; --json prints JSON. Exit codes: 0 done, 1 the check said no, 2 wrong
    usage or document, 3 could not reach the gateway or try again.

    \b
    Example:
      headgate serve --models models
      headgate get
      headgate traffic digits v2=5%
    """

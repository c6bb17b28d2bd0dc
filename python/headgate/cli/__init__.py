"""The command line: one file per command group, each loaded when its command is called.

A command parses, calls, prints and exits; it decides nothing about serving. Next: groups.py for how commands are found,
session.py for what all client commands share, serve.py for the one that runs a gateway.
"""

from __future__ import annotations

import click

import headgate
from headgate.cli.groups import LazyGroup

COMMANDS: dict[str, str] = {
    "serve": "serve",
    "validate": "documents",
    "plan": "documents",
    "apply": "documents",
    "delete": "removal",
    "get": "endpoints",
    "traffic": "changes",
    "rollback": "changes",
    "abort": "changes",
    "restore": "changes",
    "block": "changes",
    "unblock": "changes",
    "freeze": "changes",
    "unfreeze": "changes",
    "explain": "explanation",
    "history": "history",
    "drift": "drift",
    "models": "models",
    "events": "events",
    "audit": "journal",
    "operations": "journal",
    "whoami": "journal",
    "token": "tokens",
    "context": "context",
    "doctor": "doctor",
    "completion": "shells",
}
"""Every command and the file it is in, in the order in which help lists them."""


@click.command(
    cls=LazyGroup,
    modules=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(headgate.__version__, prog_name="headgate")
def main() -> None:
    """Serve models, split their traffic, and decide with numbers.

    stdout is data, stderr is words; -o json, yaml or name prints for programs. Options stand before or after the
    command. Exit codes: 0 done, 1 a check said no, 2 wrong usage or document, 3 could not reach the gateway or try
    again, 4 no such thing, 5 refused or changed meanwhile, 6 not allowed.

    \b
    Example:
      headgate serve --models models
      headgate get
      headgate traffic digits v2=5%
    """

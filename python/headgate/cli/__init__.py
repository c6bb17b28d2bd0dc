"""The command line: one file per command group, each loaded when its command is called.

A command parses, calls, prints and exits; it decides nothing about serving. Next: groups.py for how commands are found,
session.py for what all client commands share, serve.py for the one that runs a gateway.
"""

from __future__ import annotations

import io
import sys

import click

import headgate
from headgate.cli.groups import Entry, LazyGroup

COMMANDS: dict[str, Entry] = {
    "serve": Entry("serve", "Serve until SIGTERM or Ctrl-C, then drain."),
    "validate": Entry("documents", "Check documents without a gateway."),
    "plan": Entry("documents", "Show what applying documents would do."),
    "apply": Entry("documents", "Make documents the desired state."),
    "delete": Entry("removal", "Take an endpoint away; its history stays."),
    "get": Entry("endpoints", "Show all endpoints, or one in full."),
    "traffic": Entry("changes", "Show live traffic, or change it."),
    "rollback": Entry("changes", "Go back to the last good champion, now."),
    "abort": Entry("changes", "Give all traffic back to the champion."),
    "restore": Entry("changes", "Bring an old revision back, as a new one."),
    "block": Entry("changes", "Keep a version from traffic."),
    "unblock": Entry("changes", "Allow a blocked version again."),
    "freeze": Entry("changes", "Refuse all but the emergency calls."),
    "unfreeze": Entry("changes", "Allow changes of an endpoint again."),
    "rollout": Entry("rollout", "Take a challenger to champion step by step, on evidence."),
    "plans": Entry("plans", "Rollout plans, and the defaults of all endpoints."),
    "notify": Entry("notify", "Try the webhooks of an endpoint."),
    "explain": Entry(
        "explanation", "Say which version answers a request, which shadows get a copy, and why."
    ),
    "shadow": Entry("shadow", "Show what shadows answer beside the champion, all of them or one."),
    "history": Entry("history", "List the revisions of an endpoint, or show one with its differences."),
    "drift": Entry("drift", "Compare live inputs and outputs with the baseline; what matters comes first."),
    "replay": Entry(
        "replay", "Put captured requests to a version, and compare its answers with those that were given."
    ),
    "bench": Entry("bench", "Measure how much a model server takes, and plan for more."),
    "models": Entry("models", "List models, and what was refused or did not load."),
    "events": Entry("events", "Show what happened, or follow what happens."),
    "audit": Entry("journal", "Show who changed what, and how it ended."),
    "operations": Entry(
        "journal", "List changes that outlived their requests, or show one, or wait for its end."
    ),
    "whoami": Entry("journal", "Say which gateway is called, and as whom."),
    "token": Entry("tokens", "Make, list and revoke admin tokens."),
    "state": Entry(
        "state", "Check a state folder, copy it, bring a copy back, remove what no revision references."
    ),
    "context": Entry("context", "Name gateways, each with its address and its token."),
    "doctor": Entry("doctor", "Check this machine."),
    "completion": Entry("shells", "Print the script for completion in a shell."),
}
"""Every command in the order in which help lists them."""


@click.command(
    cls=LazyGroup,
    entries=COMMANDS,
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
    for stream in (sys.stdout, sys.stderr):
        # What a terminal's encoding does not have, such as an arrow, is no reason to fail.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

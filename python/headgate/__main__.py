"""``headgate`` and ``python -m headgate``: what has to hold before anything that takes time is imported.

The commands are in :mod:`headgate.cli`. Here are the standard streams, and the signals of a gateway that starts. Every import up
to :func:`headgate.gateway.signals.take` is time in which a signal kills, so that there are few.
"""

from __future__ import annotations

import os
import sys

from headgate.gateway import signals


def main() -> None:
    """Runs the command line."""
    serves = _serves(sys.argv[1:])
    if serves:
        signals.take()
    from headgate.gateway import streams

    streams.open_closed()
    from headgate import cli

    try:
        cli.main()
    except SystemExit as end:
        if not serves or isinstance(end.code, str):
            raise
        _leave(end.code or 0)


def _leave(code: int) -> None:
    """Ends the process at once. What must be on disk is there; taking the interpreter apart would add half a second of CPU time to
    each restart.
    """
    import logging

    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            continue
    os._exit(code)


def _serves(arguments: list[str]) -> bool:
    """Whether the command is ``serve``: before it stand options, and words that may be their values. Which options have values is
    known to the commands, whose import takes too long; where it is unclear, taking the signals does no harm.
    """
    behind_option = False
    for word in arguments:
        if word == "serve":
            return True
        if not (word.startswith("-") or behind_option):
            return False
        behind_option = word.startswith("-")
    return False


if __name__ == "__main__":
    main()

"""``headgate`` and ``python -m headgate``: what has to hold before anything that takes time is imported.

The commands are in :mod:`headgate.cli`. Here are the standard streams, and the signals of a gateway that starts.
"""

from __future__ import annotations

import sys

from headgate.gateway import signals


def main() -> None:
    """Runs the command line."""
    if _command(sys.argv[1:]) == "serve":
        signals.take()
    from headgate.gateway import streams

    streams.open_closed()
    from headgate import cli

    cli.main()


def _command(arguments: list[str]) -> str | None:
    """The first word that is no option; options of the group itself have no values."""
    return next((word for word in arguments if not word.startswith("-")), None)


if __name__ == "__main__":
    main()

"""Whether the gateway before this one ended cleanly: a file that a clean stop leaves, and that a start takes away.

It is there only between a clean stop and the next start. So what is not known counts as an unclean end: a kill, a forced exit, a disk
that was full at the stop, a state that was restored from a backup. A start that fails before it has the folder leaves it alone.
Not here: what follows from it (``interrupted``). Both functions block.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from headgate.private_files import replace_file

NAME = "stopped-cleanly"
_log = logging.getLogger(__name__)


def take(state: Path) -> bool:
    """Whether the last stop was clean. The file is gone on disk when this returns, so that the end of this process is told by itself."""
    marker = state / NAME
    try:
        marker.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        # It would vouch for the end of this process as well.
        _log.error("%s could not be taken away (%s): the last stop counts as unclean", marker, error)
        return False
    folder = os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return True


def leave(state: Path) -> None:
    """Says that this process has served its last request, and that all of it is on disk. A disk that does not take it is an unclean end."""
    try:
        replace_file(state / NAME, b"")
    except OSError as error:
        _log.warning(
            "a clean stop could not be noted, and a rollout will be paused at the next start: %s", error
        )

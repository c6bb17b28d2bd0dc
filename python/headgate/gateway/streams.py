"""The standard streams of a process that has to outlive those at their other ends.

Whoever reads them may close them, die or just stop reading; a closed one may not even exist. None of that is a reason to stop
or to wait. Nothing is imported that takes time. Next: logs.py, which writes to stderr by way of :class:`Output`.
"""

from __future__ import annotations

import os
import select
import sys

_NOTHING = os.devnull
#: What a pipe takes as a whole or not at all (``PIPE_BUF`` of Linux).
_PIECE = 4096
#: How long the rest of a line that is longer may wait for room.
_REST_MS = 100


def open_closed() -> None:
    """Opens ``/dev/null`` in the place of each standard stream that is closed.

    Otherwise the next file that is opened gets its number, and with it what libraries write to stderr: the store, for one.
    """
    for number, mode in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(_NOTHING, mode)
            os.dup2(opened, number)
            if opened != number:
                os.close(opened)
            os.set_inheritable(number, True)
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(_NOTHING, "r+"))  # noqa: PTH123, SIM115 (no pathlib yet; open to the end)


class Output:
    """A descriptor that lines are written to if that can be done at once; those that could not are counted."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.lost = 0
        self._is_cut = False

    def write(self, line: str) -> bool:
        """Writes a line and its end; false if nobody takes it."""
        data = (("\n" if self._is_cut else "") + line + "\n").encode("utf-8", "backslashreplace")
        written = self._write(data)
        if written:
            self._is_cut = written < len(data)
        if written < len(data):
            self.lost += 1
        return written == len(data)

    def _write(self, data: bytes) -> int:
        """How many bytes were taken."""
        waiter = select.poll()
        waiter.register(self.descriptor, select.POLLOUT)
        written = 0
        try:
            while written < len(data):
                ready = waiter.poll(_REST_MS if written else 0)
                if not any(event & select.POLLOUT for _, event in ready):
                    break
                written += os.write(self.descriptor, data[written : written + _PIECE])
        except OSError:
            # No reader, a full disk, a descriptor for reading: the line is lost and the gateway goes on.
            pass
        return written

"""Faults of the machine under a gateway: what ``faults.c`` does is switched here, and the limit on open files of a running process.

Not here: which faults come when (``sequence``), damage to files (``damage``).
"""

from __future__ import annotations

import mmap
import os
import resource
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

_SOURCE = Path(__file__).with_name("faults.c")
_HUNG, _FULL, _CLOCK, _WAITING = range(4)
_SIZE = 8
GUARD_SECONDS = 60.0
"""Against hanging for ever; nothing is measured by it."""


def until(true: Callable[[], object], what: str) -> None:
    """Waits for something that another process does; the limit is a guard."""
    deadline = time.monotonic() + GUARD_SECONDS
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {GUARD_SECONDS:.0f} s for: {what}")
        time.sleep(0.005)


class Faults:
    """The switches, on a page that the gateway's processes share."""

    def __init__(self, folder: Path, compiler: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._library, page = folder / "faults.so", folder / "faults"
        command = [compiler, "-shared", "-fPIC", "-O2", "-o", str(self._library), str(_SOURCE), "-ldl"]
        subprocess.run(command, check=True)
        page.write_bytes(bytes(mmap.PAGESIZE))
        with page.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        self._path = page

    def environment(self) -> dict[str, str]:
        """What makes a process subject to these faults."""
        return {"LD_PRELOAD": str(self._library), "HEADGATE_FAULTS": str(self._path)}

    def hang(self, on: bool) -> None:
        """Whether fsync returns."""
        self._set(_HUNG, int(on))

    def fill(self, on: bool, *, growth_only: bool = False) -> None:
        """Whether writes to files fail with ENOSPC: all, or those that make a file longer, as on a disk without a free block."""
        self._set(_FULL, (2 if growth_only else 1) if on else 0)

    def is_full(self) -> bool:
        """Whether writes fail."""
        return self._get(_FULL) != 0

    def shift_clock(self, seconds: float) -> None:
        """How far the wall clock is off."""
        self._set(_CLOCK, int(seconds * 1e9))

    def clear(self) -> None:
        """A machine that is well; its clock stays as it was set."""
        self.hang(False)
        self.fill(False)

    def forget_waiting(self) -> None:
        """A process that was killed in fsync has left its count."""
        self._set(_WAITING, 0)

    def waiting(self) -> int:
        """How many calls wait in fsync."""
        return self._get(_WAITING)

    def _get(self, place: int) -> int:
        return int(struct.unpack_from("q", self._page, place * _SIZE)[0])

    def _set(self, place: int, value: int) -> None:
        struct.pack_into("q", self._page, place * _SIZE, value)


def is_gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has asked for its exit code counts as gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        # The latter: it was reaped between the opening of the file and the reading.
        return True


def limit_descriptors(pid: int, spare: int) -> tuple[int, int]:
    """Leaves a running process ``spare`` more open files than it has; the limits before."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    opened = max(int(entry.name) for entry in os.scandir(f"/proc/{pid}/fd"))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (opened + 1 + spare, before[1]))
    return before


def give_descriptors(pid: int, limits: tuple[int, int]) -> None:
    """Takes the limit back."""
    resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)

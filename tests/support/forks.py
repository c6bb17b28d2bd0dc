"""A gateway as a fork of a process that has loaded it: loading takes two thirds of the CPU time of a start, and the tests start hundreds.

What such a gateway misses is what ``headgate.__main__`` does before anything else is loaded; ``GatewayProcess`` starts it as a person
would where a test is about that.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import TracebackType
from typing import Self

#: What a gateway has loaded when it is ready. The process that is forked passes over a name that it cannot import, which a test finds.
LOADED = ["headgate.cli.serve", "headgate.gateway.process", "headgate._native", "headgate.drift.loading"]
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(LOADED)
_started: weakref.WeakSet[ForkServerProcess] = weakref.WeakSet()


@atexit.register
def _kill_what_is_left() -> None:
    """Runs before the end of multiprocessing, which sends SIGTERM and then waits without a limit: a gateway that hangs would hang it."""
    for process in list(_started):
        if process.exitcode is None:
            process.kill()


class Fork:
    """What the tests use of ``subprocess.Popen``, for ``headgate`` with ``arguments``."""

    def __init__(self, arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        """Starts it; what it writes to stderr is appended to ``log``, which is there."""
        reader, writer = _FORKS.Pipe(duplex=False)
        self._process = _FORKS.Process(
            target=_run, args=(list(arguments), writer, str(log), dict(environment)), daemon=True
        )
        self._process.start()
        _started.add(self._process)
        writer.close()
        self.stdout = os.fdopen(os.dup(reader.fileno()))
        reader.close()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, or the signal's number below zero; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The same, as Popen has it."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Waits for the end."""
        self._process.join(timeout)
        code = self.returncode
        if code is None:
            raise subprocess.TimeoutExpired("headgate", timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        """Sends a signal, unless it has ended."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stdout.close()
        self.wait()


def _run(arguments: list[str], writer: Connection, log: str, environment: dict[str, str]) -> None:
    os.dup2(writer.fileno(), 1)
    writer.close()
    errors = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(errors, 2)
    os.close(errors)
    # Those of the process that was forked know what the descriptors were before.
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1, errors="backslashreplace")
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["headgate", *arguments]
    from headgate.__main__ import main

    main()

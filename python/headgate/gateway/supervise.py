"""The parent of a supervised gateway: it holds the bound sockets and begins a new process when one dies.

The parent loads nothing and serves nothing, so that what ends the gateway does not end it. The sockets are bound
once: a client that connects while no process lives waits in the kernel's queue for the next one. Both sides of
what is handed down are here: :class:`Supervisor` and, in the new process, :func:`inherited`. Not here: what a gateway
does with its sockets (process.py).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from headgate.errors import InvalidArgument
from headgate.gateway import signals

#: How a process learns that it is supervised; not a setting.
VARIABLE = "HEADGATE_SUPERVISED"
MOST_RESTARTS = 5
WITHIN_SECONDS = 60.0

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 1.0
_EXEC_FAILED = 127
_BY_SIGNAL = 128
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class SupervisorHandles:
    """What a process gets from its supervisor."""

    sockets: Mapping[str, socket.socket]
    """Bound, by the name of the port's option."""
    restarts: int
    """How many processes there were before this one."""
    ready_fd: int

    def say_ready(self) -> None:
        """Tells the supervisor that the process serves. From now on its end is a death, and not a failed start."""
        os.write(self.ready_fd, b"1")
        os.close(self.ready_fd)


def inherited(variables: MutableMapping[str, str]) -> SupervisorHandles | None:
    """What the supervisor handed down; ``None`` without one. Taken out of ``variables``: it is for this process only."""
    text = variables.pop(VARIABLE, None)
    if text is None:
        return None
    try:
        given = json.loads(text)
        sockets = {name: socket.socket(fileno=fd) for name, fd in given["sockets"].items()}
        supervised = SupervisorHandles(sockets, given["restarts"], given["ready"])
        for fd in (supervised.ready_fd, *(sock.fileno() for sock in sockets.values())):
            os.set_inheritable(fd, False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidArgument(
            f"{VARIABLE} is set by `headgate serve --supervise` for its own child, and is none of that: {error}"
        ) from error
    return supervised


class Supervisor:
    """Runs one gateway process after the other; used once, by a process with one thread."""

    def __init__(self, command: Sequence[str], sockets: Mapping[str, socket.socket]) -> None:
        self._command = command
        self._sockets = sockets
        self._libc = ctypes.CDLL(None)
        self._mask_before: set[int | signal.Signals] = set()
        self._stopping = False
        self._was_ready = False

    def run(self) -> int:
        """Returns the exit code: that of the process that was told to stop, or could not start, or died too often."""
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # Blocked, so that none is lost between a look and a wait, and to the end: what comes then changes nothing. The child
        # gets the mask that was there before.
        self._mask_before = signal.pthread_sigmask(signal.SIG_BLOCK, {*signals.ALL, signal.SIGCHLD})
        try:
            return self._one_after_the_other()
        finally:
            self._close_sockets()

    def _one_after_the_other(self) -> int:
        deaths: deque[float] = deque()
        restarts = 0
        while True:
            pid, code = self._run_one(restarts)
            if self._stopping or code == 0 or (code > 0 and not self._was_ready):
                return _exit_code(code)
            now = time.monotonic()
            deaths.append(now)
            while deaths[0] < now - WITHIN_SECONDS:
                deaths.popleft()
            if len(deaths) > MOST_RESTARTS:
                times = f"the {len(deaths)}th within {WITHIN_SECONDS:.0f} s"
                _log.error("the gateway process %s %s, %s: no new one begins", pid, _words(code), times)
                return _exit_code(code)
            restarts += 1
            _log.error(
                "the gateway process %s %s; a new one begins (restart %s)", pid, _words(code), restarts
            )

    def _run_one(self, restarts: int) -> tuple[int, int]:
        """Runs a process to its end; its id, and its exit code, negative for a signal."""
        ready, says_ready = os.pipe()
        os.set_blocking(ready, False)
        pid = os.fork()
        if pid == 0:
            self._become(restarts, says_ready)
        os.close(says_ready)
        try:
            status = self._wait(pid)
            with contextlib.suppress(BlockingIOError):
                self._was_ready = self._was_ready or os.read(ready, 1) == b"1"
        finally:
            os.close(ready)
        return pid, os.waitstatus_to_exitcode(status)

    def _become(self, restarts: int, says_ready: int) -> NoReturn:
        """In the child: becomes the gateway."""
        try:
            parent = os.getppid()
            # The parent's end, by whatever signal, is the gateway's: nobody else would know of it.
            self._libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(_EXEC_FAILED)
            fds = {name: sock.fileno() for name, sock in self._sockets.items()}
            for fd in (says_ready, *fds.values()):
                os.set_inheritable(fd, True)
            handed = json.dumps({"sockets": fds, "restarts": restarts, "ready": says_ready})
            # Held back until the new process takes them (`signals.take`): before, they would kill it.
            signal.pthread_sigmask(signal.SIG_SETMASK, {*self._mask_before, *signals.ALL})
            os.execve(self._command[0], [*self._command], {**os.environ, VARIABLE: handed})  # noqa: S606 (this same command)
        except OSError as error:
            _log.error("%s cannot be run: %s", self._command[0], error.strerror)
        finally:
            os._exit(_EXEC_FAILED)

    def _wait(self, child: int) -> int:
        """Passes signals on until the child has ended; its status."""
        while True:
            got = signal.sigtimedwait({*signals.ALL, signal.SIGCHLD}, _LOOK_SECONDS)
            if got is not None and got.si_signo in signals.STOP:
                self._stopping = True
                # The child's are the last ones then: a connection is refused as soon as it closes them.
                self._close_sockets()
            if got is not None and got.si_signo in signals.ALL:
                os.kill(child, got.si_signo)
            ended = _reaped()
            if child in ended:
                return ended[child]

    def _close_sockets(self) -> None:
        for sock in self._sockets.values():
            sock.close()


def _reaped() -> dict[int, int]:
    """The processes that have ended, and how. In a container, orphans of others are among them."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended[pid] = status


def _exit_code(code: int) -> int:
    """An exit code as a shell has it."""
    return code if code >= 0 else _BY_SIGNAL - code


def _words(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"died of {signal.Signals(-code).name}"
    except ValueError:
        return f"died of signal {-code}"

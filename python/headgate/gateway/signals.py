"""What signals mean to ``headgate serve``, from its first line of Python to its last.

SIGTERM and SIGINT stop it, SIGHUP has it open its access log anew, SIGQUIT, SIGUSR1 and SIGUSR2 change nothing. Three phases:
:func:`take` at the first line, when nothing has begun that a stop would have to end; :class:`SignalScope` while a gateway runs;
after it, every signal is ignored, because the end is under way already. The handlers are Python's and not the event loop's:
a loop gives the system's default back when it closes, and the second SIGTERM of a wrapper would then kill what has drained.

Nothing is imported that takes time. Next: process.py, supervise.py.
"""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:  # as typing has it, which takes milliseconds to import
    from collections.abc import Callable, Mapping
    from types import FrameType

    Handler = Callable[[signal.Signals], None]

STOP = frozenset({signal.SIGTERM, signal.SIGINT})
REOPEN = signal.SIGHUP
UNUSED = frozenset({signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2})
ALL = STOP | {REOPEN} | UNUSED
_TERMINAL = (signal.SIGTTOU, signal.SIGTTIN)
"""They stop a process in the background that writes to its terminal, or reads from it."""


def take() -> None:
    """From now on a stop ends the process with 0, and no other signal does. May be called twice."""
    for number in ALL:
        signal.signal(number, _leave if number in STOP else _do_nothing)
    for number in _TERMINAL:
        signal.signal(number, signal.SIG_IGN)
    # A supervisor starts its gateway with all of them blocked: before this line, each would have killed it.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ALL)


def ignore() -> None:
    """Nothing ends what is ending. The interpreter keeps this to its last moment; Python's own handlers it would drop before."""
    for number in ALL:
        signal.signal(number, signal.SIG_IGN)


class SignalScope:
    """A context in which signals are handled; what :func:`take` took is ignored after it."""

    def __init__(self, handlers: Mapping[signal.Signals, Handler]) -> None:
        self._handlers = handlers

    def __enter__(self) -> None:
        self._before = {number: signal.signal(number, self._handle) for number in self._handlers}

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, signal.SIG_IGN if before in (_leave, _do_nothing) else before)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self._handlers[signal.Signals(number)](signal.Signals(number))


def _leave(_number: int, _frame: FrameType | None) -> None:
    # Not by an exception: it could be swallowed by whatever is being imported.
    os._exit(0)


def _do_nothing(_number: int, _frame: FrameType | None) -> None:
    """Not ``SIG_IGN``, which a child that is started would inherit."""

"""What signals mean to ``headgate serve``, from its first line of Python to its last.

SIGTERM and SIGINT stop it, SIGHUP has it open its access log anew, SIGQUIT, SIGUSR1 and SIGUSR2 change nothing. Three phases:
:func:`take` at the first line, when nothing has begun that a stop would have to end; :func:`handled` while a gateway runs;
after it, every signal is ignored, because the end is under way already. The handlers are Python's and not the event loop's:
a loop gives the system's default back when it closes, and the second SIGTERM of a wrapper would then kill what has drained.

Nothing is imported that takes time. Next: process.py, supervise.py.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any

STOP = frozenset({signal.SIGTERM, signal.SIGINT})
REOPEN = signal.SIGHUP
UNUSED = frozenset({signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2})
ALL = STOP | {REOPEN} | UNUSED

Handler = Callable[[signal.Signals], None]


def take() -> None:
    """From now on a stop ends the process with 0, and no other signal does. May be called twice."""
    for number in ALL:
        signal.signal(number, _leave if number in STOP else _do_nothing)
    # A supervisor starts its gateway with all of them blocked: before this line, each would have killed it.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ALL)


def ignore() -> None:
    """Nothing ends what is ending. The interpreter keeps this to its last moment; Python's own handlers it would drop before."""
    for number in ALL:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def handled(handlers: Mapping[signal.Signals, Handler]) -> Iterator[None]:
    """Handles signals until the end of the block; what :func:`take` took is ignored from then on."""

    def handler(number: int, _frame: FrameType | None) -> None:
        handlers[signal.Signals(number)](signal.Signals(number))

    before = {number: signal.signal(number, handler) for number in handlers}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, signal.SIG_IGN if previous in (_leave, _do_nothing) else previous)


def _leave(_number: int, _frame: FrameType | None) -> None:
    # Not by an exception: it could be swallowed by whatever is being imported.
    os._exit(0)


def _do_nothing(_number: int, _frame: FrameType | None) -> Any:
    """Not ``SIG_IGN``, which a child that is started would inherit."""

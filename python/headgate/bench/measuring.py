"""One load from its start to its result: looking at it while it runs, stopping it early, and noticing that the server is gone.

Time is what the generator has waited, so that a test's virtual generator needs no clock. Not here: which loads there are (``run``,
``find``), what a person sees (``live``). Next: ``run``.
"""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from types import FrameType
from typing import Any, Protocol

from headgate.bench.native import Generator, Run, answer_of
from headgate.bench.results import Answer
from headgate.bench.slo import Slo

QUANTILES = (0.5, 0.9, 0.95, 0.99, 0.999)
"""Those that every answer has; those of an objective are added."""

_TICK_NS = 200_000_000
_VIEW_NS = 1_000_000_000
_FIRST_DECISION_NS = 1_000_000_000
_LOOK_AGAIN = 1.25
"""A test looks again when there is a quarter more data: looking is free, and counting is not."""

_SILENT_NS = 2_000_000_000
"""So long without a good answer, and the server is asked whether it is there."""

_DRAIN_MARGIN_NS = 10_000_000_000


class Ended(Enum):
    """How a load came to its end."""

    FINISHED = "finished"
    DECIDED = "decided"
    INTERRUPTED = "interrupted"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True)
class Measured:
    """A load's result, and how it ended. ``why`` is a sentence for what was not its own end."""

    answer: Answer
    ended: Ended
    why: str | None = None


@dataclass(frozen=True)
class Question:
    """What is asked of a load."""

    slo: Slo | None = None
    alpha: float = 0.05
    from_ns: int | None = None
    """Where the window begins; None for the end of the warm-up."""
    precision: float = 0.1

    def text(self, *, deciding: bool = True) -> str:
        """As the generator reads it; without the tests of the objective if only the view needs an answer."""
        quantiles = set(QUANTILES) | {quantile for quantile, _ in (self.slo.quantiles if self.slo else ())}
        objectives = self.slo.objectives(self.alpha) if self.slo is not None and deciding else []
        return json.dumps(
            {
                "quantiles": sorted(quantiles),
                "alpha": 0.05,
                "from_ns": self.from_ns,
                "objectives": objectives,
                "precision": self.precision,
            }
        )


class Interruption:
    """Whether the person pressed Ctrl-C: the first one drains, a second one ends at once."""

    def __init__(self) -> None:
        self.requested = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Takes SIGINT and SIGTERM while the block runs; nothing outside the main thread, which gets none."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._heard) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _heard(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 (the signature of a handler)
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


@dataclass(frozen=True)
class Progress:
    """What a view draws of a running load."""

    title: str
    rate: float | None
    elapsed_ns: int
    for_ns: int
    """The longest that it takes; an objective may be decided earlier."""
    answer: Answer
    slo: Slo | None
    so_far: str = ""
    """What earlier loads of a search found."""
    stopping: bool = False


class View(Protocol):
    """Shows how far a measurement is."""

    def draw(self, progress: Progress) -> None:
        """The present state."""

    def say(self, sentence: str) -> None:
        """Something that stays."""

    def close(self) -> None:
        """Nothing follows."""


@dataclass(frozen=True)
class Loading:
    """A load to be measured."""

    title: str
    plan: str
    bodies: Sequence[bytes]
    rate: float | None
    for_ns: int
    timeout_ns: int
    so_far: str = ""


@dataclass
class Measurer:
    """Measures one load after the other."""

    generator: Generator
    view: View
    interruption: Interruption
    gone: Callable[[], str | None]
    """Why there is no server any more; None while it is there. Asked only when good answers stopped."""
    waited_ns: int = field(default=0)
    """The time of all loads so far."""

    def measure(
        self, loading: Loading, question: Question, decided: Callable[[Answer], str | None] = lambda _: None
    ) -> Measured:
        """The result at the end of the load, or as soon as ``decided`` says why it needs no more."""
        run = self.generator.load_run(loading.plan, loading.bodies)
        watch = _Watch(self, run, loading, question, decided)
        run.start()
        ended, why = watch.until_end()
        return Measured(answer_of(run.result(question.text())), ended, why)


@dataclass
class _Watch:
    """Follows one load."""

    measurer: Measurer
    run: Run
    loading: Loading
    question: Question
    decided: Callable[[Answer], str | None]
    waited_ns: int = 0
    next_view_ns: int = _VIEW_NS
    next_decision_ns: int = _FIRST_DECISION_NS
    last_good: int = 0
    good_at_ns: int = 0
    objectives: tuple[Any, ...] = ()

    def until_end(self) -> tuple[Ended, str | None]:
        """Waits for it, or stops it."""
        while not self._wait():
            if self.measurer.interruption.requested:
                return self._stop(Ended.INTERRUPTED, "interrupted; what was sent is awaited")
            if self.question.slo is not None and self.waited_ns >= self.next_decision_ns:
                self.next_decision_ns = int(self.waited_ns * _LOOK_AGAIN)
                answer = answer_of(self.run.look(self.question.text()))
                self.objectives = answer.objectives
                if why := self.decided(answer):
                    return self._stop(Ended.DECIDED, why)
            if self.waited_ns >= self.next_view_ns:
                self.next_view_ns = self.waited_ns + _VIEW_NS
                if lost := self._look():
                    return self._stop(Ended.UNREACHABLE, lost)
        return Ended.FINISHED, None

    def _wait(self) -> bool:
        finished = self.run.wait(_TICK_NS)
        if not finished:
            self.waited_ns += _TICK_NS
            self.measurer.waited_ns += _TICK_NS
        return finished

    def _look(self, *, stopping: bool = False) -> str | None:
        """Draws, and says why the server is gone if it is."""
        answer = answer_of(self.run.look(self.question.text(deciding=False)))
        answer = answer.model_copy(update={"objectives": self.objectives})
        loading = self.loading
        self.measurer.view.draw(
            Progress(
                title=loading.title,
                rate=loading.rate,
                elapsed_ns=self.waited_ns,
                for_ns=loading.for_ns,
                answer=answer,
                slo=self.question.slo,
                so_far=loading.so_far,
                stopping=stopping,
            )
        )
        counts = answer.counts
        if counts.good > self.last_good or counts.due == 0:
            self.last_good, self.good_at_ns = counts.good, self.waited_ns
        if self.waited_ns - self.good_at_ns < _SILENT_NS:
            return None
        self.good_at_ns = self.waited_ns
        return self.measurer.gone()

    def _stop(self, ended: Ended, why: str) -> tuple[Ended, str]:
        """Sends nothing more and awaits what is in flight, no longer than its timeout."""
        self.run.stop()
        until = self.waited_ns + self.loading.timeout_ns + _DRAIN_MARGIN_NS
        while not self._wait() and self.waited_ns < until:
            if self.waited_ns >= self.next_view_ns:
                self.next_view_ns = self.waited_ns + _VIEW_NS
                self._look(stopping=True)
        return ended, why

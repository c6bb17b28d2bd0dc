"""The live view: three lines on stderr that are drawn again in place, and plain lines if that is no terminal.

Not here: what is measured (``measuring``), the result's words (``headgate.cli``).
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from typing import TextIO

from headgate import readable
from headgate.bench.measuring import Progress
from headgate.bench.rates import format_quantile, shown_rate
from headgate.bench.results import Answer, ObjectiveResult, Phases, QuantileEstimate
from headgate.bench.slo import ANY_GOOD_ANSWER_NS

_PLAIN_EVERY_NS = 5_000_000_000
"""How often a plain line is written: a log is read later."""

PHASES = ("decode", "queue", "run", "reply")


@dataclass
class NoView:
    """Shows nothing."""

    def draw(self, progress: Progress) -> None:
        """Nothing."""

    def say(self, sentence: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


@dataclass
class PlainView:
    """A line now and then, and one for each load that begins."""

    stream: TextIO
    _title: str = ""
    _last_ns: int = 0

    def draw(self, progress: Progress) -> None:
        """A line, if the last one is long enough ago."""
        if progress.title == self._title and progress.elapsed_ns - self._last_ns < _PLAIN_EVERY_NS:
            return
        self._title, self._last_ns = progress.title, progress.elapsed_ns
        self._write("  ".join(part for part in lines(progress) if part))

    def say(self, sentence: str) -> None:
        """A line."""
        self._write(sentence)

    def close(self) -> None:
        """Nothing follows."""

    def _write(self, line: str) -> None:
        self.stream.write(line + "\n")
        self.stream.flush()


@dataclass
class TerminalView:
    """Three lines in place. A line is cut at the width of the terminal: one that wraps could not be drawn over."""

    stream: TextIO
    _drawn: int = field(default=0)

    def draw(self, progress: Progress) -> None:
        """The lines, over those before."""
        width = shutil.get_terminal_size().columns - 1
        shown = [line[:width] for line in lines(progress)]
        self._erase()
        self.stream.write("".join(f"\x1b[2K{line}\n" for line in shown))
        self.stream.flush()
        self._drawn = len(shown)

    def say(self, sentence: str) -> None:
        """A line that stays above."""
        self._erase()
        self.stream.write(f"\x1b[2K{sentence}\n")
        self.stream.flush()

    def close(self) -> None:
        """Takes the lines away: the result says all of it."""
        self._erase()
        self.stream.flush()

    def _erase(self) -> None:
        if self._drawn:
            self.stream.write(f"\x1b[{self._drawn}A\x1b[J")
            self._drawn = 0


def lines(progress: Progress) -> list[str]:
    """The three lines: what runs and for how long, the latency and its objective, where the time goes."""
    answer = progress.answer
    return [_first(progress), _second(progress), _third(answer, progress.so_far)]


def _first(progress: Progress) -> str:
    rate = "" if progress.rate is None else f"  {shown_rate(progress.rate)}"
    left = max(0, progress.for_ns - progress.elapsed_ns) / 1e9
    most = "at most " if progress.slo is not None and progress.rate is not None else ""
    state = (
        "awaiting answers"
        if progress.stopping
        else f"{progress.elapsed_ns / 1e9:.0f} s, {most}{left:.0f} s left"
    )
    late = progress.answer.lateness.p99_ns
    lateness = "" if late is None else f"   lateness p99 {readable.duration(late / 1e3)}"
    if progress.answer.client.limited:
        lateness += ": the client is the limit"
    return f"{progress.title}{rate}  {state}{lateness}"


def _second(progress: Progress) -> str:
    answer = progress.answer
    parts = [
        f"{format_quantile(wanted)} {shown_quantile(found)}"
        for wanted in (0.5, 0.99)
        if (found := answer.response.quantile(wanted)) is not None
    ]
    lost = answer.counts.not_good
    if lost:
        parts.append(f"{lost} not good")
    return "  ".join([*parts, *(_evidence(one) for one in answer.objectives)])


def _evidence(one: ObjectiveResult) -> str:
    """How far a test is, which is why the load still runs."""
    name = "answers" if one.limit_ns == ANY_GOOD_ANSWER_NS else format_quantile(one.quantile)
    limit = "" if one.limit_ns == ANY_GOOD_ANSWER_NS else f" <= {readable.duration(one.limit_ns / 1e3)}"
    if one.verdict != "undecided":
        return f"{name}{limit}: {one.verdict}"
    shown = [
        f"{what} {evidence:.2g}"
        for what, evidence in (("pass", one.pass_evidence), ("fail", one.fail_evidence))
        if evidence is not None
    ]
    needed = "" if one.needed is None else f" of {one.needed:.0f}"
    return f"{name}{limit}: evidence {', '.join(shown) or 'none yet'}{needed}"


def _third(answer: Answer, so_far: str) -> str:
    shares = phase_shares(answer.phases)
    blame = " ".join(f"{name} {share:.0f}" for name, share in shares.items())
    return "   ".join(part for part in (f"{blame} % of the server's time" if blame else "", so_far) if part)


def phase_shares(phases: Phases) -> dict[str, float]:
    """Each phase's part of the server's time in percent, by means; empty if no answer told."""
    total = phases.total.mean_ns
    if not phases.sampled or not total:
        return {}
    found = {name: getattr(phases, name).mean_ns for name in PHASES}
    return {name: 100 * (mean or 0) / total for name, mean in found.items()}


def shown_quantile(found: QuantileEstimate) -> str:
    """``12.4 ms [11.6, 13.5]``; ``>= 5 s`` if it lies among requests without a good answer, a dash if it is not known."""
    if found.value_ns is None:
        return ">= the time-out" if found.censored else "-"
    value = ("≥ " if found.censored else "") + readable.duration(found.value_ns / 1e3)
    if found.low_ns is None:
        return value
    high = "?" if found.high_ns is None else readable.duration(found.high_ns / 1e3)
    return f"{value} [{readable.duration(found.low_ns / 1e3)}, {high}]"

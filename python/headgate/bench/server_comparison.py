"""Two servers measured in turn at one rate, until their difference is decided. Next: pairs.py for the order and the decision."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from headgate.bench import loads
from headgate.bench.comparison import Comparison, NativeStatistics, Statistics, client_lateness
from headgate.bench.measuring import QUANTILES, Ended, Loading, Measurer, Question
from headgate.bench.pairs import PairedComparison, PairRules
from headgate.bench.preparing import Asked, prepared_place
from headgate.bench.rates import format_ns, format_quantile, shown_rate
from headgate.bench.results import Answer, Outcome
from headgate.bench.run import Measurement, Tools
from headgate.bench.scenario import Scenario
from headgate.bench.slo import Slo
from headgate.errors import InvalidArgument

SHORTEST_NS = 3_000_000_000
"""The shortest run: its first 2 s are the warm-up."""

_WARM_UP_NS = 2_000_000_000

REPEATS = 5
"""Runs that are made again at most, because the client was the limit in them: one of many happens beside other work."""


@dataclass(frozen=True)
class Side:
    """One of both: where it is, and what it is asked."""

    asked: Asked
    scenario: Scenario


@dataclass(frozen=True)
class ServerRules:
    """How two servers are compared: at which rate, how long a run is, and by which quantile of its responses."""

    rate: float
    for_ns: int
    quantile: float = 0.5
    pairs: PairRules = PairRules()  # noqa: RUF009 (frozen)

    def __post_init__(self) -> None:
        if self.quantile not in QUANTILES:
            known = ", ".join(map(format_quantile, QUANTILES))
            raise InvalidArgument(f"{format_quantile(self.quantile)} is not compared; write one of {known}")
        if self.for_ns < SHORTEST_NS:
            raise InvalidArgument(
                f"a run of {format_ns(self.for_ns)} is too short: its first 2 s are the warm-up; write {format_ns(SHORTEST_NS)} or more"
            )
        _, needed = Slo(((self.quantile, 1),)).requests_needed()
        given = int(self.rate * (self.for_ns - _WARM_UP_NS) / 1e9)
        if given < needed:
            raise InvalidArgument(
                f"too few requests for {format_quantile(self.quantile)}: it needs {needed} after the warm-up of 2 s, and a run gives "
                f"{given}; make it longer"
            )


def compare_servers(
    sides: tuple[Side, Side],
    rules: ServerRules,
    tools: Tools,
    statistics: Statistics | None = None,
) -> tuple[Comparison, Outcome]:
    """Measures both, and how it ended: ``measured`` if the comparison came to its own end. Both get the same requests at the same
    times, drawn anew for each pair. The arrivals are those of A's scenario.
    """
    metric = format_quantile(rules.quantile)
    state = PairedComparison(rules.pairs, metric, statistics or NativeStatistics())
    loads.check_size(rules.for_ns, rules.rate * rules.for_ns / 1e9)
    with ExitStack() as stack:
        stack.enter_context(tools.interruption.listening())
        found = [
            Measurement.at(
                stack.enter_context(prepared_place(side.asked, side.scenario, tools.generator)),
                side.scenario,
                tools,
            )
            for side in sides
        ]
        stack.callback(tools.view.close)
        found[0].client.check(rules.rate)
        runs = _Runs(state, {"a": found[0], "b": found[1]}, rules)
        outcome, why = runs.measured()
        comparison = state.result() if why is None else state.result(why)
        notes = dict.fromkeys((*comparison.reasons, *found[0].client.reasons, *runs.notes))
        return replace(comparison, reasons=tuple(notes)), outcome


@dataclass
class _Runs:
    """The runs of one comparison."""

    state: PairedComparison
    sides: dict[str, Measurement]
    rules: ServerRules
    notes: list[str] = field(default_factory=list)
    repeated: int = 0
    made: int = 0
    """Runs that count."""

    def measured(self) -> tuple[Outcome, str | None]:
        """Measures until it is decided; how that ended, and why if it was not decided."""
        measurers: dict[str, Measurer] = {name: side.measurer() for name, side in self.sides.items()}
        while side := self.state.next_run():
            measured = measurers[side].measure(self._loading(side), Question())
            if measured.ended is Ended.INTERRUPTED:
                return "interrupted", "interrupted; what was measured is kept"
            if measured.ended is Ended.UNREACHABLE:
                return "unreachable", f"{side.upper()}: {measured.why or 'the server stopped answering'}"
            if why := client_lateness(measured.answer, self.rules.quantile):
                self.repeated += 1
                if self.repeated > REPEATS:
                    return (
                        "client_limited",
                        f"the client was the limit while {side.upper()} was measured: {why}",
                    )
                continue
            if measured.answer.steadiness.overload:
                self.notes.append(
                    f"requests piled up in {side.upper()}: its times depend on how long a run is; compare at a lower rate"
                )
            self.state.record(self._seconds(measured.answer, side))
            self.made += 1
        return "measured", None

    def _loading(self, side: str) -> Loading:
        what = (
            "noise of A"
            if self.state.measures_noise
            else f"pair {self.state.pairs + 1} of at most {self.rules.pairs.max_pairs}"
        )
        # One seed for both of a pair, so that they get the same arrivals.
        scenario = self.sides[side].scenario
        scenario = scenario.model_copy(update={"seed": scenario.seed + self.made // 2})
        load = loads.OpenLoad(((self.rules.rate, self.rules.rate, self.rules.for_ns),))
        plan = loads.open_json(load, self.sides["a"].scenario.load)
        title = f"{what}: {side.upper()} at {shown_rate(self.rules.rate)}"
        return replace(self.sides[side], scenario=scenario).loading(
            title, plan, self.rules.rate, self.rules.for_ns
        )

    def _seconds(self, answer: Answer, side: str) -> float:
        """The quantile; of B, a lower bound if it lies among requests without a good answer, which are slower than any."""
        quantile = self.rules.quantile
        estimate = answer.response.quantile(quantile)
        if estimate is not None and estimate.value_ns is not None and not estimate.censored:
            return estimate.value_ns / 1e9
        bad = (
            f"{side.upper()} gave {answer.counts.not_good} of {answer.counts.due} requests no good answer at "
            f"{shown_rate(self.rules.rate)}, so that its {format_quantile(quantile)} is not known"
        )
        if side == "a":
            raise InvalidArgument(f"{bad}; compare at a rate that A holds")
        self.notes.append(f"{bad}: it counts as the timeout, which is less than it is")
        known = None if estimate is None else estimate.value_ns
        return max(known or 0, self.sides[side].scenario.timeout) / 1e9

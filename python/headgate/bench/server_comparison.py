"""Two servers measured in turn at one rate, until their difference is decided. Next: pairs.py for the order and the decision."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace

from headgate.bench import loads
from headgate.bench.comparison import Comparison, NativeStatistics, Statistics
from headgate.bench.measuring import Ended, Measurer, Question
from headgate.bench.pairs import PairedComparison, PairRules
from headgate.bench.preparing import Asked, prepared_place
from headgate.bench.rates import format_quantile, shown_rate
from headgate.bench.results import Answer, Outcome
from headgate.bench.run import Measurement, Tools
from headgate.bench.scenario import Scenario
from headgate.errors import InvalidArgument


@dataclass(frozen=True)
class ServerRules:
    """How two servers are compared: at which rate, how long a run is, and by which quantile of its responses."""

    rate: float
    for_ns: int
    quantile: float = 0.5
    pairs: PairRules = PairRules()  # noqa: RUF009 (frozen)


def compare_servers(
    sides: tuple[Asked, Asked],
    scenario: Scenario,
    rules: ServerRules,
    tools: Tools,
    statistics: Statistics | None = None,
) -> tuple[Comparison, Outcome]:
    """Measures both, and how it ended: ``measured`` if the comparison came to its own end. Both get the same requests at the same
    times, drawn anew for each pair.
    """
    metric = format_quantile(rules.quantile)
    state = PairedComparison(rules.pairs, metric, statistics or NativeStatistics())
    loads.check_size(rules.for_ns, rules.rate * rules.for_ns / 1e9)
    with ExitStack() as stack:
        stack.enter_context(tools.interruption.listening())
        found = [
            Measurement.at(
                stack.enter_context(prepared_place(asked, scenario, tools.generator)), scenario, tools
            )
            for asked in sides
        ]
        stack.callback(tools.view.close)
        found[0].client.check(rules.rate)
        return _measured(state, {"a": found[0], "b": found[1]}, rules)


def _measured(
    state: PairedComparison, sides: dict[str, Measurement], rules: ServerRules
) -> tuple[Comparison, Outcome]:
    measurers: dict[str, Measurer] = {name: side.measurer() for name, side in sides.items()}
    runs = 0
    while side := state.next_run():
        what = (
            "noise of A"
            if state.measures_noise
            else f"pair {state.pairs + 1} of at most {rules.pairs.max_pairs}"
        )
        # One seed for both of a pair, so that they get the same arrivals.
        scenario = sides[side].scenario.model_copy(update={"seed": sides[side].scenario.seed + runs // 2})
        measurement = replace(sides[side], scenario=scenario)
        load = loads.OpenLoad(((rules.rate, rules.rate, rules.for_ns),))
        plan = loads.open_json(load, scenario.load)
        title = f"{what}: {side.upper()} at {shown_rate(rules.rate)}"
        loading = measurement.loading(title, plan, rules.rate, rules.for_ns)
        measured = measurers[side].measure(loading, Question())
        runs += 1
        if measured.ended is Ended.INTERRUPTED:
            return state.result("interrupted; what was measured is kept"), "interrupted"
        if measured.ended is Ended.UNREACHABLE:
            return state.result(
                f"{side.upper()}: {measured.why or 'the server stopped answering'}"
            ), "unreachable"
        if measured.answer.client.limited:
            why = "; ".join(measured.answer.client.reasons)
            return state.result(
                f"the client was the limit while {side.upper()} was measured: {why}"
            ), "client_limited"
        state.record(_seconds(measured.answer, rules, side))
    return state.result(), "measured"


def _seconds(answer: Answer, rules: ServerRules, side: str) -> float:
    estimate = answer.response.quantile(rules.quantile)
    if estimate is None or estimate.value_ns is None:
        raise InvalidArgument(
            f"{side.upper()} answered nothing well at {shown_rate(rules.rate)}; compare at a rate that both hold"
        )
    if estimate.censored:
        bad = answer.counts.not_good
        raise InvalidArgument(
            f"{side.upper()} gave {bad} of {answer.counts.due} requests no good answer at {shown_rate(rules.rate)}, so that its "
            f"{format_quantile(rules.quantile)} is not known; compare at a rate that both hold"
        )
    return estimate.value_ns / 1e9

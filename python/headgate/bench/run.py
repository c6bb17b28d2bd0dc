"""One load and all its numbers: ``run`` of an open or a closed loop, ``replay`` of captured times.

Not here: the search for a rate (``find``), words for a person (``headgate.cli``). Next: ``find``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from headgate.bench import loads, machine
from headgate.bench.measuring import Ended, Interruption, Loading, Measured, Measurer, Question, View
from headgate.bench.native import Generator
from headgate.bench.preparing import Asked, Place, prepared_place
from headgate.bench.rates import format_ns, shown_rate
from headgate.bench.results import Answer, ClientFacts, Outcome, Result, Window
from headgate.bench.scenario import Scenario
from headgate.bench.selftest import AHEAD, EchoLoad, self_test
from headgate.bench.target import Server
from headgate.bench.unanswered import unanswered_words
from headgate.errors import InvalidArgument

_PATIENCE_SECONDS = 2.0


@dataclass(frozen=True)
class Tools:
    """What a measurement uses; the tests hand in others."""

    generator: Generator
    view: View
    interruption: Interruption
    started_at: str
    """UTC, ISO 8601."""


@dataclass
class Client:
    """What is known of the generator so far: self-tests, and whether a load was limited by it."""

    tools: Tools
    place: Place
    tested_to: float = 0.0
    selftest: Answer | None = None
    rate: float | None = None
    limited: bool = False
    reasons: list[str] = field(default_factory=list)

    def check(self, rate: float) -> None:
        """Notes if the generator does not keep up with ``rate`` in a self-test ahead of it; a faster one that passed says enough.

        The load itself decides: beside other work the self-test may be late and the load not.
        """
        wanted = rate * AHEAD
        if wanted <= self.tested_to:
            return
        self.tools.view.say(f"self-test at {shown_rate(wanted)}")
        load = EchoLoad(wanted, self.place.prepared.mean_body, self.place.facts.protocol)
        self.selftest = self_test(self.tools.generator, self.place.settings, load)
        self.rate = wanted
        self.tested_to = wanted
        if self.selftest.client.limited:
            why = "; ".join(self.selftest.client.reasons)
            self.reasons.append(f"the self-test at {shown_rate(wanted)} fell behind: {why}")

    def note(self, answer: Answer, what: str) -> None:
        """Keeps that the generator was the limit, if it was."""
        if answer.client.limited:
            self.limited = True
            why = "; ".join(answer.client.reasons) or "it fell behind its schedule"
            self.reasons.append(f"the client was the limit in {what}: {why}")

    def facts(self) -> ClientFacts:
        """As the result has it."""
        settings = self.place.settings
        return ClientFacts(
            threads=settings.threads,
            cpus=settings.cpus,
            wait=settings.wait,
            shares_cpus=self.place.shares_cpus,
            selftest=self.selftest,
            selftest_rate=self.rate,
            limited=self.limited,
            reasons=tuple(dict.fromkeys(self.reasons)),
        )


@dataclass(frozen=True)
class Measurement:
    """What is measured, with what, and where."""

    scenario: Scenario
    tools: Tools
    place: Place
    client: Client

    @classmethod
    def at(cls, place: Place, scenario: Scenario, tools: Tools) -> Measurement:
        """One that has done nothing yet."""
        return cls(scenario, tools, place, Client(tools, place))

    def measurer(self) -> Measurer:
        """Measures loads of it."""
        tools = self.tools
        return Measurer(tools.generator, tools.view, tools.interruption, self._gone)

    def loading(
        self, title: str, load: dict[str, Any], rate: float | None, for_ns: int, so_far: str = ""
    ) -> Loading:
        """A load of it."""
        place = self.place
        plan = loads.plan_json(self.scenario, place.prepared, place.settings, load)
        return Loading(
            f"{self.scenario.name}  {title}",
            plan,
            place.prepared.bodies,
            rate,
            for_ns,
            self.scenario.timeout,
            so_far,
        )

    def result(self, command: str) -> Result:
        """A result with everything but what was measured."""
        return Result(
            command=command,
            name=self.scenario.name,
            started_at=self.tools.started_at,
            seed=self.scenario.seed,
            scenario=self.scenario.as_written(),
            target=self.place.facts,
            machine=machine.here(),
            client=self.client.facts(),
        )

    def _gone(self) -> str | None:
        # With little patience: a load waits meanwhile.
        if Server(self.place.server.address, _PATIENCE_SECONDS).is_there():
            return None
        return f"the server at {self.place.server.address.url} stopped answering"


def run(asked: Asked, scenario: Scenario, tools: Tools) -> Result:
    """Sends the scenario's load once."""
    load = scenario.load
    if load.stages is None and load.clients is None:
        raise InvalidArgument(
            "a run needs a load: --rate 200/s with --for 30s, --clients 8, or stages in the scenario"
        )
    open_load = None
    if load.stages is not None:
        open_load = loads.open_load(load.stages)
        loads.check_size(open_load.for_ns, open_load.requests)
        loads.check_enough(scenario, open_load.requests)
    with tools.interruption.listening(), prepared_place(asked, scenario, tools.generator) as place:
        if open_load is not None:
            steady = len(open_load.stages) == 1 and open_load.stages[0][0] == open_load.stages[0][1]
            window = Window(
                name="run",
                rate=open_load.stages[0][0] if steady else None,
                for_ns=open_load.for_ns,
            )
            return _one_load(
                Measurement.at(place, scenario, tools),
                window,
                loads.open_json(open_load, load),
                open_load.highest,
                steady=steady,
            )
        window = Window(name="run", clients=load.clients, for_ns=load.for_ns or 0)
        plan = loads.closed_json(load.clients or 1, window.for_ns)
        return _one_load(Measurement.at(place, scenario, tools), window, plan, None, steady=True)


def replay(asked: Asked, scenario: Scenario, tools: Tools) -> Result:
    """Sends captured requests at their own times, or faster."""
    if len(scenario.mix) != 1:
        raise InvalidArgument("a replay has one endpoint: captured times of several do not belong together")
    with tools.interruption.listening(), prepared_place(asked, scenario, tools.generator) as place:
        due = place.prepared.due_ns
        if due is None:
            raise InvalidArgument("a replay needs captured requests: --data capture, or capture:FOLDER")
        loads.check_enough(scenario, len(due))
        speed = scenario.load.speed
        length = max(1, round((max(due) - min(due)) / speed))
        window = Window(name="replay", for_ns=length)
        highest = _highest_rate(due, speed)
        plan = loads.trace_json(due, speed)
        return _one_load(Measurement.at(place, scenario, tools), window, plan, highest, steady=False)


def _highest_rate(due_ns: Sequence[int], speed: float) -> float:
    """Requests in the fullest second of a trace."""
    seconds: dict[int, int] = {}
    for at in due_ns:
        second = int(at / speed) // 1_000_000_000
        seconds[second] = seconds.get(second, 0) + 1
    return float(max(seconds.values()))


def _one_load(
    measurement: Measurement, window: Window, load: dict[str, Any], highest: float | None, *, steady: bool
) -> Result:
    scenario, client = measurement.scenario, measurement.client
    if highest is not None:
        client.check(highest)
    loading = measurement.loading(window.name, load, window.rate, window.for_ns)
    question = Question(scenario.slo, from_ns=None if steady else 0, precision=scenario.search.precision)
    try:
        measured = measurement.measurer().measure(loading, question)
    finally:
        measurement.tools.view.close()
    client.note(measured.answer, f"the {window.name}")
    verdict, reasons = judged(measured, scenario, client)
    return measurement.result(window.name).model_copy(
        update={
            "windows": (window.model_copy(update={"answer": measured.answer}),),
            "steadiness": measured.answer.steadiness,
            "verdict": verdict,
            "reasons": (*reasons, *measurement.place.notes),
        }
    )


def judged(measured: Measured, scenario: Scenario, client: Client) -> tuple[Outcome, list[str]]:
    """How a single load ended, and the sentences that say why."""
    answer, reasons = measured.answer, []
    if measured.why is not None and measured.ended is not Ended.FINISHED:
        reasons.append(measured.why)
    reasons += client.reasons
    reasons += caveats(answer)
    if measured.ended is Ended.INTERRUPTED:
        return "interrupted", reasons
    if measured.ended is Ended.UNREACHABLE:
        return "unreachable", reasons
    if said := unanswered_words(answer):
        # However late the client was, a server that answers does so at some time.
        return ("fail" if answer.verdict == "fail" else "undecided"), [said, *reasons]
    # A late client makes times longer: an objective that is met all the same is met.
    if client.limited and (scenario.slo is None or answer.verdict != "pass"):
        return "client_limited", reasons
    if scenario.slo is None:
        return "measured", reasons
    if answer.verdict == "undecided":
        reasons.insert(0, undecided_words(answer))
    return answer.verdict, reasons


def undecided_words(answer: Answer) -> str:
    """Why there is no verdict yet, and what it needs."""
    more = (
        "" if answer.need_ns is None else f"; about {format_ns(round(answer.need_ns, -9) or 10**9)} would do"
    )
    return f"the requests do not decide the objective{more}"


def caveats(answer: Answer) -> list[str]:
    """What limits what the numbers say."""
    found = []
    steadiness = answer.steadiness
    if steadiness.overload:
        found.append(
            "requests piled up until the end: the server was overloaded, and latencies depend on how long the load was"
        )
    elif steadiness.steady is False:
        found.append("latency or requests in flight had a trend: the load was not steady")
    if answer.counts.good and all(one.value_ns is None for one in answer.response.quantiles):
        found.append(
            "the load was over before the warm-up, which lasts 2 s at least: no latency is known; --for makes it longer"
        )
    if answer.warmup.settled is False:
        found.append("the begin never settled: a longer load would say where the warm-up ends")
    counts = answer.counts
    if counts.not_good:
        parts = (
            (counts.shed, "shed"),
            (counts.failed, "failed"),
            (counts.timed_out, "timed out"),
            (counts.unsent, "unsent"),
        )
        told = ", ".join(f"{count} {what}" for count, what in parts if count)
        found.append(
            f"{counts.not_good} of {counts.due} requests got no good answer ({told}); they count as slower than any"
        )
    if answer.replies.differing:
        found.append(
            f"{answer.replies.differing} of {answer.replies.compared} compared answers differ from the first to the same request"
        )
    return found

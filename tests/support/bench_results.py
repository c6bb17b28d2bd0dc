"""Results of measurements of a queue that is simulated in Python: what plans and reports are tested with.

The server is M/G/k with runs of 2 ms and, for one in ten, 7 ms; ``around`` is added to each response. Values are drawn by seed.
"""

from __future__ import annotations

import heapq
import random
import statistics
from dataclasses import dataclass
from typing import Any

from headgate.bench import hdr
from headgate.bench.results import (
    Answer,
    Capacity,
    ClientFacts,
    ClientLoad,
    Counts,
    ErrorKind,
    Histograms,
    Latency,
    Lateness,
    Machine,
    ObjectiveResult,
    Phases,
    PhaseTimes,
    Probe,
    QuantileEstimate,
    Result,
    ServedModel,
    Slice,
    SloFacts,
    Steadiness,
    TargetFacts,
    Verdict,
    WarmUp,
    Window,
)

AROUND_NS = 300_000
QUANTILES = (0.5, 0.9, 0.95, 0.99, 0.999)
LIMIT_NS = 15_000_000
TIMEOUT_NS = 5_000_000_000
WARM_UP_NS = 2 * 10**9


@dataclass(frozen=True)
class Served:
    """One simulated request; times in ns. ``good`` False is one that the server sheds at once."""

    due: int
    queue: int
    run: int
    good: bool = True

    @property
    def response(self) -> int:
        """From due to the last byte."""
        return AROUND_NS + self.queue + self.run


def serve(
    rate: float, seconds: int, servers: int, seed: int, most_waiting: int | None = None
) -> list[Served]:
    """Poisson arrivals at a queue before ``servers`` instances; more than ``most_waiting`` are shed."""
    drawn = random.Random(seed)
    free = [0] * servers
    begins: list[int] = []  # of requests that wait, to count them
    due = 0.0
    served: list[Served] = []
    while True:
        due += drawn.expovariate(rate) * 1e9
        if due >= seconds * 1e9:
            return served
        now = int(due)
        begins = [begin for begin in begins if begin > now] if most_waiting is not None else begins
        if most_waiting is not None and len(begins) >= most_waiting:
            served.append(Served(now, 0, 0, good=False))
            continue
        run = 7_000_000 if drawn.random() < 0.1 else 2_000_000
        begin = max(now, heapq.heappop(free))
        heapq.heappush(free, begin + run)
        begins.append(begin)
        served.append(Served(now, begin - now, run))


def answer(
    rate: float,
    seconds: int = 20,
    servers: int = 4,
    seed: int = 1,
    most_waiting: int | None = None,
    **changes: Any,
) -> Answer:
    """What the generator says of that load."""
    served = serve(rate, seconds, servers, seed, most_waiting)
    counted = [one for one in served if one.due >= WARM_UP_NS]
    good = [one for one in counted if one.good]
    bad = len(counted) - len(good)
    responses = sorted(one.response for one in good)
    # Without a connection that waits, the service is what the server took.
    histogram = hdr.of_values(responses)
    estimates = tuple(_estimate(responses, bad, quantile) for quantile in QUANTILES)
    p99 = next(one for one in estimates if one.quantile == 0.99)
    slower = bad + sum(value > LIMIT_NS for value in responses)
    verdict: Verdict = "fail" if slower > 0.01 * len(counted) else "pass"
    fields: dict[str, Any] = {
        "elapsed_ns": seconds * 10**9,
        "finished": True,
        "counts": Counts(due=len(served), sent=len(served), good=len(served) - bad, shed=bad),
        "offered_per_second": len(served) / seconds,
        "good_per_second": (len(served) - bad) / seconds,
        "warmup": WarmUp(from_ns=WARM_UP_NS, settled=True, requests=len(served) - len(counted)),
        "response": Latency(mean_ns=statistics.fmean(responses), max_ns=responses[-1], quantiles=estimates),
        "service": Latency(mean_ns=statistics.fmean(responses), max_ns=responses[-1], quantiles=estimates),
        "lateness": Lateness(p50_ns=4_000, p99_ns=11_000, max_ns=90_000),
        "phases": _phases(good),
        "objectives": (
            ObjectiveResult(
                quantile=0.99, limit_ns=LIMIT_NS, verdict=verdict, needed=160.0, slower=slower, requests=len(counted),
                pass_evidence=400.0 if verdict == "pass" else 0.0, fail_evidence=0.0 if verdict == "pass" else 400.0,
            ),
        ),
        "steadiness": Steadiness(steady=True, latency_z=0.4, in_flight_z=-0.2, overload=rate > 1600 * servers / 4, little_gap=0.001),
        "client": ClientLoad(cpu_share=0.2, run_delay_share=0.001, steal_share=0.0, throttled_share=0.0),
        "errors": (ErrorKind(what="503 overloaded", count=bad, example="<b>queue full</b>"),) if bad else (),
        "slices": _slices(served, seconds),
        "hdr_v2": Histograms(
            response=hdr.encode(histogram), service=hdr.encode(histogram),
            lateness=hdr.encode(hdr.of_values([4_000] * 90 + [11_000] * 10)),
        ),
    }  # fmt: skip
    assert p99.quantile == 0.99
    return Answer(**{**fields, **changes})


def _estimate(responses: list[int], bad: int, quantile: float) -> QuantileEstimate:
    total = len(responses) + bad
    rank = max(1, round(quantile * total))
    if rank > len(responses):
        return QuantileEstimate(
            quantile=quantile, value_ns=TIMEOUT_NS, low_ns=responses[-1], censored=True, inflation=2.0
        )
    spread = max(3, round(6 * (total * quantile * (1 - quantile)) ** 0.5))
    high = responses[rank + spread] if rank + spread < len(responses) else None
    return QuantileEstimate(
        quantile=quantile, value_ns=responses[rank - 1], low_ns=responses[max(0, rank - 1 - spread)], high_ns=high,
        inflation=2.0, effective=total / 2,
    )  # fmt: skip


def _phases(good: list[Served]) -> Phases:
    def times(values: list[int]) -> PhaseTimes:
        ordered = sorted(values)
        return PhaseTimes(
            mean_ns=statistics.fmean(ordered),
            p50_ns=ordered[len(ordered) // 2],
            p99_ns=ordered[len(ordered) * 99 // 100],
        )

    queue, run = [one.queue for one in good], [one.run for one in good]
    return Phases(
        sampled=len(good) // 50,
        decode=times([60_000] * len(good)),
        queue=times(queue),
        run=times(run),
        reply=times([40_000] * len(good)),
        total=times([one.queue + one.run + 100_000 for one in good]),
        outside=times([200_000] * len(good)),
    )


def _slices(served: list[Served], seconds: int) -> tuple[Slice, ...]:
    found = []
    for at in range(seconds):
        inside = [one for one in served if at * 10**9 <= one.due < (at + 1) * 10**9]
        good = sorted(one.response for one in inside if one.good)
        known = len(good) > 0.99 * len(inside)
        found.append(
            Slice(
                from_ns=at * 10**9, due=len(inside), sent=len(inside), good=len(good), shed=len(inside) - len(good),
                p50_ns=good[len(good) // 2] if good else None,
                p99_ns=good[min(len(good) - 1, len(inside) * 99 // 100)] if known else None,
                in_flight=round(sum(one.response for one in inside) / 1e9),
            )
        )  # fmt: skip
    return tuple(found)


def result(**changes: Any) -> Result:
    """A result without windows and probes, for ``digits`` on this machine."""
    fields: dict[str, Any] = {
        "command": "find",
        "name": "evening",
        "started_at": "2026-03-01T20:00:00Z",
        "seed": 42,
        "scenario": {
            "apiVersion": "headgate/v1", "kind": "Scenario", "name": "evening",
            "mix": [{"endpoint": "digits"}], "load": {"arrivals": "poisson"}, "slo": {"p99": "15ms"},
        },
        "target": TargetFacts(
            url="http://127.0.0.1:8000", server="headgate", server_version="1.0", server_phases=True, cpus=(0, 1, 2, 3),
            models=(ServedModel(endpoint="digits", version="v1", revision=3, digest="sha256:" + "ab" * 32),),
        ),
        "machine": Machine(cpu="A CPU", cpus=8, memory_bytes=16 << 30, kernel="6.1", python="3.12", headgate="1.0"),
        "client": ClientFacts(threads=1, cpus=(7,), wait="spin", shares_cpus=False),
    }  # fmt: skip
    return Result(**{**fields, **changes})


def probe(rate: float, at: int, **more: Any) -> Probe:
    """One probe of a search; its verdict is that of its objective."""
    said = answer(rate, seed=at + 1, **more)
    return Probe(rate=rate, verdict=said.verdict, from_ns=at * 25 * 10**9, answer=said)


def _capacity(passed: float | None, failed: float | None) -> Capacity:
    fields = {
        "pass": passed,
        "fail": failed,
        "alpha": 0.05,
        "confirmed": passed is not None,
        "confirmed_rate": None if passed is None else 0.95 * passed,
        "at_least": failed is None,
        "slo": SloFacts(quantiles={"p99": LIMIT_NS}),
    }
    return Capacity.model_validate(fields)


def easy(rates: tuple[float, ...] = (500, 800, 1000, 1150, 1250, 1300, 1450)) -> Result:
    """A search that found what four instances hold, about 1 350/s."""
    probes = tuple(probe(rate, at) for at, rate in enumerate(rates))
    passed = max(one.rate for one in probes if one.verdict == "pass")
    failed = min((one.rate for one in probes if one.verdict == "fail"), default=None)
    confirming = answer(0.95 * passed, seconds=30, seed=99)
    return result(
        probes=(*probes, Probe(rate=0.95 * passed, verdict="pass", from_ns=200 * 10**9, confirming=True, answer=confirming)),
        capacity=_capacity(passed, failed),
        verdict="pass",
    )  # fmt: skip


def overloaded_run() -> Result:
    """One window at a rate at which a part is shed, so that the upper quantiles have no value."""
    window = Window(name="1900/s", rate=1900, for_ns=20 * 10**9, answer=answer(1900, most_waiting=20))
    return result(
        command="run",
        windows=(window,),
        verdict="fail",
        reasons=("p99 is not within 15 ms: 14 % got no good answer",),
    )


def client_limited() -> Result:
    """A run in which the generator was the limit."""
    reasons = ("sent 92.1 % of what was due", "lateness p99 3.1 ms is more than 5 % of latency p99")
    load = ClientLoad(cpu_share=0.99, run_delay_share=0.08, limited=True, reasons=reasons)
    lateness = Lateness(p50_ns=400_000, p99_ns=3_100_000, max_ns=9_000_000)
    window = Window(
        name="900/s", rate=900, for_ns=20 * 10**9, answer=answer(900, client=load, lateness=lateness)
    )
    return result(
        command="run", windows=(window,), client=ClientFacts(threads=1, shares_cpus=True, limited=True, reasons=reasons),
        verdict="client_limited", reasons=reasons,
    )  # fmt: skip


def no_capacity() -> Result:
    """A search whose lowest rate missed the objective."""
    probes = (probe(1500, 0), probe(1450, 1))
    return result(
        probes=probes,
        capacity=_capacity(None, 1450),
        verdict="fail",
        reasons=("p99 is above 15 ms at the lowest rate: below 1450/s",),
    )

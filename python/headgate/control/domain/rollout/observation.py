"""What a driver saw at one moment: the judge's verdicts, counts, breakers, load. Values, and what follows from them alone.

Counts are those of the present step. What is None is not known, and never counts as good news. Next: ``missing``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from headgate.control.domain.rollout.plan import StepKind, Value, judged_by_trial
from headgate.control.domain.rollout.promise import tests_on_requests, threshold
from headgate.control.domain.rollout.state import GateStatus, PoolLatency, RolloutState

QUIET_MS = 10 * 60_000
"""An endpoint without a request for so long has no traffic."""
LONGEST_LOOK_MS = 60_000
"""Time between two observations that counts at most: what nobody watched is no evidence."""
MOST_BUSY = 0.80
MOST_CHAMPION_ERRORS = 0.20
LEAST_CHAMPION_REQUESTS = 50
MOST_LATENCY = 1.5
LEAST_LATENCIES = 100
SIMILAR_LOAD = (0.75, 1.25)
BREAKER_UNITS = 3
_LEAST_THREADS = 0.01


class Breaker(Value):
    """A version's breaker: how often it has opened since the gateway started, and how many units of the trial erred."""

    state: Literal["closed", "open", "half_open"] = "closed"
    openings: int = 0
    failed_units: int = 0


class PoolLoad(Value):
    """The pool of threads that runs the challenger: its busy share, the endpoint's requests a second, and the mean run times of
    champion and challenger in seconds. ``threads`` is how many of them run at the same time: the processors that the process may use, by
    affinity and quota.
    """

    busy: float
    per_second: float
    champion_run_s: float
    challenger_run_s: float
    threads: float

    def busy_after(self, more: float) -> float:
        """The predicted busy share once a share ``more`` of the requests moves from the champion to the challenger:
        ``rho + lambda * dw * (run_c - run_h) / threads``.
        """
        heavier = self.challenger_run_s - self.champion_run_s
        return self.busy + self.per_second * more * heavier / max(self.threads, _LEAST_THREADS)


class Copies(Value):
    """A shadow in this step: pairs that were compared, and copies that the challenger failed on although the champion answered;
    ``timeouts`` of these were too slow. Of the requests that the champion failed on, the challenger ``answered`` some, and failed on
    the others as well (``both``).
    """

    pairs: int = 0
    errors: int = 0
    timeouts: int = 0
    answered: int = 0
    both: int = 0


class Replay(Value):
    """A replay that this step asked for, by its key. ``waiting``: it could not begin yet. ``number`` is 0 before it begins.

    ``pairs`` are requests that both versions answered, ``incompatible`` those that the challenger does not take. ``problem`` says why it
    waits, failed, or has fewer pairs than requests. ``gates`` are judged when it is done.
    """

    key: str
    state: Literal["waiting", "running", "done", "failed"]
    number: int = 0
    pairs: int = 0
    replayed: int = 0
    incompatible: int = 0
    problem: str = ""
    gates: tuple[GateStatus, ...] = ()


def question(rollout: RolloutState) -> dict[str, Any] | None:
    """What ``_native.judge`` is asked of a trial; None if it decides and shows no gate of the plan.

    The judge shares ``false_rollbacks`` out among the gates of a question. Tests on pairs have a part of the promise too, so the
    question has the rest.
    """
    gates = judged_by_trial(rollout.plan)
    if not gates:
        return None
    return {
        "challenger": rollout.challenger.name,
        "gates": gates,
        "false_rollbacks": max(tests_on_requests(rollout.plan), 1) / threshold(rollout.plan),
        "blocks_ms": list(rollout.blocks_ms),
    }


def judged(answer: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an :class:`Observation` that an answer of ``_native.judge`` gives: gates, sample ratio, few keys."""
    ratio, keys = answer["srm"], answer["few_keys"]
    srm = {"pass": "ok", "fail": "mismatch"}.get(ratio["verdict"], "undecided")
    few = keys["reason"] or "most errors are of few units"
    return {
        "gates": tuple(GateStatus.model_validate(gate) for gate in answer["gates"]),
        "srm": srm,
        "srm_words": ratio["reason"] or "",
        "few_keys": few if keys["verdict"] == "fail" else None,
    }


class Observation(Value):
    """One look at an endpoint.

    ``gates`` are of the whole attempt. ``requests`` are those of the challenger in this step, ``champion_requests`` and
    ``champion_errors`` those of the champion within the last minutes. ``last_request_ms`` is when the endpoint's newest request came.
    ``ready`` says that the challenger is loaded and its digest the one on trial.
    """

    gates: tuple[GateStatus, ...] = ()
    requests: int = 0
    last_request_ms: int | None = None
    champion_requests: int = 0
    champion_errors: int = 0
    champion_breaker: Breaker = Breaker()
    challenger_breaker: Breaker = Breaker()
    srm: Literal["ok", "mismatch", "undecided"] = "undecided"
    srm_words: str = ""
    few_keys: str | None = None
    """Why the errors say little: they are mostly from three units. None: they do not."""
    pool: tuple[PoolLatency, ...] = ()
    load: PoolLoad | None = None
    copies: Copies | None = None
    replay: Replay | None = None
    frozen: bool = False
    ready: bool = True
    refused: str | None = None
    """Why the data plane refused to enter the next step from this state, if trying again would be refused as well."""

    def has_traffic(self, now_ms: int) -> bool:
        """Whether a request came lately."""
        return self.last_request_ms is not None and now_ms - self.last_request_ms <= QUIET_MS

    def status(self, key: str) -> GateStatus | None:
        """The verdict of a gate by its key."""
        return next((status for status in self.gates if status.key == key), None)

    def counted(self, kind: StepKind) -> int:
        """What a step of that kind counts: requests of the challenger, or pairs."""
        if kind == "weight":
            return self.requests
        if kind == "replay":
            return 0 if self.replay is None else self.replay.pairs
        return 0 if self.copies is None else self.copies.pairs

    def champion_unhealthy(self) -> str | None:
        """Why nothing can be compared with the champion; None: it is well."""
        if self.champion_breaker.state == "open":
            return "the champion's breaker is open"
        share = self.champion_errors / self.champion_requests if self.champion_requests else 0.0
        if self.champion_requests >= LEAST_CHAMPION_REQUESTS and share > MOST_CHAMPION_ERRORS:
            return f"{share:.0%} of the champion's requests fail"
        return None

    def interference(self, before: tuple[PoolLatency, ...], ignore_below_ns: float) -> str | None:
        """Which version became slower since the step began although its load is similar; None: no one. A p95 below ``ignore_below_ns`` is
        not slow, whatever it was before.
        """
        earlier = {(one.endpoint, one.version): one for one in before}
        for now in self.pool:
            then = earlier.get((now.endpoint, now.version))
            if then is None or now.count < LEAST_LATENCIES or then.p95_ns <= 0 or then.per_second <= 0:
                continue
            load = now.per_second / then.per_second
            ratio = now.p95_ns / then.p95_ns
            slower = ratio > MOST_LATENCY and now.p95_ns >= ignore_below_ns
            if slower and SIMILAR_LOAD[0] <= load <= SIMILAR_LOAD[1]:
                return (
                    f"the p95 of {now.endpoint}/{now.version} is {ratio:.2g}x of what it was before this step, "
                    f"at {load:.0%} of the load"
                )
        return None

"""One look at an endpoint with a rollout: what the data plane counted, judged, as an ``Observation``.

Nothing here moves anything, but for the thresholds that a trial's next window is compared with. What is remembered between looks may be
lost: then a step begins to count anew. Not here: what follows from a look (``domain.rollout``). Next: ``rollouts``.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from headgate.control.domain.revision import Revision
from headgate.control.domain.rollout.compared import copied, copied_errors, distributions, pairs_to_judge
from headgate.control.domain.rollout.observation import (
    LEAST_LATENCIES,
    Breaker,
    Observation,
    PoolLoad,
    Replay,
    judged,
    question,
)
from headgate.control.domain.rollout.state import GateStatus, PoolLatency, RolloutState
from headgate.control.domain.rollout.step_copies import StepCopies, report_of, seen_in_step
from headgate.control.writes.context import Context
from headgate.control.writes.data_plane import DataPlane, Status, requests_of, status_of
from headgate.control.writes.endpoint import EndpointState
from headgate.errors import ModelNotFound, ModelNotReady

_FAILURES = ("backend_failed", "deadline_exceeded", "internal")
"""Codes of requests that a version failed on."""
_Runs = tuple[float | None, float | None]
"""How long a run of champion and challenger takes, in seconds."""


class Figures(Protocol):
    """What versions did in the last minutes (``reads.recent.Recent``)."""

    async def of(self, endpoint: str) -> Mapping[str, Mapping[str, Any]]:
        """The figures of the versions that answered requests lately."""


@dataclass(frozen=True)
class Told:
    """What the data plane told at one moment; ``trial`` is None without one of the present attempt."""

    status: Status
    trial: dict[str, Any] | None
    answer: dict[str, Any] | None
    shadow: dict[str, Any] | None
    """What was counted of the challenger's copies in the present step."""
    copies: StepCopies | None
    copied: tuple[GateStatus, ...]
    """How the answers of copies are distributed, in a step with copies."""
    shadow_cores: float
    window: tuple[str, int] | None
    """Attempt and step for which thresholds are set."""

    def runs(self, rollout: RolloutState) -> _Runs:
        """The mean runs of champion and challenger."""
        champion, challenger = (_arm(self.trial, one.name) for one in (rollout.champion, rollout.challenger))
        return _mean(champion), _mean(challenger)


@dataclass(frozen=True)
class LoadBefore:
    """How busy the processors are, and the load that a challenger adds to. None is not known."""

    busy: float | None
    load: PoolLoad | None


@dataclass(frozen=True)
class _Memory:
    """What is kept of an endpoint between two looks."""

    step: tuple[Any, ...] = ()
    requests: int = 0
    copied: tuple[str, int, int] | None = None
    """The step of ``copies``."""
    copies: StepCopies | None = None
    answered: Mapping[str, int] = field(default_factory=dict)
    last_request_ms: int | None = None
    window: tuple[str, int] | None = None


class Observer:
    """Looks at endpoints. Belongs to one event loop; what computes or may wait runs in a thread."""

    def __init__(
        self,
        context: Context,
        figures: Figures,
        cpu_seconds: Callable[[], float] = time.process_time,
    ) -> None:
        """``cpu_seconds`` is the processor time that the process took so far."""
        self._context = context
        self._figures = figures
        self._cpu_seconds = cpu_seconds
        given = context.settings.cores
        self._cores = float(len(os.sched_getaffinity(0))) if given is None else given
        self._memory: dict[str, _Memory] = {}
        self._sampled: tuple[float, float] | None = None
        """Seconds of processor time and of the clock at the last sample."""
        self._busy_cores: float | None = None
        self.sample()

    def sample(self) -> None:
        """Notes how many cores the process kept busy since the last sample: what looks and previews reckon with."""
        now_s, cpu = self._context.store.now().timestamp(), self._cpu_seconds()
        if self._sampled is not None and now_s > self._sampled[1]:
            self._busy_cores = max(cpu - self._sampled[0], 0.0) / (now_s - self._sampled[1])
        self._sampled = (cpu, now_s)

    def forget(self, endpoints: set[str]) -> None:
        """Drops what is remembered of all other endpoints."""
        self._memory = {name: one for name, one in self._memory.items() if name in endpoints}

    async def look(self, state: EndpointState, current: Revision, replay: Replay | None) -> Observation:
        """What is to be seen of the rollout of ``current``, which must have one."""
        rollout = current.traffic.rollout
        assert rollout is not None, "only an endpoint with a rollout is looked at"  # noqa: S101
        name, memory = state.name, self._memory.get(state.name, _Memory())
        plane = self._context.plane
        told = await asyncio.to_thread(lambda: _ask(plane, current, rollout, memory))
        recent = await self._figures.of(name)
        now = self._context.store.now()
        now_ms = round(now.timestamp() * 1000)
        memory = self._remembered(memory, told, rollout, now_ms)
        self._memory[name] = memory
        champion = recent.get(rollout.champion.name)
        requests = _arm(told.trial, rollout.challenger.name)
        copies = None if told.shadow is None or told.copies is None else told.copies.copies
        seen = Observation(
            **({} if told.answer is None else judged(told.answer)),
            requests=max(_ended(requests) - memory.requests, 0),
            last_request_ms=memory.last_request_ms,
            champion_requests=0 if champion is None else champion["requests"],
            champion_errors=0 if champion is None else sum(champion["codes"].get(c, 0) for c in _FAILURES),
            champion_breaker=_breaker(told, rollout.champion.name),
            challenger_breaker=_breaker(told, rollout.challenger.name),
            pool=_pool(name, rollout.champion.name, champion),
            load=self._load(told.runs(rollout), recent, told.shadow_cores),
            copies=copies,
            replay=replay,
            frozen=current.traffic.frozen is not None,
            ready=_is_ready(state, current, rollout),
        )
        errors = copied_errors(rollout, copies)
        compared = (*_compared(rollout, told.shadow, replay), *(() if errors is None else (errors,)))
        return seen.model_copy(update={"gates": (*seen.gates, *told.copied, *compared)})

    def _remembered(self, memory: _Memory, told: Told, rollout: RolloutState, now_ms: int) -> _Memory:
        """With this look: where the step's counts begin, and when a request came last."""
        answered = requests_of(told.status)
        came = bool(memory.answered) and any(
            count not in (0, memory.answered.get(version, 0)) for version, count in answered.items()
        )
        memory = replace(
            memory,
            answered=answered or memory.answered,
            last_request_ms=now_ms if came else memory.last_request_ms,
            window=told.window,
            copied=_step_of(rollout),
            copies=told.copies,
        )
        trial, began = told.trial, rollout.step_begun_ms
        step = (*_step_of(rollout), None if trial is None else trial["begun_ms"])
        if step == memory.step:
            return memory
        # Counters that began with the step, or after it, hold nothing else.
        fresh_trial = trial is None or trial["begun_ms"] >= began
        requests = 0 if fresh_trial else _ended(_arm(trial, rollout.challenger.name))
        return replace(memory, step=step, requests=requests)

    async def before(self, current: Revision, challenger: str) -> LoadBefore:
        """The load as a look would see it, before a rollout of ``challenger`` begins."""
        plane = self._context.plane
        runs, cores = await asyncio.to_thread(lambda: _runs_before(plane, current, challenger))
        recent = await self._figures.of(current.endpoint)
        return LoadBefore(self._busy(cores), self._load(runs, recent, cores))

    def _busy(self, shadow_cores: float) -> float | None:
        """The busy share of the processors. Shadows take what is left over, so that they leave room."""
        if self._busy_cores is None:
            return None
        return min(max(self._busy_cores - shadow_cores, 0.0) / self._cores, 1.0)

    def _load(
        self, runs: _Runs, recent: Mapping[str, Mapping[str, Any]], shadow_cores: float
    ) -> PoolLoad | None:
        """None while the run time of one of the two is not known."""
        (champion, challenger), busy = runs, self._busy(shadow_cores)
        seconds = max((one["seconds"] for one in recent.values()), default=0)
        if champion is None or challenger is None or busy is None or seconds <= 0:
            return None
        return PoolLoad(
            busy=busy,
            per_second=sum(one["requests"] for one in recent.values()) / seconds,
            champion_run_s=champion,
            challenger_run_s=challenger,
            threads=self._cores,
        )


def _runs_before(plane: DataPlane, current: Revision, challenger: str) -> tuple[_Runs, float]:
    """How long runs of champion and challenger take, and the cores that shadows use. Blocks.

    Their means in the newest trial of the same bytes, as a look has them; without one the medians of all that ran since they were loaded.
    """
    name, champion = current.endpoint, current.traffic.champion
    digests = current.spec.digests()
    pair = (digests[champion], digests.get(challenger))
    try:
        told = json.loads(plane.trial(name, False))
        cores = float(json.loads(plane.shadows(name))["cpu"]["used_cores"])
    except (ModelNotFound, ModelNotReady):
        return (None, None), 0.0
    for trial in (told["trial"], *told["earlier"]):
        arms = () if trial is None else trial["arms"]
        known = {arm.get("digest"): _mean(arm) for arm in arms}
        found = (known.get(pair[0]), known.get(pair[1]))
        if None not in found:
            return found, cores
    versions = status_of(plane.status(name), name).get("versions", {})
    return (_median(versions.get(champion)), _median(versions.get(challenger))), cores


def _step_of(rollout: RolloutState) -> tuple[str, int, int]:
    """Names a step; one that is repeated is another one."""
    return rollout.id, rollout.step, rollout.step_begun_ms


def _ask(plane: DataPlane, current: Revision, rollout: RolloutState, memory: _Memory) -> Told:
    """Blocks, and computes: run it in a thread."""
    name = current.endpoint
    status = status_of(plane.status(name), name)
    trial = answer = shadow = None
    cores, window = 0.0, memory.window
    copies = memory.copies if memory.copied == _step_of(rollout) else None
    try:
        found = json.loads(plane.trial(name, True))["trial"]
        trial = found if found is not None and found["attempt"] == current.traffic.table.salt else None
        shadows = json.loads(plane.shadows(name))
        cores = shadows["cpu"]["used_cores"]
        shadow = next((one for one in shadows["shadows"] if one["to"] == rollout.challenger.name), None)
        if shadow is not None:
            counted = "pairs" in shadow
            copies = seen_in_step(copies, shadow, rollout.step_begun_ms) if counted else copies
            shadow = report_of(copies, shadow) if counted and copies is not None else None
    except (ModelNotFound, ModelNotReady):
        # Nothing of the endpoint is served: nothing is seen, and nothing follows from it.
        pass
    of_trial = question(rollout)
    if of_trial is not None and trial is not None and rollout.weight > 0:
        evidence, asked = json.dumps(trial), json.dumps(of_trial)
        answer = json.loads(plane.judge(evidence, asked))
        window = _thresholds(plane, current, (evidence, asked), window)
    of_copies: tuple[GateStatus, ...] = ()
    if shadow is not None and (asked_of := pairs_to_judge(rollout, shadow)) is not None:
        found = json.loads(plane.judge(*(json.dumps(one) for one in asked_of)))
        of_copies = distributions(found, shadow)
    return Told(status, trial, answer, shadow, copies, of_copies, cores, window)


def _thresholds(
    plane: DataPlane, current: Revision, asked: tuple[str, str], window: tuple[str, int] | None
) -> tuple[str, int] | None:
    """Sets what a step's first requests are compared with, once for each step; not before the champion has had enough answers."""
    rollout, attempt = current.traffic.rollout, current.traffic.table.salt
    if rollout is None or window == (attempt, rollout.step_begun_ms):
        return window
    if not any(gate.family == "latency" and gate.effect != "report" for gate in rollout.plan.gates):
        return window
    thresholds = json.loads(plane.latency_thresholds(*asked))["thresholds"]
    if thresholds is None:
        return window
    plane.set_trial_thresholds(current.endpoint, json.dumps(thresholds).encode())
    return attempt, rollout.step_begun_ms


def _arm(trial: Mapping[str, Any] | None, version: str) -> Mapping[str, Any] | None:
    arms = () if trial is None else trial["arms"]
    return next((arm for arm in arms if arm["version"] == version), None)


def _ended(arm: Mapping[str, Any] | None) -> int:
    """Requests that were routed to a version and are over."""
    return 0 if arm is None else int(arm["routed"] - arm["in_flight"])


def _mean(arm: Mapping[str, Any] | None) -> float | None:
    """The mean run of an arm in seconds."""
    run = None if arm is None else arm["run"]
    return None if run is None or not run["count"] else float(run["sum_ns"] / run["count"] / 1e9)


def _median(version: Mapping[str, Any] | None) -> float | None:
    """The median run of a version in seconds."""
    micros = None if version is None else version["run_us"]["p50"]
    return None if micros is None else float(micros / 1e6)


def _breaker(told: Told, version: str) -> Breaker:
    said = told.status.get("versions", {}).get(version, {}).get("breaker")
    if said is None:
        return Breaker()
    arm = _arm(told.trial, version)
    units = 0 if arm is None else arm["first_errors"] + arm["first_errors_after"]
    return Breaker(state="open" if said["open"] else "closed", openings=said["trips"], failed_units=units)


def _pool(endpoint: str, version: str, figures: Mapping[str, Any] | None) -> tuple[PoolLatency, ...]:
    """The champion's p95 in the last minutes, if enough requests tell it."""
    if figures is None or figures["requests"] < LEAST_LATENCIES or figures["request_us"]["p95"] is None:
        return ()
    return (
        PoolLatency(
            endpoint=endpoint,
            version=version,
            p95_ns=figures["request_us"]["p95"] * 1e3,
            per_second=figures["requests"] / max(figures["seconds"], 1),
            count=figures["requests"],
        ),
    )


def _compared(
    rollout: RolloutState, shadow: Mapping[str, Any] | None, replay: Replay | None
) -> tuple[GateStatus, ...]:
    """The gates that pairs decide: those of the replay in a step that replays, else those of the challenger's copies."""
    if rollout.present is not None and rollout.present.kind == "replay":
        return () if replay is None else replay.gates
    found = copied(rollout, shadow)
    return () if found is None else (found,)


def _is_ready(state: EndpointState, current: Revision, rollout: RolloutState) -> bool:
    entry = current.spec.versions.get(rollout.challenger.name)
    same = entry is not None and entry.digest == rollout.challenger.digest
    return same and rollout.challenger.name in state.loaded

"""A rollout with a driver in memory: an endpoint's live traffic, a clock that a test moves, observations that it makes up."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from headgate.control.domain import traffic
from headgate.control.domain.rollout import calls, interruptions, moves
from headgate.control.domain.rollout.actions import Action, Advance, Move
from headgate.control.domain.rollout.advance import advance
from headgate.control.domain.rollout.built_in import built_in
from headgate.control.domain.rollout.missing import replay_key
from headgate.control.domain.rollout.observation import Copies, Observation, PoolLatency, PoolLoad, Replay
from headgate.control.domain.rollout.plan import PlanGate, PlanStep, ResolvedPlan
from headgate.control.domain.rollout.state import ArmNumbers, GateStatus, Progress, RolloutState
from headgate.control.domain.traffic import Change, KnownVersions, LiveTraffic, Stamp
from unit.fake_native import set_weights

VERSIONS = ("v7", "v8", "v9")
DIGESTS = {name: f"sha256:{name * 32}" for name in VERSIONS}
KNOWN = KnownVersions("fraud", DIGESTS, set_weights)
START_MS = 1_798_761_600_000  # a Friday, 2027-01-01T00:00:00Z
MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR

ERROR_RATE = PlanGate(gate="error_rate", effect="rollback", above=1.5)
PLAN = ResolvedPlan(
    name="careful",
    steps=(
        PlanStep(kind="shadow", slots=1_000, for_ms=10 * MINUTE, min_requests=100),
        PlanStep(kind="weight", slots=100, for_ms=10 * MINUTE, min_requests=100),
        PlanStep(kind="weight", slots=2_500, for_ms=10 * MINUTE, min_requests=100),
        PlanStep(kind="promote"),
    ),
    gates=(ERROR_RATE,),
)


def needs(slots: int, ratio: float) -> float:
    """Between the medians of a simulation: threshold 200, 0.2 % errors."""
    at_two = 17_400.0 if slots >= 5_000 else 11_800.0 if slots >= 2_500 else 8_900.0
    return float("inf") if ratio <= 1 else at_two / float((ratio - 1) ** 1.6)


def plan_of(*steps: PlanStep, **fields: Any) -> ResolvedPlan:
    return PLAN.model_copy(update={"steps": (*steps, PlanStep(kind="promote")), **fields})


def daily(requests: float, *, captures: bool = True) -> ResolvedPlan:
    return built_in(requests, needs, captures=captures)


def status(verdict: str, gate: str = "error_rate", n: int = 1_000, **fields: Any) -> GateStatus:
    bad = 30 if verdict == "fail" else 2
    given = {
        "champion": ArmNumbers(units=n, n=10 * n, bad=20),
        "challenger": ArmNumbers(units=n, n=n, bad=bad if n else 0),
        "ratio": bad / 2,
        "interval": (0.304894, 8.416027),
        "e_value": 800.0 if verdict == "fail" else 1.8,
        "threshold": 600.0,
        "need": {"ratio": 3.0, "requests": 2_500},
    }
    return GateStatus(gate=gate, verdict=verdict, **{**given, **fields})  # type: ignore[arg-type]


def stamp(now_ms: int, who: str = "ann", reason: str = "") -> Stamp:
    return Stamp(who, datetime.fromtimestamp(now_ms / 1000, UTC).isoformat().replace("+00:00", "Z"), reason)


def fresh() -> LiveTraffic:
    return LiveTraffic("v7", "v7", stamp(START_MS).when)


@dataclass
class Driver:
    """Does what a driver does, with nothing between a decision and its writing."""

    live: LiveTraffic = field(default_factory=fresh)
    now: int = START_MS
    progress: Progress = field(default_factory=Progress)
    done: list[Action] = field(default_factory=list)
    known: KnownVersions = KNOWN

    @property
    def state(self) -> RolloutState:
        assert self.live.rollout is not None
        return self.live.rollout

    @property
    def weight(self) -> int:
        return self.live.weights().get("v8", 0)

    def start(
        self, plan: ResolvedPlan = PLAN, challenger: str = "v8", who: str = "ann", *, retry: bool = False
    ) -> Driver:
        wanted = moves.Wanted(challenger, plan, retry)
        change, begun = moves.begin(self.live, wanted, self.known, stamp(self.now, who))
        self.live, self.progress = change.live, begun.progress
        self.done += begun.actions
        return self

    def seen(self, **fields: Any) -> Observation:
        """A good look: traffic, enough requests and pairs, every gate passed, the replay done."""
        rollout = self.state
        good: dict[str, Any] = {
            "gates": tuple(status("pass", gate.gate, measure=gate.measure) for gate in rollout.plan.gates),
            "requests": 100_000 if rollout.weight else 0,
            "last_request_ms": self.now,
            "champion_requests": 10_000,
            "copies": Copies(pairs=100_000 if rollout.shadow else 0),
            "replay": Replay(key=replay_key(rollout), state="done", pairs=10),
            "srm": "ok",
            "pool": (PoolLatency(endpoint="fraud", version="v7", p95_ns=5e6, per_second=10, count=1_000),),
            "load": PoolLoad(
                busy=0.1, per_second=10, champion_run_s=0.001, challenger_run_s=0.001, threads=2
            ),
        }
        return Observation(**{**good, **fields})

    def look(self, passed: int = MINUTE, **fields: Any) -> Advance:
        self.now += passed
        found = advance(self.state, self.progress, self.seen(**fields), self.now)
        return self.carry_out(found)

    def carry_out(self, found: Advance, who: str = "headgate") -> Advance:
        change = moves.carry_out(self.live, found, self.known, stamp(self.now, who, found.said or ""))
        self.live, self.progress = change.live, found.progress
        self.done += found.actions
        return found

    def until(self, step: int, most: int = 500) -> Driver:
        """Good looks until a step is entered."""
        for _ in range(most):
            if not self.state.active or self.state.step == step:
                return self
            self.look()
        raise AssertionError(f"step {step} was not reached: {self.state.phase} in {self.state.step}")

    def promote(self, who: str = "ann", *, full: bool = False, **fields: Any) -> Advance:
        found = calls.promote(self.state, self.progress, self.seen(**fields), stamp(self.now, who), full=full)
        return self.carry_out(found, who)

    def pause(self, who: str = "ann") -> Advance:
        return self.carry_out(calls.pause(self.state, self.progress, stamp(self.now, who)), who)

    def resume(self, who: str = "ann") -> Advance:
        return self.carry_out(calls.resume(self.state, self.progress, stamp(self.now, who)), who)

    def abort(self, who: str = "ann") -> Advance:
        return self.carry_out(calls.abort(self.state, self.progress, stamp(self.now, who)), who)

    def approve(self, who: str = "bob", role: str = "approver", digest: str | None = None) -> Advance:
        given = digest or self.state.challenger.digest
        found = calls.approve(self.state, self.progress, stamp(self.now, who), role, given)
        return self.carry_out(found, who)

    def override(self, weights: dict[str, int], champion: str | None = None) -> Change:
        change = traffic.patch(self.live, champion, weights, self.known, stamp(self.now).when)
        self.live = change.live
        return change

    def crash(self) -> None:
        """The process dies: what was counted is gone, and the next start looks at what was written."""
        self.progress = Progress()
        if self.live.rollout is not None and self.live.rollout.exposed:
            self.carry_out(interruptions.crashed(self.live.rollout, self.now), "headgate")

    def restart(self) -> None:
        """A drained restart: a step that is paused without copies waits for a resume, which begins it anew."""
        if self.state.phase == "paused" and not self.state.shadow:
            self.progress = Progress()
            return
        found = interruptions.restarted(self.state, self.now)
        self.live, self.progress = traffic.with_rollout(self.live, found.state), found.progress

    def moved(self) -> list[Action]:
        return [action for action in self.done if isinstance(action, Move)]

    def without_progress(self) -> Driver:
        return replace(self, progress=Progress())

"""The state of a rollout: a field of an endpoint's live traffic, written with every transition.

It holds what must survive; what is counted since (:class:`Progress`) may be lost, and then a step begins anew. Not here: how it
changes (``advance``, ``calls``, ``interruptions``). Next: ``observation``.

    progressing  ->  promoted
        |  ^    \\->  rolled_back, aborted
        v  |
       paused    ->  promoted, rolled_back, aborted
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator

from headgate.control.domain.rollout.plan import PAIRED, PlanStep, ResolvedPlan, Value
from headgate.control.domain.shares import EMPTY, Table
from headgate.control.domain.stamp import Stamp

Phase = Literal["progressing", "paused", "promoted", "rolled_back", "aborted"]
PauseReason = Literal[
    "manual",
    "undecided",
    "override",
    "crash",
    "srm",
    "few_keys",
    "interference",
    "champion_unhealthy",
    "breaker",
    "approve",
    "gate",
    "load_failed",
]
Verdict = Literal["pass", "fail", "undecided", "error"]
BEFORE_FIRST = -1
"""The index of the step before the first one: the rollout is started and nothing has moved."""


class Trialled(Value):
    """A version on trial, or the one that it is compared with: its name and the digest that this rollout is bound to."""

    name: str
    digest: str


class ArmNumbers(Value):
    """What a gate counted of one version: distinct units, requests, and those that count against it; of feedback, values and their
    ``mean``. Further fields are kept.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    units: int = 0
    n: int = 0
    bad: int = 0


class Caught(Value):
    """How often such a rollout catches a challenger with ``ratio`` times the champion's rate."""

    ratio: float
    probability: float


class NanCounts(Value):
    """Pairs with an answer that is not a number: of the champion, of the challenger, of both."""

    champion: int = 0
    challenger: int = 0
    both: int = 0


class GateStatus(Value):
    """The whole reason of a verdict, as ``_native.judge`` answers it; ``interval`` is anytime-valid. Further fields are kept.

    ``disagreement`` has a ``share`` of pairs instead of a ratio, with an interval for a closed sample. A gate that a replay decides has its
    number in ``replay``; its error rate is decided by ``chance``, the probability of as many errors or more of a challenger that is no
    worse, which must be at most ``most_chance``. With ``copies`` the error rate is that of copies of the champion's requests.
    ``timeouts`` of its errors were too slow.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    gate: str
    verdict: Verdict
    measure: Literal["run", "reply"] | None = None
    champion: ArmNumbers = ArmNumbers()
    challenger: ArmNumbers = ArmNumbers()
    ratio: float | None = None
    interval: tuple[float | None, float | None] | None = None
    e_value: float | None = None
    threshold: float | None = None
    need: dict[str, Any] | None = None
    detectable: float | None = None
    caught: tuple[Caught, ...] = ()
    reason: str | None = None
    share: float | None = None
    share_interval: tuple[float, float] | None = None
    nan: NanCounts | None = None
    replay: int | None = None
    chance: float | None = None
    most_chance: float | None = None
    timeouts: int = 0
    copies: bool = False

    @field_validator("champion", "challenger", mode="before")
    @classmethod
    def _nothing_counted(cls, arm: Any) -> Any:
        return ArmNumbers() if arm is None else arm

    @property
    def key(self) -> str:
        """As :attr:`PlanGate.key`."""
        return self.gate if self.measure is None else f"{self.gate} {self.measure}"

    @property
    def difference(self) -> float | None:
        """Of feedback: the challenger's mean less the champion's."""
        found = (self.model_extra or {}).get("difference")
        return None if found is None else float(found)

    @property
    def apart(self) -> float | None:
        """Of outputs: the distance of the distributions of the two versions."""
        found = (self.model_extra or {}).get("distance")
        return None if found is None else float(found)

    @property
    def differs_most(self) -> str:
        """Of outputs: the name of what differs most; empty if nothing was compared."""
        return str((self.model_extra or {}).get("feature") or "")

    @property
    def harmful(self) -> bool:
        """Whether it fails, on at least one request of the challenger: no data never fails."""
        return self.verdict == "fail" and self.challenger.n > 0


class PoolLatency(Value):
    """The p95 of a version that shares cores with the challenger, in nanoseconds, and the requests a second then."""

    endpoint: str
    version: str
    p95_ns: float
    per_second: float
    count: int = 0


class Pause(Value):
    """Why a rollout waits for a person, since when (milliseconds since 1970); ``who`` is empty if nobody asked for it."""

    reason: PauseReason
    since_ms: int
    words: str
    who: str = ""
    gates: tuple[GateStatus, ...] = ()


class Ending(Value):
    """How a rollout ended. ``reason`` is a gate's key, ``breaker``, ``crash``, ``undecided`` or what a person called."""

    reason: str
    at_ms: int
    words: str
    who: str = ""
    gates: tuple[GateStatus, ...] = ()


class FinishedStep(Value):
    """A step that was left, with its evidence; ``by`` names the person who skipped its rest, ``undecided`` what was open then."""

    index: int
    label: str
    begun_ms: int
    ended_ms: int
    traffic_ms: int = 0
    requests: int = 0
    gates: tuple[GateStatus, ...] = ()
    by: str = ""
    undecided: tuple[str, ...] = ()


class Approval(Value):
    """Who said yes to which step (its index), and to which digest."""

    step: int
    who: str
    role: str
    digest: str
    at_ms: int


class RolloutState(Value):
    """Everything of a rollout that must survive.

    ``attempt`` is that of the table (:class:`LiveTraffic`); ``attempts`` and ``crashes`` are those of the challenger's digest, earlier
    rollouts included. ``weight`` and ``shadow`` are slots that the challenger has now. ``before`` is the table that an abort brings
    back. ``blocks_ms`` is when each step with a weight began. ``pool`` holds latencies from before the present step.
    """

    id: str
    attempt: int
    attempts: int = 1
    crashes: int = 0
    challenger: Trialled
    champion: Trialled
    plan: ResolvedPlan
    phase: Phase = "progressing"
    pause: Pause | None = None
    end: Ending | None = None
    step: int = BEFORE_FIRST
    step_begun_ms: int
    weight: int = 0
    shadow: int = 0
    before: Table = EMPTY
    started: Stamp
    approvals: tuple[Approval, ...] = ()
    evidence: tuple[FinishedStep, ...] = ()
    blocks_ms: tuple[int, ...] = ()
    pool: tuple[PoolLatency, ...] = ()
    breaker_openings: int | None = None
    """How often the challenger's breaker had opened when it was first seen open."""
    beginnings: int = Field(default=0, exclude_if=lambda count: count == 0)
    """How often tests on pairs began (``promise``); left out of JSON without one."""

    @property
    def active(self) -> bool:
        """Whether it has not ended."""
        return self.phase in ("progressing", "paused")

    @property
    def exposed(self) -> bool:
        """Whether the challenger gets requests or copies through this rollout, or is asked in a replay."""
        return self.active and (self.weight > 0 or self.shadow > 0 or self.replays)

    @property
    def replays(self) -> bool:
        """Whether the present step has captured requests put to the challenger. A step that is paused has not."""
        return self.phase == "progressing" and self.present is not None and self.present.kind == "replay"

    @property
    def present(self) -> PlanStep | None:
        """The present step; None before the first."""
        return None if self.step == BEFORE_FIRST else self.plan.steps[self.step]

    @property
    def following(self) -> PlanStep:
        """The step after the present one; the last step, ``promote``, is never a present one."""
        return self.plan.steps[self.step + 1]

    def changed(self, **fields: Any) -> RolloutState:
        """With other fields."""
        return self.model_copy(update=fields)

    def tested_anew(self) -> RolloutState:
        """With one more beginning, if the present step has copies or a replay: what was counted of them before is no evidence now."""
        step = self.present
        if step is None or step.kind not in PAIRED:
            return self
        return self.changed(beginnings=self.beginnings + 1)

    def paused(self, pause: Pause) -> RolloutState:
        """Paused for that reason."""
        return self.changed(phase="paused", pause=pause)

    def ended(self, phase: Phase, end: Ending) -> RolloutState:
        """Ended: it gives nothing any more."""
        return self.changed(phase=phase, pause=None, end=end, weight=0, shadow=0)

    def approved(self, index: int) -> bool:
        """Whether the approve step of that index has its yes, for the digest on trial."""
        return any(
            approval.step == index and approval.digest == self.challenger.digest
            for approval in self.approvals
        )


class Progress(Value):
    """What was counted in the present step since it began or was repeated. Losing it repeats the step and moves nothing.

    ``traffic_ms`` is time with traffic, ``undecided_ms`` the part of it in which evidence alone was missing.
    """

    observed_ms: int | None = None
    traffic_ms: int = 0
    undecided_ms: int = 0


class Tried(Value):
    """What an endpoint remembers of a digest that was on trial: names, attempts, crashes, and why it was rejected, if it was."""

    digest: str
    version: str
    attempts: int = 1
    crashes: int = 0
    rejected: str | None = None
    rollout: str = ""


MAX_TRIED = 200
"""Digests that an endpoint remembers; the oldest that were not rejected go first."""


def remembered(tried: tuple[Tried, ...], state: RolloutState) -> tuple[Tried, ...]:
    """The digests that were tried, with what is known after ``state``. A digest stays rejected until a retry begins."""
    rejected = state.end.words if state.phase == "rolled_back" and state.end is not None else None
    entry = Tried(
        digest=state.challenger.digest,
        version=state.challenger.name,
        attempts=state.attempts,
        crashes=state.crashes,
        rejected=rejected,
        rollout=state.id,
    )
    found = [*(one for one in tried if one.digest != entry.digest), entry]
    while len(found) > MAX_TRIED:
        found.remove(next((one for one in found if one.rejected is None), found[0]))
    return tuple(found)


def tried_of(tried: tuple[Tried, ...], digest: str) -> Tried | None:
    """What is remembered of a digest."""
    return next((one for one in tried if one.digest == digest), None)

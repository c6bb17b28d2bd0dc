"""How the promise of ``false_rollbacks`` is shared out among the tests of a rollout. Pure.

A test on requests goes on over the whole attempt. Tests on pairs (copies in a shadow step, a replay) begin anew with each such step, each
resume and each restart, and nobody knows how often that will be. So the ``k``-th beginning has ``1 / (k (k + 1))`` of what a test on
requests has, as blocks of the judge have: all beginnings together have as much as one test. By Ville (1939) a test with the threshold ``t``
fails a challenger that is no worse with probability ``1 / t`` at most, so that the sum over all tests is ``false_rollbacks`` at most.

Not here: gates without such a bound (``disagreement``), what does not wait for evidence (a breaker, crashes). Next: ``compared``.
"""

from __future__ import annotations

from headgate.control.domain.rollout.plan import JUDGED_BY_TRIAL, PAIRED, ResolvedPlan, StepKind

JUDGED_BY_PAIRS: dict[StepKind, tuple[str, ...]] = {
    "replay": ("error_rate",),
    "shadow": ("error_rate", "output_drift"),
}
"""The families of gates that have a test on the pairs of such a step."""


def tests_on_requests(plan: ResolvedPlan) -> int:
    """How many gates the evidence of a trial decides, so that they roll back or pause."""
    return _stopping(plan, JUDGED_BY_TRIAL)


def tests_on_pairs(plan: ResolvedPlan) -> int:
    """How many gates the pairs of a step decide: those of the step that has the most."""
    kinds = {step.kind for step in plan.steps if step.kind in PAIRED}
    return max((_stopping(plan, JUDGED_BY_PAIRS[kind]) for kind in kinds), default=0)


def tests(plan: ResolvedPlan) -> int:
    """Among how many tests the promise is shared out evenly; at least 1."""
    return max(tests_on_requests(plan) + tests_on_pairs(plan), 1)


def threshold(plan: ResolvedPlan) -> float:
    """The evidence at which a gate on requests fails."""
    return tests(plan) / plan.false_rollbacks


def pairs_threshold(plan: ResolvedPlan, beginning: int) -> float:
    """The evidence at which a test on pairs fails that is the ``beginning``-th of its rollout, from 1."""
    number = max(beginning, 1)
    return threshold(plan) * number * (number + 1)


def _stopping(plan: ResolvedPlan, families: tuple[str, ...]) -> int:
    return sum(gate.effect != "report" and gate.family in families for gate in plan.gates)

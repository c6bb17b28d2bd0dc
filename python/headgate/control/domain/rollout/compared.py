"""Gates that are judged on requests which both versions were asked: copies in a shadow step, captured requests in a replay. Pure.

A report is what the data plane tells of a shadow or of a replay: both count the same in the same words. Not here: gates that a trial
decides (``_native.judge``). Next: ``observation``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from headgate.control.domain.rollout.observation import Copies, Replay
from headgate.control.domain.rollout.plan import PlanGate, judged_by_pairs
from headgate.control.domain.rollout.promise import pairs_threshold
from headgate.control.domain.rollout.state import ArmNumbers, GateStatus, RolloutState, Verdict
from headgate.readable import number

Report = Mapping[str, Any]
ALTERNATIVES = (1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
"""How many times more often a challenger that is worse may err: as the judge has them (``rust/core/src/stats``)."""
_MOST_LOG = 600.0
"""Of an e-value: what is greater has no place in a float, and decides nothing more."""
_NEGLIGIBLE = 1e-12
"""Terms of a sum below this share of it are left out."""


# === copies ===


def copied(rollout: RolloutState, shadow: Report | None) -> GateStatus | None:
    """The gate ``disagreement`` of a plan from the report on the challenger's copies; None without the gate or the copies.

    Its interval holds for a sample that is closed, so that it stays undecided until the step has its pairs. A gate that is only shown has
    no verdict but ``undecided``, and so have copies that the document gives and not the step.
    """
    gate = next((one for one in rollout.plan.gates if one.gate == "disagreement"), None)
    if gate is None or shadow is None:
        return None
    step = rollout.present
    pairs = shadow["compared"]["pairs"]
    is_given = rollout.shadow > 0
    closed = is_given and step is not None and step.kind == "shadow" and pairs >= max(step.min_requests, 1)
    return disagreement(gate, shadow, closed=closed)


def pairs_to_judge(
    rollout: RolloutState, shadow: Report | None
) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Evidence and question about how the answers of the challenger's copies are distributed, in a step that gives it copies; None if there
    is nothing to ask, and while it has a weight: its requests are judged then.
    """
    gates = judged_by_pairs(rollout.plan)
    pairs = None if shadow is None else shadow.get("output_drift")
    if not gates or pairs is None or not _has_copies_alone(rollout):
        return None
    # The judge shares out evenly what the question has.
    tested = max(sum(gate["above"] is not None for gate in gates), 1)
    share = tested / pairs_threshold(rollout.plan, rollout.beginnings)
    names = {"champion": rollout.champion.name, "challenger": rollout.challenger.name}
    question = {"challenger": rollout.challenger.name, "gates": gates, "false_rollbacks": share}
    return {"format": 1, **names, "pairs": pairs}, question


def distributions(answer: Report, shadow: Report) -> tuple[GateStatus, ...]:
    """The judged gates. Dropped copies are no random part of the pairs, so that with many drops nothing is decided."""
    found = tuple(GateStatus.model_validate(gate) for gate in answer["gates"])
    if not shadow["disagreement"]["undecided"]:
        return found
    said = "more than 5 % of the copies were dropped, when the machine was busy"
    return tuple(status.model_copy(update={"verdict": "undecided", "reason": said}) for status in found)


def disagreement(gate: PlanGate, report: Report, *, closed: bool) -> GateStatus:
    """The share of pairs that differ beyond the noise floor (Wilson's interval for a share, Newcombe's for a difference).

    It fails if the interval of the excess over the noise floor lies above the limit, and passes if the excess is at most the limit. An
    answer that is not a number differs from one that is.
    """
    compared, floor, nan = report["compared"], report["noise_floor"], report["nan"]
    told = report["excess"] if report["excess"]["share"] is not None else report["disagreement"]
    verdict: Verdict = "undecided"
    if gate.above is not None and closed and not report["disagreement"]["undecided"]:
        low = None if told["interval"] is None else told["interval"][0]
        if low is not None and low > gate.above:
            verdict = "fail"
        elif told["share"] is not None and told["share"] <= gate.above:
            verdict = "pass"
    return GateStatus.model_validate(
        {
            "gate": gate.gate,
            "verdict": verdict,
            "champion": ArmNumbers(n=floor["pairs"], bad=floor["differing"]),
            "challenger": ArmNumbers(n=compared["pairs"], bad=compared["differing"]),
            "share": told["share"],
            "share_interval": told["interval"],
            "nan": {"champion": nan["champion"], "challenger": nan["shadow"], "both": nan["both"]},
        }
    )


def copied_errors(rollout: RolloutState, copies: Copies | None) -> GateStatus | None:
    """The gate ``error_rate`` of a plan in a step that gives copies and no weight, from what was counted in it; None without one of these.

    It is looked at again and again, so an e-value decides: given the errors that one version alone made on the same requests, those of a
    challenger that is no worse are binomial with 1/2, or with ``strict`` at the limit (the test of the judge at the exposure 1/2; Lindon
    and Malek, 2022). It passes with the step's pairs, as long as it does not fail. Runs that took too long at the lowest priority count for
    nothing.
    """
    gate = next((one for one in rollout.plan.gates if one.gate == "error_rate"), None)
    step = rollout.present
    if gate is None or copies is None or step is None or not _has_copies_alone(rollout):
        return None
    proven, both = max(copies.errors - copies.timeouts, 0), copies.both
    champion, challenger = copies.answered + both, proven + both
    total = copies.pairs + proven + champion
    threshold = pairs_threshold(rollout.plan, rollout.beginnings)
    e_value: float | None = None
    verdict: Verdict = "undecided"
    if gate.above is not None and total > 0:
        e_value = paired_e_value(proven, copies.answered, gate.above if gate.strict else 1.0)
        is_more = proven > 0 and challenger >= gate.above * champion
        is_much = challenger > (gate.ignore_below or 0.0) * total
        if e_value >= threshold and is_more and is_much:
            verdict = "fail"
        elif copies.pairs >= max(step.min_requests, 1):
            verdict = "pass"
    return GateStatus(
        gate=gate.gate,
        verdict=verdict,
        champion=ArmNumbers(n=total, bad=champion),
        challenger=ArmNumbers(n=total, bad=challenger),
        ratio=challenger / champion if champion else None,
        e_value=e_value,
        threshold=threshold,
        timeouts=copies.timeouts,
        copies=True,
    )


def _has_copies_alone(rollout: RolloutState) -> bool:
    """Whether the challenger has the copies of a shadow step, and no weight. After a crash it has none until a resume, which begins the
    tests anew.
    """
    step = rollout.present
    return step is not None and step.kind == "shadow" and rollout.shadow > 0 and rollout.weight == 0


def paired_e_value(challenger: int, champion: int, limit: float = 1.0) -> float:
    """The evidence that the challenger alone errs more than ``limit`` times as often as the champion alone, from how many of the same
    requests each of them alone erred on: the mean of likelihood ratios at the judge's alternatives.
    """
    share = limit / (1 + limit)
    logs = [
        challenger * math.log(times) - (challenger + champion) * math.log(share * times + 1 - share)
        for times in ALTERNATIVES
    ]
    largest = max(logs)
    told = largest + math.log(sum(math.exp(one - largest) for one in logs) / len(logs))
    return math.exp(min(told, _MOST_LOG))


# === a replay ===


def replay_seen(key: str, rollout: RolloutState, report: Report) -> Replay:
    """A replay as a step sees it. Gates are judged when it is over: then its requests are a closed sample."""
    state, requests, pairs = report["state"], report["requests"], report["pairs"]
    counts = {"key": key, "number": report["id"], "pairs": pairs, "replayed": requests["replayed"]}
    if state == "running":
        return Replay(**counts, state="running")
    if state != "done":
        return Replay(**counts, state="failed", problem=report["error"] or "it was ended by a call")
    promise = 1 / pairs_threshold(rollout.plan, rollout.beginnings)
    found = [
        disagreement(gate, report, closed=pairs > 0)
        if gate.gate == "disagreement"
        else errors(gate, promise, report)
        for gate in rollout.plan.gates
        if gate.gate in ("disagreement", "error_rate")
    ]
    gates = tuple(status.model_copy(update={"replay": report["id"]}) for status in found)
    return Replay(
        **counts, state="done", gates=gates, problem=_left_out(report), incompatible=requests["incompatible"]
    )


def _left_out(report: Report) -> str:
    """Why requests became no pair, in words; empty if all of them did."""
    requests, version = report["requests"], report["version"]
    failed = sum(report["errors"].values())
    codes = ", ".join(sorted(report["errors"]))
    why = "" if report["last_mismatch"] is None else f" ({report['last_mismatch']})"
    reasons = {
        f"do not fit {version}{why}": requests["incompatible"],
        f"failed on {version} ({codes})": failed,
        "found their version out of memory": requests["not_ready"],
        "had failed on the champion": report["champion_failed"]["requests"],
        "were left out, because rules or callers chose their version": requests["skipped"],
    }
    return ", ".join(f"{number(count)} {said}" for said, count in reasons.items() if count)


def errors(gate: PlanGate, promise: float, report: Report) -> GateStatus:
    """The gate ``error_rate`` on the requests of a replay that is over: both versions were asked the same ones.

    It passes if the challenger's errors are below the limit times the champion's, or a share of at most ``ignore_below``. It fails if they
    are not, and as many or more would come by chance with a probability of at most ``promise``, the test's part of ``false_rollbacks``.
    Given the errors of both together, those of the challenger are binomial with 1/2, or with ``strict`` at the limit (the conditional test
    of two Poisson rates; Przyborowski and Wilenski, 1940). Errors that both versions share make it err to the safe side. A run that took
    too long at the lowest priority keeps the gate from passing and is no evidence of harm.
    """
    failed = report["champion_failed"]
    both = failed["shadow_failed"]
    champion = failed["shadow_answered"] + both
    challenger = sum(report["errors"].values()) + both
    total = report["pairs"] + challenger + failed["shadow_answered"]
    proven = max(challenger - report["timeouts"], 0)
    chance: float | None = None
    verdict: Literal["pass", "fail", "undecided"] = "undecided"
    if gate.above is not None and total > 0:
        chance = binomial_tail(
            proven, proven + champion, gate.above / (1 + gate.above) if gate.strict else 0.5
        )
        if (
            challenger == 0
            or challenger < gate.above * champion
            or challenger <= (gate.ignore_below or 0.0) * total
        ):
            verdict = "pass"
        elif proven >= gate.above * champion and proven > 0 and chance <= promise:
            verdict = "fail"
    return GateStatus.model_validate(
        {
            "gate": gate.gate,
            "verdict": verdict,
            "champion": ArmNumbers(n=total, bad=champion),
            "challenger": ArmNumbers(n=total, bad=challenger),
            "ratio": challenger / champion if champion else None,
            "chance": chance,
            "most_chance": promise,
            "timeouts": report["timeouts"],
        }
    )


def binomial_tail(least: int, trials: int, probability: float) -> float:
    """The probability of ``least`` successes or more; 1 up to the mean, where nothing is decided by it."""
    if least <= trials * probability:
        return 1.0
    log_term = math.lgamma(trials + 1) - math.lgamma(least + 1) - math.lgamma(trials - least + 1)
    log_term += least * math.log(probability) + (trials - least) * math.log1p(-probability)
    total = term = math.exp(log_term)
    odds = probability / (1 - probability)
    # Above the mean each term is smaller than the one before.
    for successes in range(least, trials):
        term *= (trials - successes) / (successes + 1) * odds
        total += term
        if term < total * _NEGLIGIBLE:
            break
    return min(total, 1.0)

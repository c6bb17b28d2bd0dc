"""What a rollout says of its evidence, in sentences. Pure.

A promotion says what was shown and what would have been seen, and no more: that nothing failed proves little. Next: ``preview``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from headgate.control.domain.rollout.plan import PlanGate
from headgate.control.domain.rollout.state import GateStatus, RolloutState
from headgate.readable import evidence, figure, number, percent

_CONFIDENCE = "anytime 95 %"
_LIKELY = 0.8
"""The probability that ``detectable`` is about."""
_NAMES = {
    "error_rate": "error ratio",
    "availability": "ratio of requests without a run",
    "disagreement": "disagreement",
}


def _name(status: GateStatus) -> str:
    if _is_feedback(status):
        return f"difference of {status.gate}"
    if _is_output_drift(status):
        return f"distance of {status.gate}"
    name = _NAMES.get(status.gate, f"ratio of {status.gate}")
    return name if status.measure is None else f"{name} ({status.measure})"


def _is_feedback(status: GateStatus) -> bool:
    return status.gate.startswith("feedback.")


def _is_output_drift(status: GateStatus) -> bool:
    return status.gate.partition(".")[0] == "output_drift"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def interval(status: GateStatus) -> str | None:
    """``error ratio 0.30-8.4 (anytime 95 %)``; None without an interval, or for one that has no bound."""
    if status.interval is None:
        return None
    low, high = status.interval
    if not low and high is None:
        return None
    if _is_feedback(status):
        return f"{_name(status)} {low or 0.0:.3g} to {high or 0.0:.3g} ({_CONFIDENCE})"
    if _is_output_drift(status):
        # An interval of all distances says nothing.
        known = (low or 0.0) > 0 or (high or 1.0) < 1
        return f"{_name(status)} {low or 0.0:.3g} to {high or 0.0:.3g} ({_CONFIDENCE})" if known else None
    if low is None or high is None:
        range_ = f"up to {figure(high)}" if high is not None else f"{figure(low or 0.0)} or more"
    else:
        range_ = f"{figure(low)}-{figure(high)}"
    return f"{_name(status)} {range_} ({_CONFIDENCE})"


def _without_interval(status: GateStatus) -> str:
    champion, challenger = status.champion, status.challenger
    return (
        f"The error ratio is not known: {number(champion.bad)} of {number(champion.n)} requests of the champion failed and "
        f"{number(challenger.bad)} of {number(challenger.n)} of the challenger."
    )


def caught(status: GateStatus) -> str | None:
    """``5x would have been caught in 84 % of such rollouts``; None if that is not known."""
    if status.caught:
        likely = [one for one in status.caught if one.probability >= _LIKELY]
        told = min(likely, key=lambda one: one.ratio, default=max(status.caught, key=lambda one: one.ratio))
        ratio, share = told.ratio, told.probability
    elif status.detectable is not None and _is_feedback(status):
        return f"a difference of {status.detectable:.3g} would have been caught in {_LIKELY * 100:.0f} % of such rollouts"
    elif status.detectable is not None and _is_output_drift(status):
        return f"a distance of {status.detectable:.3g} would have been caught in {_LIKELY * 100:.0f} % of such rollouts"
    elif status.detectable is not None:
        ratio, share = status.detectable, _LIKELY
    else:
        return None
    return f"{ratio:.3g}x would have been caught in {share * 100:.0f} % of such rollouts"


def promotion(gates: Sequence[GateStatus], undecided: Iterable[str], who: str = "") -> str:
    """What was shown when the challenger became champion. ``undecided`` names the gates that had not passed, and other open ends."""
    open_ends = list(undecided)
    failing = [status.key for status in gates if status.verdict == "fail"]
    said = ["No harm shown."] if not failing else [f"{', '.join(failing)} failed."]
    for status in gates:
        range_, seen = interval(status), caught(status)
        others = _is_feedback(status) or _is_output_drift(status)
        is_told = range_ is not None if others else status.gate == "error_rate"
        if not is_told or not status.challenger.n:
            continue
        told = f"{_sentence(range_)}." if range_ else _without_interval(status)
        said += [told, *([f"{_sentence(seen)}."] if seen else [])]
    if not any(status.challenger.n for status in gates):
        said.append("No request of the challenger was compared with the champion's.")
    if open_ends:
        said.append(f"Undecided then: {', '.join(open_ends)}.")
    if who:
        said.append(f"Promoted by {who}.")
    return " ".join(said)


def harm(statuses: Sequence[GateStatus], gates: Sequence[PlanGate]) -> str:
    """Why it was rolled back or paused, with the numbers of each gate that failed."""
    limits = {gate.key: gate.above for gate in gates}
    return " ".join(_failure(status, limits.get(status.key)) for status in statuses)


def _failure(status: GateStatus, above: float | None) -> str:
    said = f"{status.key} fails: "
    if status.share is not None:
        return said + f"{_share(status)}, limit {percent(above or 0.0)}; {_differing(status)}."
    value = status.apart if _is_output_drift(status) else status.difference
    shown = f"{value:.3g}" if value is not None else None
    shown = shown if status.ratio is None else figure(status.ratio)
    if shown is not None:
        said += f"{_name(status)} {shown}"
        said += "" if above is None else f", limit {above:g}"
        range_ = interval(status)
        said += "" if range_ is None else f", {range_.removeprefix(_name(status)).strip()}"
        said += "; "
    champion, challenger = status.champion, status.challenger
    if _is_feedback(status):
        said += f"champion {number(champion.n)} values, challenger {number(challenger.n)}"
    elif _is_output_drift(status):
        which = f"{status.differs_most} differs most; " if status.differs_most else ""
        said += f"{which}champion {number(champion.n)} answers, challenger {number(challenger.n)}"
    else:
        said += f"champion {number(champion.bad)} of {number(champion.n)}, challenger {number(challenger.bad)} of {number(challenger.n)}"
    if status.e_value is not None and status.threshold is not None:
        said += f"; evidence {evidence(status.e_value)}, needed {figure(status.threshold)}"
    if status.chance is not None:
        said += f"; the same requests were put to both: by chance in {percent(status.chance)} of replays"
    if status.copies:
        said += "; of copies of the champion's requests"
    return said + "."


def _share(status: GateStatus) -> str:
    """``33 % of answers differ beyond the noise floor (95 %: 22-46 %)``."""
    said = f"{percent(status.share or 0.0)} of answers differ beyond the noise floor"
    if status.share_interval is None:
        return said
    low, high = status.share_interval
    return f"{said} (95 %: {max(low, 0.0) * 100:.2g}-{high * 100:.2g} %)"


def _differing(status: GateStatus) -> str:
    """The counts behind a share: pairs that differ, those with NaN among them, and the champion against itself."""
    champion, challenger = status.champion, status.challenger
    said = f"{number(challenger.bad)} of {number(challenger.n)} pairs differ"
    alone = status.nan.challenger - status.nan.both if status.nan is not None else 0
    said += f" ({number(alone)} because the challenger alone answers NaN)" if alone > 0 else ""
    if not champion.n:
        return said
    return f"{said}, and {number(champion.bad)} of {number(champion.n)} if the champion is asked again"


def undecided(status: GateStatus | None, gate: PlanGate) -> str:
    """Why a gate has not passed: ``error_rate is undecided (812 requests; 3x shows after 2 500)``."""
    if status is None:
        return f"{gate.key} has no data"
    if status.verdict == "error":
        return f"{gate.key} cannot be judged: {status.reason or 'no reason given'}"
    if status.verdict == "fail":
        return f"{gate.key} fails"
    if status.share is not None:
        return f"{gate.key} is undecided ({_share(status)}, limit {percent(gate.above or 0.0)}; {_differing(status)})"
    if _is_feedback(status):
        return f"{gate.key} is undecided ({status.reason or f'{number(status.challenger.n)} values'})"
    if _is_output_drift(status):
        return f"{gate.key} is undecided ({status.reason or f'{number(status.challenger.n)} answers'})"
    known = f"{number(status.challenger.n)} requests"
    if status.copies:
        failed, champion = number(status.challenger.bad), number(status.champion.bad)
        known = f"{number(status.challenger.n)} copies; {failed} failed, and {champion} on the champion"
        known += (
            f"; {number(status.timeouts)} more were too slow, which shows nothing" if status.timeouts else ""
        )
    if status.chance is not None:
        slow = f" ({number(status.timeouts)} were too slow)" if status.timeouts else ""
        known += f"; {number(status.challenger.bad)} failed{slow}, and {number(status.champion.bad)} on the champion"
    need = status.need or {}
    if "ratio" in need and "requests" in need:
        known += f"; {need['ratio']:g}x shows after {number(round(need['requests']))}"
    return f"{gate.key} is undecided ({known})"


def told(state: RolloutState) -> dict[str, Any]:
    """What an event says of a rollout: where it is, what was said of it last, and the gates that were looked at."""
    present, newest = state.present, state.evidence[-1] if state.evidence else None
    held = state.end or state.pause
    gates = (held.gates if held is not None else ()) or (newest.gates if newest is not None else ())
    return {
        "id": state.id,
        "challenger": state.challenger.name,
        "phase": state.phase,
        "step": None if present is None else present.label,
        "reason": None if held is None else held.reason,
        "said": None if held is None else held.words,
        "gates": [gate.model_dump(mode="json") for gate in gates],
    }


def line(state: RolloutState) -> str:
    """A rollout in one line: ``rollout r1 of v8: step 2 of 5 (weight 5%)``, ``rollout r1 of v8: promoted. No harm shown. ...``."""
    step = state.present
    where = "before its first step"
    if step is not None:
        where = f"step {state.step + 1} of {len(state.plan.steps)} ({step.label})"
    again = "" if state.attempts == 1 else f", attempt {state.attempts} of this digest"
    head = f"rollout {state.id} of {state.challenger.name}{again}: "
    if state.end is not None:
        return f"{head}{state.phase.replace('_', ' ')}. {state.end.words}"
    if state.pause is not None:
        return (
            f"{head}paused in {where}. {state.pause.words}"
            if step is not None
            else f"{head}paused. {state.pause.words}"
        )
    return head + where


def not_entered(state: RolloutState, why: str) -> str:
    """The next step was refused when it was to be served, as one whose model does not load is."""
    at = f"Step {state.step + 2} of {len(state.plan.steps)} ({state.following.label})"
    ways = "A promotion tries it again at once, a resume after the present step."
    if state.present is None:
        ways = "A promotion or a resume tries it again at once."
    return f"{at} could not be entered: {why.rstrip('.')}. {ways}"


def both_ways(why: str) -> str:
    """A champion that is unwell: nothing moves by itself."""
    return (
        f"{why}: nothing moves by itself. "
        "Promote the challenger (:promote with full), or abort the rollout and look after the champion."
    )

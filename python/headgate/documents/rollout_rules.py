"""What the steps and gates of a rollout plan say of each other. Works on plain values, whatever else is wrong with them.

Not here: what needs an endpoint (its traffic, its feedback), which ``control.domain.rollout.preview`` looks at. Next: ``parsing``.
"""

from __future__ import annotations

import re
from typing import Any

from headgate.documents.faults import Path, did_you_mean, quoted
from headgate.documents.nodes import Report
from headgate.documents.rollout import BUILT_IN, JUDGED_IN, STEP_KINDS
from headgate.documents.values import SLOTS, format_weight, parse_weight

GATES = ("error_rate", "availability", "latency.p95", "disagreement", "output_drift", "feedback.<name>")
_LATENCY = re.compile(r"latency\.p([1-9][0-9]?)(\.[0-9]?[1-9])?\Z")
_NAMED = re.compile(r"(output_drift|feedback)\.[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")
_RATIO_GATES = ("error_rate", "availability", "latency")
_COMPARED = ("replay", "shadow")
_LIMITS = {
    "ratio": 'a ratio to the champion such as "1.5x"',
    "share": 'a share such as "2%"',
    "value": "a number",
}


def check_plan(plan: dict[str, Any], report: Report) -> None:
    """A plan's name, steps and gates."""
    if plan.get("name") == BUILT_IN:
        report(("name",), f"{quoted(BUILT_IN)} is the built-in plan; choose another name")
    kinds = _steps(plan.get("steps"), report)
    seen: set[str] = set()
    for field in ("rollback_if", "pause_if"):
        gates = plan.get(field)
        if isinstance(gates, dict) and not gates and field == "rollback_if":
            report((field,), "is empty; write a gate, or leave it out for the gates of the built-in plan")
        for name, gate in gates.items() if isinstance(gates, dict) else ():
            path: Path = (field, name)
            if _is_gate(name, path, report):
                _gate(name, gate, path, report)
                _judged(name, kinds, path, report)
            _once(name, seen, path, report)
    reported = plan.get("report")
    for at, name in enumerate(reported if isinstance(reported, list | tuple) else ()):
        if isinstance(name, str) and _is_gate(name, ("report", at), report):
            _once(name, seen, ("report", at), report)


def _once(name: str, seen: set[str], path: Path, report: Report) -> None:
    if name in seen:
        report(path, "is there twice; a gate rolls back, pauses or is reported")
    seen.add(name)


# === steps ===


def _steps(written: Any, report: Report) -> list[str]:
    """Reports faults between steps, and gives their kinds, as far as they have one."""
    if not isinstance(written, list | tuple):
        return []
    kinds: list[str] = []
    shares: dict[str, int] = {}
    for at, step in enumerate(written):
        path: Path = ("steps", at)
        kind = _kind(step, path, report)
        if kind is None:
            continue
        if kind in ("shadow", "weight"):
            _rising(step[kind], kind, shares, (*path, kind), report)
        if kind in _COMPARED and "weight" in kinds:
            report(path, f"{kind} comes after a weight; it belongs before the first one")
        if kind == "promote" and at != len(written) - 1:
            report(path, "is not the last step, and nothing follows a promotion")
        kinds.append(kind)
    if kinds == ["promote"] and len(written) == 1:
        report(("steps",), "promote at once, without evidence and without a person; write a step before it")
    return kinds


def _kind(step: Any, path: Path, report: Report) -> str | None:
    if isinstance(step, str):
        return step if step in ("pause", "promote") else None
    if not isinstance(step, dict):
        return None
    present = [kind for kind in STEP_KINDS if kind in step]
    if len(present) != 1:
        said = f"has {' and '.join(present)}" if present else "says nothing"
        report(path, f"{said}; write one of {', '.join(STEP_KINDS)}")
        return None
    for field in ("for", "min_requests"):
        if field in step and present[0] not in ("shadow", "weight"):
            report((*path, field), f"belongs to shadow and weight, not to {present[0]}")
    return present[0]


def _rising(written: Any, kind: str, shares: dict[str, int], path: Path, report: Report) -> None:
    try:
        slots = parse_weight(written)
    except (ValueError, TypeError):
        return  # reported with its path when the field itself is validated
    if kind == "weight" and slots == SLOTS:
        report(path, "leaves the champion nothing to be compared with; write promote")
    before = shares.get(kind)
    if before is not None and slots <= before:
        report(path, f"must be more than the {kind} before it, which is {format_weight(before)}")
    shares[kind] = slots


# === gates ===


def _is_gate(name: str, path: Path, report: Report) -> bool:
    if name in ("error_rate", "availability", "disagreement", "output_drift") or _NAMED.match(name):
        return True
    if name.startswith("latency."):
        if _LATENCY.match(name):
            return True
        report(path, f"{quoted(name)} is no quantile: write latency.p50 to latency.p99.9")
        return False
    report(path, f"{quoted(name)} is no gate; {did_you_mean(name, GATES)}")
    return False


def _gate(name: str, gate: Any, path: Path, report: Report) -> None:
    family = name.partition(".")[0]
    written = gate if isinstance(gate, dict) else {"above": gate}
    wanted = "ratio" if family in _RATIO_GATES else "share" if family == "disagreement" else "value"
    above = written.get("above")
    form = _form(above)
    if form is not None and form != wanted:
        report((*path, "above") if isinstance(gate, dict) else path, f"must be {_LIMITS[wanted]}")
    if family == "output_drift" and isinstance(above, int | float) and form == "value" and not 0 < above < 1:
        report(
            (*path, "above") if isinstance(gate, dict) else path, "must be a distance below 1, such as 0.1"
        )
    if "distance" in written and family != "output_drift":
        report((*path, "distance"), "is about output_drift")
    if "measure" in written and family != "latency":
        report((*path, "measure"), "is about latency")
    if written.get("strict") is True and family not in ("error_rate", "availability"):
        report((*path, "strict"), "is about error_rate and availability")
    _floor(written.get("ignore_below"), family, (*path, "ignore_below"), report)


def _form(above: Any) -> str | None:
    """What a limit is; None for what is no limit, which the field itself reports."""
    if isinstance(above, str):
        return "ratio" if above.endswith("x") else "share" if above.endswith("%") else None
    return "value" if isinstance(above, int | float) and not isinstance(above, bool) else None


def _floor(floor: Any, family: str, path: Path, report: Report) -> None:
    if floor is None:
        return
    if family not in ("latency", "error_rate"):
        report(path, "is about latency and error_rate")
    elif isinstance(floor, str) and floor.endswith("%") != (family == "error_rate"):
        report(
            path, 'must be a time such as "5ms"' if family == "latency" else 'must be a share such as "0.1%"'
        )


def _judged(name: str, kinds: list[str], path: Path, report: Report) -> None:
    """A gate that stops something has to be judged in some step."""
    needed = JUDGED_IN[name.partition(".")[0]]
    if kinds and not set(needed) & set(kinds):
        report(path, f"is judged in steps with {' or '.join(needed)}, and the plan has none")

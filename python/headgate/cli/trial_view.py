"""What a trial has counted so far, the challengers beside the champion. Next: text.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headgate.cli import text
from headgate.cli.output import Lines, Table

Trial = Mapping[str, Any]


def trial_view(trial: Trial | None) -> Lines:
    """A line about the trial, and a row for each version that has slots; nothing if no trial is on."""
    if trial is None:
        return []
    made = Table("TRIAL", "ROUTED", "RAN", "ERRORS", "FIRST OF UNITS", "NaN", "RUN p50/p95", "REPLY p50/p95")
    for arm in trial["arms"]:
        if arm["slots"] is None:
            continue
        made.row(
            arm["version"],
            arm["routed"],
            _ran(arm),
            arm["errors"],
            f"{arm['first_errors'] + arm['first_errors_after']} of {arm['units']}",
            f"{arm['nan_answers']} of {arm['answers']}",
            _times(arm["run_us"]),
            _times(arm["reply_us"]),
        )
    return [*made.lines(), _since(trial), ""]


def _since(trial: Trial) -> str:
    unit = f"sticky keys ({trial['sticky']})" if trial["unit"] == "sticky_key" else "requests"
    words = [f"since {trial['begun']}, units are {unit}"]
    gaps = trial["gaps"]
    if gaps:
        restarts = "1 restart" if len(gaps) == 1 else f"{len(gaps)} restarts"
        words.append(
            f"{restarts}, the last one: nothing is known from {gaps[-1]['since']} to {gaps[-1]['until']}"
        )
    lost = {name: count for name, count in trial["dropped"].items() if count}
    words += [f"{count} {name.replace('_', ' ')} fell out" for name, count in lost.items()]
    return f"trial {trial['attempt']}: {'; '.join(words)}"


def _ran(arm: Mapping[str, Any]) -> str:
    """``980: 12 shed, 8 not ready``: what did not run, and why."""
    others = ("shed", "not_ready", "fell_back", "cancelled", "lost")
    said = ", ".join(f"{arm[name]} {name.replace('_', ' ')}" for name in others if arm[name])
    return f"{arm['ran']}: {said}" if said else str(arm["ran"])


def _times(times: Mapping[str, float | None]) -> str | None:
    p50, p95 = times["p50"], times["p95"]
    return None if p50 is None or p95 is None else text.durations(p50, p95)

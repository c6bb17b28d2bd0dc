"""How the report of a replay is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headgate.cli.output import Lines, Table
from headgate.cli.text import durations

REPLAY = "replay"
"""The kind of an operation whose result is the report of a replay."""


def was_cancelled(report: Mapping[str, Any] | None) -> bool:
    """Whether somebody ended the replay of this report before its end."""
    return report is not None and report["state"] == "cancelled"


def replay_view(one: dict[str, Any]) -> Lines:
    """What a person needs to decide."""
    requests = one["requests"]
    lines = [
        f"replay {one['id']} of {one['endpoint']}: {one['version']} against what {one['against']['version']} answered: {one['state']}",
        f"requests: {requests['replayed']} replayed"
        + _some(requests["skipped"], "skipped, because rules or callers chose the version")
        + _some(requests["incompatible"], "incompatible", one["last_mismatch"])
        + _some(requests["not_ready"], "not run, because the version was out of memory"),
        f"disagreement: {_share(one['disagreement'])} of {one['pairs']} pairs",
        f"noise floor: {_floor(one)}",
    ]
    if one["errors"]:
        failed = ", ".join(f"{count} {code}" for code, count in one["errors"].items())
        lines.append(f"errors: {failed}")
    before = one["champion_failed"]
    if before["by_code"]:
        lines.append(
            f"requests that {one['against']['version']} failed on: {before['shadow_answered']} answered, "
            f"{before['shadow_failed']} failed as well"
        )
    nan = one["nan"]
    if nan["shadow"] or nan["champion"]:
        lines.append(f"pairs with NaN: {nan['shadow']} in {one['version']}, {nan['champion']} before")
    return [*lines, "", *_outputs(one["outputs"]), "", *_times(one)]


def _some(count: int, words: str, why: str | None = None) -> str:
    return f"; {count} {words}{f' ({why})' if why else ''}" if count else ""


def _share(counted: dict[str, Any]) -> str:
    if counted["share"] is None:
        return "unknown"
    low, high = counted["interval"]
    return f"{counted['share']:.2%} ({low:.2%} to {high:.2%})"


def _floor(one: dict[str, Any]) -> str:
    floor = one["noise_floor"]
    if floor["share"] is None:
        return f"none: {floor['reason'] or 'no pair was asked again'}"
    return f"{_share(floor)} of {floor['pairs']} pairs, {one['against']['version']} asked again"


def _outputs(outputs: dict[str, Any]) -> Lines:
    made = Table("OUTPUT", "PAIRS", "DIFFER", "ROWS", "DIFFER", "MOVES")
    for name, one in outputs.items():
        moves = (one["direction"] or {}).get("moves", [])[:3]
        words = ", ".join(f"{move['from']} to {move['to']}: {move['rows']}" for move in moves)
        made.row(name, one["pairs"], one["differing"], one["rows"], one["differing_rows"], words)
    return made.lines()


def _times(one: dict[str, Any]) -> Lines:
    made = Table("RUNS", "COUNT", "p50/p95/p99")
    runs = one["run_seconds"]
    names = {
        "version": f"{one['version']}, replayed",
        "again": f"{one['against']['version']}, replayed",
        "recorded": f"{one['against']['version']}, when it answered",
    }
    for key, name in names.items():
        times = [runs[key][quantile] for quantile in ("p50", "p95", "p99")]
        known = [time * 1e6 for time in times if time is not None]
        made.row(name, runs[key]["runs"], durations(*known) if len(known) == len(times) else "")
    return [*made.lines(), "replayed runs have the lowest priority: compare them with each other alone"]

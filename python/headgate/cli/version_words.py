"""What a version does, in words: where it runs and why, what it takes, how long its runs are. Next: text.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headgate.cli import text

OPTIONAL_SHOWN = 8
"""The optional inputs of a version that are named."""


def place(version: Mapping[str, Any]) -> str | None:
    """Where it runs; whether that was written; how many rows its batches had; what is wrong there."""
    placed: str | None = version["placement"]
    if placed is None:
        return None
    if version["device"] not in (None, "cpu"):
        placed += f" on {version['device']}"
    if version["placement_fixed"]:
        placed += " (written)"
    batches = version["batches"]
    if batches and batches["count"]:
        placed += f", {batches['rows'] / batches['count']:.3g} rows a run"
    if version["shedding"]:
        placed += ", shedding"
    return placed + _breaker(version["breaker"]) + _stuck(version["runs"])


def place_reason(name: str, version: Mapping[str, Any]) -> str | None:
    """Why a version is where it is, with the numbers behind it."""
    by = version["placed_by"]
    if by is None:
        return None
    numbers = f"the newest {by['runs']} runs: p99 {text.duration(by['p99_us'])}"
    if by["busy"] and version["placement"] == "inline":
        numbers += f", {by['busy']:.0%} of the IO threads"
    if by["batch_rows"]:
        numbers += f", {by['batch_rows']:.3g} rows a batch"
    cost = (version["batches"] or {}).get("cost_us")
    if cost:
        numbers += f", {text.duration(cost['fixed'])} a run and {text.duration(cost['row'])} a row"
    return f"{name} is {version['placement']}: {by['why']} ({numbers})"


def optional_inputs(name: str, version: Mapping[str, Any]) -> str | None:
    """The inputs of a version that a request may leave out; an exporter may have listed all weights there."""
    names = [one["name"] for one in (version["signature"] or {}).get("optional_inputs", [])]
    if not names:
        return None
    more = f" and {len(names) - OPTIONAL_SHOWN} more" if len(names) > OPTIONAL_SHOWN else ""
    return f"{name} takes optional inputs: {', '.join(names[:OPTIONAL_SHOWN])}{more}"


def memory_words(memory: Mapping[str, Any] | None) -> str | None:
    """Where it is, how much it takes, whether it stays."""
    if memory is None:
        return None
    words = [memory["state"]]
    if memory["bytes"]:
        words.append(text.size(memory["bytes"]))
    if memory["pinned"]:
        words.append("pinned")
    return ", ".join(words)


def run_times(run: Mapping[str, float | None] | None) -> str | None:
    """Empty until the version has run often enough to say."""
    if run is None or run["p50"] is None or run["p99"] is None:
        return None
    return text.durations(run["p50"], run["p99"])


def _breaker(breaker: Mapping[str, Any] | None) -> str:
    if not breaker or not breaker["open"]:
        return ""
    by = f", {breaker['answered_by']} answers" if breaker.get("answered_by") else ""
    return f", left alone (breaker){by}"


def _stuck(runs: Mapping[str, Any] | None) -> str:
    count = runs["stuck"] if runs else 0
    return (
        f", {count} run{'' if count == 1 else 's'} that {'does' if count == 1 else 'do'} not end"
        if count
        else ""
    )

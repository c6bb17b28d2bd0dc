"""How a change is drawn: what it would do, and what it did. Next: traffic_view.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headgate.cli.output import Lines
from headgate.cli.traffic_view import traffic_words


def plan_view(plan: Mapping[str, Any]) -> Lines:
    """What a change would do, in the words of the gateway; then the differences between the documents."""
    if plan.get("preview"):
        # A rollout's steps stand in lines of their own, and its text ends with them in one.
        return [*plan["preview"], *(f"Note: {note}." for note in plan["notes"]), *plan["diff"].splitlines()]
    return [plan["text"], *_indented(plan["notes"]), *plan["diff"].splitlines()]


def result_view(answer: Mapping[str, Any]) -> Lines:
    """What a change did."""
    said, name = answer["message"] or answer["status"], answer["endpoint"]
    return [
        f"{said if said.startswith(name) else f'{name}: {said}'} ({_revision(answer)})",
        f"  traffic: {traffic_words(answer['traffic'])}",
        *_indented(answer["plan"]["notes"]),
    ]


def _indented(lines: list[str]) -> Lines:
    return [f"  {line}" for line in lines]


def _revision(answer: Mapping[str, Any]) -> str:
    n = answer["revision"]
    return "its revision is not on disk yet" if n is None else f"revision {n}"

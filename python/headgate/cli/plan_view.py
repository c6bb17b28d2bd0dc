"""How a change is drawn: what it would do, and what it did. Next: traffic_view.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headgate.cli.output import Lines
from headgate.cli.traffic_view import traffic_words


def plan_view(plan: Mapping[str, Any]) -> Lines:
    """What a change would do, in words."""
    champion = plan["champion"]
    if not plan["changes"]:
        return [f"{plan['endpoint']}: no changes", *_indented(plan["notes"])]
    base = (
        "new" if plan["base_revision"] is None else f"revision {plan['base_revision']} -> {plan['revision']}"
    )
    lines = [f"{plan['endpoint']}: {base}"]
    if champion["from"] != champion["to"]:
        lines.append(f"  champion: {champion['from'] or 'none'} -> {champion['to']}")
    lines += [f"  {pair}: {slots / 100:g}% of keys" for pair, slots in plan["moves"].items()]
    lines += [f"  {verb}: {', '.join(plan[verb])}" for verb in ("load", "unload", "block") if plan[verb]]
    if plan["rollback_to"] is not None:
        lines.append(f"  a rollback then goes to {plan['rollback_to']}")
    return [*lines, *_indented(plan["notes"]), *plan["diff"].splitlines()]


def result_view(answer: Mapping[str, Any]) -> Lines:
    """What a change did."""
    traffic = answer["traffic"]
    said, name = answer["message"] or answer["status"], answer["endpoint"]
    return [
        f"{said if said.startswith(name) else f'{name}: {said}'} ({_revision(answer)})",
        f"  traffic: {traffic_words(traffic['champion'], traffic['weights'])}",
        *_indented(answer["plan"]["notes"]),
    ]


def _indented(lines: list[str]) -> Lines:
    return [f"  {line}" for line in lines]


def _revision(answer: Mapping[str, Any]) -> str:
    n = answer["revision"]
    return "its revision is not on disk yet" if n is None else f"revision {n}"

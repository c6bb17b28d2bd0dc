"""What the rules of an endpoint's traffic say of each other and of the versions.

Not here: their fields (``traffic``). Next: ``parsing``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from headgate.documents.faults import Fault, Path, format_path
from headgate.documents.nodes import Report, WrittenInt
from headgate.documents.traffic import Match, Rule

Missing = Callable[[str], str | None]
"""What is wrong with a name that is not among the versions."""

_FORMS_OF_MATCH = ("one_of", "prefix")


def check(traffic: dict[str, Any], missing: Missing, report: Report) -> None:
    """Works on plain values, whatever else is wrong with them."""
    for at, rule in _mappings(traffic.get("rules")):
        path = ("traffic", "rules", at)
        _target(rule, path, missing, report)
        when = rule.get("when")
        seen: set[str] = set()
        for subject, match in when.items() if isinstance(when, dict) else ():
            same = subject.lower() if subject.lower().startswith("header.") else subject
            if same in seen:
                report(
                    (*path, "when", subject), "is there twice; names of headers have no upper and lower case"
                )
            seen.add(same)
            _one_form(match, _FORMS_OF_MATCH, (*path, "when", subject), report)


def unreachable(rules: Sequence[Rule]) -> list[Fault]:
    """Rules that can never match, because an earlier one matches whenever they do."""
    found = []
    for at, rule in enumerate(rules):
        earlier = next((n for n, other in enumerate(rules[:at]) if _covers(other, rule)), None)
        if earlier is not None:
            path = format_path(("traffic", "rules", at))
            message = f"can never match: whatever it matches, rules[{earlier}] matches before it"
            found.append(Fault(path, None, message))
    return found


def _mappings(written: Any) -> list[tuple[int, dict[str, Any]]]:
    if not isinstance(written, list | tuple):
        return []
    return [(at, item) for at, item in enumerate(written) if isinstance(item, dict)]


def _target(rule: dict[str, Any], path: Path, missing: Missing, report: Report) -> None:
    to = rule.get("to")
    name = to.text if isinstance(to, WrittenInt) else to
    if isinstance(name, str) and (why := missing(name)):
        report((*path, "to"), why)


def _one_form(written: Any, forms: Sequence[str], path: Path, report: Report) -> None:
    present = [name for name in forms if isinstance(written, dict) and name in written]
    if isinstance(written, dict) and len(present) != 1:
        said = f"has {' and '.join(present)}" if present else "is empty"
        report(path, f"{said}; write one of {', '.join(forms)}")


def _covers(earlier: Rule, later: Rule) -> bool:
    """Whether every request that satisfies ``later`` satisfies ``earlier``."""
    return all(
        subject in later.when and _accepts_all(match, later.when[subject], subject)
        for subject, match in earlier.when.items()
    )


def _accepts_all(wide: Match, narrow: Match, subject: str) -> bool:
    if narrow.prefix is not None:
        return wide.prefix is not None and narrow.prefix.startswith(wide.prefix)
    values = narrow.one_of or ()
    if wide.prefix is not None:
        # A prefix holds for texts alone, and a parameter may be a number or a boolean.
        texts = subject.startswith("header.") or not any(_is_json_scalar(value) for value in values)
        return texts and all(value.startswith(wide.prefix) for value in values)
    return set(values) <= set(wide.one_of or ())


def _is_json_scalar(value: str) -> bool:
    try:
        return isinstance(json.loads(value), int | float)
    except ValueError:
        return False

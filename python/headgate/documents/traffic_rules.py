"""What rules, shadows and the capture of an endpoint say of each other, of the versions and of the columns.

Not here: their fields (``traffic``). Next: ``parsing``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from headgate.documents.faults import Fault, Path, did_you_mean, format_path, quoted
from headgate.documents.nodes import Report, WrittenInt
from headgate.documents.traffic import Match, Rule

Missing = Callable[[str], str | None]
"""What is wrong with a name that is not among the versions."""

_FORMS_OF_MATCH = ("one_of", "prefix")
_FORMS_OF_COMPARISON = ("exact", "within", "label", "threshold", "top")


def check_rules(traffic: dict[str, Any], missing: Missing, report: Report) -> None:
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


def check_shadows(traffic: dict[str, Any], champion: Any, missing: Missing, report: Report) -> None:
    """Works on plain values, whatever else is wrong with them."""
    seen: set[str] = set()
    for at, shadow in _mappings(traffic.get("shadow")):
        path = ("traffic", "shadow", at)
        to = _target(shadow, path, missing, report)
        if to is not None and to == champion:
            report((*path, "to"), "is the champion; a shadow is another version")
        elif to in seen:
            report((*path, "to"), f"{quoted(to)} is a shadow already")
        if to is not None:
            seen.add(to)
        if shadow.get("by") == "sticky" and "sticky" not in traffic:
            report((*path, "by"), "is sticky, and the endpoint has no sticky key: write traffic.sticky")
        compare = shadow.get("compare")
        for output, comparison in compare.items() if isinstance(compare, dict) else ():
            _one_form(comparison, _FORMS_OF_COMPARISON, (*path, "compare", output), report)


def check_redacted(known: dict[str, Any], report: Report) -> None:
    """A column that is left out must have its name in ``columns``: a mistyped one would leave nothing out. The names of tensors are
    compared with the model when it is loaded."""
    columns = known.get("columns")
    named = columns if isinstance(columns, dict) else {}
    traffic = known.get("traffic")
    shadows = _mappings(traffic.get("shadow")) if isinstance(traffic, dict) else []
    parts: list[tuple[Path, Any]] = [(("traffic", "shadow", at), shadow) for at, shadow in shadows]
    for path, part in [*parts, (("capture",), known.get("capture"))]:
        redact = part.get("redact") if isinstance(part, dict) else None
        for at, name in enumerate(redact if isinstance(redact, list | tuple) else ()):
            fault = _unknown_column(name, named)
            if fault is not None:
                report((*path, "redact", at), fault)


def _unknown_column(name: Any, columns: dict[str, Any]) -> str | None:
    if not isinstance(name, str) or name in columns:
        return None
    for tensor, names in columns.items():
        column = name.removeprefix(f"{tensor}.")
        known = [str(each) for each in names] if isinstance(names, list | tuple) else []
        if column != name and column not in known:
            return f"{quoted(column)} is not among the columns of {tensor}; {did_you_mean(column, known)}"
    return None


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


def _target(part: dict[str, Any], path: Path, missing: Missing, report: Report) -> str | None:
    to = part.get("to")
    name = to.text if isinstance(to, WrittenInt) else to
    if not isinstance(name, str):
        return None
    if why := missing(name):
        report((*path, "to"), why)
    return name


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

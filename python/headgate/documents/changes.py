"""The difference of two endpoints, field by field, for ``plan`` and ``history``. Pure.

Next: ``schema``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from headgate.documents.faults import Path, format_path
from headgate.documents.model import Endpoint


@dataclass(frozen=True, slots=True)
class Change:
    """One field that differs: JSON values as written (with units), None where the field is absent."""

    path: str
    before: Any
    after: Any

    def __str__(self) -> str:
        if self.before is None:
            return f"+ {self.path}: {_shown(self.after)}"
        if self.after is None:
            return f"- {self.path}: {_shown(self.before)}"
        return f"~ {self.path}: {_shown(self.before)} -> {_shown(self.after)}"


def diff(old: Endpoint | None, new: Endpoint) -> list[Change]:
    """Every field that differs, in the order of the new document, then what is gone.

    Two spellings of one value ("2.50%", "2.5%") do not differ.
    """
    before = _leaves(old.as_written(), ()) if old is not None else {}
    after = _leaves(new.as_written(), ())
    changed = [
        Change(format_path(path), before.get(path), value)
        for path, value in after.items()
        if before.get(path) != value
    ]
    gone = [Change(format_path(path), value, None) for path, value in before.items() if path not in after]
    return changed + gone


def _leaves(value: Any, path: Path) -> dict[Path, Any]:
    if not isinstance(value, dict):
        return {path: value}
    return {leaf: v for key, inner in value.items() for leaf, v in _leaves(inner, (*path, key)).items()}


def _shown(value: Any) -> str:
    return "[" + ", ".join(map(str, value)) + "]" if isinstance(value, list) else str(value)

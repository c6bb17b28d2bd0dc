"""Which version of a ``--models`` folder is served first, by the names of its folders. Pure.

Only a number says that a version follows another: ``10`` after ``9``, ``v1.10.0`` after ``v1.9``. ``latest``, ``old``, ``1.10.0-rc1`` and
``2-backup`` say something else, and ``latest -> 3`` is no version of its own. Those are loaded for who asks for them and get no
traffic by themselves. Next: gateway/models_folder.py, which applies the choice.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from headgate.documents.values import natural_key

_NUMBER = re.compile(r"[vV]?([0-9]+(?:\.[0-9]+)*)")

Key = tuple[int, tuple[int, ...], int, object, str]


def number_of(name: str) -> tuple[int, ...] | None:
    """The value of a name that is a number, with or without ``v``; ``1.10`` and ``1.10.0`` are one value."""
    match = _NUMBER.fullmatch(name)
    return _value(match) if match else None


def order(name: str) -> Key:
    """A sort key, ascending: words, then numbers by value, each number after what only begins with it (``1.0-rc1``, ``1.0``)."""
    match = _NUMBER.match(name)
    if match is None:
        return (0, (), 0, natural_key(name), name)
    return (1, _value(match), int(match.end() == len(name)), natural_key(name), name)


def _value(match: re.Match[str]) -> tuple[int, ...]:
    parts = [int(part) for part in match[1].split(".")]
    while len(parts) > 1 and parts[-1] == 0:
        del parts[-1]
    return tuple(parts)


@dataclass(frozen=True)
class Choice:
    """Who is champion at first sight."""

    champion: str | None
    why_none: str
    """Why there is no champion; empty if there is one."""


def choose(folders: Mapping[str, Path]) -> Choice:
    """The champion of versions whose real folders are given: the highest number, or the only one there is.

    A link to another version is never champion.
    """
    own = sorted((name for name in folders if link_to(name, folders) is None), key=order)
    numbers = [name for name in own if number_of(name) is not None]
    if numbers:
        return Choice(numbers[-1], "")
    if len(own) == 1:
        return Choice(own[0], "")
    return Choice(
        None,
        f"none of {_listed(own)} is a number, so that nothing says which of them is served; give one a number, such as 1, "
        "or write a document",
    )


def link_to(name: str, folders: Mapping[str, Path]) -> str | None:
    """The version whose folder this one is as well; ``None`` if it is its own."""
    same = [other for other, folder in folders.items() if folder == folders[name]]
    # Links to a folder that is itself no version are told apart by their names alone.
    original = next((other for other in same if other == folders[name].name), max(same, key=order))
    return None if original == name else original


def why_no_traffic(name: str, folders: Mapping[str, Path]) -> str | None:
    """Why a version is never champion by itself, as the end of a sentence that begins with its name; ``None`` for a number."""
    original = link_to(name, folders)
    if original is not None:
        return f"is a link to {original}"
    if number_of(name) is not None:
        return None
    return "is no number" if _NUMBER.match(name) is None else "is not a number alone, but begins with one"


def _listed(names: Collection[str]) -> str:
    most = 5
    shown = ", ".join(list(names)[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown

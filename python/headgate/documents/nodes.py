"""The tree of a document as written: values with their text and line, before any rule is applied.

Not here: the syntax (``reading``), the fields (``model``). Next: ``reading``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from headgate.documents.faults import Path, quoted

Report = Callable[[Path, str], None]
"""Takes a fault's path and message."""

MAX_DEPTH = 20
"""How deep mappings and lists may nest; the deepest field there is lies at 5."""

MAX_NODES = 20_000
"""How many values one file may hold, aliases expanded."""


class WrittenInt(int):
    """An integer that remembers its text, because ``007`` as a version name is ``007``."""

    text: str

    def __new__(cls, value: int, text: str) -> WrittenInt:
        """The integer ``value``, written as ``text``."""
        self = super().__new__(cls, value)
        self.text = text
        return self


class WrittenFloat(float):
    """A float that remembers its text, because ``1.10`` as a version name would become ``1.1``."""

    text: str

    def __new__(cls, value: float, text: str) -> WrittenFloat:
        """The float ``value``, written as ``text``."""
        self = super().__new__(cls, value)
        self.text = text
        return self


@dataclass(frozen=True, slots=True)
class Scalar:
    """A string, number, bool or null; ``line`` counts from 1, None when it came without lines."""

    value: str | WrittenInt | WrittenFloat | bool | None
    line: int | None


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list; ``size`` counts this value and all below, ``depth`` the levels from here, aliases expanded."""

    items: tuple[Node, ...]
    line: int | None
    size: int
    depth: int


@dataclass(frozen=True, slots=True)
class Mapping:
    """A mapping in the order written, duplicates still in it; ``size``, ``depth`` as for :class:`Sequence`."""

    entries: tuple[tuple[Node, Node], ...]
    line: int | None
    size: int
    depth: int


Node = Scalar | Sequence | Mapping


def size_of(node: Node) -> int:
    """How many values ``node`` stands for, aliases expanded."""
    return 1 if isinstance(node, Scalar) else node.size


def depth_of(node: Node) -> int:
    """How many levels of lists and mappings ``node`` has, aliases expanded; 0 for a scalar."""
    return 0 if isinstance(node, Scalar) else node.depth


def sequence(items: Iterable[Node], line: int | None) -> Sequence:
    """A list of ``items`` with its size and depth."""
    held = tuple(items)
    return Sequence(held, line, 1 + sum(map(size_of, held)), 1 + max(map(depth_of, held), default=0))


def mapping(entries: Iterable[tuple[Node, Node]], line: int | None) -> Mapping:
    """A mapping of ``entries`` with its size and depth."""
    held = tuple(entries)
    flat = [node for entry in held for node in entry]
    return Mapping(held, line, 1 + sum(map(size_of, flat)), 1 + max(map(depth_of, flat), default=0))


def plain(node: Node, path: Path, report: Report) -> Any:
    """``node`` as dict, tuple and scalars; what cannot be a key, is doubled or is null is reported and left
    out.

    Recursion is bounded: readers refuse trees deeper than ``MAX_DEPTH``.
    """
    if isinstance(node, Scalar):
        return _whole(node.value, path, report) if isinstance(node.value, str) else node.value
    if isinstance(node, Sequence):
        return tuple(plain(item, (*path, i), report) for i, item in enumerate(node.items))
    out: dict[str, Any] = {}
    for key_node, value_node in node.entries:
        key = _key(key_node, path, report)
        if key is None:
            continue
        here = (*path, key)
        if key in out:
            report(here, "is written twice; keep one of them")
            continue
        if isinstance(value_node, Scalar) and value_node.value is None:
            report(here, "is empty; give it a value or remove the key")
            continue
        out[key] = plain(value_node, here, report)
    return out


def _key(node: Node, path: Path, report: Report) -> str | None:
    if not isinstance(node, Scalar):
        report(path, "a list or mapping cannot be a key; keys are names")
        return None
    value = node.value
    if isinstance(value, str):
        if value == "<<":
            report(path, 'merge keys ("<<") are not part of YAML 1.2; write the fields out')
            return None
        return _whole(value, path, report)
    if isinstance(value, WrittenInt):
        return value.text
    text = (
        value.text if isinstance(value, WrittenFloat) else {True: "true", False: "false", None: "null"}[value]
    )
    what = "a number with a fraction" if isinstance(value, WrittenFloat) else f"the value {text}, not a name"
    report((*path, text), f'is read as {what}; quote it: "{text}"')
    return None


def _whole(text: str, path: Path, report: Report) -> str:
    """``text`` with surrogate pairs joined: JSON escapes may spell one character so, also inside YAML."""
    if text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text):
        return text
    try:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError:
        report(path, "holds half of a surrogate pair, which is not a character")
        return text.encode("utf-8", "replace").decode()


def line_of(root: Node, path: Path) -> int | None:
    """The line of the field at ``path``, or of the nearest thing above it that exists."""
    node, line = root, root.line
    for segment in path:
        if isinstance(node, Mapping):
            found = _entry(node, segment)
            if found is None:
                return line
            line, node = found[0].line, found[1]
        elif isinstance(node, Sequence) and isinstance(segment, int) and segment < len(node.items):
            node = node.items[segment]
            line = node.line
        else:
            return line
    return line


def _entry(node: Mapping, segment: str | int) -> tuple[Node, Node] | None:
    """The last entry of that key: of a doubled key, the one to remove."""
    for key, value in reversed(node.entries):
        if isinstance(key, Scalar) and _text(key) == segment:
            return key, value
    return None


def _text(key: Scalar) -> str:
    if isinstance(key.value, WrittenInt | WrittenFloat):
        return key.value.text
    return key.value if isinstance(key.value, str) else str(key.value).lower()


def describe(value: Any) -> str:
    """What ``value`` is, for a message: ``the number 5``, ``a list``, ``"text"``."""
    match value:
        case bool():
            return str(value).lower()
        case WrittenInt() | WrittenFloat():
            return f"the number {value.text}"
        case int() | float():
            return f"the number {value}"
        case str():
            return quoted(value)
        case dict():
            return "a mapping"
        case None:
            return "nothing"
        case _:
            return "a list"

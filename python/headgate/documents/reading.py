"""Bytes to trees: YAML 1.2 and JSON, many documents to a file, bounded in size, depth and expansion.

YAML comes as events from ruamel.yaml and is built here, so that limits hold before anything grows and no tag
can make an object. Plain scalars follow the YAML 1.2 core schema
(https://yaml.org/spec/1.2.2/#103-core-schema): ``yes`` is a string, dates are strings. Not here: what fields
mean (``model``). Next: ``parsing``.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML, events
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from headgate.documents.faults import Fault, policy_invalid, quoted
from headgate.documents.nodes import (
    MAX_DEPTH,
    MAX_NODES,
    Node,
    Scalar,
    WrittenFloat,
    WrittenInt,
    depth_of,
    mapping,
    sequence,
    size_of,
)

MAX_BYTES = 512 * 1024
"""The largest file of documents."""

MAX_DOCUMENTS = 1000
"""How many documents one file may hold."""

MAX_LINE = 64 * 1024
"""The longest line of YAML, in characters: the scanner's time grows with the square of some tokens."""

_MAX_DIGITS = 100
_INT = re.compile(r"[-+]?[0-9]+\Z")
_OCTAL = re.compile(r"0o[0-7]+\Z")
_HEX = re.compile(r"0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_INFINITY = re.compile(r"([-+]?)\.(?:inf|Inf|INF)\Z")
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_STR_TAG = "tag:yaml.org,2002:str"


@dataclass(frozen=True, slots=True)
class YamlDocument:
    """One document of a file: its tree and its exact bytes, which read alone give the same tree."""

    root: Node
    raw: bytes


class _UnreadableError(Exception):
    """Reading stops here, with one fault."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.fault = Fault("", line, message)


def read(data: bytes, source: str) -> list[YamlDocument]:
    """The documents of ``data`` in order, empty ones left out.

    Raises ``PolicyInvalid`` with one fault for what is not UTF-8, not YAML, too large, too deep, or empty.
    """
    try:
        text = _decode(data)
        pieces = _read_json(text, data) or _read_yaml(text, data)
        if not pieces:
            raise _UnreadableError(
                "holds no document; the smallest is in the guide, or see `headgate validate --schema`"
            )
    except _UnreadableError as refused:
        raise policy_invalid(source, [refused.fault]) from None
    return pieces


def lines_of(data: bytes) -> Node | None:
    """The tree of a single JSON document with lines, by way of YAML; None where YAML cannot read it."""
    try:
        pieces = _read_yaml(_decode(data), data)
    except _UnreadableError:
        return None
    return pieces[0].root if len(pieces) == 1 else None


def _decode(data: bytes) -> str:
    if len(data) > MAX_BYTES:
        raise _UnreadableError(f"has {len(data)} bytes; a file of documents may have {MAX_BYTES}")
    try:
        # Not utf-8-sig: Python imports that codec at its first use, which fails while the process has no descriptors left.
        return data.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _UnreadableError(f"is not UTF-8 at byte {error.start}", line) from None


# === JSON ===


def _read_json(text: str, data: bytes) -> list[YamlDocument] | None:
    """The one document of a JSON text, or None when it is not JSON and YAML may try."""
    if not text.lstrip(" \t\r\n").startswith("{"):
        return None
    try:
        value = json.loads(
            text,
            object_pairs_hook=_Pairs,
            parse_int=lambda t: WrittenInt(int(t), t),
            parse_float=lambda t: WrittenFloat(float(t), t),
            parse_constant=_no_constant,
        )
    except (ValueError, RecursionError):
        return None
    node = _json_node(value, 0)
    _check_size(size_of(node), None)
    return [YamlDocument(node, data)]


class _Pairs(list[tuple[str, Any]]):
    """A JSON object in the order written, duplicates still in it."""


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _json_node(value: Any, depth: int) -> Node:
    if isinstance(value, list):
        if depth >= MAX_DEPTH:
            raise _UnreadableError(f"nests deeper than {MAX_DEPTH}")
        if isinstance(value, _Pairs):
            return mapping(((Scalar(k, None), _json_node(v, depth + 1)) for k, v in value), None)
        return sequence((_json_node(v, depth + 1) for v in value), None)
    return Scalar(value, None)


# === YAML ===


@dataclass(slots=True)
class _Frame:
    """A list or mapping under construction."""

    mapping: bool
    line: int
    anchor: str | None
    items: list[Node] = field(default_factory=list)
    size: int = 1


@dataclass(slots=True)
class _Span:
    """Where one document lies in the text, in characters."""

    root: Node
    start: int
    end: int


class _Builder:
    """Builds the trees of a stream from its events; every limit is checked as an event arrives."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.spans: list[_Span] = []
        self.stack: list[_Frame] = []
        self.anchors: dict[str, Node] = {}
        self.root: Node | None = None
        self.start = 0
        self.total = 0

    def take(self, event: Any) -> None:
        """One event of the stream."""
        line = event.start_mark.line + 1
        match event:
            case events.DocumentStartEvent():
                self._begin(event, line)
            case events.ScalarEvent():
                self._place(Scalar(_scalar(event, line), line), event.anchor, line)
            case events.AliasEvent():
                if event.anchor not in self.anchors:
                    raise _UnreadableError(
                        f"alias *{event.anchor} stands before or inside what it names", line
                    )
                self._place(self.anchors[event.anchor], None, line)
            case events.SequenceStartEvent() | events.MappingStartEvent():
                self._open(event, line)
            case events.SequenceEndEvent() | events.MappingEndEvent():
                self._close()
            case events.DocumentEndEvent():
                self._finish()
            case _:
                pass

    def _begin(self, event: Any, line: int) -> None:
        if event.version is not None and tuple(event.version) != (1, 2):
            raise _UnreadableError("is read as YAML 1.2; remove the %YAML line", line)
        if event.tags:
            raise _UnreadableError("uses a %TAG line; tags are not read", line)
        if self.spans:
            self.spans[-1].end = event.start_mark.index
        self.anchors.clear()
        self.root = None
        if not event.explicit:
            self.start = event.start_mark.index if self.spans else 0
            return
        after = event.end_mark.index
        rest = self.text[after:].partition("\n")[0].strip()
        # A value on the line of its marker keeps the marker: its columns count from there.
        self.start = event.start_mark.index if rest and not rest.startswith("#") else after

    def _open(self, event: Any, line: int) -> None:
        if event.tag is not None:
            raise _UnreadableError(f"tag {quoted(str(event.tag))} is not read; remove it", line)
        if len(self.stack) >= MAX_DEPTH:
            raise _UnreadableError(f"nests deeper than {MAX_DEPTH}", line)
        mapping = isinstance(event, events.MappingStartEvent)
        self.stack.append(_Frame(mapping, line, event.anchor))

    def _close(self) -> None:
        frame = self.stack.pop()
        if frame.mapping:
            pairs = zip(frame.items[::2], frame.items[1::2], strict=True)
            self._place(mapping(pairs, frame.line), frame.anchor, frame.line)
        else:
            self._place(sequence(frame.items, frame.line), frame.anchor, frame.line)

    def _place(self, node: Node, anchor: str | None, line: int) -> None:
        size = size_of(node)
        if len(self.stack) + depth_of(node) > MAX_DEPTH:
            raise _UnreadableError(f"nests deeper than {MAX_DEPTH}", line)
        if anchor is not None:
            self.anchors[anchor] = node
        if self.stack:
            top = self.stack[-1]
            top.items.append(node)
            top.size += size
            _check_size(self.total + top.size, line)
        else:
            self.root = node
            self.total += size
            _check_size(self.total, line)

    def _finish(self) -> None:
        if self.root is not None:
            if len(self.spans) >= MAX_DOCUMENTS:
                raise _UnreadableError(f"holds more than {MAX_DOCUMENTS} documents")
            self.spans.append(_Span(self.root, self.start, len(self.text)))


def _read_yaml(text: str, data: bytes) -> list[YamlDocument]:
    for number, line in enumerate(text.split("\n"), start=1):
        if len(line) > MAX_LINE:
            raise _UnreadableError(f"has a line of {len(line)} characters; {MAX_LINE} are read", number)
    builder = _Builder(text)
    for event in _events(text):
        builder.take(event)
    spans = [s for s in builder.spans if not (isinstance(s.root, Scalar) and s.root.value is None)]
    if len(spans) == 1:
        return [YamlDocument(spans[0].root, data)]
    return [YamlDocument(s.root, text[s.start : s.end].encode("utf-8")) for s in spans]


def _events(text: str) -> Iterator[Any]:
    """ruamel's events; every way in which it fails on bad input becomes one fault."""
    stream = iter(YAML(typ="safe", pure=True).parse(text))
    while True:
        try:
            event = next(stream)
        except StopIteration:
            return
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            what = ", ".join(part for part in (error.context, error.problem) if part)
            raise _UnreadableError(
                f"is not YAML: {what}", mark.line + 1 if mark is not None else None
            ) from None
        except YAMLError as error:
            raise _UnreadableError(f"is not YAML: {' '.join(str(error).split())}") from None
        except (ValueError, IndexError, AttributeError, TypeError, OverflowError, RecursionError) as error:
            raise _UnreadableError(
                f"is not YAML: the parser gave up ({type(error).__name__}: {error})"
            ) from None
        yield event


def _scalar(event: Any, line: int) -> str | WrittenInt | WrittenFloat | bool | None:
    text = str(event.value)
    if event.tag is not None:
        if str(event.tag) == _STR_TAG:
            return text
        raise _UnreadableError(f"tag {quoted(str(event.tag))} is not read; remove it", line)
    if event.style is not None and event.style != "":
        return text
    if text in _WORDS:
        return _WORDS[text]
    return _number(text, line)


def _number(text: str, line: int) -> str | WrittenInt | WrittenFloat:
    base = 10 if _INT.match(text) else 8 if _OCTAL.match(text) else 16 if _HEX.match(text) else 0
    is_float = base == 0 and _FLOAT.match(text) is not None
    if (base or is_float) and len(text) > _MAX_DIGITS:
        raise _UnreadableError(f"holds a number of {len(text)} digits; quote it if it is a text", line)
    if base:
        return WrittenInt(int(text, base), text)
    if is_float:
        return WrittenFloat(float(text), text)
    if infinite := _INFINITY.match(text):
        return WrittenFloat(float(f"{infinite[1]}inf"), text)
    return WrittenFloat(float("nan"), text) if text in (".nan", ".NaN", ".NAN") else text


def _check_size(size: int, line: int | None) -> None:
    if size > MAX_NODES:
        raise _UnreadableError(f"expands to more than {MAX_NODES} values", line)

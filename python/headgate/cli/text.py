"""Text for a terminal: nothing that came from elsewhere can steer it, and figures have units that a person reads.

A reason, a name from a model or a message of the gateway may hold control characters; a terminal would obey them. JSON and
YAML are escaped in their own ways (``output``). Next: output.py.
"""

from __future__ import annotations

import re
from typing import Any

from headgate.readable import duration, durations, size

__all__ = ["duration", "durations", "escape", "escape_json", "escape_lines", "is_plain", "printable", "size"]

_CONTROL = "\x00-\x1f\x7f-\x9f"
#: Marks that turn the direction of text around or break lines: with them a line can show what it does not say.
_MARKS = "\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
#: Halves of surrogate pairs and noncharacters cannot be written as UTF-8.
_BROKEN = "\ud800-\udfff"
_UNSAFE = re.compile(f"[{_CONTROL}{_MARKS}{_BROKEN}]")
_UNSAFE_IN_LINES = re.compile(f"(?![\n\t])[{_CONTROL}{_MARKS}{_BROKEN}]")
_MULTI_LINE = frozenset({"diff", "document"})
"""The fields of answers that hold whole texts; everywhere else a line break is as foreign as an escape sequence."""


def escape(text: str) -> str:
    """One line: control characters, line breaks and marks of direction are shown as escapes, such as ``\\x1b``."""
    return _UNSAFE.sub(_shown, text)


def escape_lines(text: str) -> str:
    """Several lines: as :func:`escape`, but line breaks and tabs stay."""
    return _UNSAFE_IN_LINES.sub(_shown, text)


def escape_json(text: str) -> str:
    """JSON that was written without ``ensure_ascii``: the same value, without characters that steer a terminal."""
    return _UNSAFE_IN_LINES.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def is_plain(text: str) -> bool:
    """Whether a terminal shows these lines as they are."""
    return _UNSAFE_IN_LINES.search(text) is None


def printable(data: Any, field: str = "") -> Any:
    """An answer of the gateway with every text in it escaped, names of fields included."""
    if isinstance(data, str):
        return escape_lines(data) if field in _MULTI_LINE else escape(data)
    if isinstance(data, dict):
        return {escape(str(name)): printable(value, str(name)) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [printable(value) for value in data]
    return data


def _shown(found: re.Match[str]) -> str:
    point = ord(found[0])
    return f"\\x{point:02x}" if point < 0x100 else f"\\u{point:04x}"

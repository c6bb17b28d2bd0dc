"""Faults: what is wrong with a document, where, and what would be right; collected, then raised all at once.

Not here: the rules themselves (``values``, ``model``, ``checks``). Next: ``nodes``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from headgate.errors import PolicyInvalid

Path = tuple[str | int, ...]
"""The way to a field: mapping keys as strings, list positions as integers."""

MAX_FAULTS = 100
"""How many faults are reported of one file; more are counted, not listed."""

_PLAIN_SEGMENT = re.compile(r"[A-Za-z0-9_-]+\Z")
_MAX_QUOTED = 60
_MAX_COMPARED = 50
"""Names that a word is compared with; whoever writes the file may write thousands."""
_MAX_FOLDED = 32
"""Characters of a name that are compared: the time for two names grows with the square of it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: ``path`` such as ``versions.v8.model`` ("" is the document), ``line`` from 1 when known."""

    path: str
    line: int | None
    message: str

    def as_dict(self) -> dict[str, str | int | None]:
        """The shape of one entry of ``detail["faults"]``."""
        return {"path": self.path, "line": self.line, "message": self.message}

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line is not None else ""
        return f"{where}{self.path}: {self.message}" if self.path else f"{where}{self.message}"


def format_path(path: Path) -> str:
    """``("versions", "v1.2", "model")`` as ``versions["v1.2"].model``, list positions as ``X[3]``."""
    out = ""
    for segment in path:
        if isinstance(segment, int):
            out += f"[{segment}]"
        elif _PLAIN_SEGMENT.match(segment):
            out += f".{segment}" if out else segment
        else:
            out += f"[{quoted(segment)}]"
    return out


def quoted(text: str) -> str:
    """``text`` in double quotes, control characters escaped, cut at 60 characters: safe for a terminal."""
    cut = text if len(text) <= _MAX_QUOTED else text[: _MAX_QUOTED - 1] + "…"
    safe = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in cut)
    return f'"{safe}"'


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word most like ``word`` (case and ``_ -`` apart), or None when none is near; only the first fifty are looked at."""
    folded = {_fold(name): name for name in islice(known, _MAX_COMPARED)}
    match = difflib.get_close_matches(_fold(word), list(folded), n=1, cutoff=0.6)
    return folded[match[0]] if match else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``did you mean "x"?`` or ``known here: a, b``; for the end of a message."""
    names = list(known)
    near = nearest(word, names)
    if near is not None:
        return f"did you mean {quoted(near)}?"
    return f"known here: {', '.join(names[:20])}" if names else "none are declared"


def policy_invalid(source: str, faults: Iterable[Fault]) -> PolicyInvalid:
    """The exception that carries all ``faults`` of ``source``, at most ``MAX_FAULTS`` of them."""
    found = list(faults)
    kept = found[:MAX_FAULTS]
    count = "1 fault" if len(found) == 1 else f"{len(found)} faults"
    lines = [f"{source}: {count}", *(f"  {fault}" for fault in kept)]
    if len(found) > len(kept):
        lines.append(f"  and {len(found) - len(kept)} more")
    detail = {"source": source, "faults": [fault.as_dict() for fault in kept], "count": len(found)}
    return PolicyInvalid("\n".join(lines), detail=detail)


def _fold(word: str) -> str:
    return word[:_MAX_FOLDED].lower().replace("_", "").replace("-", "")

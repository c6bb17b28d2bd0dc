"""Reads what callgrind counted of one thread: instructions by function, object and source file, and the lines of code touched.

Needs ``--dump-instr=yes``. Not here: what is counted (``profile``). The format is that of valgrind's manual, "Callgrind Format
Specification".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

LINE_BITS = 6
"""A cache line has 64 bytes on the processors that Headgate is built for."""
DEEPEST = 50
"""How many calls deep it is asked who has called a function."""
FILES = frozenset({"fl", "fi", "fe", "cfi", "cfl"})


@dataclass
class ThreadCounts:
    """What one thread executed. All counts are instructions."""

    own: Counter[str] = field(default_factory=Counter)
    """Of each function itself, with what is inlined into it."""
    whole: Counter[str] = field(default_factory=Counter)
    """Of each function with what it calls; functions that call themselves count more than once."""
    objects: Counter[str] = field(default_factory=Counter)
    """Of each program or library, by its path."""
    sources: Counter[str] = field(default_factory=Counter)
    """Of each source file; what is inlined counts where it is written."""
    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Of what a function calls another one for, with all that this one calls: caller and callee."""
    object_of: dict[str, str] = field(default_factory=dict)
    """The object of each function."""
    lines: Counter[tuple[str, int]] = field(default_factory=Counter)
    """How often the most executed instruction of each touched line of code ran: object and address / 64."""

    @property
    def total(self) -> int:
        """All instructions."""
        return sum(self.own.values())

    def called_by(self, part: str) -> float:
        """Instructions of objects with this in their file name, and of the functions of others that they call.

        A function that several call, such as those of libc, is charged to them in the proportion of what they call it for.
        """
        callers: dict[str, dict[str, int]] = {}
        for (caller, callee), count in self.calls.items():
            if caller != callee and part not in Path(self.object_of.get(callee, "")).name:
                callers.setdefault(callee, {})[caller] = count
        share = {name: float(part in Path(of).name) for name, of in self.object_of.items()}
        # Each round reaches one call further down; a share changes no more once all ways to it are done.
        for _ in range(DEEPEST):
            for callee, counts in callers.items():
                total = sum(counts.values())
                if total:
                    share[callee] = sum(share.get(name, 0) * count for name, count in counts.items()) / total
        return sum(count * share.get(name, 0) for name, count in self.own.items())

    def called(self, function: str) -> int:
        """Instructions of functions whose name has this in it, with all that they call, by the calls from others."""
        return sum(
            count
            for (caller, callee), count in self.calls.items()
            if function in callee and function not in caller
        )

    def lines_of(self, times: int = 1, without: str | None = None) -> int:
        """Lines of code with an instruction that ran so often, in objects that have not ``without`` in their file name."""
        return sum(
            most >= times and (without is None or without not in Path(name).name)
            for (name, _), most in self.lines.items()
        )


def read(counts: Path) -> ThreadCounts:
    """The counts in one of callgrind's files."""
    return parse(counts.read_text(errors="replace").splitlines())


def parse(lines: Iterable[str]) -> ThreadCounts:
    """The counts in a file's lines, of whose events the first one is used."""
    counts, names = ThreadCounts(), _Names()
    place = {"ob": "", "fn": "", "source": "", "cfn": ""}
    address, calls = 0, False
    for line in lines:
        key, is_field, value = line.partition("=")
        if line[:1] in "+-*0123456789" and line:
            parts = line.split()
            address = _moved(address, parts[0])
            spent = int(parts[2])
            counts.whole[place["fn"]] += spent
            if calls:
                counts.calls[place["fn"], place["cfn"]] += spent
            else:
                counts.own[place["fn"]] += spent
                counts.object_of[place["fn"]] = place["ob"]
                counts.objects[place["ob"]] += spent
                counts.sources[place["source"]] += spent
                touched = (place["ob"], address >> LINE_BITS)
                counts.lines[touched] = max(counts.lines[touched], spent)
            calls = False
        elif key == "calls":
            calls = True
        elif (is_field and key in ("ob", "cob", "fn", "cfn")) or key in FILES:
            name = names.named(key, value)
            if key in ("ob", "fn", "cfn"):
                place[key] = name
            if key in ("fl", "fi", "fe"):
                place["source"] = name
    return counts


def _moved(address: int, token: str) -> int:
    """The address that a token means: absolute, or relative to the one before."""
    if token == "*":
        return address
    if token[0] in "+-":
        return address + int(token, 16)
    return int(token, 16)


class _Names:
    """Names that are spelled once and then numbered; objects, files and functions have numbers of their own."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], str] = {}

    def named(self, key: str, value: str) -> str:
        kind = "file" if key in FILES else key[-2:]
        number, _, name = value.partition(" ")
        if not number.startswith("("):
            return value
        return self._known.setdefault((kind, number), name) if name else self._known[kind, number]

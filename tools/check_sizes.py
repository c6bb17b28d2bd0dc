"""Checks that files and functions stay short enough to be read at once.

A file of ``rust/*/src`` and of ``python/headgate`` has at most 450 lines, a function of ``rust/*/src`` at most 60. Generated code is
left out. A function is counted from the line with its name to its closing brace.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

#: The most lines of a file.
FILE_LINES = 450
#: The most lines of a function.
FUNCTION_LINES = 60

# What braces do not count in: comments, strings and characters. A lifetime is no character.
QUOTED = re.compile(
    r"""//[^\n]*|/\*.*?\*/|b?r(?P<hashes>\#*)".*?"(?P=hashes)|b?"(?:[^"\\]|\\.)*"|b?'(?:[^'\\\n]|\\[^\n]+?)'""",
    re.DOTALL,
)
FUNCTION = re.compile(r"\bfn\s+(\w+)")


def blanked(text: str) -> str:
    """The text with comments, strings and characters taken out, every line where it was."""
    return QUOTED.sub(lambda quoted: "\n" * quoted[0].count("\n"), text)


def functions_of(text: str) -> Iterator[tuple[str, int, int]]:
    """The name, first line and number of lines of every function with a body."""
    code = blanked(text)
    for match in FUNCTION.finditer(code):
        end = body_end(code, match.end())
        if end is not None:
            first = code.count("\n", 0, match.start()) + 1
            yield match[1], first, code.count("\n", match.start(), end) + 1


def body_end(code: str, start: int) -> int | None:
    """The place of the brace that closes the body of a function; ``None`` for one that is only declared."""
    braces = others = 0
    for at in range(start, len(code)):
        char = code[at]
        others += (char in "([") - (char in ")]")
        if char == ";" and braces == 0 and others == 0:
            return None
        braces += (char == "{") - (char == "}")
        if char == "}" and braces == 0:
            return at
    return None


def sources(*patterns: str) -> list[Path]:
    """The files of the patterns; generated code is left out."""
    found = (path for pattern in patterns for path in ROOT.glob(pattern))
    return sorted(path for path in found if "generated" not in path.parts)


def file_faults(name: str, text: str) -> Iterator[str]:
    """One sentence if a file is too long."""
    lines = len(text.splitlines())
    if lines > FILE_LINES:
        yield f"{name}: {lines} lines; a file has at most {FILE_LINES}"


def function_faults(name: str, text: str) -> Iterator[str]:
    """One sentence for each function that is too long."""
    for function, line, lines in functions_of(text):
        if lines > FUNCTION_LINES:
            yield f"{name}:{line}: {function} has {lines} lines; a function has at most {FUNCTION_LINES}"


def faults() -> Iterator[str]:
    """Everything that is too long, one sentence each."""
    for path in sources("rust/*/src/**/*.rs", "python/headgate/**/*.py"):
        name, text = path.relative_to(ROOT).as_posix(), path.read_text()
        yield from file_faults(name, text)
        if path.suffix == ".rs":
            yield from function_faults(name, text)


def main() -> int:
    """Prints the faults; 1 when there are any."""
    found = list(faults())
    for fault in found:
        print(fault, file=sys.stderr)
    if not found:
        print(f"no file has more than {FILE_LINES} lines, no function of Rust more than {FUNCTION_LINES}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

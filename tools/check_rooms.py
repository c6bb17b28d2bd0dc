"""Checks the rooms inside the Rust crates: an import never goes up from one room to another, and no files import each other in a circle.

A room is a folder of ``src``, or a file that stands there alone. An import is a path that begins with ``crate``, ``super``,
``self`` or a module below, in a ``use`` or anywhere else; declaring a module is none. A name that ``lib.rs`` exports counts as
an import from the file that has it. Test modules are left out: they may use what they like.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

#: The rooms of a crate, from the bottom to the top.
ROOMS: dict[str, list[set[str]]] = {
    "server": [
        {
            "budget",
            "config",
            "copied_run",
            "event_queue",
            "headers",
            "inspect",
            "metrics",
            "output_bins",
            "reply_fields",
            "request_context",
            "scheduling",
        },
        {"shadow", "capture", "feedback"},
        {"replay"},
        {"serving"},
        {"thread"},
        {"transport"},
        {"after"},
        {"request"},
        {"call"},
        {"io_thread"},
        {"gateway"},
        {"lib"},
    ],
    "engine": [
        {"shapes", "sync", "time"},
        {"compute", "queue"},
        {"workers"},
        {"batching", "memory", "warmup"},
        {"models", "simulation"},
        {"runs"},
        {"load"},
        {"lib"},
    ],
}
#: The crates whose files must not import each other in a circle.
WITHOUT_CIRCLES = [
    "capture",
    "core",
    "engine",
    "http2",
    "load",
    "protocol",
    "py",
    "runtime",
    "server",
    "sketch",
]

COMMENT = re.compile(r"//[^\n]*")
TESTS = re.compile(
    r"^#\[cfg\((?:all\()?test\b[^\n]*\n(?:#\[[^\n]*\n)*(?:[^\n{]*;|(?:pub )?use [^;]*;|.*?^\}$)",
    re.DOTALL | re.MULTILINE,
)
USE = re.compile(r"\buse\s+([^;]+);")


def modules_of(source: Path) -> dict[str, Path]:
    """The files of a crate by the path of their module; generated code and tests are left out."""
    found = {}
    for path in sorted(source.rglob("*.rs")):
        parts = path.relative_to(source).with_suffix("").parts
        if "generated" in parts[:-1] or parts[-1] == "tests":
            continue
        found["::".join(parts[:-1] if parts[-1] in ("mod", "lib") else parts)] = path
    return found


def leaves(tree: str) -> Iterator[str]:
    """The paths of a ``use`` tree: ``a::{b, c::{d, e}}`` has three."""
    head, brace, rest = tree.partition("{")
    if not brace:
        yield tree.split(" as ")[0].strip()
        return
    depth, start, inner = 0, 0, rest[: rest.rindex("}")]
    for at, char in enumerate(f"{inner},"):
        depth += (char == "{") - (char == "}")
        if char == "," and depth == 0:
            if inner[start:at].strip():
                yield from (head.strip() + leaf for leaf in leaves(inner[start:at].strip()))
            start = at + 1


def below(module: str, known: set[str]) -> set[str]:
    """The names of the modules among `known` that stand directly below a module."""
    return {name.rpartition("::")[2] for name in known if name and name.rpartition("::")[0] == module}


def absolute(path: str, module: str, children: set[str]) -> str | None:
    """A path from the root of the crate, as written in `module`; ``None`` for one that begins elsewhere."""
    parts, base = path.split("::"), module.split("::") if module else []
    if parts[0] not in {"crate", "super", "self"} | children:
        return None
    base = [] if parts[0] == "crate" else base
    while parts and parts[0] in ("crate", "super", "self"):
        base = base[:-1] if parts.pop(0) == "super" else base
    return "::".join([*base, *(part for part in parts if part != "self")])


def paths_of(text: str, module: str, known: set[str]) -> list[str]:
    """The paths from the root of the crate that the text of a module names."""
    text = TESTS.sub("", COMMENT.sub("", text))
    children = below(module, known)
    starts = "|".join(sorted({"crate", "super", "self"} | children))
    path_pattern = re.compile(rf"(?<![\w:])(?:{starts})(?:::\w+)+")
    paths = [leaf for use in USE.finditer(text) for leaf in leaves(" ".join(use[1].split()))]
    paths += [path[0] for path in path_pattern.finditer(USE.sub("", text))]
    return [target for path in paths if (target := absolute(path, module, children))]


def imports_of(paths: list[str], module: str, known: set[str], exports: dict[str, str]) -> set[str]:
    """The modules among `known` that a module imports from; `exports` has the paths that ``lib.rs`` exports, by their names."""
    found = set()
    for path in paths:
        first, _, rest = path.partition("::")
        target = path if first in known or first not in exports else f"{exports[first]}::{rest}"
        # An item belongs to the file of the longest module in front of it.
        while target and target not in known:
            target = target.rpartition("::")[0]
        if target and target != module:
            found.add(target)
    return found


def graph_of(source: Path) -> dict[str, set[str]]:
    """The modules of a crate and what each imports from."""
    modules = modules_of(source)
    known = set(modules)
    paths = {name: paths_of(path.read_text(), name, known) for name, path in modules.items()}
    exports = {path.rpartition("::")[2]: path for path in paths.get("", []) if "::" in path}
    return {name: imports_of(own, name, known, exports) for name, own in paths.items()}


def circles(graph: dict[str, set[str]]) -> Iterator[list[str]]:
    """Each set of modules of which every one reaches every other."""
    reach = {name: reachable(graph, name) for name in graph}
    seen: set[str] = set()
    for name in sorted(graph):
        together = {other for other in reach[name] if name in reach[other]}
        if together and name not in seen:
            seen |= together
            yield sorted(together)


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    """What a module imports, directly or not."""
    found: set[str] = set()
    ahead = [start]
    while ahead:
        new = graph[ahead.pop()] - found
        found |= new
        ahead.extend(new)
    return found


def room_faults(crate: str, graph: dict[str, set[str]], rooms: list[set[str]]) -> Iterator[str]:
    """One sentence for each import that goes up from one room to another."""
    ranks = {room: rank for rank, names in enumerate(rooms) for room in names}
    for module, targets in sorted(graph.items()):
        own = module.split("::")[0] or "lib"
        if own not in ranks:
            yield f"{crate}: {own!r} is no room; add it to ROOMS in tools/check_rooms.py"
            continue
        for target in sorted(targets):
            room = target.split("::")[0]
            if ranks.get(room, -1) > ranks[own]:
                yield f"{crate}: {module} imports {target}, and {room!r} is not below {own!r}"


def faults() -> Iterator[str]:
    """Everything that is wrong, one sentence each."""
    for crate, rooms in ROOMS.items():
        yield from room_faults(crate, graph_of(ROOT / "rust" / crate / "src"), rooms)
    for crate in WITHOUT_CIRCLES:
        for circle in circles(graph_of(ROOT / "rust" / crate / "src")):
            yield f"{crate}: these files import each other in a circle: {', '.join(circle)}"


def main() -> int:
    """Prints the faults; 1 when there are any."""
    found = list(faults())
    for fault in found:
        print(fault, file=sys.stderr)
    if not found:
        print("rooms of the crates run one way")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

"""Checks that imports run one way: between the modules of the package, and between the crates.

Python:  cli -> gateway -> admin, observe -> control -> registry, drift, notify -> store, documents -> errors
         cli -> bench -> documents
         inside control: service -> reads -> writes -> domain
Rust:    the table of CONTRIBUTING.md, written below as CRATES

A module may import what is below it, any number of steps down; never what stands beside or above it.
A module or crate that is not listed is a fault: its place has to be decided when it is made.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "python" / "headgate"

#: From the bottom to the top. Helpers without knowledge of the domain stand just above ``errors``.
LAYERS: list[set[str]] = [
    {"errors", "_native", "__init__"},
    {
        "runtime_library",
        "nvidia_libraries",
        "background",
        "leases",
        "private_files",
        "readable",
        "regular_files",
    },
    {"store", "documents"},
    {"registry", "drift", "bench", "notify"},
    {"control"},
    {"admin", "observe"},
    {"gateway"},
    {"cli"},
    {"__main__"},
]

#: The rooms of a module, from the bottom to the top: a file may import its own room and those below.
ROOMS: dict[str, list[set[str]]] = {
    "control": [
        {"domain"},
        {"writes"},
        {"reads"},
        {"rollout_calls"},
        {"traffic_calls"},
        {"service"},
        {"__init__"},
    ],
}

#: What each crate may depend on among ours.
CRATES: dict[str, set[str]] = {
    "core": set(),
    "sketch": set(),
    "protocol": {"core"},
    "http2": set(),
    "runtime": {"core"},
    "capture": {"core"},
    "engine": {"core", "runtime"},
    "server": {"core", "protocol", "http2", "engine", "sketch", "capture"},
    "load": {"core", "protocol"},
    "py": {"server", "load", "engine", "sketch", "core"},
}


def layer_of(module: str) -> int | None:
    """The layer of a top-level module of the package, or None when it has none."""
    return next((rank for rank, names in enumerate(LAYERS) if module in names), None)


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """The line and top-level module of each import that a file makes from the package; ``__init__`` for the root."""
    known = {entry.stem for entry in PACKAGE.iterdir()}
    for line, target in targets_of(path):
        yield line, target[1] if len(target) > 1 and target[1] in known else "__init__"


def targets_of(path: Path) -> Iterator[tuple[int, tuple[str, ...]]]:
    """The line and dotted name, in parts, of each import that a file makes from the package."""
    inside = path.relative_to(PACKAGE.parent).with_suffix("").parts
    package = inside[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            targets = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = tuple((node.module or "").split(".")) if node.module else ()
            if node.level:
                base = package[: len(package) - node.level + 1] + base
            targets = [(*base, alias.name) for alias in node.names]
        else:
            continue
        yield from ((node.lineno, target) for target in targets if target[0] == "headgate")


def room_faults() -> Iterator[str]:
    """One sentence for each import inside a module that goes up from one of its rooms to another."""
    for module, rooms in ROOMS.items():
        ranks = {room: rank for rank, names in enumerate(rooms) for room in names}
        for path in sorted((PACKAGE / module).rglob("*.py")):
            own = path.relative_to(PACKAGE / module).with_suffix("").parts[0]
            where = path.relative_to(ROOT)
            if own not in ranks:
                yield f"{where}: {own!r} is no room of {module!r}; add it to ROOMS in tools/check_imports.py"
                continue
            for line, target in targets_of(path):
                if target[1:2] != (module,):
                    continue
                room = target[2] if len(target) > 2 and target[2] in ranks else "__init__"
                if ranks[room] > ranks[own]:
                    yield f"{where}:{line}: {own!r} imports {room!r}, which is not below it in {module!r}"


def module_faults() -> Iterator[str]:
    """One sentence for each import of the package that goes up or sideways."""
    for path in sorted(PACKAGE.rglob("*.py")):
        own = path.relative_to(PACKAGE).with_suffix("").parts[0]
        rank = layer_of(own)
        where = path.relative_to(ROOT)
        if rank is None:
            yield f"{where}: the module {own!r} has no layer; add it to LAYERS in tools/check_imports.py"
            continue
        for line, module in imported(path):
            below = layer_of(module)
            if module != own and below is not None and below >= rank and module != "__init__":
                yield f"{where}:{line}: {own!r} imports {module!r}, which is not below it"


def crate_faults() -> Iterator[str]:
    """One sentence for each dependency between crates that the table does not allow."""
    for manifest in sorted((ROOT / "rust").glob("*/Cargo.toml")):
        own = manifest.parent.name
        where = manifest.relative_to(ROOT)
        if own not in CRATES:
            yield f"{where}: the crate {own!r} is not in CRATES in tools/check_imports.py"
            continue
        tables = tomllib.loads(manifest.read_text())
        for table in ("dependencies", "build-dependencies"):
            for name in tables.get(table, {}):
                ours = name.removeprefix("headgate-")
                if ours != name and ours not in CRATES[own]:
                    allowed = ", ".join(sorted(CRATES[own])) or "none of ours"
                    yield f"{where}: {own!r} depends on {ours!r}; allowed: {allowed}"


def main() -> int:
    """Prints the faults; 1 when there are any."""
    faults = [*module_faults(), *room_faults(), *crate_faults()]
    for fault in faults:
        print(fault, file=sys.stderr)
    if not faults:
        print("imports, rooms and crates run one way")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

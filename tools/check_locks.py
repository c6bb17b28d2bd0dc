"""Fails when a lock file of a crate outside the workspace lacks a dependency that one of our crates has by now.

The peers of the benches and the generator of gRPC code have lock files of their own, and are built with ``--locked``. Nothing else
would notice such a file before somebody runs a bench.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OUTSIDE = ("benches", "benches/peers", "tools")
"""Where crates outside the workspace are."""


def manifests() -> dict[str, set[str]]:
    """The dependencies that each crate of the workspace cannot do without."""
    found = {}
    for path in sorted((ROOT / "rust").glob("*/Cargo.toml")):
        manifest = tomllib.loads(path.read_text())
        found[manifest["package"]["name"]] = set(needed(manifest["dependencies"]))
    return found


def needed(dependencies: dict[str, Any]) -> Iterator[str]:
    """Names of packages, but for optional ones."""
    for name, written in dependencies.items():
        if isinstance(written, dict):
            if not written.get("optional"):
                yield written.get("package", name)
        else:
            yield name


def faults(lock: Path, crates: dict[str, set[str]]) -> Iterator[str]:
    """What a lock file lacks."""
    for package in tomllib.loads(lock.read_text())["package"]:
        locked = {entry.split(" ")[0] for entry in package.get("dependencies", [])}
        for missing in sorted(crates.get(package["name"], set()) - locked):
            yield f"{lock.relative_to(ROOT)}: {package['name']} has the dependency {missing} by now; run `cargo metadata` beside it"


def main() -> None:
    """Prints what is wrong."""
    crates = manifests()
    locks = [lock for folder in OUTSIDE for lock in sorted((ROOT / folder).glob("*/Cargo.lock"))]
    found = [fault for lock in locks for fault in faults(lock, crates)]
    print(*found, sep="\n", file=sys.stderr, end="\n" if found else "")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()

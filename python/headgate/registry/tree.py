"""The tree of a ``--models`` folder: ``<endpoint>/<version>/model.onnx``, found without reading any model.

Hidden folders and folders without a ``model.onnx`` (a copy under way) are passed over. Next: ``sync``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from headgate.documents.values import is_name, natural_key
from headgate.errors import StorageFailed
from headgate.registry.manifest import MODEL

MAX_ENTRIES = 10_000
"""How many folder entries one scan looks at; a tree with more is not a model tree."""


@dataclass(frozen=True, slots=True)
class Found:
    """One version in the tree; ``folder`` is its real path and holds a ``model.onnx``."""

    endpoint: str
    version: str
    folder: Path


@dataclass(frozen=True, slots=True)
class Skipped:
    """A folder that looks like an endpoint or version and is not taken, and why."""

    folder: Path
    reason: str


@dataclass(frozen=True, slots=True)
class Survey:
    """What a scan found, by endpoint and then by version with digits read as numbers, and what it passed
    over."""

    found: list[Found]
    skipped: list[Skipped]


def scan(root: Path) -> list[Found]:
    """The versions below ``root``, sorted by endpoint and natural version order; errors as :func:`survey`."""
    return survey(root).found


def survey(root: Path) -> Survey:
    """Scans two levels below ``root``; ``StorageFailed`` when it cannot be read or has over ``MAX_ENTRIES``
    entries."""
    walk = _Walk(root)
    found: list[Found] = []
    for endpoint, folder in walk.folders(root, "endpoint"):
        for version, inner in walk.folders(folder, "version"):
            try:
                whole = (inner / MODEL).is_file()
            except OSError as error:
                walk.skipped.append(Skipped(inner, f"cannot be read: {error.strerror}"))
                continue
            if whole:
                found.append(Found(endpoint, version, inner))
            else:
                walk.skipped.append(Skipped(inner, f"holds no {MODEL} (yet)"))
    found.sort(key=lambda f: (f.endpoint, natural_key(f.version)))
    return Survey(found, walk.skipped)


def by_endpoint(found: list[Found]) -> dict[str, dict[str, Path]]:
    """The folders by endpoint and version, in the order of ``found``."""
    out: dict[str, dict[str, Path]] = {}
    for one in found:
        out.setdefault(one.endpoint, {})[one.version] = one.folder
    return out


class _Walk:
    """One scan: what it passed over, and how much it may still look at."""

    def __init__(self, root: Path) -> None:
        self.skipped: list[Skipped] = []
        self._root = root.resolve()
        self._left = MAX_ENTRIES

    def folders(self, parent: Path, what: str) -> list[tuple[str, Path]]:
        """The usable subfolders of ``parent``: their names and real paths, sorted by name.

        A ``parent`` that cannot be read is passed over, unless it is the root.
        """
        try:
            with os.scandir(parent) as entries:
                names = []
                for entry in entries:
                    self._left -= 1
                    if self._left < 0:
                        raise StorageFailed(
                            f"{self._root} has more than {MAX_ENTRIES} entries: is it a model tree?"
                        )
                    if not entry.name.startswith(".") and _is_folder(entry):
                        names.append(entry.name)
        except OSError as error:
            if what == "endpoint":
                missing = isinstance(error, FileNotFoundError)
                why = "does not exist" if missing else f"cannot be read: {error.strerror}"
                raise StorageFailed(f"{parent} {why}; it should hold <endpoint>/<version>/{MODEL}") from None
            if not isinstance(error, FileNotFoundError):  # else it was taken away while the scan ran
                self.skipped.append(Skipped(parent, f"cannot be read: {error.strerror}"))
            return []
        return [(name, real) for name in sorted(names) if (real := self._usable(parent / name, name, what))]

    def _usable(self, path: Path, name: str, what: str) -> Path | None:
        if not is_name(name):
            self.skipped.append(Skipped(path, f"its name is not valid for {what}s: use A-Z a-z 0-9 . _ -"))
            return None
        try:
            real = path.resolve()
        except (OSError, RuntimeError) as error:
            self.skipped.append(Skipped(path, f"cannot be read: {error}"))
            return None
        if self._root not in real.parents:
            self.skipped.append(Skipped(path, f"is a link that leaves {self._root}"))
            return None
        return real


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or a link to one; what cannot be told (a link to itself) is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False

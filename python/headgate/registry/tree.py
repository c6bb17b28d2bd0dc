"""The tree of a ``--models`` folder: ``<endpoint>/<version>/model.onnx``, found without reading any model.

Hidden folders are passed over. What looks like a model, an endpoint or a version and is none of it is listed with the reason, a
copy under way included. Next: ``sync``.
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
    """A folder or model that is not taken, and why, as the end of a sentence that begins with its path."""

    folder: Path
    reason: str
    endpoint: str | None = None
    """Whose folder it is or lies in, if it could be one's."""
    version: str | None = None


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
    endpoints = walk.folders(root, None)
    if not endpoints and not walk.skipped:
        walk.skipped.append(Skipped(root, f"is empty: it should hold <endpoint>/<version>/{MODEL}"))
    for endpoint, folder in endpoints:
        before = len(walk.skipped)
        versions = walk.folders(folder, endpoint)
        if not versions and len(walk.skipped) == before:
            walk.skipped.append(
                Skipped(folder, f"holds no version: it should hold <version>/{MODEL}", endpoint)
            )
        for version, inner in versions:
            try:
                whole = (inner / MODEL).is_file()
            except OSError as error:
                walk.skipped.append(Skipped(inner, f"cannot be read: {error.strerror}", endpoint, version))
                continue
            if whole:
                found.append(Found(endpoint, version, inner))
            else:
                walk.skipped.append(Skipped(inner, f"holds no {MODEL} (yet)", endpoint, version))
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

    def folders(self, parent: Path, endpoint: str | None) -> list[tuple[str, Path]]:
        """The usable subfolders of ``parent``: their names and real paths, sorted by name.

        ``endpoint`` is whose folder ``parent`` is, ``None`` for the root. A ``parent`` that cannot be read is passed over,
        unless it is the root.
        """
        try:
            with os.scandir(parent) as entries:
                taken = sorted(
                    (entry.name, entry.is_symlink()) for entry in entries if self._is_folder(entry, endpoint)
                )
        except OSError as error:
            if endpoint is None:
                missing = isinstance(error, FileNotFoundError)
                why = "does not exist" if missing else f"cannot be read: {error.strerror}"
                raise StorageFailed(f"{parent} {why}; it should hold <endpoint>/<version>/{MODEL}") from None
            if not isinstance(error, FileNotFoundError):  # else it was taken away while the scan ran
                self.skipped.append(Skipped(parent, f"cannot be read: {error.strerror}", endpoint))
            return []
        real_parent = self._root if endpoint is None else parent
        found = (
            (name, self._usable(parent / name, endpoint, None if is_link else real_parent / name))
            for name, is_link in taken
        )
        return [(name, real) for name, real in found if real is not None]

    def _is_folder(self, entry: os.DirEntry[str], endpoint: str | None) -> bool:
        """Whether it is a folder or a link to one; a model in its place is passed over with the reason."""
        self._left -= 1
        if self._left < 0:
            raise StorageFailed(f"{self._root} has more than {MAX_ENTRIES} entries: is it a model tree?")
        if entry.name.startswith("."):
            return False
        path = Path(entry.path)
        try:
            if entry.is_dir():
                return True
            lost = entry.is_symlink() and not path.exists()
        except OSError:  # a link to itself
            lost = True
        if lost:
            self.skipped.append(Skipped(path, "is a link to nothing", endpoint))
        elif path.suffix == ".onnx":
            place = f"{endpoint or path.stem}/1/{MODEL}"
            self.skipped.append(
                Skipped(path, f"lies beside the folders of versions: move it to {place}", endpoint or None)
            )
        return False

    def _usable(self, path: Path, endpoint: str | None, real: Path | None) -> Path | None:
        """The real path of a folder (``real``, unless it is a link); ``None`` if it is passed over."""
        what = "version" if endpoint else "endpoint"
        if not is_name(path.name):
            reason = f"its name is not valid for {what}s: use A-Z a-z 0-9 . _ -"
            self.skipped.append(Skipped(path, reason, endpoint))
            return None
        names = (endpoint, path.name) if endpoint else (path.name, None)
        try:
            real = real or path.resolve()
        except (OSError, RuntimeError) as error:
            self.skipped.append(Skipped(path, f"cannot be read: {error}", *names))
            return None
        if self._root not in real.parents:
            self.skipped.append(Skipped(path, f"is a link that leaves {self._root}", *names))
            return None
        return real

"""Removes what nobody references from a state folder: artifacts, baselines, and files of models that no artifact has.

A digest is referenced if a kept revision, a pin or the last applied state names it, and in use while somebody holds a lease on it
(``headgate.leases``). A gateway may be running on the folder, and several processes may collect at once. Not here: what names a
digest (``store.references``), when this runs (``control.writes.collection``). Next: ``registry``.

Each thing is locked first, then the references are read, and then it is removed. Who wants to use it takes a lease before writing
a row that references it. So either the row is seen here, or the lease is refused because the thing is gone.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from headgate.errors import StorageFailed
from headgate.leases import exclusive
from headgate.private_files import make_folder, temporary_folder

_GONE = "gone-"
"""What a folder in ``staging`` begins with that holds a removed artifact."""
_NAME = re.compile(r"[0-9a-f]{64}(\.json)?")
_PARTIAL = ".new-"
"""What a baseline is called while it is written."""

References = Callable[[], Collection[str]]
"""Reads the digests that are referenced now."""


@dataclass(frozen=True, slots=True)
class Collected:
    """How much was removed. ``busy`` says that a folder was in use as a whole, ``more`` that the bound of one call was reached."""

    artifacts: int = 0
    baselines: int = 0
    blobs: int = 0
    bytes: int = 0
    busy: bool = False
    more: bool = False

    def __add__(self, other: Collected) -> Collected:
        """Both together."""
        return Collected(
            self.artifacts + other.artifacts,
            self.baselines + other.baselines,
            self.blobs + other.blobs,
            self.bytes + other.bytes,
            self.busy or other.busy,
            self.more or other.more,
        )


@dataclass(frozen=True, slots=True)
class Unreferenced:
    """What :func:`collect` would remove if nobody uses it: digests of artifacts and baselines, and names of blobs."""

    artifacts: list[str]
    baselines: list[str]
    blobs: list[str]
    bytes: int


def unreferenced(state: Path, references: References) -> Unreferenced:
    """Looks, and removes nothing."""
    referenced = references()
    with _storage():
        artifacts = [path for path in _artifacts(state) if _artifact_digest(path) not in referenced]
        baselines = [path for path in _baselines(state) if _baseline_digest(path) not in referenced]
        # A file of a model has a link from each artifact that it belongs to, and one of its own.
        links: dict[int, int] = {}
        for path in artifacts:
            for file in filter(Path.is_file, path.rglob("*")):
                links[file.stat().st_ino] = links.get(file.stat().st_ino, 0) + 1
        blobs = [
            path for path in _blobs(state) if path.stat().st_nlink - links.get(path.stat().st_ino, 0) == 1
        ]
        size = sum(path.stat().st_size for path in (*baselines, *blobs))
    return Unreferenced(
        [_artifact_digest(path) for path in artifacts],
        [_baseline_digest(path) for path in baselines],
        [path.name for path in blobs],
        size,
    )


def collect(state: Path, references: References, most: int) -> Collected:
    """Removes at most ``most`` artifacts, as many baselines and as many blobs. Killed at any moment, it leaves nothing half there.

    :class:`StorageFailed` when the disk fails.
    """
    with _storage():
        return _collect_artifacts(state, references, most) + _collect_baselines(state, references, most)


def _collect_artifacts(state: Path, references: References, most: int) -> Collected:
    with exclusive(state / "artifacts") as is_free:
        if not is_free:
            return Collected(busy=(state / "artifacts").exists())
        _remove_leftovers(state / "staging")
        removed = 0
        with ExitStack() as locks:
            for path in _locked(_artifacts(state), _artifact_digest, references, (most, locks)):
                _remove_artifact(path, state / "staging")
                removed += 1
        blobs, size = _remove_blobs(state, most)
    return Collected(artifacts=removed, blobs=blobs, bytes=size, more=most in (removed, blobs))


def _collect_baselines(state: Path, references: References, most: int) -> Collected:
    folder = state / "baselines"
    with exclusive(folder) as is_free:
        if not is_free:
            return Collected(busy=folder.exists())
        for leftover in folder.glob(f"{_PARTIAL}*"):
            leftover.unlink()
        removed = size = 0
        with ExitStack() as locks:
            for path in _locked(_baselines(state), _baseline_digest, references, (most, locks)):
                size += path.stat().st_size
                path.unlink()
                removed += 1
    return Collected(baselines=removed, bytes=size, more=removed == most)


def _locked(
    paths: Iterator[Path],
    digest_of: Callable[[Path], str],
    references: References,
    bound: tuple[int, ExitStack],
) -> list[Path]:
    """Those of ``paths`` that nobody references and nobody uses, locked until the stack is left; at most so many."""
    most, locks = bound
    before = references()
    unused = (
        path for path in paths if digest_of(path) not in before and locks.enter_context(exclusive(path))
    )
    locked = list(islice(unused, most))
    # Read again under the locks: a lease that has ended meanwhile may have left a row.
    now = references() if locked else before
    return [path for path in locked if digest_of(path) not in now]


def _remove_artifact(path: Path, staging: Path) -> None:
    # Renamed first: whoever is killed here leaves a leftover, and never half an artifact.
    make_folder(staging)
    with temporary_folder(staging, _GONE) as aside:
        path.rename(aside / path.name)


def _remove_leftovers(staging: Path) -> None:
    for leftover in staging.glob(f"{_GONE}*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _remove_blobs(state: Path, most: int) -> tuple[int, int]:
    """Removes files that no artifact links to; how many, and their bytes. Nothing is taken in meanwhile."""
    removed = size = 0
    for path in islice((path for path in _blobs(state) if path.stat().st_nlink == 1), most):
        size += path.stat().st_size
        path.unlink()
        removed += 1
    return removed, size


def _artifacts(state: Path) -> Iterator[Path]:
    return (path for path in _ours(state / "artifacts") if path.is_dir())


def _baselines(state: Path) -> Iterator[Path]:
    return (path for path in _ours(state / "baselines") if path.suffix == ".json")


def _blobs(state: Path) -> Iterator[Path]:
    return _ours(state / "blobs" / "sha256")


def _ours(folder: Path) -> Iterator[Path]:
    """What is named by its digest. What else lies there, such as ``lost+found``, is somebody else's."""
    return (path for path in sorted(folder.glob("*")) if _NAME.fullmatch(path.name))


def _artifact_digest(path: Path) -> str:
    return f"sha256:{path.name}"


def _baseline_digest(path: Path) -> str:
    return f"sha256:{path.stem}"


@contextmanager
def _storage() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageFailed(f"what nobody references cannot be removed: {error}") from error

"""The content-addressed artifact store: files once by their hash, artifacts as folders of hard links to them.

``blobs/sha256/<hex>`` holds files, ``artifacts/<hex>/`` an artifact with its ``manifest.json``, ``staging/``
what is not whole yet. Everything becomes visible by one atomic rename after its bytes are on disk. Calls read
and hash whole files: never make them on an event loop. Not here: removing what nobody references (``collecting``), names and
versions (``registry``). Next: ``collecting``, then ``registry``.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from headgate.errors import HeadgateError, NotFound, StorageFailed
from headgate.leases import Lease
from headgate.private_files import READ_ONLY, make_folder, temporary_folder
from headgate.registry import source as sources
from headgate.registry.external import external_files
from headgate.registry.limits import Limits
from headgate.registry.manifest import MANIFEST, MODEL, Entry, Manifest, hex_of
from headgate.registry.source import Source

_CHUNK = 1 << 20


class ArtifactStore:
    """Artifacts below one state folder; safe to use from several threads of one process."""

    def __init__(self, state: Path, memory_budget_bytes: int | None = None) -> None:
        """With a memory budget, a model that can never be loaded is not taken in."""
        self._limits = Limits(memory_budget_bytes)
        self._blobs = state / "blobs" / "sha256"
        self._artifacts = state / "artifacts"
        self._staging = state / "staging"
        # One model is taken in at a time. No emergency call waits for that.
        self._lock = threading.Lock()
        self._verified: dict[str, _Statuses] = {}
        with _storage("the artifact store cannot be made"):
            for folder in (self._blobs, self._artifacts, self._staging):
                make_folder(folder)
            # What a process that was killed left behind. Nobody else writes here: the state folder is locked.
            for leftover in self._staging.iterdir():
                shutil.rmtree(leftover, ignore_errors=True)

    # === in ===

    def fingerprint(self, path: Path) -> Manifest:
        """The manifest that ingesting ``path`` would give; hashes its files, copies none. Errors as
        :meth:`ingest`."""
        source = sources.find(path)
        self._limits.check_model(source)
        model = source.path_of(MODEL)
        before = sources.identity(model)
        files = {MODEL: sources.read(source, MODEL, _drop)}
        needed = external_files(model)
        if sources.identity(model) != before:
            raise sources.Unsettled(f"{model} changed while it was read; try again when it is whole")
        for name in source.extras:
            files[name] = sources.read(source, name, _drop)
        for name, least in needed.items():
            files[name] = sources.read(source, name, _drop, least=least)
        return Manifest(files)

    def ingest(self, path: Path, lease: Lease | None = None) -> str:
        """Takes in the model at ``path`` (a folder with ``model.onnx``, or an ``.onnx`` file); returns its
        digest. ``lease`` holds the artifact from the moment when it is there.

        Raises ``ModelLoadFailed`` when it is no whole ONNX model or refers outside its folder, ``Unsettled``
        when it changes meanwhile, ``StorageFailed`` when the disk fails. Nothing is left behind on failure.
        """
        source = sources.find(path)
        self._limits.check_model(source)
        self._limits.check_memory(source)
        with self._lock, self._workspace() as work:
            self._limits.check_room(source, (MODEL, *source.extras), work)
            files = {MODEL: self._stage(source, MODEL, work, 0)}
            for name in source.extras:
                files[name] = self._stage(source, name, work, 0)
            # Read from the copy: the bytes that were hashed are the bytes that were judged.
            needed = external_files(work / files[MODEL].sha256)
            self._limits.check_room(source, needed, work)
            for name, least in needed.items():
                files[name] = self._stage(source, name, work, least)
            manifest = Manifest(files)
            with _storage(f"{path} cannot be stored"), Lease() as publishing:
                # Else a blob would be collected before its artifact links to it.
                publishing.hold(self._artifacts)
                for entry in files.values():
                    self._publish_blob(work / entry.sha256, entry)
                self._publish_artifact(manifest, work / "artifact", lease or publishing)
            self._verified[manifest.digest] = self._statuses(manifest.digest, manifest.files)
        return manifest.digest

    def _stage(self, source: Source, name: str, work: Path, least: int) -> Entry:
        with _storage(f"{name} cannot be copied"):
            handle, partial = tempfile.mkstemp(dir=work)
            with os.fdopen(handle, "wb") as copy:
                entry = sources.read(source, name, copy.write, least=least)
                copy.flush()
                os.fchmod(copy.fileno(), READ_ONLY)
                os.fsync(copy.fileno())
            Path(partial).rename(work / entry.sha256)
        return entry

    def _publish_blob(self, staged: Path, entry: Entry) -> None:
        target = self._blobs / entry.sha256
        if not staged.exists():
            return  # two names of one artifact with the same bytes: published with the first
        if target.exists() and _hash(target) == entry:
            staged.unlink()
            return
        staged.replace(target)
        _sync_folder(self._blobs)

    def _publish_artifact(self, manifest: Manifest, built: Path, lease: Lease) -> None:
        digest = manifest.digest
        target = self._artifacts / hex_of(digest)
        if lease.hold(target):
            try:
                self.verify(digest)
                return
            except StorageFailed:
                # A damaged artifact is set aside first: a folder cannot be replaced in one step.
                target.rename(built.with_name("damaged"))
        make_folder(built)
        for name, entry in manifest.files.items():
            link = built / name
            make_folder(link.parent)
            os.link(self._blobs / entry.sha256, link)
        with (built / MANIFEST).open("wb") as file:
            file.write(manifest.to_bytes())
            file.flush()
            os.fchmod(file.fileno(), READ_ONLY)
            os.fsync(file.fileno())
        for folder in (built, *(path for path in built.rglob("*") if path.is_dir())):
            _sync_folder(folder)
        lease.hold(built)
        built.rename(target)
        _sync_folder(self._artifacts)

    # === out ===

    def digests(self) -> list[str]:
        """The digests of all artifacts, sorted."""
        with _storage("the artifacts cannot be listed"):
            return sorted(f"sha256:{path.name}" for path in self._artifacts.iterdir() if path.is_dir())

    def contains(self, digest: str) -> bool:
        """Whether the artifact is there, unverified."""
        return (self._artifacts / hex_of(digest) / MANIFEST).is_file()

    def hold(self, digest: str, lease: Lease) -> bool:
        """Holds an artifact, so that nobody collects it; False: it is not there."""
        return lease.hold(self._artifacts / hex_of(digest))

    def manifest(self, digest: str) -> Manifest:
        """The manifest of an artifact, checked against its digest; ``NotFound``, or ``StorageFailed`` if
        damaged."""
        try:
            data = (self._artifacts / hex_of(digest) / MANIFEST).read_bytes()
        except FileNotFoundError:
            raise NotFound(f"artifact {digest} is not in the store") from None
        except OSError as error:
            raise StorageFailed(f"artifact {digest} cannot be read: {error}") from None
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
            raise StorageFailed(f"artifact {digest} is damaged: its manifest has other bytes")
        return Manifest.from_bytes(data)

    def verify(self, digest: str) -> Manifest:
        """Hashes every file of the artifact again; ``NotFound``, or ``StorageFailed`` naming what is damaged."""
        folder = self._artifacts / hex_of(digest)
        # From before the bytes are read: what changes meanwhile is hashed again.
        before = _status(folder / MANIFEST)
        manifest = self.manifest(digest)
        statuses = {**self._statuses(digest, manifest.files), MANIFEST: before}
        for name, entry in manifest.files.items():
            try:
                found = _hash(folder / name)
            except OSError as error:
                raise StorageFailed(f"artifact {digest} is damaged: {name}: {error.strerror}") from None
            if found != entry:
                raise StorageFailed(
                    f"artifact {digest} is damaged: {name} has sha256 {found.sha256} and {found.size} bytes, "
                    f"not {entry.sha256} and {entry.size}; bring the same model again to repair it"
                )
        self._verified[digest] = statuses
        return manifest

    def model_path(self, digest: str) -> Path:
        """The ``model.onnx`` of a verified artifact, to be loaded by ONNX Runtime.

        Files are hashed when they are taken in, or at their first use in this process, and whenever their status
        changed since. ``StorageFailed`` for an artifact that is damaged or missing: its user knows it by its digest, so it was there.
        """
        verified = self._verified.get(digest)
        if verified is None or verified != self._statuses(digest, verified):
            try:
                self.verify(digest)
            except NotFound as error:
                raise StorageFailed(f"{error.message}; bring the same model again to repair it") from None
        return self.place(digest)

    def place(self, digest: str) -> Path:
        """Where the ``model.onnx`` of an artifact lies, or would; nothing is read."""
        return self._artifacts / hex_of(digest) / MODEL

    def _statuses(self, digest: str, names: Iterable[str]) -> _Statuses:
        """The status of the manifest and of these files of an artifact."""
        folder = self._artifacts / hex_of(digest)
        return {name: _status(folder / name) for name in (MANIFEST, *names)}

    @contextmanager
    def _workspace(self) -> Iterator[Path]:
        with contextlib.ExitStack() as stack:
            with _storage("there is no room to copy a model"):
                work = stack.enter_context(temporary_folder(self._staging))
            yield work


@contextmanager
def _storage(what: str) -> Iterator[None]:
    """Turns what the disk says into ``StorageFailed``; our own errors pass."""
    try:
        yield
    except HeadgateError:
        raise
    except OSError as error:
        raise StorageFailed(f"{what}: {error}") from error


_Statuses = dict[str, tuple[int, ...] | None]


def _status(path: Path) -> tuple[int, ...] | None:
    """What changes when the bytes of a file of ours do; not its ctime, which moves with every hard link to it."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _drop(_chunk: bytes) -> None:
    """Where the bytes go when only their hash is wanted."""


def _hash(path: Path) -> Entry:
    hashed = hashlib.sha256()
    size = 0
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            hashed.update(chunk)
            size += len(chunk)
    return Entry(hashed.hexdigest(), size)


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

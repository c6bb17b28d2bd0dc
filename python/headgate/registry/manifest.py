"""Manifests: what an artifact consists of, and its digest. Pure.

An artifact is ``model.onnx``, the external data it refers to, and the few extra files listed in ``EXTRAS``.
Its manifest is ``{relative path: {"sha256": hex, "size": bytes}}`` as canonical JSON (keys sorted, no spaces,
UTF-8), its digest ``sha256:`` and the hex digest of those bytes. Next: ``external``.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from headgate.errors import StorageFailed

MODEL = "model.onnx"
"""The one name a model has inside an artifact, whatever its file was called."""

EXTRAS = ("warmup.json", "labels.txt", "labels.json")
"""Files that belong to an artifact when they lie beside the model in its folder."""

MANIFEST = "manifest.json"
"""The name of the manifest inside an artifact's folder; no other file may have it."""

MAX_FILES = 1024
"""How many files an artifact may have."""

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})\Z")
_HEX = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True)
class Entry:
    """One file: the hex sha256 of its bytes and their number."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files of an artifact by relative POSIX path."""

    files: dict[str, Entry]

    def to_bytes(self) -> bytes:
        """The canonical JSON bytes."""
        plain = {path: {"sha256": entry.sha256, "size": entry.size} for path, entry in self.files.items()}
        return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    @property
    def digest(self) -> str:
        """``sha256:`` and the hex digest of :meth:`to_bytes`."""
        return "sha256:" + hashlib.sha256(self.to_bytes()).hexdigest()

    @property
    def size(self) -> int:
        """The bytes of all files together."""
        return sum(entry.size for entry in self.files.values())

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """Reads canonical bytes back; ``StorageFailed`` when they are not a manifest."""
        try:
            plain = json.loads(data)
            files = {path: _entry(path, entry) for path, entry in plain.items()}
        except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
            raise StorageFailed(f"not a manifest: {error}") from None
        if not 0 < len(files) <= MAX_FILES:
            raise StorageFailed(f"a manifest lists 1 to {MAX_FILES} files, not {len(files)}")
        return cls(files)


def hex_of(digest: str) -> str:
    """The 64 hex digits of ``sha256:...``; ``ValueError`` when it is not such a digest."""
    match = _DIGEST.match(digest)
    if match is None:
        raise ValueError(f"{digest!r} is not a digest: sha256: and 64 hex digits")
    return match[1]


def is_inside(path: str) -> bool:
    """Whether a relative POSIX path stays where it starts: not absolute, not empty, no ``..``, no NUL."""
    pure = PurePosixPath(path)
    return bool(pure.parts) and not pure.is_absolute() and ".." not in pure.parts and "\0" not in path


def _entry(path: str, plain: dict[str, object]) -> Entry:
    sha256, size = plain["sha256"], plain["size"]
    if not is_inside(path) or PurePosixPath(path).as_posix() != path or path == MANIFEST:
        raise ValueError(f"path {path!r} cannot be in an artifact")
    if not isinstance(sha256, str) or _HEX.match(sha256) is None or type(size) is not int or size < 0:
        raise ValueError(f"the entry of {path!r} needs sha256 (64 hex digits) and size (bytes)")
    return Entry(sha256, size)

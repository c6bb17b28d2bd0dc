"""Where documents come from: files given to the gateway, bodies sent to the API, and the folders ``file:`` may lead to.

Not here: what a document says (``documents``). Next: ``resolve``. Everything here blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from headgate.control.domain.revision import Revision
from headgate.control.domain.spec import loadable
from headgate.control.domain.traffic import faults
from headgate.documents import Document, Files, parse_one
from headgate.errors import InvalidArgument, StorageFailed, is_out_of_descriptors
from headgate.regular_files import read_regular

NOWHERE = Path("/nonexistent")
"""The root of a document that has none and needs none."""

MAX_FILE_BYTES = 4 * 1024 * 1024
"""The largest file of documents that is read; ``documents`` may refuse it for less."""

_SHOWN = 200
"""Characters of a path that a message repeats."""


@dataclass(frozen=True)
class ReferenceFolders:
    """Where a body's ``file:`` references may lead: its own file, if that lies below an allowed folder; else the folder of the
    endpoint's last document; else the gateway's root.
    """

    source: Path | None
    allowed: tuple[Path, ...]
    last: str | None
    root: Path | None


def read_file(path: Path) -> bytes:
    """The bytes of a document's file; :class:`InvalidArgument` names the file."""
    try:
        return read_regular(path, MAX_FILE_BYTES)
    except OSError as error:
        kind = StorageFailed if is_out_of_descriptors(error) else InvalidArgument
        raise kind(f"{path} cannot be read: {error.strerror}") from error


def read_one(endpoint: str, data: bytes, where: ReferenceFolders) -> Document:
    """The one document of a body, named ``endpoint``."""
    root = _root(where)
    name = str(where.source) if where.source is not None else f"the document of {endpoint}"
    if root is None:
        document = parse_one(data, source=name, root=NOWHERE, follow=Files.IGNORED)
        _needs_no_files(document)
    else:
        document = parse_one(data, source=name, root=root)
    if document.endpoint.name != endpoint:
        raise faults(
            {"name": f"the document describes {document.endpoint.name}, the address says {endpoint}"}
        )
    return document


def artifacts_of(revision: Revision) -> tuple[list[str], list[str]]:
    """The digests of the artifacts that ``revision`` gives traffic to, and those of its others that are to be loaded."""
    live = {revision.traffic.champion, *revision.traffic.weights()}
    needed: list[str] = []
    others: list[str] = []
    for name in loadable(revision.spec, revision.traffic):
        entry = revision.spec.versions[name]
        if entry.constant is None:
            (needed if name in live else others).append(entry.digest)
    return needed, others


def _root(where: ReferenceFolders) -> Path | None:
    if where.source is None:
        return Path(where.last) if where.last is not None else where.root
    try:
        folder = where.source.resolve().parent
    except (OSError, RuntimeError, ValueError) as error:
        raise InvalidArgument(f"source: {str(where.source)[:_SHOWN]!r} leads nowhere: {error}") from None
    for allowed in where.allowed:
        base = allowed.resolve()
        if folder == base or base in folder.parents:
            return folder
    raise InvalidArgument(
        f"source: {where.source} does not lie below a folder of this gateway: start it with --root {folder}, or put "
        "the document below one it has"
    )


def _needs_no_files(document: Document) -> None:
    found = {
        f"versions.{name}": "file: needs a folder: send ?source= with the document's own path, or start the gateway with --root"
        for name, version in document.endpoint.versions.items()
        if version.model is not None
    }
    if document.endpoint.drift is not None and document.endpoint.drift.baseline is not None:
        found["drift.baseline"] = "file: needs a folder: start the gateway with --root"
    if found:
        raise faults(found)

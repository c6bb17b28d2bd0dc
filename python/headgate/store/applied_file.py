"""The last applied state as a file beside the database: what a database that was lost, or has lost its newest writes, is compared with.

Not here: what is done about damage (``control``, ``cli.state``). Next: ``chain``.

The file is replaced in one step, at most every second, after every kind of write. So it may lag behind the database and is never
ahead of it, unless the database has lost something: then its generation is the higher one, or an endpoint's entry is missing.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from headgate.errors import StorageFailed
from headgate.private_files import replace_file
from headgate.store.chain import Damage, chain_digest, content_digest
from headgate.store.models import DocumentRecord, EndpointRecord, Generation, RevisionRecord

NAME = "applied.json"
_FORMAT = 1


@dataclass(frozen=True)
class AppliedState:
    """One endpoint's revision in force: ``before`` is the digest of the revision before it, ``content`` its document."""

    n: int
    before: str
    digest: str
    body: str
    document: str
    content: str
    removed: bool

    def is_whole(self) -> bool:
        """Whether body and document are the ones that their digests say."""
        written = chain_digest(self.before, self.body) == self.digest
        return written and content_digest(self.content.encode()) == self.document


@dataclass(frozen=True)
class Applied:
    """The state of all endpoints at a generation, that of the newest write of any kind."""

    generation: int = 0
    endpoints: dict[str, AppliedState] = field(default_factory=dict)


def read_applied(state: Path) -> Applied | None:
    """The file of a state folder; None without one. :class:`StorageFailed` for one that is damaged."""
    path = state / NAME
    try:
        digest, _, text = path.read_text(encoding="utf-8").partition("\n")
        if content_digest(text.encode()) != digest:
            raise StorageFailed(f"{path} is damaged: its bytes are not the ones that were written")
        found = json.loads(text)
        if found["format"] != _FORMAT:
            raise StorageFailed(
                f"{path} was written by another Headgate (format {found['format']}; this one reads {_FORMAT})"
            )
        entries = {name: AppliedState(**entry) for name, entry in found["endpoints"].items()}
        return Applied(found["generation"], entries)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageFailed(f"{path} cannot be read: {error}") from error


def text_of(state: Path) -> str:
    """The file as it is, damaged or not; empty without one."""
    try:
        return (state / NAME).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise StorageFailed(f"{state / NAME} cannot be read: {error}") from error


def write_applied(state: Path, applied: Applied) -> None:
    """Replaces the file in one step; it is on disk when this returns."""
    entries = {name: asdict(entry) for name, entry in sorted(applied.endpoints.items())}
    made = {"format": _FORMAT, "generation": applied.generation, "endpoints": entries}
    text = json.dumps(made, ensure_ascii=False, separators=(",", ":"))
    path = state / NAME
    try:
        replace_file(path, f"{content_digest(text.encode())}\n{text}".encode())
    except OSError as error:
        raise StorageFailed(f"{path} could not be written: {error}") from error


def newer(session: Session, before: Applied, without: Collection[str]) -> Applied:
    """The state now: ``before``, with what was applied since. Endpoints ``without`` stay as they were, because they are damaged."""
    generation = session.scalars(select(Generation.value)).one()
    earlier = aliased(RevisionRecord)
    query = (
        select(EndpointRecord, RevisionRecord, earlier.digest, DocumentRecord.content)
        .join(
            RevisionRecord,
            (RevisionRecord.endpoint == EndpointRecord.name) & (RevisionRecord.n == EndpointRecord.applied),
        )
        .join(DocumentRecord, DocumentRecord.digest == RevisionRecord.document)
        .outerjoin(earlier, (earlier.endpoint == EndpointRecord.name) & (earlier.n == RevisionRecord.n - 1))
    )
    if before.endpoints:
        query = query.where(EndpointRecord.generation > before.generation)
    changed: dict[str, AppliedState] = {}
    for pointer, row, digest, content in session.execute(query):
        entry = AppliedState(
            row.n,
            digest or "",
            row.digest,
            row.body,
            row.document,
            content.decode(errors="replace"),
            pointer.removed,
        )
        if pointer.name not in without and before.endpoints.get(pointer.name) != entry:
            changed[pointer.name] = entry
    return Applied(generation, {**before.endpoints, **changed})


def lost(session: Session, applied: Applied) -> Iterator[Damage]:
    """What the database has lost since the file was written: revisions that were in force and are not in it any more."""
    in_force = (
        select(RevisionRecord.endpoint, RevisionRecord.digest, RevisionRecord.status)
        .select_from(EndpointRecord)
        .join(
            RevisionRecord,
            (RevisionRecord.endpoint == EndpointRecord.name) & (RevisionRecord.n == EndpointRecord.applied),
        )
    )
    present = {row.endpoint: (row.digest, row.status) for row in session.execute(in_force)}
    for name, entry in sorted(applied.endpoints.items()):
        if present.get(name) != (entry.digest, "applied"):
            # Something newer may be in force: then this one is in the history.
            row = session.get(RevisionRecord, (name, entry.n))
            if row is None or (row.digest, row.status) != (entry.digest, "applied"):
                yield Damage(
                    name,
                    entry.n,
                    f"it was in force, and the database has lost it ({NAME} beside it knows it)",
                )

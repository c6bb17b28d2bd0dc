"""Revisions as rows of the store.

Not here: what a revision is (``domain.revision``), tables and queries (``store``). Next: ``writer``.
"""

from __future__ import annotations

from headgate.control.domain.revision import Revision, read_revision
from headgate.errors import NotFound
from headgate.store import Proposal, RevisionRecord, Store, json_text


def proposal(revision: Revision) -> Proposal:
    """What is written of a revision before it is served: its body beside what is searched for, its document, its digests."""
    record = RevisionRecord(
        endpoint=revision.endpoint,
        n=revision.n,
        parent=revision.parent,
        kind=revision.kind,
        status="proposed",
        who=revision.who,
        when=revision.when,
        reason=revision.reason,
        document=revision.document.digest,
        source=revision.document.source,
        body=json_text(revision.body()),
    )
    return Proposal(record, revision.text, revision.spec.digests())


def stored(store: Store, record: RevisionRecord) -> Revision:
    """The revision of a row, with the bytes of its document; blocks on the disk."""
    return read_revision(record.body, store.document(record.document))


def missing(store: Store, endpoint: str, n: int) -> NotFound:
    """The exception for a revision that is not there, and whether it ever was; blocks on the disk."""
    if store.was_dropped(endpoint, n):
        return NotFound(
            f"revision {n} of {endpoint} was dropped because of its age: `headgate history {endpoint}` lists what is kept"
        )
    return NotFound(f"{endpoint} has no revision {n}")

"""Between what the store keeps (``RevisionRecord``) and what the write path thinks in (``Held``).

Not here: tables and queries (``store``). Next: ``plan``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from headgate.control.domain.shares import Table
from headgate.control.domain.spec import Content, Spec
from headgate.control.domain.traffic import LiveTraffic, Stamp
from headgate.store import RevisionRecord
from headgate.store.migrations.first_spec import spec_of
from headgate.store.records import RevisionKind


@dataclass(frozen=True)
class Text:
    """A document as it came: its exact bytes, the file they came from, and the folder its ``file:`` references were found in."""

    raw: bytes
    source: str | None = None
    source_digest: str | None = None
    root: str | None = None

    @property
    def digest(self) -> str:
        """``sha256:...`` of the bytes."""
        return sha256(self.raw)


@dataclass(frozen=True)
class Held:
    """One revision in memory: its number, its document, what it serves and how."""

    n: int
    text: Text
    content: Content
    live: LiveTraffic
    parent: int | None = None

    @property
    def spec(self) -> Spec:
        """What is served."""
        return self.content.spec


def sha256(data: bytes) -> str:
    """``sha256:`` and the digest in hexadecimal."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def hold(record: RevisionRecord) -> Held:
    """A stored revision in memory."""
    live = LiveTraffic(
        champion=record.champion,
        last_good=record.last_good,
        since=record.since,
        table=Table(record.salt, record.given),
        attempt=record.attempt,
        frozen=None if record.frozen is None else Stamp(**record.frozen),
        blocked=record.blocks,
    )
    spec, kept, root = _resolved(record.resolved)
    text = Text(record.document, record.source, record.source_digest, root)
    content = Content(Spec.model_validate(spec), frozenset(kept))
    return Held(record.n, text, content, live, record.parent)


def _resolved(stored: dict[str, Any]) -> tuple[dict[str, Any], list[str], str | None]:
    """Spec, kept versions and root of a row, whichever build wrote it."""
    if "spec" in stored:
        return stored["spec"], stored["kept"], stored["root"]
    return spec_of(stored)


def write_down(endpoint: str, held: Held, kind: RevisionKind, stamp: Stamp) -> RevisionRecord:
    """What the store keeps of a revision."""
    live = held.live
    frozen = live.frozen
    return RevisionRecord(
        endpoint=endpoint,
        n=held.n,
        parent=held.parent,
        kind=kind,
        status="proposed",
        who=stamp.who,
        when=stamp.when,
        reason=stamp.reason,
        document=held.text.raw,
        document_digest=held.text.digest,
        source=held.text.source,
        source_digest=held.text.source_digest,
        champion=live.champion,
        salt=live.table.salt,
        given=live.table.given,
        attempt=live.attempt,
        last_good=live.last_good,
        since=live.since,
        frozen=None if frozen is None else {"who": frozen.who, "when": frozen.when, "reason": frozen.reason},
        blocks=live.blocked,
        resolved={
            "spec": held.spec.dumped(),
            "kept": sorted(held.content.kept),
            "root": held.text.root,
        },
    )

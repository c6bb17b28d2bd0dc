"""The tables, and the values that go into the store and come out: a record is a row. A change here needs a migration in
``migrations/versions``; a test compares the two.

Not here: queries (``store`` and its parts), what a revision's body says (``control``). Next: ``database``.

Treat a record as frozen: the store never changes one that it was given, and one that it gives out belongs to no session any
more. ``dataclasses.replace`` makes a changed copy. Names of constraints are fixed, so that migrations can address them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from sqlalchemy import BigInteger, ForeignKey, Index, LargeBinary, MetaData
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column

from headgate.store.columns import JsonColumn, Stamp, TextColumn

RevisionKind = Literal[
    "apply",
    "traffic",
    "abort",
    "rollback",
    "restore",
    "block",
    "unblock",
    "freeze",
    "unfreeze",
    "remove",
    "rollout_start",
    "rollout_step",
    "rollout_pause",
    "rollout_resume",
    "rollout_approve",
    "rollout_promote",
    "rollout_rollback",
    "rollout_abort",
]
RevisionStatus = Literal["proposed", "applied", "failed", "superseded"]
OperationStatus = Literal["running", "done", "failed"]

Key = Annotated[str, mapped_column(TextColumn, primary_key=True)]
NumberKey = Annotated[int, mapped_column(BigInteger, primary_key=True, autoincrement=False)]
When = Annotated[str, mapped_column(Stamp)]
JsonObject = dict[str, Any]

_NAMES = {
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(MappedAsDataclass, DeclarativeBase):
    """Every table of Headgate."""

    metadata = MetaData(naming_convention=_NAMES)
    type_annotation_map = {str: TextColumn, int: BigInteger, JsonObject: JsonColumn}


class Generation(Base):
    """One row: the number of the newest write. Taken inside each write's transaction, so the numbers are dense and in the order of
    the commits, whichever gateway commits.
    """

    __tablename__ = "generation"
    id: Mapped[NumberKey]
    value: Mapped[int]


class EndpointRecord(Base):
    """Where an endpoint stands: the revision that a start serves, the highest number used, whether it was removed."""

    __tablename__ = "endpoints"
    name: Mapped[Key]
    applied: Mapped[int | None]
    tail: Mapped[int]
    removed: Mapped[bool]
    generation: Mapped[int]


class DocumentRecord(Base):
    """The exact bytes of a document, once for each digest."""

    __tablename__ = "documents"
    digest: Mapped[Key]
    content: Mapped[bytes] = mapped_column(LargeBinary, repr=False)


class RevisionRecord(Base):
    """One numbered state of an endpoint. Append-only: after the insert only ``status``, ``message`` and ``ended`` change, and only
    away from ``proposed``.

    ``body`` is all that never changes, as JSON that the store does not read; the columns beside it are there to be searched.
    ``digest`` chains it to the revision before it (``chain``). ``generation`` and ``ended`` are the writes that proposed and ended
    it, 0 for those from before writes were numbered. The store fills in these three.
    """

    __tablename__ = "revisions"
    endpoint: Mapped[Key]
    n: Mapped[NumberKey]
    parent: Mapped[int | None]
    kind: Mapped[RevisionKind] = mapped_column(TextColumn)
    status: Mapped[RevisionStatus] = mapped_column(TextColumn)
    who: Mapped[str]
    when: Mapped[When]
    reason: Mapped[str]
    document: Mapped[str] = mapped_column(TextColumn, ForeignKey("documents.digest"), index=True)
    source: Mapped[str | None]
    body: Mapped[str]
    message: Mapped[str | None] = mapped_column(default=None)
    digest: Mapped[str] = mapped_column(default="")
    generation: Mapped[int] = mapped_column(default=0)
    ended: Mapped[int | None] = mapped_column(default=None)


class DroppedRevisions(Base):
    """Revisions ``first`` to ``last`` of an endpoint, which retention dropped; ``digest`` is that of the last one."""

    __tablename__ = "dropped_revisions"
    endpoint: Mapped[Key]
    first: Mapped[NumberKey]
    last: Mapped[int]
    digest: Mapped[str]


class Floor(Base):
    """The highest generation that was dropped from a journal: ``events`` or ``audit``."""

    __tablename__ = "floors"
    journal: Mapped[Key]
    generation: Mapped[int]


class PinRecord(Base):
    """The digest that a version's name stands for, for ever."""

    __tablename__ = "pins"
    endpoint: Mapped[Key]
    version: Mapped[Key]
    digest: Mapped[str]
    when: Mapped[When]
    checksum: Mapped[str] = mapped_column(default="", repr=False)


class AppliedDocument(Base):
    """A document that was applied from a file: the same bytes from the same file are not applied again at a start."""

    __tablename__ = "applied_documents"
    path: Mapped[Key]
    endpoint: Mapped[Key]
    digest: Mapped[Key]
    generation: Mapped[int] = mapped_column(default=0)
    checksum: Mapped[str] = mapped_column(default="", repr=False)


class TokenRecord(Base):
    """A bearer token: the SHA-256 of its text, never the text."""

    __tablename__ = "tokens"
    id: Mapped[Key]
    sha256: Mapped[str]
    role: Mapped[str]
    name: Mapped[str]
    created: Mapped[When]
    expires: Mapped[When | None]
    last_used: Mapped[When | None]
    revoked: Mapped[When | None]
    checksum: Mapped[str] = mapped_column(default="", repr=False)


class IdempotencyRecord(Base):
    """The answer that a key stands for, written in the transaction of the write that it answers; ``request`` is a SHA-256."""

    __tablename__ = "idempotency"
    principal: Mapped[Key]
    route: Mapped[Key]
    key: Mapped[Key]
    request: Mapped[str]
    response: Mapped[JsonObject]
    expires: Mapped[When] = mapped_column(index=True)


class EventRecord(Base):
    """Something that happened, as the event stream replays it; ``generation`` is the cursor, 0 until it is stored."""

    __tablename__ = "events"
    type: Mapped[str]
    when: Mapped[When]
    endpoint: Mapped[str | None]
    revision: Mapped[int | None]
    who: Mapped[str]
    reason: Mapped[str]
    data: Mapped[JsonObject] = mapped_column(default_factory=dict)
    generation: Mapped[NumberKey] = mapped_column(default=0)


class AuditRecord(Base):
    """Who did what and how it ended. Append-only, but that a row which counts refusals counts on for a minute; ``generation`` is 0
    until it is stored.
    """

    __tablename__ = "audit"
    __table_args__ = (Index("ix_audit_endpoint_generation", "endpoint", "generation"),)
    when: Mapped[When]
    who: Mapped[str]
    role: Mapped[str]
    action: Mapped[str]
    endpoint: Mapped[str | None]
    revision: Mapped[int | None]
    outcome: Mapped[str]
    reason: Mapped[str]
    detail: Mapped[JsonObject] = mapped_column(default_factory=dict)
    generation: Mapped[NumberKey] = mapped_column(default=0)


class OperationRecord(Base):
    """A change that outlived its request."""

    __tablename__ = "operations"
    id: Mapped[Key]
    endpoint: Mapped[str]
    kind: Mapped[str]
    status: Mapped[OperationStatus] = mapped_column(TextColumn)
    started: Mapped[When]
    finished: Mapped[When | None] = mapped_column(default=None)
    result: Mapped[JsonObject | None] = mapped_column(default=None)
    problem: Mapped[JsonObject | None] = mapped_column(default=None)


class TrialRecord(Base):
    """The counts of a trial as they were ``written``; ``begun`` and ``ended`` in milliseconds since 1970. Both bytes are compressed
    (zlib), and only the data plane reads them.
    """

    __tablename__ = "trials"
    endpoint: Mapped[Key]
    begun: Mapped[NumberKey]
    ended: Mapped[int | None]
    written: Mapped[When]
    ledger: Mapped[bytes] = mapped_column(LargeBinary, repr=False)
    units: Mapped[bytes] = mapped_column(LargeBinary, repr=False)


class PlanRecord(Base):
    """A document that describes no endpoint: its ``kind`` (``RolloutPlan``, ``Defaults``), its name (empty for ``Defaults``), its bytes.
    ``n`` counts how often it was written.
    """

    __tablename__ = "plans"
    kind: Mapped[Key]
    name: Mapped[Key]
    n: Mapped[int]
    digest: Mapped[str]
    who: Mapped[str]
    written: Mapped[When]
    text: Mapped[bytes] = mapped_column(LargeBinary, repr=False)


class OutboxRecord(Base):
    """A message that a webhook is to have: the event's number and name, and the bytes as they are signed and sent. ``webhook`` and
    ``secret`` are as the document writes them, so no secret lies here. ``due`` is when it is tried again; None: now.
    """

    __tablename__ = "outbox"
    endpoint: Mapped[Key]
    webhook: Mapped[Key]
    generation: Mapped[NumberKey]
    name: Mapped[str]
    secret: Mapped[str | None]
    timeout_ms: Mapped[int]
    written: Mapped[When] = mapped_column(index=True)
    body: Mapped[bytes] = mapped_column(LargeBinary, repr=False)
    attempts: Mapped[int] = mapped_column(default=0)
    due: Mapped[When | None] = mapped_column(default=None)

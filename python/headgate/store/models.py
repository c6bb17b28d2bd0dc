"""The tables. A change here needs a migration in ``migrations/versions``; a test compares the two.

Not here: queries (``store`` and its parts). Next: ``database``.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Index, Integer, LargeBinary, MetaData, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

_NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """Every table of Headgate; constraint names are fixed, so that migrations can address them on any database."""

    metadata = MetaData(naming_convention=_NAMES)
    type_annotation_map = {dict[str, Any]: JSON, list[Any]: JSON}


class Endpoint(Base):
    """Current pointers: ``applied`` is the revision that a start serves, ``tail`` the highest number used."""

    __tablename__ = "endpoints"
    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    applied: Mapped[int | None] = mapped_column(Integer)
    tail: Mapped[int] = mapped_column(Integer)
    removed: Mapped[bool]


class Revision(Base):
    """Append-only: after the insert only ``status`` and ``message`` change, and only away from ``proposed``."""

    __tablename__ = "revisions"
    endpoint: Mapped[str] = mapped_column(String(128), primary_key=True)
    n: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    parent: Mapped[int | None] = mapped_column(Integer)
    kind: Mapped[str] = mapped_column(String(16))
    status: Mapped[str] = mapped_column(String(16))
    who: Mapped[str] = mapped_column(String(200))
    when: Mapped[str] = mapped_column(String(20))
    reason: Mapped[str] = mapped_column(Text)
    document: Mapped[bytes] = mapped_column(LargeBinary)
    document_digest: Mapped[str] = mapped_column(String(80))
    source: Mapped[str | None] = mapped_column(Text)
    source_digest: Mapped[str | None] = mapped_column(String(80))
    champion: Mapped[str] = mapped_column(String(128))
    salt: Mapped[str] = mapped_column(Text)
    given: Mapped[list[Any]]
    attempt: Mapped[int] = mapped_column(Integer)
    last_good: Mapped[str] = mapped_column(String(128))
    since: Mapped[str] = mapped_column(String(20))
    frozen: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    blocks: Mapped[list[Any]]
    resolved: Mapped[dict[str, Any]]
    message: Mapped[str | None] = mapped_column(Text)


class Pin(Base):
    """What a version's name stands for, for ever."""

    __tablename__ = "pins"
    endpoint: Mapped[str] = mapped_column(String(128), primary_key=True)
    version: Mapped[str] = mapped_column(String(128), primary_key=True)
    digest: Mapped[str] = mapped_column(String(80))
    when: Mapped[str] = mapped_column(String(20))


class Block(Base):
    """The blocks in force now; the history of blocks is in the revisions."""

    __tablename__ = "blocks"
    endpoint: Mapped[str] = mapped_column(String(128), primary_key=True)
    digest: Mapped[str] = mapped_column(String(80), primary_key=True)
    version: Mapped[str | None] = mapped_column(String(128))
    since: Mapped[str] = mapped_column(String(20))
    who: Mapped[str] = mapped_column(String(200))
    reason: Mapped[str] = mapped_column(Text)


class Token(Base):
    """Bearer tokens: the hash, never the secret."""

    __tablename__ = "tokens"
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64))
    role: Mapped[str] = mapped_column(String(16))
    name: Mapped[str] = mapped_column(String(200))
    created: Mapped[str] = mapped_column(String(20))
    expires: Mapped[str | None] = mapped_column(String(20))
    last_used: Mapped[str | None] = mapped_column(String(20))
    revoked: Mapped[str | None] = mapped_column(String(20))


class Idempotency(Base):
    """Answers by key, written in the transaction of the write they answer."""

    __tablename__ = "idempotency"
    principal: Mapped[str] = mapped_column(String(200), primary_key=True)
    route: Mapped[str] = mapped_column(String(300), primary_key=True)
    key: Mapped[str] = mapped_column(String(200), primary_key=True)
    request: Mapped[str] = mapped_column(String(64))
    response: Mapped[dict[str, Any]]
    expires: Mapped[str] = mapped_column(String(20), index=True)


class Event(Base):
    """What the event stream replays; the id is the cursor."""

    __tablename__ = "events"
    __table_args__ = ({"sqlite_autoincrement": True},)
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    type: Mapped[str] = mapped_column(String(32))
    when: Mapped[str] = mapped_column(String(20))
    endpoint: Mapped[str | None] = mapped_column(String(128))
    revision: Mapped[int | None] = mapped_column(Integer)
    who: Mapped[str] = mapped_column(String(200))
    reason: Mapped[str] = mapped_column(Text)
    data: Mapped[dict[str, Any]]


class Audit(Base):
    """Append-only: who did what, and how it ended."""

    __tablename__ = "audit"
    __table_args__ = (Index("ix_audit_endpoint_id", "endpoint", "id"), {"sqlite_autoincrement": True})
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    when: Mapped[str] = mapped_column(String(20))
    who: Mapped[str] = mapped_column(String(200))
    role: Mapped[str] = mapped_column(String(16))
    action: Mapped[str] = mapped_column(String(64))
    endpoint: Mapped[str | None] = mapped_column(String(128))
    revision: Mapped[int | None] = mapped_column(Integer)
    outcome: Mapped[str] = mapped_column(String(32))
    reason: Mapped[str] = mapped_column(Text)
    detail: Mapped[dict[str, Any]]


class AppliedFile(Base):
    """The digest last applied from a file given to ``serve``: the same bytes are not applied again at start."""

    __tablename__ = "applied_files"
    path: Mapped[str] = mapped_column(Text, primary_key=True)
    digest: Mapped[str] = mapped_column(String(80))
    when: Mapped[str] = mapped_column(String(20))


class Operation(Base):
    """Changes that outlived their request."""

    __tablename__ = "operations"
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    endpoint: Mapped[str] = mapped_column(String(128))
    kind: Mapped[str] = mapped_column(String(16))
    status: Mapped[str] = mapped_column(String(16))
    started: Mapped[str] = mapped_column(String(20))
    finished: Mapped[str | None] = mapped_column(String(20))
    result: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    problem: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))

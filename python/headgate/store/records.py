"""What goes into the store and comes out: frozen values without a database behind them.

Not here: tables (``models``), meaning (``control``). Next: ``models``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

RevisionKind = Literal[
    "apply", "traffic", "rollback", "restore", "block", "unblock", "freeze", "unfreeze", "remove"
]
RevisionStatus = Literal["proposed", "applied", "failed", "superseded"]
Json = dict[str, Any]


@dataclass(frozen=True)
class BlockRecord:
    """A digest that may get no traffic on one endpoint; ``version`` is the name it had when it was blocked."""

    digest: str
    version: str | None
    since: str
    who: str
    reason: str


@dataclass(frozen=True)
class RevisionRecord:
    """One numbered state of an endpoint: enough to serve it again without its document's files.

    ``given`` are runs of slots ``(version, from, to)`` in the order they were given away, ends included.
    ``resolved`` is the document's content with every reference replaced by a digest.
    """

    endpoint: str
    n: int
    parent: int | None
    kind: RevisionKind
    status: RevisionStatus
    who: str
    when: str
    reason: str
    document: bytes
    document_digest: str
    source: str | None
    source_digest: str | None
    champion: str
    salt: str
    given: tuple[tuple[str, int, int], ...]
    attempt: int
    last_good: str
    since: str
    frozen: Json | None
    blocks: tuple[BlockRecord, ...]
    resolved: Json
    message: str | None = None


@dataclass(frozen=True)
class EndpointRecord:
    """Where an endpoint stands: the revision that is applied, the highest number used, whether it was removed."""

    name: str
    applied: int | None
    tail: int
    removed: bool


@dataclass(frozen=True)
class PinRecord:
    """The digest that a version's name stands for, for ever."""

    endpoint: str
    version: str
    digest: str
    when: str


@dataclass(frozen=True)
class TokenRecord:
    """A bearer token: the SHA-256 of its text, never the text."""

    id: str
    sha256: str
    role: str
    name: str
    created: str
    expires: str | None
    last_used: str | None
    revoked: str | None


@dataclass(frozen=True)
class IdempotencyRecord:
    """The answer that a key stands for; ``request`` is the SHA-256 of the request, ``response`` JSON."""

    principal: str
    route: str
    key: str
    request: str
    response: Json
    expires: str


@dataclass(frozen=True)
class EventRecord:
    """Something that happened; ``id`` is 0 until it is stored."""

    type: str
    when: str
    endpoint: str | None
    revision: int | None
    who: str
    reason: str
    data: Json = field(default_factory=dict)
    id: int = 0


@dataclass(frozen=True)
class AuditRecord:
    """Who did what and how it ended; ``id`` is 0 until it is stored."""

    when: str
    who: str
    role: str
    action: str
    endpoint: str | None
    revision: int | None
    outcome: str
    reason: str
    detail: Json = field(default_factory=dict)
    id: int = 0


@dataclass(frozen=True)
class OperationRecord:
    """A change that outlived its request."""

    id: str
    endpoint: str
    kind: str
    status: Literal["running", "done", "failed"]
    started: str
    finished: str | None = None
    result: Json | None = None
    problem: Json | None = None

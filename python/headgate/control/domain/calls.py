"""What comes with a call: who, why, under which precondition, and the settings of the control plane.

Not here: HTTP headers (``admin.admin_request``). Next: ``results``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from headgate.errors import RevisionConflict

OURS = frozenset({"headgate", "serve", "first", "offline"})
"""Principals of the gateway itself, of the token that it makes, and of who works on its folder: no token may have such a name."""


@dataclass(frozen=True)
class Precondition:
    """What must be true of the endpoint before a write: any state, some revision, none, or exactly revision ``n``."""

    kind: Literal["any", "exists", "absent", "at"]
    n: int | None = None

    @staticmethod
    def at(n: int) -> Precondition:
        """``If-Match: "n"``."""
        return Precondition("at", n)

    def check(self, endpoint: str, present: int | None) -> None:
        """Raises :class:`RevisionConflict` when revision ``present`` (None: no endpoint) does not fit."""
        facts = {"revision": present}
        if self.kind == "absent" and present is not None:
            raise RevisionConflict(
                f"{endpoint} exists already at revision {present}; to change it send If-Match", detail=facts
            )
        if self.kind in ("exists", "at") and present is None:
            raise RevisionConflict(
                f"{endpoint} does not exist; to create it send If-None-Match: *", detail=facts
            )
        if self.kind == "at" and present != self.n:
            raise RevisionConflict(
                f"{endpoint} is at revision {present}, If-Match says {self.n}: read it again", detail=facts
            )


ANY = Precondition("any")
EXISTS = Precondition("exists")
ABSENT = Precondition("absent")


@dataclass(frozen=True)
class IdempotencyKey:
    """A key that stands for one answer; ``request`` is the SHA-256 of what was asked."""

    principal: str
    route: str
    key: str
    request: str


@dataclass(frozen=True)
class Call:
    """The circumstances of a write."""

    principal: str = "serve"
    role: str = "admin"
    token: str = ""
    """The id of the caller's token; empty for the gateway itself."""
    reason: str = ""
    precondition: Precondition = ANY
    dry_run: bool = False
    key: IdempotencyKey | None = None

    @property
    def is_ours(self) -> bool:
        """Whether the gateway itself asks."""
        return not self.token and self.principal in OURS


INTERNAL = Call()
"""The gateway itself asks: no precondition."""


@dataclass(frozen=True)
class Settings:
    """How the control plane behaves.

    ``root`` is where a document without a file of its own finds ``file:``; ``roots`` are folders that ``?source=`` may name;
    an endpoint that answered within ``quiet_seconds`` is under traffic and not deleted; ``retry_seconds`` is the pause between
    attempts to write what could not be written; a caller that asked for it gets an operation after ``answer_seconds``;
    an emergency call waits ``durable_seconds`` for its row to be on disk; a caller that is refused again and again waits for up to
    ``refused_pause_seconds``; the newest ``revisions`` of an endpoint are kept, and all of the last
    ``revision_seconds``; the audit is kept for ``audit_seconds``; ``threads`` do short work, ``model_threads`` what may
    take minutes; ``cores`` is what the process may use of the processors (None: those of its affinity); ``urgent_threads`` emergency
    calls may wait for the files of what they load, beside any other; ``private_webhooks`` lets messages go to
    addresses that are not public, and over http.
    """

    root: Path | None = None
    roots: tuple[Path, ...] = field(default=())
    quiet_seconds: int = 60
    sample_seconds: float = 5.0
    retry_seconds: float = 5.0
    answer_seconds: float = 1.0
    durable_seconds: float = 1.0
    refused_pause_seconds: float = 2.0
    revisions: int = 1_000
    revision_seconds: int = 90 * 86_400
    audit_seconds: int = 400 * 86_400
    cores: float | None = None
    threads: int = 4
    urgent_threads: int = 32
    parse_threads: int = 2
    model_threads: int = 2
    private_webhooks: bool = False

"""A revision: one numbered state of an endpoint, immutable; what is stored of it and what is served are this one value.

A new field of a document needs no line here: it travels in ``spec``. Not here: rows and queries (``store``, ``writes.records``).
Next: ``plan``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SerializationInfo, field_serializer

from headgate.control.domain.spec import Spec
from headgate.control.domain.traffic import LiveTraffic, Stamp
from headgate.errors import StorageFailed
from headgate.store import RevisionKind

FORMAT = 1
"""The newest form of a body that this build reads."""

Kind = RevisionKind
"""What made a revision; the store knows the same kinds."""

EMERGENCIES: frozenset[Kind] = frozenset(
    {"rollback", "abort", "block", "freeze", "rollout_rollback", "rollout_abort"}
)
"""Calls that are carried out whatever else fails."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DocumentIdentity(_Value):
    """Which document a revision is of: the digest of its bytes, the file they came from, and the folder of its references."""

    digest: str
    source: str | None = None
    source_digest: str | None = None
    root: str | None = None


class Revision(_Value):
    """One state of an endpoint. ``text`` are the bytes of its document, which are stored apart, once for each digest.

    ``kept`` names the versions of ``spec`` that are not in the document: they stay loaded because they are live.
    """

    format: Literal[1] = 1
    endpoint: str
    n: int
    parent: int | None
    kind: Kind
    who: str
    when: str
    reason: str
    document: DocumentIdentity
    spec: Spec
    kept: tuple[str, ...] = ()
    traffic: LiveTraffic
    text: bytes = Field(default=b"", exclude=True, repr=False)

    @field_serializer("spec")
    def _as_stored(self, spec: Spec, _info: SerializationInfo) -> dict[str, Any]:
        return spec.dumped()

    def body(self) -> dict[str, Any]:
        """What is stored beside the index columns, as JSON values. Switches that nobody used, and rollouts that never were, are left out:
        an earlier build, which does not know them, reads the rest.
        """
        body = self.model_dump(mode="json")
        for name in ("shadows_off", "capture_off", "rollout", "tried", "rollouts"):
            if not body["traffic"][name]:
                del body["traffic"][name]
        return body

    def numbered(self, n: int, parent: int | None, kind: Kind, stamp: Stamp) -> Self:
        """The same state as revision ``n``, made from ``parent``."""
        who = {"who": stamp.who, "when": stamp.when, "reason": stamp.reason}
        return self.model_copy(update={"n": n, "parent": parent, "kind": kind, **who})

    def moved(self, traffic: LiveTraffic) -> Self:
        """With other live traffic. Versions that are not in the document are kept as long as they are live."""
        return self._serving(self.spec, traffic, self.in_document())

    def in_document(self) -> frozenset[str]:
        """The versions of the spec that its document names."""
        return frozenset(self.spec.versions) - frozenset(self.kept)

    def documented(
        self,
        document: DocumentIdentity,
        text: bytes,
        content: tuple[Spec, Collection[str]],
        traffic: LiveTraffic,
    ) -> Self:
        """With another document: ``content`` is its spec, and those of the spec's versions that are in the document."""
        changed = self.model_copy(update={"document": document, "text": text})
        return changed._serving(content[0], traffic, frozenset(content[1]))

    def _serving(self, spec: Spec, traffic: LiveTraffic, in_document: frozenset[str]) -> Self:
        needed = in_document | traffic.named()
        spec = spec.only(needed)
        kept = tuple(sorted(spec.versions.keys() - in_document))
        return self.model_copy(update={"spec": spec, "kept": kept, "traffic": traffic})

    def same_state(self, other: Revision) -> bool:
        """Whether nothing differs but number, author and time."""
        return self.same_content(other) and self.traffic == other.traffic

    def same_content(self, other: Revision) -> bool:
        """Whether both are of the same document, whose references stand for the same bytes.

        What else differs between their specs is what a later build fills in where the document says nothing.
        """
        mine = (self.document.digest, self.spec.digests(), self.spec.baseline, self.kept)
        return mine == (other.document.digest, other.spec.digests(), other.spec.baseline, other.kept)


def sha256(data: bytes) -> str:
    """``sha256:`` and the digest in hexadecimal."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def read_revision(body: str, text: bytes = b"") -> Revision:
    """The revision of a stored body.

    Raises :class:`StorageFailed` that says so for a body that a newer Headgate wrote, and for one that is damaged.
    """
    try:
        stored = json.loads(body)
        _check_format(stored)
        return Revision.model_validate({**stored, "text": text})
    except ValueError as error:
        raise StorageFailed(f"a stored revision is damaged: {error}") from error


def _check_format(stored: Any) -> None:
    if not isinstance(stored, dict) or not isinstance(stored.get("format"), int):
        raise ValueError("its body has no format")
    if "unreadable" in stored:
        raise ValueError(stored["unreadable"])
    if stored["format"] > FORMAT:
        raise StorageFailed(
            f"revision {stored.get('n')} of {stored.get('endpoint')} was written by a newer Headgate (format {stored['format']}; "
            f"this one reads {FORMAT}): upgrade this gateway, or restore the state from before"
        )

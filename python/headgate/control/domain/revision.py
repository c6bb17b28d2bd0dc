"""Between what the store keeps (``RevisionRecord``) and what the write path thinks in (``Held``).

Not here: tables and queries (``store``). Next: ``plan``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from headgate.control.domain.shares import Table
from headgate.control.domain.spec import Content, Spec
from headgate.control.domain.traffic import Block, LiveTraffic, Stamp
from headgate.store import Proposal, RevisionKind, RevisionRecord, json_text


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


def hold(record: RevisionRecord, content: bytes) -> Held:
    """A stored revision in memory, with the bytes of its document."""
    body = json.loads(record.body)
    document = body["document"]
    text = Text(content, document["source"], document["source_digest"], document["root"])
    what = Content(Spec.model_validate(body["spec"]), frozenset(body["kept"]))
    return Held(record.n, text, what, _live(body["traffic"]), record.parent)


def live_of(record: RevisionRecord) -> LiveTraffic:
    """The traffic of a stored revision."""
    return _live(json.loads(record.body)["traffic"])


def _live(traffic: Mapping[str, Any]) -> LiveTraffic:
    table, frozen = traffic["table"], traffic["frozen"]
    return LiveTraffic(
        champion=traffic["champion"],
        last_good=traffic["last_good"],
        since=traffic["since"],
        table=Table(table["salt"], tuple((run[0], run[1], run[2]) for run in table["given"])),
        attempt=traffic["attempt"],
        frozen=None if frozen is None else Stamp(**frozen),
        blocked=tuple(Block(**block) for block in traffic["blocked"]),
    )


def write_down(endpoint: str, held: Held, kind: RevisionKind, stamp: Stamp) -> Proposal:
    """What the store keeps of a revision: its body, in format 1, beside what is searched for."""
    body = {
        "format": 1,
        "endpoint": endpoint,
        "n": held.n,
        "parent": held.parent,
        "kind": kind,
        "who": stamp.who,
        "when": stamp.when,
        "reason": stamp.reason,
        "document": {
            "digest": held.text.digest,
            "source": held.text.source,
            "source_digest": held.text.source_digest,
            "root": held.text.root,
        },
        "spec": held.spec.dumped(),
        "kept": sorted(held.content.kept),
        "traffic": _traffic(held.live),
    }
    record = RevisionRecord(
        endpoint=endpoint,
        n=held.n,
        parent=held.parent,
        kind=kind,
        status="proposed",
        who=stamp.who,
        when=stamp.when,
        reason=stamp.reason,
        document=held.text.digest,
        source=held.text.source,
        body=json_text(body),
    )
    return Proposal(record, held.text.raw, held.spec.digests())


def _traffic(live: LiveTraffic) -> dict[str, Any]:
    return {
        "champion": live.champion,
        "last_good": live.last_good,
        "since": live.since,
        "attempt": live.attempt,
        "table": {"salt": live.table.salt, "given": [list(run) for run in live.table.given]},
        "frozen": None if live.frozen is None else asdict(live.frozen),
        "blocked": [asdict(block) for block in live.blocked],
    }

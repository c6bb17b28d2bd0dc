"""What webhooks are told: which events, under which names, in which bytes. Pure.

Not here: how a message is signed (``signing``), how it is kept (``store.outbox``). Next: ``signing``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from headgate.store import Envelope, EventRecord, Queue

MAX_BODY = 64 << 10
"""Bytes of a message; one that would have more is told without its evidence."""
_MAX_WORDS = 1_000
_PHASES = {"paused": "pause", "rolled_back": "rollback", "promoted": "promote", "aborted": "abort"}
_KINDS = {
    "rollback": "rollback",
    "rollout_rollback": "rollback",
    "rollout_pause": "pause",
    "rollout_promote": "promote",
}
_KINDS |= {"abort": "abort", "rollout_abort": "abort", "rollout_step": "step"}
_URGENT = frozenset({"rollback", "abort", "block", "freeze", "rollout_rollback", "rollout_abort"})
"""Kinds whose revision may step aside for another call and is then tried again: that is no failed load."""


@dataclass(frozen=True)
class Receiver:
    """A webhook of a document: address and secret as written, and the names of what it is told."""

    webhook: str
    secret: str | None
    events: tuple[str, ...]
    timeout_ms: int


def receivers(notify: Iterable[Mapping[str, Any]]) -> tuple[Receiver, ...]:
    """The webhooks of a spec; of those that are written twice, one with the events of both."""
    found: dict[str, Receiver] = {}
    for one in notify:
        before = found.get(one["webhook"])
        events = (*(() if before is None else before.events), *one["events"])
        found[one["webhook"]] = Receiver(one["webhook"], one.get("secret"), events, one["timeout"])
    return tuple(found.values())


def name_of(event: EventRecord) -> str | None:
    """What receivers call an event; None: no receiver is told of it."""
    if event.type in ("drift", "alarm"):
        return event.type
    kind = str(event.data.get("kind", ""))
    if event.type == "failed":
        return None if kind in _URGENT else "load_failed"
    if event.type not in ("applied", "removed"):
        return None
    rollout = event.data.get("rollout")
    if not isinstance(rollout, Mapping):
        # A removal is told for the rollout that it ends.
        return _KINDS.get(kind)
    return _PHASES.get(str(rollout.get("phase")), "step")


def envelopes(event: EventRecord, told: Sequence[Receiver]) -> list[Envelope]:
    """The messages of an event, one for each receiver that wants it."""
    name = name_of(event)
    if name is None or event.endpoint is None:
        return []
    wanted = [one for one in told if name in one.events]
    body = encoded(event, name) if wanted else b""
    return [
        Envelope(Queue(event.endpoint, one.webhook), name, body, one.secret, one.timeout_ms) for one in wanted
    ]


def encoded(event: EventRecord, name: str) -> bytes:
    """The bytes of a message: ``type``, ``timestamp`` and ``data`` as Standard Webhooks advises."""
    told = {
        "id": event.generation,
        "event": event.type,
        "endpoint": event.endpoint,
        "revision": event.revision,
        "who": event.who,
        "reason": event.reason,
    }
    body = _json(name, event.when, {**told, "data": event.data})
    if len(body) <= MAX_BODY:
        return body
    words = str(event.data.get("message", ""))[:_MAX_WORDS]
    told["reason"] = event.reason[:_MAX_WORDS]
    short = {"kind": event.data.get("kind"), "message": words, "truncated": True}
    return _json(name, event.when, {**told, "data": short})


def test_message(endpoint: str, when: str, who: str) -> bytes:
    """A message that tells of nothing."""
    words = "A test: nothing has happened."
    return _json("test", when, {"endpoint": endpoint, "who": who, "data": {"message": words}})


def message_id(body: bytes) -> str:
    """The same for each attempt at a message, so that a receiver can tell one that it has. The body has the event's number and time."""
    return "evt_" + hashlib.sha256(body).hexdigest()[:32]


def shown(webhook: str) -> str:
    """A webhook for people and metrics: its host alone, because paths of such addresses are secrets."""
    if webhook.startswith("${"):
        return webhook[2:-1]
    return urlsplit(webhook).hostname or "webhook"


def _json(name: str, when: str, data: Mapping[str, Any]) -> bytes:
    told = {"type": f"headgate.{name}", "timestamp": when, "data": data}
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()

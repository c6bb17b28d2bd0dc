"""Durable state: revisions, blocks, pins, tokens, idempotency, audit and events, in SQLite or any SQLAlchemy database.

Not here: what a revision means (``control``), how a request is authorised (``admin``).
Next: ``records`` (what goes in and out), ``database`` (opening, locking, migrating), ``store`` (the door).
"""

from headgate.store.clock import Clock, stamp, unstamp, utc_now
from headgate.store.records import (
    AuditRecord,
    BlockRecord,
    EndpointRecord,
    EventRecord,
    IdempotencyRecord,
    OperationRecord,
    PinRecord,
    RevisionRecord,
    TokenRecord,
)
from headgate.store.store import Commit, Store, open_store

__all__ = [
    "AuditRecord",
    "BlockRecord",
    "Clock",
    "Commit",
    "EndpointRecord",
    "EventRecord",
    "IdempotencyRecord",
    "OperationRecord",
    "PinRecord",
    "RevisionRecord",
    "Store",
    "TokenRecord",
    "open_store",
    "stamp",
    "unstamp",
    "utc_now",
]

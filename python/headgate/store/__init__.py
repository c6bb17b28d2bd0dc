"""Durable state: revisions, documents, pins, tokens, idempotency, audit and events, in SQLite or PostgreSQL.

Not here: what a revision means (``control``), how a request is authorised (``admin``).
Next: ``models`` (what goes in and out), ``database`` (opening, locking, migrating), ``store`` (the door).
"""

from headgate.store.applied_file import NAME as APPLIED_FILE
from headgate.store.applied_file import Applied, AppliedState, read_applied
from headgate.store.backup import FEEDBACK, receipt_files, restore_backup, write_backup
from headgate.store.chain import Damage
from headgate.store.checksums import is_whole
from headgate.store.clock import Clock, seconds, stamp, unstamp, utc_now
from headgate.store.columns import json_text, keepable
from headgate.store.database import FILE as DATABASE
from headgate.store.models import (
    AppliedDocument,
    AuditRecord,
    EndpointRecord,
    EventRecord,
    IdempotencyRecord,
    OperationRecord,
    OutboxRecord,
    PinRecord,
    PlanRecord,
    RevisionKind,
    RevisionRecord,
    RevisionStatus,
    TokenRecord,
    TrialRecord,
)
from headgate.store.outbox import DropReason, Envelope, Queue, QueueState, StoreOutbox
from headgate.store.retention import RetentionLimits
from headgate.store.revisions import StartRecord
from headgate.store.store import Commit, Proposal, Store, open_beside, open_store
from headgate.store.trials import TrialKey

__all__ = [
    "APPLIED_FILE",
    "DATABASE",
    "FEEDBACK",
    "Applied",
    "AppliedDocument",
    "AppliedState",
    "AuditRecord",
    "Clock",
    "Commit",
    "Damage",
    "DropReason",
    "EndpointRecord",
    "Envelope",
    "EventRecord",
    "IdempotencyRecord",
    "OperationRecord",
    "OutboxRecord",
    "PinRecord",
    "PlanRecord",
    "Proposal",
    "Queue",
    "QueueState",
    "RetentionLimits",
    "RevisionKind",
    "RevisionRecord",
    "RevisionStatus",
    "StartRecord",
    "Store",
    "StoreOutbox",
    "TokenRecord",
    "TrialKey",
    "TrialRecord",
    "is_whole",
    "json_text",
    "keepable",
    "open_beside",
    "open_store",
    "read_applied",
    "receipt_files",
    "restore_backup",
    "seconds",
    "stamp",
    "unstamp",
    "utc_now",
    "write_backup",
]

"""The write path: declared and live traffic, revisions, emergency calls, the start after a stop.

Read in this order: ``shares`` and ``traffic`` (pure), ``merge`` (the three-way merge), ``spec`` and ``record`` (what a revision is),
``writer`` (how it becomes durable and served), ``changes`` (what each call means), ``repair`` (the start), ``document_files``,
``service`` (the door).
Not here: HTTP (``admin``), documents (``documents``), bytes of models (``registry``).
"""

from headgate.control.domain.calls import (
    ABSENT,
    ANY,
    EXISTS,
    INTERNAL,
    Call,
    IdempotencyKey,
    Precondition,
    Settings,
)
from headgate.control.domain.results import Plan, Result
from headgate.control.service import Control, Readiness
from headgate.control.writes.audit import Recorder
from headgate.control.writes.data_plane import DataPlane, Native
from headgate.control.writes.document_files import DocumentFile

__all__ = [
    "ABSENT",
    "ANY",
    "EXISTS",
    "INTERNAL",
    "Call",
    "Control",
    "DataPlane",
    "DocumentFile",
    "IdempotencyKey",
    "Native",
    "Plan",
    "Precondition",
    "Readiness",
    "Recorder",
    "Result",
    "Settings",
]

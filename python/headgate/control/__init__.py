"""The control plane: declared and live traffic, revisions, emergency calls, the start after a stop.

Three rooms, each of which knows only those before it: ``domain`` (pure values and rules), ``writes`` (how a change becomes durable
and served), ``reads`` (what can be read). ``service`` is the door. ``docs/design/control-plane.md`` tells the way of a change.
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
from headgate.control.domain.results import Plan, Readiness, Result
from headgate.control.domain.revision import Revision
from headgate.control.service import Control
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
    "Revision",
    "Settings",
]

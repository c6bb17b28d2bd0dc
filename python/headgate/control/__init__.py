"""The write path: declared and live traffic, revisions, emergency calls, the start after a stop.

Read in this order: ``shares`` and ``traffic`` (pure), ``merge`` (the three-way merge), ``spec`` and ``record`` (what a revision is),
``writer`` (how it becomes durable and served), ``changes`` (what each call means), ``repair`` (the start), ``document_files``,
``service`` (the door).
Not here: HTTP (``admin``), documents (``documents``), bytes of models (``registry``).
"""

from headgate.control.calls import ABSENT, ANY, EXISTS, INTERNAL, Call, IdempotencyKey, Precondition, Settings
from headgate.control.document_files import DocumentFile
from headgate.control.native import DataPlane, Native
from headgate.control.service import Control, Readiness
from headgate.control.views import Plan, Result

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
    "Result",
    "Settings",
]

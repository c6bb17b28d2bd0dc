"""Documents that describe no endpoint: rollout plans and the defaults, the newest of each.

Not here: what they say (``documents``), when they are used (``control.writes.stored_plans``). Next: ``models``.
"""

from __future__ import annotations

from sqlalchemy import delete, select

from headgate.errors import RevisionConflict
from headgate.store import journal, revisions
from headgate.store.models import AppliedDocument, AuditRecord, IdempotencyRecord, PlanRecord
from headgate.store.transactions import Transactions, Write


class StorePlans:
    """The table of plans."""

    def __init__(self, transactions: Transactions) -> None:
        """Use ``Store.plans``."""
        self._transactions = transactions

    def all(self) -> list[PlanRecord]:
        """Every document, by kind and name."""
        with self._transactions.read() as session:
            return list(session.scalars(select(PlanRecord).order_by(PlanRecord.kind, PlanRecord.name)))

    def put(
        self,
        record: PlanRecord,
        audit: AuditRecord,
        answer: IdempotencyRecord | None = None,
        applied: AppliedDocument | None = None,
    ) -> None:
        """Replaces a document and leaves the row of the audit, the answer under its key and the file that it was applied from in the same
        transaction.

        :class:`~headgate.errors.RevisionConflict` unless ``record.n`` follows the number of the one that is stored, or is 1 without one.
        """
        with self._transactions.write() as write:
            present = self._number(write, record.kind, record.name)
            if record.n != (present or 0) + 1:
                raise _changed(record.kind, record.name, present)
            self._remove(write, record.kind, record.name)
            write.add(record)
            if applied is not None:
                revisions.add_applied(write, applied)
            _leave(write, audit, answer)

    def delete(
        self, kind: str, name: str, number: int, audit: AuditRecord, answer: IdempotencyRecord | None = None
    ) -> None:
        """Removes a document. Leaves what :meth:`put` leaves.

        :class:`~headgate.errors.RevisionConflict` unless ``number`` is that of the one that is stored.
        """
        with self._transactions.write() as write:
            present = self._number(write, kind, name)
            if present != number:
                raise _changed(kind, name, present)
            self._remove(write, kind, name)
            _leave(write, audit, answer)

    def _number(self, write: Write, kind: str, name: str) -> int | None:
        same = (PlanRecord.kind == kind, PlanRecord.name == name)
        return write.session.scalar(select(PlanRecord.n).where(*same))

    def _remove(self, write: Write, kind: str, name: str) -> None:
        same = (PlanRecord.kind == kind, PlanRecord.name == name)
        write.session.execute(delete(PlanRecord).where(*same).execution_options(synchronize_session=False))


def _changed(kind: str, name: str, present: int | None) -> RevisionConflict:
    """Somebody else wrote meanwhile."""
    title = "the defaults" if kind == "Defaults" else f"plan {name}"
    at = "not there any more" if present is None else f"at revision {present}"
    return RevisionConflict(
        f"{title} changed meanwhile and is {at}: read it again", detail={"revision": present}
    )


def _leave(write: Write, audit: AuditRecord, answer: IdempotencyRecord | None) -> None:
    write.add_numbered(audit)
    if answer is not None:
        journal.put_idempotency(write, answer)

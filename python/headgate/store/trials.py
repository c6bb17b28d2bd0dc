"""The counts of trials: the newest state of each, and the last ones of each endpoint that have ended.

Not here: what the bytes say (the data plane's ledger), when they are written (``control.writes.trials``). Next: ``models``.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from headgate.store.models import TrialRecord
from headgate.store.transactions import Write

TrialKey = tuple[str, int]
"""Endpoint, and when the trial began in milliseconds."""
KEPT = 5
"""The newest trials of an endpoint that stay."""


def put(write: Write, records: Sequence[TrialRecord]) -> None:
    """Replaces the states of these trials. Of each endpoint the newest trials stay; of all but the newest the units go, because
    nothing is counted in them any more.
    """
    session = write.session
    for record in records:
        same = (TrialRecord.endpoint == record.endpoint, TrialRecord.begun == record.begun)
        session.execute(delete(TrialRecord).where(*same).execution_options(synchronize_session=False))
        write.add(record)
    for endpoint in {record.endpoint for record in records}:
        of_endpoint = select(TrialRecord.begun).where(TrialRecord.endpoint == endpoint)
        newest = list(session.scalars(of_endpoint.order_by(TrialRecord.begun.desc())))
        if len(newest) > 1:
            _shorten(session, endpoint, newest)


def _shorten(session: Session, endpoint: str, newest: Sequence[int]) -> None:
    older = (TrialRecord.endpoint == endpoint, TrialRecord.begun < newest[0])
    # One that a stop left unfinished, and whose endpoint is served otherwise now, ended when the next one began.
    for values, where in (
        ({"ended": newest[0]}, TrialRecord.ended.is_(None)),
        ({"units": b""}, TrialRecord.units != b""),
    ):
        session.execute(
            update(TrialRecord)
            .where(*older, where)
            .values(values)
            .execution_options(synchronize_session=False)
        )
    if len(newest) > KEPT:
        old = (TrialRecord.endpoint == endpoint, TrialRecord.begun < newest[KEPT - 1])
        session.execute(delete(TrialRecord).where(*old).execution_options(synchronize_session=False))


def unfinished(session: Session) -> list[TrialKey]:
    """The trials that had not ended when they were last written."""
    query = select(TrialRecord.endpoint, TrialRecord.begun).where(TrialRecord.ended.is_(None))
    found = session.execute(query.order_by(TrialRecord.endpoint, TrialRecord.begun))
    return [(endpoint, begun) for endpoint, begun in found]

"""The counts of trials: the newest state of each, and the last ones of each endpoint that have ended.

Not here: what the bytes say (the data plane's ledger), when they are written (``control.writes.trials``). Next: ``models``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from sqlalchemy import case, delete, select, update
from sqlalchemy.orm import Session

from headgate.store.models import EndpointRecord, TrialRecord
from headgate.store.transactions import Write

TrialKey = tuple[str, int]
"""Endpoint, and when the trial began in milliseconds."""
KEPT = 5
"""The newest trials of an endpoint that stay."""
AT_ONCE = 100
"""Endpoints whose trials are dropped in one transaction at most."""


def put(write: Write, records: Sequence[TrialRecord], live: Collection[TrialKey] = ()) -> None:
    """Replaces the states of these trials. Of each endpoint the newest trials stay; the units of what has ended go, because nothing
    is counted in them any more.

    ``live`` are the trials that go on in memory, whether or not they are among ``records``: they stay whole. When a trial began is
    the time of a wall clock, which may have been set back, so that the trial that goes on is not always the one that began last.
    """
    session = write.session
    for record in records:
        same = (TrialRecord.endpoint == record.endpoint, TrialRecord.begun == record.begun)
        session.execute(delete(TrialRecord).where(*same).execution_options(synchronize_session=False))
        write.add(record if record.ended is None else replace(record, units=b""))
    going_on = {*live, *((record.endpoint, record.begun) for record in records if record.ended is None)}
    for endpoint in {record.endpoint for record in records}:
        of_endpoint = select(TrialRecord.begun).where(TrialRecord.endpoint == endpoint)
        begun = sorted(
            session.scalars(of_endpoint), key=lambda one: ((endpoint, one) in going_on, one), reverse=True
        )
        whole = max(sum((endpoint, one) in going_on for one in begun), 1)
        _shorten(session, endpoint, begun, whole)


def _shorten(session: Session, endpoint: str, begun: Sequence[int], whole: int) -> None:
    """``begun`` names the trials of the endpoint, those that go on first, then the newest ones; the first ``whole`` stay as they are."""
    of_endpoint, older = TrialRecord.endpoint == endpoint, begun[whole:]
    # One that a stop left unfinished, and whose endpoint is served otherwise now, ended when the next one began.
    ended = case((TrialRecord.begun > begun[0], TrialRecord.begun), else_=begun[0])
    for values, where in (
        ({"ended": ended}, TrialRecord.ended.is_(None)),
        ({"units": b""}, TrialRecord.units != b""),
    ):
        session.execute(
            update(TrialRecord)
            .where(of_endpoint, TrialRecord.begun.in_(older), where)
            .values(values)
            .execution_options(synchronize_session=False)
        )
    old = begun[max(KEPT, whole) :]
    session.execute(
        delete(TrialRecord)
        .where(of_endpoint, TrialRecord.begun.in_(old))
        .execution_options(synchronize_session=False)
    )


def of_removed(session: Session) -> list[str]:
    """The endpoints that were removed and have trials; at most ``AT_ONCE``."""
    query = (
        select(TrialRecord.endpoint)
        .distinct()
        .join(EndpointRecord, EndpointRecord.name == TrialRecord.endpoint)
        .where(EndpointRecord.removed)
    )
    return list(session.scalars(query.order_by(TrialRecord.endpoint).limit(AT_ONCE)))


def drop_of_removed(session: Session) -> None:
    """Drops the trials of :func:`of_removed`."""
    session.execute(
        delete(TrialRecord)
        .where(TrialRecord.endpoint.in_(of_removed(session)))
        .execution_options(synchronize_session=False)
    )


def unfinished(session: Session) -> list[TrialKey]:
    """The trials that had not ended when they were last written."""
    query = select(TrialRecord.endpoint, TrialRecord.begun).where(TrialRecord.ended.is_(None))
    found = session.execute(query.order_by(TrialRecord.endpoint, TrialRecord.begun))
    return [(endpoint, begun) for endpoint, begun in found]

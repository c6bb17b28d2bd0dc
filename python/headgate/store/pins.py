"""What a version's name stands for: written once, never changed. The registry's ``Pins`` protocol on the store.

Not here: what happens to a version that comes back with other bytes (``registry``). Next: ``control``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from sqlalchemy import select
from sqlalchemy.orm import Session

from headgate.errors import Conflict, StorageFailed
from headgate.store.checksums import checked, is_whole
from headgate.store.clock import seconds
from headgate.store.models import AuditRecord, PinRecord
from headgate.store.transactions import Transactions, Write

_NAMES_AT_ONCE = 500
"""Names in one statement: databases bound how many values it may have."""


def add_pins(write: Write, endpoint: str, pins: Mapping[str, str]) -> None:
    """Pins what is not pinned yet; what is stays as it is."""
    for version, digest in pins.items():
        if write.session.get(PinRecord, (endpoint, version)) is None:
            write.add(checked(PinRecord(endpoint, version, digest, write.now)))


def check_pins(session: Session, endpoint: str, digests: Mapping[str, str]) -> None:
    """:class:`~headgate.errors.Conflict` when a version stands for another digest."""
    for version, digest in digests.items():
        pin = _whole(session.get(PinRecord, (endpoint, version)))
        if pin is not None and pin.digest != digest:
            raise Conflict(
                f"version {version} of {endpoint} is {pin.digest} since {seconds(pin.when)}, and this is {digest}: a version "
                "never changes; give the new model a new version"
            )


class StorePins:
    """The table of pins."""

    def __init__(self, transactions: Transactions) -> None:
        """Use ``Store.pins``."""
        self._transactions = transactions

    def get(self, endpoint: str, version: str) -> str | None:
        """The digest pinned, or None; :class:`StorageFailed` for a damaged pin, which stands for nothing."""
        with self._transactions.read() as session:
            pin = _whole(session.get(PinRecord, (endpoint, version)))
            return None if pin is None else pin.digest

    def snapshot(self, endpoints: Collection[str]) -> PinSnapshot:
        """The pins of these endpoints as they are now, read at once."""
        found: dict[tuple[str, str], PinRecord] = {}
        names = sorted(endpoints)
        with self._transactions.read() as session:
            for first in range(0, len(names), _NAMES_AT_ONCE):
                some = names[first : first + _NAMES_AT_ONCE]
                for pin in session.scalars(select(PinRecord).where(PinRecord.endpoint.in_(some))):
                    found[pin.endpoint, pin.version] = pin
        return PinSnapshot(found)

    def all(self) -> list[PinRecord]:
        """Every pin, by endpoint and version."""
        with self._transactions.read() as session:
            return list(session.scalars(select(PinRecord).order_by(PinRecord.endpoint, PinRecord.version)))

    def renew(self, endpoint: str, version: str, digest: str, audit: AuditRecord) -> PinRecord | None:
        """Pins a version anew whose pin is damaged, and notes that in the audit; None: it is not damaged."""
        with self._transactions.write() as write:
            pin = write.session.get(PinRecord, (endpoint, version))
            if pin is None or is_whole(pin):
                return None
            write.session.delete(pin)
            write.session.flush()
            renewed = checked(PinRecord(endpoint, version, digest, write.now))
            write.add(renewed)
            detail = {**audit.detail, "version": version, "digest": digest, "damaged": pin.digest}
            write.add_numbered(replace(audit, outcome="renewed", detail=detail))
            return renewed

    def remove(self, endpoint: str, version: str, audit: AuditRecord) -> PinRecord | None:
        """Takes a pin away and notes in the audit what it was; None: there is none."""
        with self._transactions.write() as write:
            pin = write.session.get(PinRecord, (endpoint, version))
            if pin is not None:
                write.session.delete(pin)
                detail = {**audit.detail, "version": version, "digest": pin.digest, "pinned": pin.when}
                write.add_numbered(replace(audit, detail=detail))
            return pin


class PinSnapshot:
    """Pins as they were when they were read."""

    def __init__(self, pins: Mapping[tuple[str, str], PinRecord]) -> None:
        """By endpoint and version."""
        self._pins = pins

    def get(self, endpoint: str, version: str) -> str | None:
        """As :meth:`StorePins.get`."""
        pin = _whole(self._pins.get((endpoint, version)))
        return None if pin is None else pin.digest

    def snapshot(self, _endpoints: Collection[str]) -> PinSnapshot:
        """This one."""
        return self


def _whole(pin: PinRecord | None) -> PinRecord | None:
    if pin is not None and not is_whole(pin):
        raise StorageFailed(
            f"the pin of version {pin.version} of {pin.endpoint} is damaged, so that nobody knows what the version stands for: "
            f"`headgate models unpin {pin.endpoint} {pin.version}` lets it be pinned anew"
        )
    return pin

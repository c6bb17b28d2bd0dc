"""What a version's name stands for: written once, never changed. The registry's ``Pins`` protocol on the store.

Not here: what happens to a version that comes back with other bytes (``registry``). Next: ``control``.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import Session

from headgate.errors import Conflict
from headgate.store.clock import stamp
from headgate.store.models import Pin
from headgate.store.records import PinRecord

if TYPE_CHECKING:
    from headgate.store.store import Store


def add_pins(session: Session, endpoint: str, pins: Mapping[str, str], now: datetime) -> None:
    """Pins what is not pinned yet; what is stays as it is."""
    for version, digest in pins.items():
        if session.get(Pin, (endpoint, version)) is None:
            session.add(Pin(endpoint=endpoint, version=version, digest=digest, when=stamp(now)))


def check_pins(session: Session, endpoint: str, digests: Mapping[str, str]) -> None:
    """:class:`~headgate.errors.Conflict` when a version stands for another digest."""
    for version, digest in digests.items():
        row = session.get(Pin, (endpoint, version))
        if row is not None and row.digest != digest:
            raise Conflict(
                f"version {version} of {endpoint} is {row.digest} since {row.when}, and this is {digest}: a version never "
                "changes; give the new model a new version"
            )


class StorePins:
    """The table of pins."""

    def __init__(self, store: Store) -> None:
        """Use ``Store.pins``."""
        self._store = store

    def get(self, endpoint: str, version: str) -> str | None:
        """The digest pinned, or None."""
        with self._store.read() as session:
            row = session.get(Pin, (endpoint, version))
            return None if row is None else row.digest

    def all(self) -> list[PinRecord]:
        """Every pin, by endpoint and version."""
        with self._store.read() as session:
            rows = session.scalars(select(Pin).order_by(Pin.endpoint, Pin.version))
            return [PinRecord(row.endpoint, row.version, row.digest, row.when) for row in rows]

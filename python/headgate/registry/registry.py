"""Names and versions onto artifacts: the first bytes served under a name and version are the only ones.

Pins are written by the durable store when a revision is applied, and read here through :class:`Pins`. Not
here: files (``store``), watching (``sync``). Next: ``tree``.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Protocol

from headgate.errors import Conflict, StorageFailed
from headgate.leases import Lease
from headgate.registry.manifest import Manifest
from headgate.registry.refusals import Refusal, Refusals
from headgate.registry.store import ArtifactStore

_SOURCE = "bytes"


class Pins(Protocol):
    """Which digest a name and version stands for; durable, implemented by the store."""

    def get(self, endpoint: str, version: str) -> str | None:
        """The pinned digest, or None when the pair was never served."""

    def snapshot(self, endpoints: Collection[str]) -> Pins:
        """The pins of these endpoints as they are now, read at once."""


class Refused(Conflict):
    """The same name and version came with other bytes; the pinned artifact goes on being used."""

    def __init__(self, endpoint: str, version: str, pinned: str, found: str) -> None:
        super().__init__(
            f"version {version} of {endpoint} is {pinned[:19]}… and now comes as {found[:19]}…: a version never "
            "changes; give the new model a new version. The pinned one stays in use.",
            detail={"endpoint": endpoint, "version": version, "pinned": pinned, "found": found},
        )
        self.endpoint = endpoint
        self.version = version
        self.pinned = pinned
        self.found = found


class Registry:
    """Brings models in under a name and version, and holds them to their first digest; thread-safe."""

    def __init__(self, store: ArtifactStore, pins: Pins) -> None:
        self.store = store
        self._pins = pins
        self.refused = Refusals()

    def admit(
        self,
        endpoint: str,
        version: str,
        path: Path,
        *,
        lease: Lease | None = None,
        pins: Pins | None = None,
    ) -> str:
        """Takes in the model at ``path`` as this version and returns its digest; blocking, hashes every file.
        ``lease`` holds the artifact: nobody references it yet. ``pins`` is a snapshot that is asked in place of the store.

        The digest is not pinned by that: a version stands for bytes once a revision with them was applied.
        Raises ``Refused`` when the pair is pinned to another digest (which stays in the store and in use), and
        what ``ArtifactStore.ingest`` raises.
        """
        pinned = (pins or self._pins).get(endpoint, version)
        if pinned is None:
            self.forget(endpoint, version)
            return self.store.ingest(path, lease)
        # Hashed where it lies: bytes that are going to be refused are not copied.
        found = self.store.fingerprint(path).digest
        if found != pinned:
            raise self._refuse(endpoint, version, pinned, found)
        self.forget(endpoint, version)
        if lease is not None:
            self.store.hold(pinned, lease)
        if not self._is_sound(pinned):
            repaired = self.store.ingest(path, lease)
            if repaired != pinned:
                raise self._refuse(endpoint, version, pinned, repaired)
        return pinned

    def look(self, endpoint: str, version: str, path: Path) -> Manifest:
        """The manifest of what :meth:`admit` would return, and its errors; takes nothing in, and no refusal stands after it."""
        pinned, found = self._pins.get(endpoint, version), self.store.fingerprint(path)
        if pinned is not None and found.digest != pinned:
            raise Refused(endpoint, version, pinned, found.digest)
        return found

    def pinned(self, endpoint: str, version: str) -> str | None:
        """The digest this version stands for, or None when it was never served."""
        return self._pins.get(endpoint, version)

    def snapshot(self, endpoints: Collection[str]) -> Pins:
        """The pins of these endpoints as they are now, for :meth:`admit`."""
        return self._pins.snapshot(endpoints)

    def refusals(self) -> list[Refusal]:
        """Every refusal that stands, of whatever source, by endpoint and version."""
        return self.refused.all()

    def forget(self, endpoint: str, version: str) -> None:
        """The refusal stands no more: the files that were refused are gone or whole again."""
        self.refused.drop(_SOURCE, (endpoint, version))

    def _refuse(self, endpoint: str, version: str, pinned: str, found: str) -> Refused:
        error = Refused(endpoint, version, pinned, found)
        refusal = Refusal(error.message, endpoint, version, pinned=pinned, found=found)
        self.refused.put(_SOURCE, (endpoint, version), refusal)
        return error

    def _is_sound(self, digest: str) -> bool:
        """Whether the artifact is in the store and whole; a damaged one is repaired from the same bytes."""
        try:
            self.store.model_path(digest)
        except StorageFailed:
            return False
        return True

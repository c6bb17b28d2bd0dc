"""Baselines in the state folder: found by their digest, and compared with it before they are used.

A baseline that is lost or has other bytes costs drift, not the endpoint: whoever asks is told why. Next: ``fitting``.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from headgate.drift.fitting import baseline_path
from headgate.leases import Lease

_Identity = tuple[int, int, int, int]


class BaselineStore:
    """The baselines of one state folder; safe to use from several threads."""

    def __init__(self, state: Path) -> None:
        """Nothing is read before it is asked for."""
        self._state = state
        self._whole: dict[str, _Identity] = {}
        self._faults: dict[str, str] = {}

    def find(self, digest: str | None) -> Path | None:
        """The file of a whole baseline; None without a digest, and for one with a :meth:`fault`. Hashes a file that has changed."""
        if digest is None:
            return None
        path = baseline_path(self._state, digest)
        try:
            status = path.stat()
            identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
            if self._whole.get(digest) != identity:
                if f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}" != digest:
                    self._damaged(digest, f"{path} has other bytes than were kept")
                    return None
                self._whole[digest] = identity
        except OSError as error:
            self._damaged(digest, f"{path} cannot be read ({error.strerror})")
            return None
        self._faults.pop(digest, None)
        return path

    def hold(self, digest: str | None, lease: Lease) -> None:
        """Holds a baseline that is there, so that nobody collects it."""
        if digest is not None:
            lease.hold(baseline_path(self._state, digest))

    def fault(self, digest: str | None) -> str | None:
        """Why drift is not measured with that baseline, as :meth:`find` saw it last; reads memory alone."""
        return None if digest is None else self._faults.get(digest)

    def _damaged(self, digest: str, what: str) -> None:
        self._whole.pop(digest, None)
        self._faults[digest] = (
            f"drift is not measured: {what}; apply the document with its sample again to repair it"
        )

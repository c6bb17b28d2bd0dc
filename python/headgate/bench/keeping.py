"""The folder of ``--out``: whether it can be written to before a measurement, and all files of the result after it.

No payload of a request is in it. Not here: the files (``report``). Next: ``report``.
"""

from __future__ import annotations

from pathlib import Path

from headgate.bench.report import write_all
from headgate.bench.results import Result
from headgate.errors import StorageFailed


def prepare(folder: Path) -> None:
    """Makes the folder; :class:`StorageFailed` if it cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise _failed(folder, error) from None


def keep(result: Result, folder: Path) -> None:
    """Writes all files; :class:`StorageFailed` if the disk refuses."""
    try:
        write_all(result, folder)
    except StorageFailed as error:
        if isinstance(error.__cause__, OSError):
            raise _failed(folder, error.__cause__) from error
        raise


def _failed(folder: Path, error: OSError) -> StorageFailed:
    return StorageFailed(f"the result could not be kept in {folder}: {error.strerror or error}")

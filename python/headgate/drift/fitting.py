"""Fitting a baseline: the sample goes to the data plane's own code, which gives back canonical bytes.

The same Rust fits the baseline and counts live values, so the two cannot disagree. Next: ``control.resolve``.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from headgate.errors import Internal, StorageFailed
from headgate.leases import Lease
from headgate.private_files import FILE_MODE, make_folder

FORMAT = "headgate.baseline/1"
"""What the ``format`` field of a baseline says."""


class Native(Protocol):
    """The part of ``headgate._native`` that fits."""

    def fit_baseline(self, columns: bytes, values: Sequence[object]) -> bytes:
        """JSON column descriptions and one contiguous float64 buffer each; the baseline's canonical bytes."""


def fit(
    path: Path,
    signature: Mapping[str, Any],
    columns: Mapping[str, Sequence[str]],
    native: Native,
) -> bytes:
    """The baseline of the sample at ``path`` for a model of that signature, as canonical JSON bytes.

    Raises ``PolicyInvalid`` for a sample that does not fit the model (see ``load_baseline``) and what the
    data plane raises. Blocking: it sorts every column.
    """
    # Here, because NumPy would be a fifth of the time that a gateway takes to start.
    from headgate.drift.loading import load_baseline

    loaded = load_baseline(path, signature=signature, columns=columns)
    described = [
        {
            "tensor": one.tensor,
            "column": one.column,
            "index": one.index,
            "direction": one.direction,
            "integer": one.integer,
        }
        for one in loaded
    ]
    fitted = native.fit_baseline(json.dumps(described).encode(), [one.values for one in loaded])
    if json.loads(fitted).get("format") != FORMAT:
        raise Internal(
            f"the data plane gave a baseline that is not {FORMAT}: the two halves are of different builds"
        )
    return fitted


def sample_fault(path: Path) -> str | None:
    """Why the file at ``path`` cannot be a sample, whatever the model is; None if it can. Reads nothing of it."""
    from headgate.drift.loading import check_sample

    try:
        check_sample(path)
    except OSError as error:
        return f"{path}: cannot be read: {error.strerror or error}"
    except ValueError as error:
        return f"{path}: {error}"
    return None


def baseline_digest(fitted: bytes) -> str:
    """``sha256:`` and the hex digest of a baseline's canonical bytes: its id."""
    return "sha256:" + hashlib.sha256(fitted).hexdigest()


def baseline_path(state: Path, digest: str) -> Path:
    """Where the baseline of that digest is kept below the state folder."""
    return state / "baselines" / f"{digest.removeprefix('sha256:')}.json"


def keep_baseline(state: Path, fitted: bytes, lease: Lease | None = None) -> tuple[str, Path]:
    """Writes a baseline below the state folder, durably and in one step; its digest and path. ``lease`` holds it from then on.

    ``StorageFailed`` when the disk does.
    """
    digest = baseline_digest(fitted)
    target = baseline_path(state, digest)
    try:
        make_folder(target.parent)
        with Lease() as writing:
            # Else it might be collected before it is held.
            writing.hold(target.parent)
            if not (target.exists() and target.read_bytes() == fitted):
                _write(target, fitted)
            if lease is not None:
                lease.hold(target)
    except OSError as error:
        raise StorageFailed(f"baseline {digest} cannot be kept: {error}") from error
    return digest, target


def _write(target: Path, fitted: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".new-", delete=False) as file:
        try:
            file.write(fitted)
            file.flush()
            os.fchmod(file.fileno(), FILE_MODE)
            os.fsync(file.fileno())
            Path(file.name).replace(target)
        except OSError:
            Path(file.name).unlink()
            raise
    handle = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

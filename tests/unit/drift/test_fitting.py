"""Fitting: what is handed to the data plane, and how the result is kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headgate.drift import baseline_digest, baseline_path, fit, keep_baseline
from headgate.errors import Internal, PolicyInvalid, StorageFailed

SIGNATURE = {
    "inputs": [{"name": "X", "datatype": "FP32", "shape": [-1, 2]}],
    "outputs": [{"name": "y", "datatype": "INT64", "shape": [-1]}],
}


class Recorder:
    """Stands where ``headgate._native`` does and keeps what it was given."""

    def __init__(self, answer: bytes = b'{"format":"headgate.baseline/1","features":[]}') -> None:
        self.answer = answer
        self.columns: list[dict[str, Any]] = []
        self.values: list[memoryview] = []

    def fit_baseline(self, columns: bytes, values: Sequence[object]) -> bytes:
        self.columns = json.loads(columns)
        self.values = [memoryview(value) for value in values]  # type: ignore[arg-type]
        return self.answer


def test_columns_and_buffers_go_over_in_the_same_order(tmp_path: Path) -> None:
    path = tmp_path / "sample.npz"
    np.savez(path, X=np.array([[1, 2], [3, np.nan]], np.float32), y=np.array([7, 8]))
    native = Recorder()
    assert fit(path, SIGNATURE, {"X": ["a", "b"]}, native) == native.answer
    assert native.columns == [
        {"tensor": "X", "column": "a", "index": 0, "direction": "input", "integer": False},
        {"tensor": "X", "column": "b", "index": 1, "direction": "input", "integer": False},
        {"tensor": "y", "column": "0", "index": 0, "direction": "output", "integer": True},
    ]
    for view in native.values:
        assert (view.format, view.contiguous, view.ndim) == ("d", True, 1)
    assert [view.tolist()[0] for view in native.values] == [1.0, 2.0, 7.0]
    assert np.isnan(native.values[1][1])


def test_a_sample_that_does_not_fit_never_reaches_the_data_plane(tmp_path: Path) -> None:
    path = tmp_path / "sample.npz"
    np.savez(path, X=np.ones((2, 3)))
    native = Recorder()
    with pytest.raises(PolicyInvalid, match=r"\[rows, 2\] is expected"):
        fit(path, SIGNATURE, {}, native)
    assert native.columns == []


def test_another_format_is_a_defect(tmp_path: Path) -> None:
    path = tmp_path / "sample.npz"
    np.savez(path, X=np.ones((2, 2)))
    with pytest.raises(Internal, match="headgate.baseline/1"):
        fit(path, SIGNATURE, {}, Recorder(b'{"format":"headgate.baseline/2"}'))


def test_a_baseline_is_kept_under_its_digest(tmp_path: Path) -> None:
    data = b'{"format":"headgate.baseline/1"}'
    digest, path = keep_baseline(tmp_path, data)
    assert digest == baseline_digest(data) == "sha256:" + hashlib.sha256(data).hexdigest()
    assert path == baseline_path(tmp_path, digest)
    assert path.read_bytes() == data
    path.write_bytes(b"damage")
    assert keep_baseline(tmp_path, data) == (digest, path)
    assert path.read_bytes() == data
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    with pytest.raises(StorageFailed, match="cannot be kept"):
        keep_baseline(path, data)

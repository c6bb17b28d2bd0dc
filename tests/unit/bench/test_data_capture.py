"""Captured requests come back in their own times; what is left out, unsorted or damaged is said."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headgate.bench import data_capture
from headgate.bench.data import Requests, Source, load
from headgate.bench.data_capture import read_captures
from headgate.bench.tensors import TensorSpec
from headgate.errors import HeadgateError, InvalidArgument, Unsupported
from support.captures import SECOND_US, row, write

X = TensorSpec("X", "FP32", (-1, 2))


def source(*, shares: dict[int, int] | None = None) -> Source:
    return Source("digits", None, (X,), shares, 1)


def values(found: Requests) -> list[float]:
    return [float(one.request.inputs[0].values.flat[0]) for one in found.rows]


def test_times_are_those_at_which_requests_came(tmp_path: Path) -> None:
    # The second one came first: it took longer.
    rows = [row(2_000, 1.0, took_ns=1_000_000), row(5_000, 2.0, took_ns=4_500_000), row(9_000, 3.0)]
    write(tmp_path / "1-v1.arrows", [rows[:2], rows[2:]])

    found = read_captures(tmp_path, source())

    assert values(found) == [2.0, 1.0, 3.0]
    assert found.due_ns == (0, 500_000, 7_500_000)
    assert found.notes == ()
    assert np.array_equal(found.rows[0].request.inputs[0].values, np.full((1, 2), 2.0, dtype=np.float32))


def test_files_of_several_versions_are_one_stream(tmp_path: Path) -> None:
    write(tmp_path / "1-v1.arrows", [[row(at * SECOND_US, 1.0) for at in range(0, 100, 20)]])
    write(tmp_path / "2-v2.arrows", [[row(at * SECOND_US, 2.0) for at in range(10, 100, 20)]])

    found = read_captures(tmp_path, source())

    assert values(found) == [1.0, 2.0] * 5
    assert found.due_ns == tuple(at * 10**9 for at in range(0, 100, 10))
    # Versions overlap in time, and no clock was set.
    assert found.notes == ()


def test_a_clock_that_was_set_is_said_and_the_requests_are_sorted(tmp_path: Path) -> None:
    write(tmp_path / "1-v1.arrows", [[row(0, 1.0), row(60 * SECOND_US, 2.0)], [row(30 * SECOND_US, 3.0)]])

    found = read_captures(tmp_path, source())

    assert values(found) == [1.0, 3.0, 2.0]
    assert found.notes == (
        "1 captured requests stand behind later ones and were sorted by their time: the clock was set, and the gaps between them are "
        "not those of the clients",
    )


def test_requests_that_had_failed_are_left_out_and_counted(tmp_path: Path) -> None:
    write(
        tmp_path / "1-v1.arrows",
        [[row(0, code="backend_failed"), row(1_000, 2.0), row(2_000, code="internal")]],
    )

    found = read_captures(tmp_path, source())

    assert values(found) == [2.0]
    assert found.notes == ("2 captured requests had failed and are left out",)


def test_an_open_file_is_read_to_its_last_complete_batch(tmp_path: Path) -> None:
    write(tmp_path / "whole", [[row(0, 1.0)], [row(1_000, 2.0)]])
    whole = (tmp_path / "whole").read_bytes()
    (tmp_path / "whole").unlink()
    (tmp_path / "1-v1.arrows.open").write_bytes(whole[: len(whole) - 100])

    found = read_captures(tmp_path, source())

    assert values(found) == [1.0]
    assert found.notes == ()


def test_a_closed_file_that_is_cut_off_is_said(tmp_path: Path) -> None:
    write(tmp_path / "1-v1.arrows", [[row(0, 1.0)], [row(1_000, 2.0)]])
    data = (tmp_path / "1-v1.arrows").read_bytes()
    (tmp_path / "1-v1.arrows").write_bytes(data[: len(data) - 100])

    found = read_captures(tmp_path, source())

    assert values(found) == [1.0]
    assert len(found.notes) == 1
    assert found.notes[0].startswith("1-v1.arrows cannot be read further: ")


def test_no_more_than_the_bound_is_read_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_capture, "MAX_REQUESTS", 3)
    write(tmp_path / "1-v1.arrows", [[row(at, float(at)) for at in range(5)]])
    write(tmp_path / "2-v1.arrows", [[row(10, 10.0)]])

    found = read_captures(tmp_path, source())

    assert values(found) == [0.0, 1.0, 2.0]
    assert found.notes == ("the first 3 captured requests are used",)


# === nothing to send ===


def _nothing(folder: Path) -> None:
    """No file at all."""


def _no_rows(folder: Path) -> None:
    write(folder / "1-v1.arrows", [])


def _no_bytes(folder: Path) -> None:
    (folder / "1-v1.arrows").write_bytes(b"")


def _no_arrow(folder: Path) -> None:
    (folder / "1-v1.arrows").write_bytes(b"x" * 1000)


def _redacted(folder: Path) -> None:
    write(folder / "1-v1.arrows", [[row(0)]], redacted=True)


def _all_failed(folder: Path) -> None:
    write(folder / "1-v1.arrows", [[row(0, code="internal")]])


@pytest.mark.parametrize(
    ("fill", "why"),
    [
        (_nothing, "nothing was captured: the document needs capture, and traffic"),
        (_no_rows, "nothing was captured: the document needs capture, and traffic"),
        (_no_bytes, "1-v1.arrows cannot be read further"),
        (_no_arrow, "1-v1.arrows cannot be read further"),
        (_redacted, "1-v1.arrows leaves out values of X (redact)"),
        (_all_failed, "1 captured requests had failed and are left out"),
    ],
)
def test_a_folder_without_a_request_that_can_be_sent_is_refused(tmp_path: Path, fill: Any, why: str) -> None:
    fill(tmp_path)
    with pytest.raises(InvalidArgument) as raised:
        read_captures(tmp_path, source())
    assert f"{tmp_path} has no request that can be sent again: " in raised.value.message
    assert why in raised.value.message


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="cannot be read: No such file"):
        load("capture", source(), tmp_path / "captures")


def test_rows_cannot_be_asked_for(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="have their rows already"):
        read_captures(tmp_path, source(shares={2: 10_000}))


def test_a_tensor_of_an_unknown_datatype_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "1-v1.arrows", [[row(0)]], datatype="FP8")
    with pytest.raises(InvalidArgument, match=r"input\.X has no datatype that is known here"):
        read_captures(tmp_path, source())


def test_a_model_that_takes_other_tensors_now_is_told_which(tmp_path: Path) -> None:
    write(tmp_path / "1-v1.arrows", [[row(0)]])
    with pytest.raises(HeadgateError, match=r"capture:.*request 1.*FP32 \[-1, 3\]"):
        load(
            f"capture:{tmp_path}",
            Source("digits", None, (TensorSpec("X", "FP32", (-1, 3)),), None, 1),
            None,
        )


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.ipc", None)
    with pytest.raises(Unsupported, match=r"headgate\[data\]"):
        read_captures(tmp_path, source())

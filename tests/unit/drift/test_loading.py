"""Reference samples: npz, npy and CSV, read against a model's signature and a document's columns."""

from __future__ import annotations

import os
import resource
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headgate.drift import loading
from headgate.drift.loading import Column, load_baseline
from headgate.errors import PolicyInvalid

SIGNATURE: dict[str, Any] = {
    "inputs": [
        {"name": "X", "datatype": "FP32", "shape": [-1, 3]},
        {"name": "n", "datatype": "INT64", "shape": [-1]},
    ],
    "outputs": [
        {"name": "score", "datatype": "FP32", "shape": [-1, 1]},
        {"name": "label", "datatype": "BYTES", "shape": [-1]},
        {"name": "open", "datatype": "FP32", "shape": [-1, -1]},
    ],
}
COLUMNS = {"X": ["amount", "age", "rate"]}


def test_a_process_without_descriptors_is_no_fault_of_the_sample(tmp_path: Path) -> None:
    path = tmp_path / "sample.npz"
    np.savez(path, X=np.zeros((4, 3), np.float32))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            load(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def load(path: Path, columns: dict[str, list[str]] | None = None) -> dict[tuple[str, str, int], Column]:
    loaded = load_baseline(path, signature=SIGNATURE, columns=COLUMNS if columns is None else columns)
    return {(c.tensor, c.column, c.index): c for c in loaded}


def fault(path: Path, columns: dict[str, list[str]] | None = None) -> str:
    with pytest.raises(PolicyInvalid) as caught:
        load(path, columns)
    found = caught.value.detail["faults"]
    assert {f["path"] for f in found} == {"drift.baseline"}
    assert all(str(path) in f["message"] for f in found)
    return "\n".join(f["message"] for f in found)


def csv(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "sample.csv"
    path.write_text(text, encoding="utf-8")
    return path


def npz(tmp_path: Path, **arrays: Any) -> Path:
    path = tmp_path / "sample.npz"
    np.savez(path, **arrays)
    return path


def test_npz_arrays_by_tensor_name(tmp_path: Path) -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    columns = load(npz(tmp_path, X=x, n=np.array([4, 5]), score=np.array([[0.5], [np.nan]])))
    assert list(columns) == [
        ("X", "amount", 0),
        ("X", "age", 1),
        ("X", "rate", 2),
        ("n", "0", 0),
        ("score", "0", 0),
    ]
    assert columns["X", "age", 1].values.tolist() == [1.0, 4.0]
    for column in columns.values():
        assert column.values.dtype == np.float64
        assert column.values.flags.c_contiguous
    whole = columns["n", "0", 0]
    assert (whole.direction, whole.integer) == ("input", True)
    output = columns["score", "0", 0]
    assert (output.direction, output.integer) == ("output", False)
    assert np.isnan(output.values[1])


def test_rows_of_any_rank_are_flat(tmp_path: Path) -> None:
    columns = load(npz(tmp_path, open=np.arange(8.0).reshape(2, 2, 2)))
    assert [c.index for c in columns.values()] == [0, 1, 2, 3]
    assert columns["open", "3", 3].values.tolist() == [3.0, 7.0]


def test_npy_belongs_to_the_first_input(tmp_path: Path) -> None:
    path = tmp_path / "sample.npy"
    np.save(path, np.asfortranarray(np.arange(6, dtype=np.int32).reshape(2, 3)))
    columns = load(path)
    assert [key[:2] for key in columns] == [("X", "amount"), ("X", "age"), ("X", "rate")]
    assert columns["X", "rate", 2].values.tolist() == [2.0, 5.0]


def test_csv_by_column_name(tmp_path: Path) -> None:
    columns = load(csv(tmp_path, "\ufeffage, amount,rate,n\n1,2,3,4\n5,,nan,True\n\n7,8,-inf,1e3\n"))
    assert list(columns) == [("X", "age", 1), ("X", "amount", 0), ("X", "rate", 2), ("n", "0", 0)]
    assert columns["X", "age", 1].values.tolist() == [1.0, 5.0, 7.0]
    assert np.isnan(columns["X", "amount", 0].values[1])
    assert np.isnan(columns["X", "rate", 2].values[1])
    assert columns["X", "rate", 2].values[2] == -np.inf
    assert columns["n", "0", 0].values.tolist() == [4.0, 1.0, 1000.0]


def test_csv_columns_may_be_qualified(tmp_path: Path) -> None:
    names = {"X": ["a", "b", "c"], "open": ["a"]}
    assert "could be any of X.a, open.a" in fault(csv(tmp_path, "a,b,c\n1,2,3\n"), names)
    columns = load(csv(tmp_path, "X.a,b,c,open.a\n1,2,3,4\n"), names)
    assert list(columns) == [("X", "a", 0), ("X", "b", 1), ("X", "c", 2), ("open", "a", 0)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("amount,age,rate\n", "holds no rows"),
        (
            "amount,aeg,rate\n1,2,3\n",
            'column "aeg" is not among the document\'s columns; did you mean "age"?',
        ),
        ("amount,age,rate,age\n1,2,3,4\n", "comes twice"),
        ("amount,age\n1,2\n", 'column "rate" of tensor "X" is missing'),
        ("amount,age,rate\n1,2\n", "row 2 has 2 cells; the header has 3"),
        ("amount,age,rate\n1,x,3\n1,2,y\n", 'row 2, column "age": "x" is not a number'),
        ("amount,age,rate\n1,x,3\n1,2,y\n", 'row 3, column "rate": "y" is not a number'),
        ("amount,age,rate\n1,1_0,3\n", '"1_0" is not a number'),
        ('amount,age,rate\n1,"2,3\n', "is not CSV"),
        ("labels\nx\n", 'did you mean "label"?'),
    ],
)
def test_bad_csv_says_where(text: str, says: str, tmp_path: Path) -> None:
    assert says in fault(csv(tmp_path, text))


def test_text_tensors_are_not_compared_yet(tmp_path: Path) -> None:
    assert "not supported yet" in fault(csv(tmp_path, "label\nx\n"), {"label": ["label"]})
    assert "BYTES" in fault(npz(tmp_path, label=np.array([1.0])))


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"Y": [1.0]}, 'no tensor "Y"; known here: X, n, score'),
        ({"scores": [1.0]}, 'no tensor "scores"; did you mean "score"?'),
        (
            {"X": np.ones((2, 4))},
            "has shape [2, 4]: 4 values per row; the model takes shape [-1, 3], so [rows, 3]",
        ),
        ({"X": np.ones(2)}, "1 values per row"),
        ({"X": np.float32(1)}, "single value"),
        ({"X": np.array([["a", "b", "c"]])}, "numbers and bools"),
        ({"X": np.array([[1j, 2, 3]])}, "numbers and bools"),
        ({"X": np.ones((2, 3)), "n": np.ones(3)}, "different numbers of rows: [2, 3]"),
        ({"X": np.ones((0, 3))}, "holds no rows"),
        ({"open": np.ones((1, 5000))}, "4096 can be compared"),
        ({}, "no column"),
    ],
)
def test_bad_arrays_say_the_expected_shape(arrays: dict[str, Any], says: str, tmp_path: Path) -> None:
    assert says in fault(npz(tmp_path, **arrays))


def test_columns_of_the_document_must_fit(tmp_path: Path) -> None:
    assert "columns.open names 2" in fault(npz(tmp_path, open=np.ones((2, 3))), {"open": ["a", "b"]})


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Mark:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "unpickled",))

    np.save(tmp_path / "x.npy", np.array([Mark()], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "x.npz", X=np.array([Mark()], dtype=object))
    for name in ("x.npy", "x.npz"):
        assert 'array "X" holds object; numbers and bools are read' in fault(tmp_path / name)
    assert not (tmp_path / "unpickled").exists()


def test_sizes_are_checked_before_anything_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = tmp_path / "bomb.npz"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("X.npy", bytes(1 << 20))
    monkeypatch.setattr(loading, "MAX_FILE_BYTES", 1 << 16)
    assert "expands to 1048576 bytes" in fault(bomb)
    big = tmp_path / "big.csv"
    big.write_text("x" * (1 << 17))
    assert "has 131072 bytes" in fault(big)
    monkeypatch.setattr(loading, "MAX_VALUES", 6)
    assert "more than 6 values" in fault(csv(tmp_path, "amount,age,rate\n" + "1,2,3\n" * 3))
    assert "has 9 values" in fault(npz(tmp_path, X=np.ones((3, 3))))


def lying(shape: str, descr: str = "'<f8'") -> bytes:
    """A ``.npy`` file whose header says this, before eight bytes of data."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}"
    header += " " * (-(len(header) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(8)


@pytest.mark.parametrize(
    ("written", "says"),
    [
        (lying("(1000000000000, 3)"), "has 3000000000000 values"),
        (lying("(20000000, 3)"), "480000000 bytes, and there are 8"),
        (lying("(0, 3)"), "0 bytes, and there are 8"),
        (lying("(-1, 3)"), "and there are 8"),
        (lying("(1, 3)", "[('a', '<f8')]"), "numbers and bools are read"),
        (lying("(1, 3)", "'|O'"), "numbers and bools are read"),
        (lying("(1, 3"), "header"),
        (lying("(" * 300), "header"),
        (b"\x93NUMPY\x03\x00" + bytes(100), "format 3.0"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(100), "header"),
        (b"\x93NUMPY", "magic string"),
        (b"", "magic string"),
    ],
)
def test_a_header_that_lies_costs_nothing(written: bytes, says: str, tmp_path: Path) -> None:
    tracemalloc.start()
    try:
        for name in ("a.npy", "a.npz"):
            path = tmp_path / name
            path.write_bytes(written)
            if name == "a.npz":
                with zipfile.ZipFile(path, "w") as archive:
                    archive.writestr("X.npy", written)
            assert says in fault(path)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_archives_that_lie_are_refused(tmp_path: Path) -> None:
    path = npz(tmp_path, X=np.ones((2, 3)))
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        [info] = archive.infolist()
    size, flags = info.file_size.to_bytes(4, "little"), whole.rindex(b"PK\x01\x02") + 8
    for faulty in (
        whole.replace(size, (info.file_size - 8).to_bytes(4, "little")),
        whole.replace(size, (info.file_size + 8).to_bytes(4, "little")),
        whole[:flags] + b"\x01" + whole[flags + 1 :],  # encrypted
        whole[: flags + 2] + b"\x63" + whole[flags + 3 :],  # of a compression that nobody knows
        whole[: len(whole) // 2],
    ):
        path.write_bytes(faulty)
        assert fault(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("X.npy", b"")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("X.npy", b"")
    assert "two arrays of the same name" in fault(path)


def test_a_directory_without_end_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "MAX_LINE", 100)
    assert "a line of more than 100 characters" in fault(csv(tmp_path, "amount,age,rate\n1,2," + "3" * 200))
    path = npz(tmp_path, X=np.ones((2, 3)))
    whole, end = path.read_bytes(), path.read_bytes().rindex(b"PK\x05\x06")
    long = whole[: end + 12] + (2**21).to_bytes(4, "little") + whole[end + 16 :]
    large = whole[:end] + b"PK\x06\x07" + bytes(16) + whole[end:]
    monkeypatch.setattr(zipfile, "ZipFile", None)
    for faulty in (long, large):
        path.write_bytes(faulty)
        assert "more arrays than a model has tensors" in fault(path)


@pytest.mark.parametrize("name", ["a.npz", "a.npy", "a.csv"])
def test_what_is_no_regular_file_is_refused_and_does_not_hang(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    os.mkfifo(path)
    assert "it is a pipe, and a regular file is expected" in fault(path)
    path.unlink()
    path.mkdir()
    assert "it is a folder" in fault(path)
    path.rmdir()
    path.symlink_to("/dev/zero")
    assert "it is a device" in fault(path)


def test_files_that_are_something_else(tmp_path: Path) -> None:
    for name in ("a.npz", "a.npy"):
        (tmp_path / name).write_bytes(b"hello")
        assert fault(tmp_path / name)
    np.savez(tmp_path / "b.npz", X=np.ones((1, 3)))
    (tmp_path / "b.npz").rename(tmp_path / "b.npy")
    assert "is an .npz file" in fault(tmp_path / "b.npy")
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    assert "is not UTF-8 text" in fault(tmp_path / "a.csv")
    (tmp_path / "a.txt").touch()
    assert "must end in .npz, .npy or .csv" in fault(tmp_path / "a.txt")
    assert "No such file" in fault(tmp_path / "none.csv")

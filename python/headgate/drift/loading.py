"""Reference samples from disk: ``.npz`` (arrays by tensor name), ``.npy`` (the first input), CSV (columns by
name).

Nothing is unpickled; sizes are checked before anything is expanded. Not here: fitting (``fitting``). Next:
``table``.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headgate.documents.faults import Fault, policy_invalid
from headgate.drift.layout import Layout, Tensor
from headgate.drift.table import read_table
from headgate.errors import is_out_of_descriptors

MAX_VALUES = 2**26
"""How many values a sample may hold over all its columns: 512 MiB as float64."""

MAX_FILE_BYTES = 2**30
"""The largest sample file, and the most an ``.npz`` may expand to."""

PATH = "drift.baseline"
"""The document's field that faults of a sample are reported at."""


@dataclass(frozen=True, slots=True)
class Column:
    """One feature's sample: ``index`` is the flat position within a row of ``tensor``, NaN in ``values`` is
    missing."""

    tensor: str
    column: str
    index: int
    direction: str
    integer: bool
    values: NDArray[np.float64]


def load_baseline(
    path: Path, *, signature: Mapping[str, Any], columns: Mapping[str, Sequence[str]] | None = None
) -> list[Column]:
    """The columns of the sample at ``path``, by tensor as they come and then by position.

    ``signature`` is the champion's (see ``layout``), ``columns`` the document's names. Raises
    ``PolicyInvalid`` that names the file, the column or array, and the shape that would be right.
    """
    layout = Layout(signature, columns or {})
    readers = {".npz": _read_npz, ".npy": _read_npy, ".csv": _read_csv}
    try:
        reader = readers.get(path.suffix.lower())
        if reader is None:
            raise ValueError(f"must end in .npz, .npy or .csv, not {path.suffix or 'nothing'}")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ValueError(f"has {path.stat().st_size} bytes; a sample may have {MAX_FILE_BYTES}")
        loaded = reader(path, layout)
        if not loaded:
            raise ValueError("holds no column that the model knows")
        if loaded[0].values.size == 0:
            raise ValueError("holds no rows")
    except OSError as error:
        if is_out_of_descriptors(error):
            raise
        raise _fault(path, [f"cannot be read: {error.strerror or error}"]) from None
    except ValueError as error:
        raise _fault(path, [str(line) for line in error.args]) from None
    return loaded


def _fault(path: Path, messages: list[str]) -> Exception:
    return policy_invalid(path.name, [Fault(PATH, None, f"{path}: {message}") for message in messages])


def _read_npz(path: Path, layout: Layout) -> list[Column]:
    try:
        with zipfile.ZipFile(path) as archive:
            expanded = sum(info.file_size for info in archive.infolist())
        if expanded > MAX_FILE_BYTES:
            raise ValueError(f"expands to {expanded} bytes; a sample may have {MAX_FILE_BYTES}")
        with np.load(path, allow_pickle=False) as arrays:
            columns = [
                column
                for name in arrays.files
                for column in _features(layout.tensor(name), arrays[name], layout)
            ]
    except zipfile.BadZipFile as error:
        raise ValueError(f"is not an .npz file: {error}") from None
    rows = {column.values.size for column in columns}
    if len(rows) > 1:
        raise ValueError(f"holds arrays of different numbers of rows: {sorted(rows)}")
    return columns


def _read_npy(path: Path, layout: Layout) -> list[Column]:
    array = np.load(path, allow_pickle=False, mmap_mode="r")
    if not isinstance(array, np.ndarray):
        array.close()
        raise ValueError("is an .npz file by its content; name it so")
    tensor = layout.tensor(layout.first_input.name)
    return list(_features(tensor, array, layout))


def _read_csv(path: Path, layout: Layout) -> list[Column]:
    with path.open(encoding="utf-8-sig", newline="") as lines:
        places, values = read_table(lines, layout, MAX_VALUES)
    return [
        _column(tensor, index, layout, data) for (tensor, index), data in zip(places, values, strict=True)
    ]


def _features(tensor: Tensor, array: NDArray[Any], layout: Layout) -> Iterator[Column]:
    if array.dtype.kind not in "biuf":
        raise ValueError(f'array "{tensor.name}" holds {array.dtype}; numbers and bools are read')
    if array.ndim == 0:
        raise ValueError(f'array "{tensor.name}" is a single value; [rows] or [rows, features] is expected')
    if array.size > MAX_VALUES:
        raise ValueError(f'array "{tensor.name}" has {array.size} values; a sample may have {MAX_VALUES}')
    features = int(np.prod(array.shape[1:], dtype=np.int64))
    layout.check_features(tensor, features, array.shape)
    flat = array.reshape(array.shape[0], features)
    for index in range(features):
        yield _column(tensor, index, layout, np.ascontiguousarray(flat[:, index], dtype=np.float64))


def _column(tensor: Tensor, index: int, layout: Layout, values: NDArray[np.float64]) -> Column:
    name = layout.column(tensor, index)
    return Column(tensor.name, name, index, tensor.direction, tensor.integer, values)

"""Reference samples from disk: ``.npz`` (arrays by tensor name), ``.npy`` (the first input), CSV (columns by
name).

Nothing is unpickled; sizes are checked before anything is expanded. Not here: fitting (``fitting``). Next:
``table``.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, TextIO

import numpy as np
from numpy.typing import NDArray

from headgate.documents.faults import Fault, policy_invalid
from headgate.drift.arrays import check_directory, read_array
from headgate.drift.layout import Layout, Tensor
from headgate.drift.table import read_table
from headgate.errors import is_out_of_descriptors
from headgate.regular_files import check_regular, open_regular

MAX_VALUES = 2**26
"""How many values a sample may hold over all its columns: 512 MiB as float64."""

MAX_FILE_BYTES = 2**30
"""The largest sample file, and the most an ``.npz`` may expand to."""

MAX_LINE = 2**20
"""Characters of a line of CSV: 4096 features have room."""

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
    try:
        check_sample(path)
        with open_regular(path) as file:
            loaded = _READERS[path.suffix.lower()](file, layout)
        if not loaded:
            raise ValueError("holds no column that the model knows")
        if loaded[0].values.size == 0:
            raise ValueError("holds no rows")
    except OSError as error:
        if is_out_of_descriptors(error):
            raise
        raise _fault(path, [f"cannot be read: {error.strerror or error}"]) from None
    except UnicodeDecodeError as error:
        raise _fault(path, [f"is not UTF-8 text: {error.reason}"]) from None
    except ValueError as error:
        raise _fault(path, [str(line) for line in error.args]) from None
    except Exception as error:
        # The file is anybody's, and the libraries that read it raise whatever they meet in it.
        raise _fault(path, [f"cannot be understood: {error or type(error).__name__}"]) from None
    return loaded


def check_sample(path: Path) -> None:
    """:class:`ValueError` or :class:`OSError` for what cannot be a sample, by its name, kind and size."""
    if path.suffix.lower() not in _READERS:
        raise ValueError(f"must end in .npz, .npy or .csv, not {path.suffix or 'nothing'}")
    check_regular(path)
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise ValueError(f"has {size} bytes; a sample may have {MAX_FILE_BYTES}")


def _fault(path: Path, messages: list[str]) -> Exception:
    return policy_invalid(path.name, [Fault(PATH, None, f"{path}: {message}") for message in messages])


def _read_npz(file: BinaryIO, layout: Layout) -> list[Column]:
    columns: list[Column] = []
    check_directory(file)
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            expanded = sum(info.file_size for info in members)
            if expanded > MAX_FILE_BYTES:
                raise ValueError(f"expands to {expanded} bytes; a sample may have {MAX_FILE_BYTES}")
            if len({info.filename for info in members}) < len(members):
                raise ValueError("holds two arrays of the same name")
            for info in members:
                tensor = layout.tensor(info.filename.removesuffix(".npy"))
                with archive.open(info) as member:
                    columns += _features(tensor, _array(tensor.name, member, info.file_size), layout)
    except zipfile.BadZipFile as error:
        raise ValueError(f"is not an .npz file: {error}") from None
    rows = {column.values.size for column in columns}
    if len(rows) > 1:
        raise ValueError(f"holds arrays of different numbers of rows: {sorted(rows)}")
    return columns


def _read_npy(file: BinaryIO, layout: Layout) -> list[Column]:
    if zipfile.is_zipfile(file):
        raise ValueError("is an .npz file by its content; name it so")
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    tensor = layout.tensor(layout.first_input.name)
    return list(_features(tensor, _array(tensor.name, file, size), layout))


def _array(name: str, file: IO[bytes], size: int) -> NDArray[Any]:
    try:
        return read_array(file, size, MAX_VALUES)
    except ValueError as error:
        raise ValueError(f'array "{name}" {error}') from None


def _read_csv(file: BinaryIO, layout: Layout) -> list[Column]:
    with io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as lines:
        places, values = read_table(_short(lines), layout, MAX_VALUES)
    return [
        _column(tensor, index, layout, data) for (tensor, index), data in zip(places, values, strict=True)
    ]


def _short(lines: TextIO) -> Iterator[str]:
    """The lines, none of them so long that it would be a burden."""
    while line := lines.readline(MAX_LINE):
        if len(line) == MAX_LINE:
            raise ValueError(f"has a line of more than {MAX_LINE} characters; is it a table?")
        yield line


def _features(tensor: Tensor, array: NDArray[Any], layout: Layout) -> Iterator[Column]:
    if array.ndim == 0:
        raise ValueError(f'array "{tensor.name}" is a single value; [rows] or [rows, features] is expected')
    features = int(np.prod(array.shape[1:], dtype=np.int64))
    layout.check_features(tensor, features, array.shape)
    flat = array.reshape(array.shape[0], features)
    for index in range(features):
        yield _column(tensor, index, layout, np.ascontiguousarray(flat[:, index], dtype=np.float64))


def _column(tensor: Tensor, index: int, layout: Layout, values: NDArray[np.float64]) -> Column:
    name = layout.column(tensor, index)
    return Column(tensor.name, name, index, tensor.direction, tensor.integer, values)


_READERS: dict[str, Callable[[BinaryIO, Layout], list[Column]]] = {
    ".npz": _read_npz,
    ".npy": _read_npy,
    ".csv": _read_csv,
}

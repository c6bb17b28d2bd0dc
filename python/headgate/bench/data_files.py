"""Files of requests: OIP requests and rows as JSON, NumPy arrays, Parquet tables. Next: ``data_capture``.

What a file has is converted strictly: a number that does not fit its datatype is refused, not wrapped.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from headgate.bench.data import MAX_REQUESTS, MAX_VALUES, Requests, Row, Source, from_table, only_required
from headgate.bench.tensors import Array, InferRequest, Tensor, TensorSpec, as_datatype, from_json
from headgate.documents.faults import did_you_mean, quoted
from headgate.errors import InvalidArgument, Unsupported
from headgate.regular_files import open_regular

MAX_LINE = 64 * 1024 * 1024
"""The longest line, and the largest .json file, in bytes: what a gateway takes as one body."""

MAX_FILE = 8 * 1024**3


def read_file(path: Path, source: Source) -> Requests:
    """The requests of a file, by its suffix; :class:`InvalidArgument` for what cannot be read or fits no input."""
    path = path.expanduser()
    readers: Mapping[str, Callable[[Path, BinaryIO, Source], Requests]] = {
        ".json": _json,
        ".jsonl": _jsonl,
        ".ndjson": _jsonl,
        ".npy": _npy,
        ".npz": _npz,
        ".parquet": _parquet,
    }
    reader = readers[path.suffix.lower()]
    try:
        with open_regular(path) as file:
            found = reader(path, file, source)
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be read: {error.strerror or error}") from None
    if not found.rows:
        raise InvalidArgument(f"{path} is empty: it has no request and no row")
    return found


# === JSON ===


def _json(path: Path, file: BinaryIO, source: Source) -> Requests:
    """One request or a list of them, as ``warmup.json`` has them."""
    data = file.read(MAX_LINE + 1)
    if len(data) > MAX_LINE:
        raise InvalidArgument(
            f"{path} has more than {MAX_LINE} bytes; write a request in each line of a .jsonl"
        )
    value = _parsed(data, str(path))
    found = value if isinstance(value, list) else [value]
    return _from_values(((f"{path}: request {at + 1}", one) for at, one in enumerate(found)), path, source)


def _jsonl(path: Path, file: BinaryIO, source: Source) -> Requests:
    """One request or one row in each line."""
    return _from_values(_lines(path, file), path, source)


def _lines(path: Path, file: BinaryIO) -> Iterator[tuple[str, Any]]:
    number = 0
    while line := file.readline(MAX_LINE + 1):
        number += 1
        where = f"{path}: line {number}"
        if len(line) > MAX_LINE:
            raise InvalidArgument(f"{where} has more than {MAX_LINE} bytes")
        if line.strip():
            yield where, _parsed(line, where)


def _parsed(data: bytes, where: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"{where} is not JSON: {error}") from None


def _from_values(values: Iterator[tuple[str, Any]], path: Path, source: Source) -> Requests:
    requests: list[InferRequest] = []
    rows: list[tuple[str, Any]] = []
    notes: tuple[str, ...] = ()
    size = 0
    for where, value in values:
        if isinstance(value, dict) and isinstance(value.get("inputs"), list):
            requests.append(_request(value["inputs"], where))
            size += sum(one.values.size for one in requests[-1].inputs)
        else:
            rows.append((where, value))
            size += 1
        if requests and rows:
            raise InvalidArgument(f"{where}: {path} has requests and rows; one form is expected")
        if len(requests) >= MAX_REQUESTS or len(rows) >= 100 * MAX_REQUESTS or size > MAX_VALUES:
            notes = (f"{path}: its first {len(requests) or len(rows)} entries are used",)
            break
    if rows:
        return Requests(from_table(_table(rows, source), source), notes)
    if requests and source.shares is not None:
        raise InvalidArgument(f"rows: {path} has whole requests, which have their rows already; remove rows")
    return Requests(tuple(Row(request, 1.0) for request in requests), notes)


def _request(inputs: list[Any], where: str) -> InferRequest:
    tensors = []
    for at, one in enumerate(inputs):
        place = f"{where}: inputs[{at}]"
        if not isinstance(one, dict) or not isinstance(one.get("name"), str):
            raise InvalidArgument(f"{place} has no name")
        for key in ("datatype", "shape", "data"):
            if key not in one:
                raise InvalidArgument(f"{place} has no {key}; binary data is not read from files")
        place = f'{place} "{one["name"]}"'
        shape = one["shape"]
        if not isinstance(shape, list) or not all(_is_size(size) for size in shape):
            raise InvalidArgument(f"{place}: its shape must be a list of whole numbers, got {shape!r:.60}")
        values = from_json(one["data"], str(one["datatype"]), place)
        if values.size != math.prod(shape):
            raise InvalidArgument(f"{place} has {values.size} elements, and its shape {math.prod(shape)}")
        tensors.append(Tensor(one["name"], one["datatype"], values.reshape(shape)))
    if not tensors:
        raise InvalidArgument(f"{where} has no inputs")
    return InferRequest(tuple(tensors))


def _is_size(size: Any) -> bool:
    return isinstance(size, int) and not isinstance(size, bool) and size >= 0


def _table(rows: list[tuple[str, Any]], source: Source) -> dict[str, Array]:
    """Rows as columns: each row is an object with a value for each input, or the value of the only one."""
    where, first = rows[0]
    named = isinstance(first, dict)
    specs = _named(first, source, where) if named else [only_required(source.inputs, where)]
    columns: dict[str, Array] = {}
    for spec in specs:
        values = []
        for place, row in rows:
            if isinstance(row, dict) != isinstance(first, dict):
                raise InvalidArgument(
                    f"{place}: rows are objects, or values without names; one form is expected"
                )
            if isinstance(row, dict) and set(row) != set(first):
                raise InvalidArgument(f"{place}: wanted the names {', '.join(first)}, got {', '.join(row)}")
            value = from_json(row[spec.name] if isinstance(row, dict) else row, spec.datatype, place)
            values.append(_shaped_row(value, spec, place))
        columns[spec.name] = _stacked(values, spec, where)
    return columns


def _stacked(values: list[Array], spec: TensorSpec, where: str) -> Array:
    shapes = {value.shape for value in values}
    if len(shapes) > 1:
        raise InvalidArgument(
            f'{where}: rows of input "{spec.name}" have different shapes; write a whole request in each line'
        )
    return np.stack(values)


def _named(row: Mapping[str, Any], source: Source, where: str) -> list[TensorSpec]:
    known = {spec.name: spec for spec in source.inputs}
    for name in row:
        if name not in known:
            raise InvalidArgument(f"{where}: {quoted(name)} is no input; {did_you_mean(name, known)}")
    for spec in source.inputs:
        if not spec.optional and spec.name not in row:
            raise InvalidArgument(
                f'{where}: input "{spec.name}" must be {spec.datatype} {list(spec.shape)}, got none'
            )
    return [known[name] for name in row]


def _shaped_row(value: Array, spec: TensorSpec, where: str) -> Array:
    """One row in the shape that follows from the model's; flat values are put into it."""
    wanted = spec.shape[1:]
    if -1 not in wanted and value.size == math.prod(wanted):
        return value.reshape(wanted)
    if value.ndim == len(wanted) and all(
        need in (-1, size) for size, need in zip(value.shape, wanted, strict=True)
    ):
        return value
    raise InvalidArgument(
        f'{where}: a row of input "{spec.name}" must be {spec.datatype} {list(wanted)}, got {list(value.shape)}'
    )


# === NumPy ===


def _npy(path: Path, file: BinaryIO, source: Source) -> Requests:
    spec = only_required(source.inputs, str(path))
    return _arrays({spec.name: _loaded(path, file)}, path, source)


def _npz(path: Path, file: BinaryIO, source: Source) -> Requests:
    archive = _loaded(path, file)
    with archive:
        specs = _named(dict.fromkeys(archive.files), source, str(path))
        return _arrays({spec.name: _member(path, archive, spec.name) for spec in specs}, path, source)


def _loaded(path: Path, file: BinaryIO) -> Any:
    if path.stat().st_size > MAX_FILE:
        raise InvalidArgument(f"{path} has more than {MAX_FILE} bytes")
    try:
        # Headers that lie about their size fail here: the file is mapped and read, no memory is given by its word.
        return np.load(file, allow_pickle=False)
    except (ValueError, EOFError, OSError, MemoryError) as error:
        raise InvalidArgument(f"{path} is no NumPy file: {error}") from None


def _member(path: Path, archive: Any, name: str) -> Array:
    try:
        found: Array = archive[name]
    except (ValueError, EOFError, OSError, MemoryError, KeyError) as error:
        raise InvalidArgument(f"{path}: {name} cannot be read: {error}") from None
    return found


def _arrays(arrays: Mapping[str, Array], path: Path, source: Source) -> Requests:
    known = {spec.name: spec for spec in source.inputs}
    table: dict[str, Array] = {}
    for name, array in arrays.items():
        spec, where = known[name], f"{path}: input {quoted(name)}"
        if array.ndim == 0 or len(array) == 0:
            raise InvalidArgument(f"{where} has no rows")
        wanted = spec.shape[1:]
        if list(spec.shape) != [-1] and (
            array.ndim != len(spec.shape)
            or any(need not in (-1, size) for size, need in zip(array.shape[1:], wanted, strict=True))
        ):
            raise InvalidArgument(
                f"{where} must be {spec.datatype} {list(spec.shape)}, got {array.dtype} {list(array.shape)}"
            )
        table[name] = as_datatype(array, spec.datatype, where)
    if len({len(column) for column in table.values()}) > 1:
        raise InvalidArgument(f"{path}: its arrays have different numbers of rows")
    return Requests(from_table(table, source))


# === Parquet ===


def _parquet(path: Path, file: BinaryIO, source: Source) -> Requests:
    """Columns by the names of inputs, a row in each; or, for one input, a column for each element of its row."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise Unsupported(f'{path}: Parquet needs pyarrow; pip install "headgate[data]"') from None
    try:
        found = pyarrow.parquet.read_table(file).slice(0, 100 * MAX_REQUESTS)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError, OSError) as error:
        raise InvalidArgument(f"{path} is no Parquet file: {error}") from None
    if found.num_rows == 0:
        return Requests(())
    names = found.column_names
    inputs = {spec.name for spec in source.inputs}
    if not inputs & set(names):
        return _wide(found, path, source)
    rows = [
        (f"{path}: row {at + 1}", row)
        for at, row in enumerate(found.select([n for n in names if n in inputs]).to_pylist())
    ]
    return Requests(from_table(_table(rows, source), source))


def _wide(found: Any, path: Path, source: Source) -> Requests:
    required = [spec for spec in source.inputs if not spec.optional]
    spec = required[0]
    width = math.prod(spec.shape[1:])
    if len(required) != 1 or width != found.num_columns:
        wanted = ", ".join(one.name for one in required)
        raise InvalidArgument(
            f"{path}: wanted columns named as the inputs ({wanted}), or for one input a column for each of its {abs(width)} "
            f"elements; got {', '.join(found.column_names[:10])}"
        )
    columns = [column.to_numpy(zero_copy_only=False) for column in found.itercolumns()]
    array = np.stack(columns, axis=1).reshape(found.num_rows, *spec.shape[1:])
    where = f"{path}: input {quoted(spec.name)}"
    return Requests(from_table({spec.name: as_datatype(array, spec.datatype, where)}, source))

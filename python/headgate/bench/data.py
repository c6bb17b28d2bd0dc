"""The requests that are sent: made up from the metadata, read from a file, or captured. All are checked before anything is sent.

Not here: the forms of files (``data_files``), of captured requests (``data_capture``), the wire (``encoding``). Next: ``data_files``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headgate.bench.tensors import DTYPES, Array, InferRequest, Tensor, TensorSpec, bf16_bits, check_fits
from headgate.documents.values import SLOTS
from headgate.errors import InvalidArgument

MAX_REQUESTS = 10_000
"""Different requests of one endpoint: each is encoded once and kept."""

MAX_VALUES = 128 * 1024 * 1024
"""Elements that all requests of one endpoint have together."""

_MADE_UP = 32
"""Different requests that are made up for each number of rows."""

_OPEN_SIZE = 16
"""What an open dimension behind the rows is taken as."""

_WORDS = (b"amber", b"basalt", b"cedar", b"delta", b"ember", b"flint", b"grove", b"harbor")


@dataclass(frozen=True)
class Row:
    """One request of a source with its part of the endpoint's requests; weights are relative to each other."""

    request: InferRequest
    weight: float


@dataclass(frozen=True)
class Requests:
    """What a source has. ``due_ns`` are the times of captured requests, from the first one; ``order`` is the request of each time."""

    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    due_ns: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Source:
    """Where the requests of one endpoint come from."""

    endpoint: str
    version: str | None
    inputs: tuple[TensorSpec, ...]
    shares: Mapping[int, int] | None
    """Rows of a request with their shares in slots of 0.01 %; None for one row."""
    seed: int


def load(written: str, source: Source, captures: Path | None) -> Requests:
    """The requests of a scenario's ``data``; :class:`InvalidArgument` for what is not there or fits no input.

    ``captures`` is the folder of the gateway's captured requests, if it is known.
    """
    kind, _, path = written.partition(":")
    if kind == "synthetic":
        return made_up(source)
    # Imported here: made-up requests need none of it.
    if kind == "capture":
        from headgate.bench.data_capture import read_captures

        found = read_captures(_capture_folder(path, source, captures), source)
    else:
        from headgate.bench.data_files import read_file

        found = read_file(Path(path), source)
    for at, row in enumerate(found.rows):
        check_fits(row.request, source.inputs, f"{written}: request {at + 1}")
    return found


def _capture_folder(path: str, source: Source, captures: Path | None) -> Path:
    if path:
        return Path(path).expanduser()
    if captures is None:
        raise InvalidArgument(
            "data: capture needs the gateway's state folder: name it with --state, or write capture:FOLDER"
        )
    return captures / source.endpoint


def made_up(source: Source) -> Requests:
    """Seeded values, plausible for their datatypes: normal floats, small whole numbers, words. Optional inputs are left out."""
    generator = np.random.default_rng(source.seed)
    wanted = [spec for spec in source.inputs if not spec.optional]
    if not wanted:
        raise InvalidArgument(f"{source.endpoint} has no inputs to make up; give it --data file:PATH")
    for spec in wanted:
        if spec.datatype not in DTYPES:
            raise InvalidArgument(
                f'input "{spec.name}" has the datatype {spec.datatype}, which is not known here'
            )
    check_rows_are_open(source)
    rows = []
    for count, share in (source.shares or {1: SLOTS}).items():
        for _ in range(_MADE_UP):
            inputs = tuple(
                Tensor(spec.name, spec.datatype, _values(generator, spec, count)) for spec in wanted
            )
            rows.append(Row(InferRequest(inputs), share / _MADE_UP))
    opened = [spec.name for spec in wanted if -1 in spec.shape[1:]]
    note = (
        f"made-up values: open dimensions of {', '.join(opened)} behind the rows were taken as {_OPEN_SIZE}"
    )
    return Requests(tuple(rows), (note,) if opened else ())


def check_rows_are_open(source: Source) -> None:
    """:class:`InvalidArgument` if numbers of rows are asked for and an input has a fixed first dimension."""
    if source.shares is None or set(source.shares) == {1}:
        return
    fixed = next((spec for spec in source.inputs if not spec.optional and not spec.has_rows), None)
    if fixed is not None:
        raise InvalidArgument(
            f'rows: input "{fixed.name}" of {source.endpoint} has the shape {list(fixed.shape)}, and its first dimension is not open'
        )


def _values(generator: np.random.Generator, spec: TensorSpec, rows: int) -> Array:
    rest = tuple(_OPEN_SIZE if size == -1 else size for size in spec.shape[1:])
    shape = (rows if spec.has_rows else spec.shape[0], *rest) if spec.shape else ()
    dtype = DTYPES[spec.datatype]
    if spec.datatype == "BYTES":
        picked = generator.integers(0, len(_WORDS), shape)
        made = np.empty(shape, dtype=object)
        for at in np.ndindex(shape):
            made[at] = _WORDS[int(picked[at])]
        return made
    if spec.datatype == "BF16":
        return bf16_bits(np.asarray(generator.standard_normal(shape), dtype="<f4"))
    if dtype.kind == "f":
        return np.asarray(generator.standard_normal(shape), dtype=dtype)
    return np.asarray(generator.integers(0, 2 if spec.datatype == "BOOL" else 10, shape), dtype=dtype)


def from_table(table: Mapping[str, Array], source: Source) -> tuple[Row, ...]:
    """Requests of the wanted numbers of rows from columns of rows, in the order of the file; the rows are taken again if they are few.

    Each array has the rows first. A request of n rows takes the next n of them.
    """
    check_rows_are_open(source)
    available = min(len(column) for column in table.values())
    datatypes = {spec.name: spec.datatype for spec in source.inputs}
    values_a_row = sum(max(1, column[0].size if column.ndim > 1 else 1) for column in table.values())
    shares = source.shares or {1: SLOTS}
    rows = []
    for count, share in shares.items():
        most = max(1, min(MAX_REQUESTS // len(shares), MAX_VALUES // (values_a_row * count * len(shares))))
        number = min(max(1, available // count), most)
        for at in range(number):
            picked = np.arange(at * count, (at + 1) * count) % available
            inputs = tuple(Tensor(name, datatypes[name], column[picked]) for name, column in table.items())
            rows.append(Row(InferRequest(inputs), share / number))
    return tuple(rows)


def only_required(inputs: Sequence[TensorSpec], what: str) -> TensorSpec:
    """The one input that must be given; :class:`InvalidArgument` with their names if there are several."""
    required = [spec for spec in inputs if not spec.optional]
    if len(required) != 1:
        names = ", ".join(spec.name for spec in required) or "none"
        raise InvalidArgument(
            f"{what} has values without names, and the model has the inputs {names}; name them"
        )
    return required[0]

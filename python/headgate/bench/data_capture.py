"""Captured requests: the Arrow streams that a gateway wrote for an endpoint, read with pyarrow.

The layout of the files is in ``docs/design/capture.md``. A request's time is when it came: when its response was out, less what it
took. Not here: comparing answers (``headgate replay``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headgate.bench.data import MAX_REQUESTS, MAX_VALUES, Requests, Row, Source
from headgate.bench.tensors import DTYPES, Array, InferRequest, Tensor
from headgate.errors import InvalidArgument, Unsupported
from headgate.regular_files import open_regular

_IN_ORDER_NS = 1_000_000_000
"""Threads that answer at the same time write their rows one after the other; so far apart they are not."""

_MISSING = 'captured requests are Arrow files, and reading them needs pyarrow; pip install "headgate[data]"'


@dataclass(frozen=True)
class _Captured:
    """One captured request: when it came and when its response was out, in ns since 1970."""

    arrived_ns: int
    answered_ns: int
    request: InferRequest


def read_captures(folder: Path, source: Source) -> Requests:
    """The requests of an endpoint's folder, by their time; :class:`InvalidArgument` if there are none that can be sent again."""
    try:
        import pyarrow.ipc
    except ImportError:
        raise Unsupported(_MISSING) from None
    if source.shares is not None:
        raise InvalidArgument("rows: captured requests have their rows already; remove rows")
    try:
        paths = sorted(path for path in folder.iterdir() if path.name.endswith((".arrows", ".arrows.open")))
    except OSError as error:
        raise InvalidArgument(f"{folder} cannot be read: {error.strerror or error}") from None
    reader = _Reader(pyarrow, source)
    for path in paths:
        reader.take(path)
        if reader.full:
            break
    found = sorted(reader.found, key=lambda one: one.arrived_ns)
    if not found:
        why = "; ".join(reader.said()) or "nothing was captured: the document needs capture, and traffic"
        raise InvalidArgument(f"{folder} has no request that can be sent again: {why}")
    begin = found[0].arrived_ns
    rows = tuple(Row(one.request, 1.0) for one in found)
    return Requests(rows, tuple(reader.said()), tuple(one.arrived_ns - begin for one in found))


class _Reader:
    """Reads files until there are enough requests."""

    def __init__(self, pyarrow: Any, source: Source) -> None:
        self._pyarrow = pyarrow
        self._source = source
        self._values = 0
        self.found: list[_Captured] = []
        self.notes: list[str] = []
        self._not_ok = 0
        self._unsorted = 0
        self._latest_ns = 0

    @property
    def full(self) -> bool:
        """Whether no more is read."""
        return len(self.found) >= MAX_REQUESTS or self._values >= MAX_VALUES

    def said(self) -> Iterator[str]:
        """What a person has to know of the files."""
        yield from self.notes
        if self._unsorted:
            yield (
                f"{self._unsorted} captured requests stand behind later ones and were sorted by their time: the clock was set, and the "
                "gaps between them are not those of the clients"
            )
        if self._not_ok:
            yield f"{self._not_ok} captured requests had failed and are left out"

    def take(self, path: Path) -> None:
        """The requests of one file. What is behind the last complete batch of an open file is not there yet."""
        self._latest_ns = 0
        try:
            with open_regular(path) as file, self._pyarrow.ipc.open_stream(file) as stream:
                schema = stream.schema
                if not self._is_wanted(path, schema):
                    return
                while True:
                    try:
                        batch = stream.read_next_batch()
                    except StopIteration:
                        return
                    self._not_ok += sum(code != "ok" for code in batch.column("code").to_pylist())
                    for one in _rows(batch, schema):
                        if self.full:
                            self.notes.append(f"the first {len(self.found)} captured requests are used")
                            return
                        self._keep(one)
        except (self._pyarrow.ArrowInvalid, OSError) as error:
            if not path.name.endswith(".open"):
                self.notes.append(f"{path.name} cannot be read further: {error}")

    def _keep(self, one: _Captured) -> None:
        self.found.append(one)
        self._values += sum(tensor.values.size for tensor in one.request.inputs)
        self._unsorted += self._latest_ns - one.answered_ns > _IN_ORDER_NS
        self._latest_ns = max(self._latest_ns, one.answered_ns)

    def _is_wanted(self, path: Path, schema: Any) -> bool:
        redacted = [
            field.name.removeprefix("input.")
            for field in schema
            if field.name.startswith("input.") and b"headgate.redacted" in (field.metadata or {})
        ]
        if redacted:
            self.notes.append(f"{path.name} leaves out values of {', '.join(redacted)} (redact)")
        return not redacted


def _rows(batch: Any, schema: Any) -> Iterator[_Captured]:
    names = [field.name.removeprefix("input.") for field in schema if field.name.startswith("input.")]
    datatypes = {name: _datatype(schema.field(f"input.{name}")) for name in names}
    codes = batch.column("code").to_pylist()
    times = batch.column("time").cast("int64").to_pylist()
    totals = batch.column("total_ns").to_pylist()
    for at in range(batch.num_rows):
        if codes[at] != "ok":
            continue
        inputs = []
        for name in names:
            shape = batch.column(f"input_shape.{name}")[at].as_py()
            values = batch.column(f"input.{name}")[at]
            if shape is not None and values.is_valid:
                inputs.append(Tensor(name, datatypes[name], _array(values, datatypes[name]).reshape(shape)))
        if inputs:
            answered_ns = times[at] * 1000
            yield _Captured(answered_ns - (totals[at] or 0), answered_ns, InferRequest(tuple(inputs)))


def _datatype(field: Any) -> str:
    found = str((field.metadata or {}).get(b"headgate.datatype", b"").decode())
    if found not in DTYPES:
        raise InvalidArgument(f"a captured tensor {field.name} has no datatype that is known here")
    return found


def _array(values: Any, datatype: str) -> Array:
    if datatype == "BYTES":
        texts = values.as_py()
        made = np.empty(len(texts), dtype=object)
        made[:] = texts
        return made
    return np.asarray(values.values.to_numpy(zero_copy_only=False), dtype=DTYPES[datatype])

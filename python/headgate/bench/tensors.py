"""Tensors of requests, what a model's metadata says of them, and whether one fits the other.

Values are numpy arrays of the protocol's datatypes; BF16 is kept as its bits (uint16) and BYTES as an array of ``bytes`` objects.
Not here: where requests come from (``data``), their bytes on the wire (``encoding``). Next: ``data``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headgate.documents.faults import did_you_mean, quoted
from headgate.errors import InvalidArgument

Array = np.ndarray[Any, Any]

DTYPES: Mapping[str, Any] = {
    "BOOL": np.dtype(np.bool_),
    **{f"UINT{bits}": np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    "FP16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype(object),
}
"""The protocol's datatypes and how their values are kept."""

_NON_FINITE = {"NaN": np.nan, "Infinity": np.inf, "-Infinity": -np.inf}


@dataclass(frozen=True)
class TensorSpec:
    """An input as the metadata has it: -1 is any size, and the first one is the rows."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False

    @property
    def has_rows(self) -> bool:
        """Whether the first dimension is open, so that a request may have any number of rows."""
        return bool(self.shape) and self.shape[0] == -1


@dataclass(frozen=True)
class Tensor:
    """One tensor of a request."""

    name: str
    datatype: str
    values: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """Its dimensions, the rows first."""
        return tuple(self.values.shape)


@dataclass(frozen=True)
class InferRequest:
    """The inputs of one request."""

    inputs: tuple[Tensor, ...]

    @property
    def rows(self) -> int:
        """Its rows: the first dimension of its first input, 1 for a scalar."""
        first = self.inputs[0].shape
        return first[0] if first else 1


def check_fits(request: InferRequest, wanted: Sequence[TensorSpec], where: str) -> None:
    """:class:`InvalidArgument` with the tensor, what is wanted and what is there, if a model does not take the request."""
    known = {spec.name: spec for spec in wanted}
    for tensor in request.inputs:
        spec = known.get(tensor.name)
        if spec is None:
            raise InvalidArgument(
                f"{where}: {quoted(tensor.name)} is no input; {did_you_mean(tensor.name, known)}"
            )
        if tensor.datatype != spec.datatype:
            raise InvalidArgument(f"{where}: {_wanted(spec)}, got {tensor.datatype}")
        if not _fits(tensor.shape, spec.shape):
            raise InvalidArgument(f"{where}: {_wanted(spec)}, got {tensor.datatype} {_shown(tensor.shape)}")
    given = {tensor.name for tensor in request.inputs}
    for spec in wanted:
        if not spec.optional and spec.name not in given:
            raise InvalidArgument(f"{where}: {_wanted(spec)}, got none")


def _wanted(spec: TensorSpec) -> str:
    return f"input {quoted(spec.name)} must be {spec.datatype} {_shown(spec.shape)}"


def _shown(shape: Sequence[int]) -> str:
    return "[" + ", ".join(str(size) for size in shape) + "]"


def _fits(shape: Sequence[int], wanted: Sequence[int]) -> bool:
    """Whether the sizes fit. ``[-1]`` takes any number of dimensions: it is how a shape is shown that a model does not declare."""
    if list(wanted) == [-1]:
        return True
    return len(shape) == len(wanted) and all(
        need in (-1, size) for size, need in zip(shape, wanted, strict=True)
    )


def from_json(data: Any, datatype: str, where: str) -> Array:
    """Nested or flat JSON values as an array of the datatype; :class:`InvalidArgument` for a value that is none of it."""
    dtype = DTYPES.get(datatype)
    if dtype is None:
        raise InvalidArgument(f"{where}: {quoted(datatype)} is no datatype; {did_you_mean(datatype, DTYPES)}")
    try:
        array = np.asarray(data, dtype=object) if datatype == "BYTES" else np.asarray(data)
    except ValueError:
        raise InvalidArgument(f"{where}: its lists have different lengths") from None
    if array.dtype == object and datatype != "BYTES":
        array = _without_words(array, where)
    return _converted(array, datatype, where)


def _without_words(array: Array, where: str) -> Array:
    """Missing values and infinities as floats; what else is an object is a ragged list or no number."""
    flat = [
        np.nan if value is None else _NON_FINITE.get(value, value) if isinstance(value, str) else value
        for value in array.flat
    ]
    if any(isinstance(value, list | dict | str) for value in flat):
        raise InvalidArgument(f"{where}: holds lists of different lengths, or values that are no numbers")
    return np.asarray(flat).reshape(array.shape)


def _converted(array: Array, datatype: str, where: str) -> Array:
    if datatype == "BYTES":
        flat = [one.encode() if isinstance(one, str) else one for one in array.flat]
        if not all(isinstance(one, bytes) for one in flat):
            raise InvalidArgument(f"{where}: wanted texts for BYTES, got other values")
        made = np.empty(len(flat), dtype=object)
        made[:] = flat
        return made.reshape(array.shape)
    kind = array.dtype.kind
    if kind == "U":
        array = _without_words(array.astype(object), where)
        kind = array.dtype.kind
    whole = datatype.startswith(("INT", "UINT"))
    allowed = "b" if datatype == "BOOL" else "iu" if whole else "iuf"
    if array.size and kind not in allowed:
        got = {"b": "true and false", "f": "numbers with fractions", "U": "texts"}.get(kind, "other values")
        raise InvalidArgument(f"{where}: wanted {datatype}, got {got}")
    if whole and array.size:
        info = np.iinfo(DTYPES[datatype])
        low, high = int(array.min()), int(array.max())
        if low < info.min or high > info.max:
            raise InvalidArgument(f"{where}: {low if low < info.min else high} fits no {datatype}")
    if datatype == "BF16":
        return bf16_bits(array.astype(np.float32))
    with np.errstate(over="ignore"):
        return array.astype(DTYPES[datatype])


def as_datatype(array: Array, datatype: str, where: str) -> Array:
    """An array of a file as the datatype; :class:`InvalidArgument` if its values are of another kind or do not fit."""
    if array.dtype.kind in "SU":
        array = array.astype(object)
    if array.dtype == object and datatype != "BYTES":
        raise InvalidArgument(f"{where}: wanted {datatype}, got objects")
    return _converted(array, datatype, where)


def bf16_bits(values: Array) -> Array:
    """The upper 16 bits of each float32, rounded to the nearest even one."""
    bits = np.ascontiguousarray(values, dtype="<f4").view("<u4")
    rounded = bits + 0x7FFF + ((bits >> 16) & 1)
    kept = np.where(np.isnan(values), (bits >> 16) | 0x40, rounded >> 16)
    return kept.astype("<u2")


def bf16_values(bits: Array) -> Array:
    """The float32 values of BF16 bits."""
    return (bits.astype("<u4") << 16).view("<f4")

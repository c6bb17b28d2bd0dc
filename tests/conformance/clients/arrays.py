"""Between the bytes of ``exchange`` and the arrays of NumPy that clients take and give."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from conformance.clients.exchange import Tensor

#: The types that NumPy has; BF16 is ``ml_dtypes``', and BYTES are objects.
TYPES = {
    "BOOL": np.dtype(np.bool_), "UINT8": np.dtype("<u1"), "UINT16": np.dtype("<u2"), "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"), "INT8": np.dtype("<i1"), "INT16": np.dtype("<i2"), "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"), "FP16": np.dtype("<f2"), "FP32": np.dtype("<f4"), "FP64": np.dtype("<f8"),
}  # fmt: skip


def to_array(tensor: Tensor) -> Any:
    """The tensor as an array; the elements of BYTES are ``bytes``."""
    if tensor.datatype == "BYTES":
        array = np.empty(tensor.shape, np.object_)
        array.reshape(-1)[:] = list(_elements(tensor.data))
        return array
    return np.frombuffer(tensor.data, dtype_of(tensor.datatype)).reshape(tensor.shape)


def to_tensor(name: str, datatype: str, array: Any) -> Tensor:
    """An array as a tensor. ``datatype`` is what the server said; an array of another type is an error."""
    if datatype == "BYTES":
        elements = [item if isinstance(item, bytes) else item.encode() for item in array.reshape(-1).tolist()]
        data = b"".join(struct.pack("<I", len(element)) + element for element in elements)
        return Tensor(name, datatype, array.shape, data)
    if array.dtype != dtype_of(datatype):
        raise TypeError(f"{name} is {datatype} and came as {array.dtype}")
    return Tensor(name, datatype, array.shape, array.tobytes())


def dtype_of(datatype: str) -> Any:
    """NumPy's type for a datatype with a fixed size."""
    if datatype == "BF16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return TYPES[datatype]


def _elements(data: bytes) -> Iterator[bytes]:
    offset = 0
    while offset < len(data):
        (size,) = struct.unpack_from("<I", data, offset)
        yield data[offset + 4 : offset + 4 + size]
        offset += 4 + size

"""Models that give back what they get, one for each datatype and rank, and the tensors to send them.

The tensors are made of the corners of each datatype: what is lost first when a value takes a detour over another type.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper

from support.models import OPSETS, place

#: Every element type that the protocol can carry, by its name on the wire.
ONNX_TYPES = {
    "BOOL": TensorProto.BOOL, "UINT8": TensorProto.UINT8, "UINT16": TensorProto.UINT16, "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64, "INT8": TensorProto.INT8, "INT16": TensorProto.INT16, "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64, "FP16": TensorProto.FLOAT16, "BF16": TensorProto.BFLOAT16, "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE, "BYTES": TensorProto.STRING,
}  # fmt: skip

#: Shapes by what is special about them.
SHAPES: dict[str, tuple[int, ...]] = {
    "vector": (9,),
    "empty": (0,),
    "scalar": (),
    "eight_dimensions": (1, 2, 1, 3, 1, 2, 1, 2),
    "eight_dimensions_empty": (1, 2, 1, 0, 1, 2, 1, 2),
}

#: Values that every form can carry, JSON too.
CORNERS: dict[str, list[Any]] = {
    "BOOL": [True, False],
    "UINT8": [0, 1, 255],
    "UINT16": [0, 1, 65_535],
    "UINT32": [0, 2**31, 2**32 - 1],
    "UINT64": [2**53 + 1, 2**64 - 1, 0, 2**63],
    "INT8": [-128, 0, 127],
    "INT16": [-32_768, 0, 32_767],
    "INT32": [-(2**31), 0, 2**31 - 1],
    "INT64": [2**53 + 1, -(2**53) - 1, -(2**63), 2**63 - 1, 0],
    "FP16": [0.1, -65_504, 6e-8, 6.1e-5, -0.0],
    "BF16": [0.1, -3.3895e38, 9.2e-41, 1.1754944e-38, -0.0],
    "FP32": [0.1, -3.4028235e38, 1e-45, 1.1754944e-38, 16_777_217, -0.0],
    "FP64": [0.1, -1.7976931348623157e308, 5e-324, 2.2250738585072014e-308, 2**53 + 2, -0.0],
    "BYTES": [b"plain", b"", "ümläut \U0001f600".encode(), b'"quoted"\n\\\x7f', b"nul\0inside"],
}

#: Values that only bytes can carry: numbers that are none, with the payload of one, and text that is not UTF-8.
BEYOND_JSON: dict[str, Any] = {
    "FP16": np.array([0x7C00, 0xFC00, 0x7E01, 0xFE00], np.uint16).view(np.float16),
    "BF16": np.array([0x7F80, 0xFF80, 0x7FC1, 0xFFC0], np.uint16).view(ml_dtypes.bfloat16),
    "FP32": np.array([0x7F800000, 0xFF800000, 0x7FC00001, 0xFFC00000], np.uint32).view(np.float32),
    "FP64": np.array([0x7FF << 52, 0xFFF << 52, (0x7FF8 << 48) + 1, 0xFFF8 << 48], np.uint64).view(
        np.float64
    ),
    "BYTES": np.array([b"\xff\xfe", b"\0", b"\xc3", b"\0\0end"], np.object_),
}


def dtype(datatype: str) -> Any:
    """NumPy's type of a datatype; BYTES are objects."""
    if datatype == "BYTES":
        return np.dtype(np.object_)
    if datatype == "BF16":
        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(helper.tensor_dtype_to_np_dtype(ONNX_TYPES[datatype]))


def corners(datatype: str, shape: tuple[int, ...]) -> Any:
    """An array of the datatype's corners, repeated until the shape is full."""
    values, count = CORNERS[datatype], int(np.prod(shape))
    array = np.empty(count, dtype(datatype))
    array[:] = [values[index % len(values)] for index in range(count)]
    return array.reshape(shape)


def name(datatype: str, rank: int) -> str:
    """The endpoint of a datatype and rank."""
    return f"identity-{datatype.lower()}-r{rank}"


def identity(datatype: str, rank: int) -> onnx.ModelProto:
    """x -> y, the same values, with that many dimensions of any size."""
    dimensions = [f"d{index}" for index in range(rank)]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "identity",
        [helper.make_tensor_value_info("x", ONNX_TYPES[datatype], dimensions)],
        [helper.make_tensor_value_info("y", ONNX_TYPES[datatype], dimensions)],
    )
    return helper.make_model(graph, opset_imports=OPSETS, ir_version=8)


def place_all(folder: Path) -> None:
    """One endpoint for each datatype and each rank of :data:`SHAPES`."""
    for datatype in ONNX_TYPES:
        for rank in sorted({len(shape) for shape in SHAPES.values()}):
            place(identity(datatype, rank), folder, name(datatype, rank))

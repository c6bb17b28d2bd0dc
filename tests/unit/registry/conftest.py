"""Models for the registry's tests, made with the onnx package: small, and with external data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

Save = Callable[..., Path]


def scale_model(factor: float) -> onnx.ModelProto:
    """X FP32 [rows, 4] -> Y = factor * X."""
    graph = helper.make_graph(
        [helper.make_node("Mul", ["X", "factor"], ["Y"])],
        "scale",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["rows", 4])],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, ["rows", 4])],
        [numpy_helper.from_array(np.full(4, factor, np.float32), "factor")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def save() -> Save:
    """``save(folder, factor)`` writes ``folder/model.onnx``; with ``location``, its tensor refers there.

    The external file itself is written too, unless ``data`` is None; ``length`` is what the model claims it holds.
    """

    def write(
        folder: Path,
        factor: float = 2.0,
        location: str | None = None,
        data: bytes | None = b"",
        length: int = 16,
    ) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        model = scale_model(factor)
        if location is not None:
            tensor = model.graph.initializer[0]
            raw = tensor.raw_data
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", location), ("offset", "0"), ("length", str(length))):
                entry = tensor.external_data.add()
                entry.key, entry.value = key, value
            if data is not None:
                target = folder / location
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data or raw)
        (folder / "model.onnx").write_bytes(model.SerializeToString())
        return folder

    return write

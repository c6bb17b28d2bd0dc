"""The models that the tests serve: folders ``name/version/model.onnx``, made with the onnx package or copied.

The models that the crates' tests load are committed in ``tests/models``; the ones made here need dimensions or an
amount of work that those lack. Read next: ``gateway``, which serves such a folder.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

TESTS = Path(__file__).resolve().parent.parent
ROOT = TESTS.parent
DIGITS = ROOT / "examples" / "digits"

#: The element types that the protocol carries here, by their name on the wire.
DATATYPES = [
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES",
]  # fmt: skip

OPSETS = [helper.make_opsetid("", 17)]


def place(model: Path | onnx.ModelProto, folder: Path, name: str, version: str = "1") -> Path:
    """Puts a model under ``folder/name/version/model.onnx`` and returns that path."""
    path = folder / name / version / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(model, Path):
        shutil.copyfile(model, path)
    else:
        onnx.checker.check_model(model)
        path.write_bytes(model.SerializeToString())
    return path


def identities(folder: Path) -> None:
    """One endpoint ``identity-<datatype>`` for each datatype: x [n] -> y [n], the same values."""
    for datatype in DATATYPES:
        place(TESTS / "models" / f"identity_{datatype.lower()}.onnx", folder, f"identity-{datatype.lower()}")


def pair() -> onnx.ModelProto:
    """A FP32 [rows, 2] and B INT64 [rows] -> A2 = A and B2 = B: two inputs of different type and rank."""
    floats, integers = TensorProto.FLOAT, TensorProto.INT64
    graph = helper.make_graph(
        [helper.make_node("Identity", ["A"], ["A2"]), helper.make_node("Identity", ["B"], ["B2"])],
        "pair",
        [
            helper.make_tensor_value_info("A", floats, ["rows", 2]),
            helper.make_tensor_value_info("B", integers, ["rows"]),
        ],
        [
            helper.make_tensor_value_info("A2", floats, ["rows", 2]),
            helper.make_tensor_value_info("B2", integers, ["rows"]),
        ],
    )
    return helper.make_model(graph, opset_imports=OPSETS, ir_version=8)


def scale(factor: float, shape: Sequence[str | int] = ("rows", 4)) -> onnx.ModelProto:
    """X FP32 -> Y = factor * X: two versions of it differ in their answers."""
    graph = helper.make_graph(
        [helper.make_node("Mul", ["X", "factor"], ["Y"])],
        "scale",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.float32(factor), "factor")],
    )
    return helper.make_model(graph, opset_imports=OPSETS, ir_version=8)


def failing(factor: float = 1.0) -> onnx.ModelProto:
    """As ``scale``, but a run with an element above 5 fails: an index is out of range."""
    floats = TensorProto.FLOAT
    initial = {"five": np.float32(5), "seven": np.int64(7), "factor": np.full(1, factor, np.float32)}
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMax", ["X"], ["most"], keepdims=0),
            helper.make_node("Greater", ["most", "five"], ["is_high"]),
            helper.make_node("Cast", ["is_high"], ["number"], to=TensorProto.INT64),
            helper.make_node("Mul", ["number", "seven"], ["index"]),
            helper.make_node("Gather", ["factor", "index"], ["one"]),
            helper.make_node("Mul", ["X", "one"], ["Y"]),
        ],
        "failing",
        [helper.make_tensor_value_info("X", floats, ("rows", 4))],
        [helper.make_tensor_value_info("Y", floats, ("rows", 4))],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in initial.items()],
    )
    return helper.make_model(graph, opset_imports=OPSETS, ir_version=8)


def slow() -> onnx.ModelProto:
    """rounds INT64 [1] -> y FP32 [256, 256]: a loop of that many matrix products, about 0.5 ms each on one core."""
    graph = helper.make_graph(
        [
            helper.make_node("Squeeze", ["rounds"], ["trips"]),
            helper.make_node("Loop", ["trips", "yes", "rotation"], ["y"], body=_products()),
        ],
        "slow",
        [helper.make_tensor_value_info("rounds", TensorProto.INT64, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [_PRODUCT, _PRODUCT])],
        _product_constants(),
    )
    return helper.make_model(graph, opset_imports=OPSETS, ir_version=8)


def slow_tail(factor: float, rounds: int) -> onnx.ModelProto:
    """As ``scale``, but a run with an element above 5 takes ``rounds`` matrix products more, as those of ``slow``."""
    constants = {
        "factor": np.float32(factor), "five": np.float32(5), "rounds": np.int64(rounds), "none": np.float32(0)
    }  # fmt: skip
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMax", ["X"], ["most"], keepdims=0),
            helper.make_node("Greater", ["most", "five"], ["is_high"]),
            helper.make_node("Cast", ["is_high"], ["number"], to=TensorProto.INT64),
            helper.make_node("Mul", ["number", "rounds"], ["trips"]),
            helper.make_node("Loop", ["trips", "yes", "rotation"], ["turned"], body=_products()),
            # The product is part of the answer, so that it is computed, and changes nothing.
            helper.make_node("ReduceMean", ["turned"], ["mean"], keepdims=0),
            helper.make_node("Mul", ["mean", "none"], ["nothing"]),
            helper.make_node("Mul", ["X", "factor"], ["scaled"]),
            helper.make_node("Add", ["scaled", "nothing"], ["Y"]),
        ],
        "slow_tail",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ("rows", 4))],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, ("rows", 4))],
        [
            *_product_constants(),
            *(numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()),
        ],
    )
    return helper.make_model(graph, opset_imports=OPSETS, ir_version=8)


_PRODUCT = 256


def _products() -> onnx.GraphProto:
    """The body of a loop of matrix products."""
    return helper.make_graph(
        [
            helper.make_node("MatMul", ["carried", "rotation"], ["next"]),
            helper.make_node("Identity", ["go_on"], ["go_on_next"]),
        ],
        "round",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("carried", TensorProto.FLOAT, [_PRODUCT, _PRODUCT]),
        ],
        [
            helper.make_tensor_value_info("go_on_next", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [_PRODUCT, _PRODUCT]),
        ],
    )


def _product_constants() -> list[onnx.TensorProto]:
    rotation = np.roll(np.eye(_PRODUCT, dtype=np.float32), 1, axis=0)
    return [numpy_helper.from_array(rotation, "rotation"), numpy_helper.from_array(np.array(True), "yes")]


def digits_scripts(name: str) -> ModuleType:
    """A script of ``examples/digits`` as a module."""
    spec = importlib.util.spec_from_file_location(f"digits_{name}", DIGITS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module

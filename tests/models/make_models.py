"""Makes the small ONNX models that the Rust tests load; run it again only to change them.

Each model is named after what it is for. `python tests/models/make_models.py` writes them beside itself.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

HERE = Path(__file__).parent
TYPES = {
    "BOOL": TensorProto.BOOL, "UINT8": TensorProto.UINT8, "UINT16": TensorProto.UINT16, "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64, "INT8": TensorProto.INT8, "INT16": TensorProto.INT16, "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64, "FP16": TensorProto.FLOAT16, "BF16": TensorProto.BFLOAT16, "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE, "BYTES": TensorProto.STRING,
}  # fmt: skip


def write(name: str, nodes: list, inputs: list, outputs: list, initializers: list | None = None) -> None:
    graph = helper.make_graph(nodes, name, inputs, outputs, initializer=initializers or [])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    save(helper.make_model(graph, opset_imports=opsets, ir_version=8), HERE / f"{name}.onnx")


def tensor(name: str, datatype: int, shape: list) -> object:
    return helper.make_tensor_value_info(name, datatype, shape)


def main() -> None:
    for name, datatype in TYPES.items():
        write(
            f"identity_{name.lower()}",
            [helper.make_node("Identity", ["x"], ["y"])],
            [tensor("x", datatype, ["n"])],
            [tensor("y", datatype, ["n"])],
        )
    rng = np.random.default_rng(7)
    weights = [
        numpy_helper.from_array(rng.normal(size=(4, 8)).astype(np.float32), "w1"),
        numpy_helper.from_array(rng.normal(size=(8, 3)).astype(np.float32), "w2"),
    ]
    write(
        "mlp",
        [
            helper.make_node("MatMul", ["x", "w1"], ["h"]),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("MatMul", ["r", "w2"], ["s"]),
            helper.make_node("Softmax", ["s"], ["probabilities"], axis=1),
            helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0),
        ],
        [tensor("x", TensorProto.FLOAT, ["rows", 4])],
        [
            tensor("label", TensorProto.INT64, ["rows"]),
            tensor("probabilities", TensorProto.FLOAT, ["rows", 3]),
        ],
        weights,
    )
    write(
        "two_inputs",
        [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Mul", ["a", "b"], ["product"])],
        [tensor("a", TensorProto.DOUBLE, ["n", 2]), tensor("b", TensorProto.DOUBLE, ["n", 2])],
        [tensor("sum", TensorProto.DOUBLE, ["n", 2]), tensor("product", TensorProto.DOUBLE, ["n", 2])],
    )
    # Declares the input's size for its output and gives the non-zero elements instead.
    write(
        "shape_liar",
        [helper.make_node("Compress", ["x", "keep"], ["y"], axis=0)],
        [tensor("x", TensorProto.FLOAT, ["n"]), tensor("keep", TensorProto.BOOL, ["n"])],
        [tensor("y", TensorProto.FLOAT, ["n"])],
    )
    # A request may give another shape, which is not the one that the output declares.
    write(
        "reshape_by_initializer",
        [helper.make_node("Reshape", ["x", "shape"], ["r"]), helper.make_node("Neg", ["r"], ["y"])],
        [
            tensor("x", TensorProto.FLOAT, [6]),
            tensor("unused", TensorProto.FLOAT, [1]),
            tensor("shape", TensorProto.INT64, [2]),
        ],
        [tensor("y", TensorProto.FLOAT, [2, 3])],
        [
            numpy_helper.from_array(np.zeros(1, np.float32), "unused"),
            numpy_helper.from_array(np.array([2, 3]), "shape"),
        ],
    )
    # Answers with its input as well: the runtime leaves a buffer for that output as it is.
    write(
        "negative_and_input",
        [helper.make_node("Neg", ["x"], ["y"])],
        [tensor("x", TensorProto.FLOAT, ["n"])],
        [tensor("y", TensorProto.FLOAT, ["n"]), tensor("x", TensorProto.FLOAT, ["n"])],
    )
    write(
        "gather",
        [helper.make_node("Gather", ["table", "index"], ["y"])],
        [tensor("index", TensorProto.INT64, ["n"])],
        [tensor("y", TensorProto.FLOAT, ["n"])],
        [numpy_helper.from_array(np.arange(5, dtype=np.float32), "table")],
    )
    write(
        "unknown_operator",
        [helper.make_node("Transmogrify", ["x"], ["y"], domain="ai.onnx.ml")],
        [tensor("x", TensorProto.FLOAT, ["n"])],
        [tensor("y", TensorProto.FLOAT, ["n"])],
    )
    # What x86 refuses to divide: the lowest value by -1.
    for name in ("INT32", "INT64"):
        write(
            f"divide_{name.lower()}",
            [helper.make_node("Div", ["a", "b"], ["y"])],
            [tensor("a", TYPES[name], ["n"]), tensor("b", TYPES[name], ["n"])],
            [tensor("y", TYPES[name], None)],
        )
    # The same between constants, which are computed at load.
    write(
        "divide_constants",
        [helper.make_node("Div", ["lowest", "minus_one"], ["c"]), helper.make_node("Add", ["x", "c"], ["y"])],
        [tensor("x", TensorProto.INT64, ["n"])],
        [tensor("y", TensorProto.INT64, ["n"])],
        [
            numpy_helper.from_array(np.array([np.iinfo(np.int64).min]), "lowest"),
            numpy_helper.from_array(np.array([-1]), "minus_one"),
        ],
    )
    # Adds one to x so many times: a run that goes on for as long as its input says, in nodes that are short.
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["v", "one"], ["w"])],
        "body",
        [tensor("i", TensorProto.INT64, []), tensor("go", TensorProto.BOOL, []), tensor("v", TensorProto.FLOAT, ["n"])],
        [tensor("on", TensorProto.BOOL, []), tensor("w", TensorProto.FLOAT, ["n"])],
        [numpy_helper.from_array(np.float32(1), "one")],
    )  # fmt: skip
    write(
        "count",
        [helper.make_node("Loop", ["times", "go_on", "x"], ["y"], body=body)],
        [tensor("x", TensorProto.FLOAT, ["n"]), tensor("times", TensorProto.INT64, [1])],
        [tensor("y", TensorProto.FLOAT, ["n"])],
        [numpy_helper.from_array(np.array(True), "go_on")],
    )
    # Goes on for as long as x is below 5: for ever on what is made up, and ends at once on what it is for.
    onward = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["v"], ["w"])],
        "onward",
        [tensor("i", TensorProto.INT64, []), tensor("go", TensorProto.BOOL, []), tensor("v", TensorProto.FLOAT, ["n"])],
        [tensor("on", TensorProto.BOOL, []), tensor("w", TensorProto.FLOAT, ["n"])],
    )  # fmt: skip
    write(
        "above_five",
        [
            helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
            helper.make_node("Less", ["most", "five"], ["below"]),
            helper.make_node("Loop", ["", "below", "x"], ["y"], body=onward),
        ],
        [tensor("x", TensorProto.FLOAT, ["n"])],
        [tensor("y", TensorProto.FLOAT, ["n"])],
        [numpy_helper.from_array(np.float32(5), "five")],
    )
    # The same for rows that are run together: as many turns as the largest of them says; the rows come back as they were.
    write(
        "patient_rows",
        [
            helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
            helper.make_node("Cast", ["most"], ["times"], to=TensorProto.INT64),
            helper.make_node("Loop", ["times", "go_on", "zero"], ["turns"], body=body),
            helper.make_node("Mul", ["turns", "zero"], ["nothing"]),
            helper.make_node("Add", ["x", "nothing"], ["z"]),
        ],
        [tensor("x", TensorProto.FLOAT, ["n", 1])],
        [tensor("z", TensorProto.FLOAT, ["n", 1])],
        [numpy_helper.from_array(np.array(True), "go_on"), numpy_helper.from_array(np.float32([0]), "zero")],
    )
    # One node, the first, that takes as long as its input has elements, ten thousand times over, and cannot be cancelled within.
    write(
        "long_node",
        [
            helper.make_node("AveragePool", ["x"], ["means"], kernel_shape=[100, 100], auto_pad="SAME_UPPER"),
            helper.make_node("ReduceMean", ["means"], ["mean"], keepdims=0),
            helper.make_node("Unsqueeze", ["mean", "zero"], ["y"]),
        ],
        [tensor("x", TensorProto.FLOAT, [1, 1, "height", "width"])],
        [tensor("y", TensorProto.FLOAT, [1])],
        [numpy_helper.from_array(np.array([0]), "zero")],
    )
    map_type = helper.make_map_type_proto(
        TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    )
    write(
        "zipmap",
        [helper.make_node("ZipMap", ["x"], ["z"], domain="ai.onnx.ml", classlabels_int64s=[0, 1])],
        [tensor("x", TensorProto.FLOAT, ["n", 2])],
        [helper.make_value_info("z", helper.make_sequence_type_proto(map_type))],
    )


if __name__ == "__main__":
    main()

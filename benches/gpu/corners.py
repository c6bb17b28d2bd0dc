"""Models that are not as simple as those that are measured: they are asked for right answers only.

A node that CUDA does not have, an input that is read on the processor, an output whose shape nobody can foretell. All numbers are small
integers, or halves of them, which ten bits of mantissa hold: a device answers exactly what the processor answers.
Next: ``compare``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, ValueInfoProto, helper, numpy_helper

from benches.gpu.answers import datatype_of

FEATURES = 6


@dataclass(frozen=True)
class Corner:
    """A model, what its versions' ``run`` says besides the place, and requests, which are asked in this order."""

    name: str
    model: onnx.ModelProto
    run: dict[str, object]
    requests: list[dict[str, np.ndarray]]

    def warmup(self) -> str:
        """The first request as the file beside the model has it: made-up inputs need not fit."""
        return json.dumps({"inputs": [_in_json(name, values) for name, values in self.requests[0].items()]})


def corners() -> list[Corner]:
    """All of them."""
    return [trees(), reshaped(), counted()]


def trees() -> Corner:
    """Trees behind a matrix product: CUDA has no trees. In batches, as such models are asked."""
    nodes = [_product(), _two_trees("H", "Y")]
    outputs = [helper.make_tensor_value_info("Y", TensorProto.FLOAT, ["n", 1])]
    # The same shape again and again with other values: what is bound once must not be read once.
    rows = (3, 3, 3, 1, 1, 7, 20, 64, 64, 3)
    requests: list[dict[str, np.ndarray]] = [{"X": _small(number, seed)} for seed, number in enumerate(rows)]
    return Corner("trees", _model(nodes, outputs), {"max_batch": 64, "buckets": [1, 4, 16, 64]}, requests)


def reshaped() -> Corner:
    """The shape of a reshape is an input: a device's kernel reads it on the processor. It also is the output's shape."""
    nodes = [_product(), helper.make_node("Reshape", ["H", "S"], ["Y"])]
    shape = helper.make_tensor_value_info("S", TensorProto.INT64, [2])
    outputs = [helper.make_tensor_value_info("Y", TensorProto.FLOAT, ["a", "b"])]
    shapes = [(4, 6), (8, 3), (3, 8), (-1, 2), (24, 1), (4, 6)]
    requests: list[dict[str, np.ndarray]] = [
        {"X": _small(4, seed), "S": np.array(one, np.int64)} for seed, one in enumerate(shapes)
    ]
    return Corner("reshaped", _model(nodes, outputs, [shape]), {}, requests)


def counted() -> Corner:
    """As many columns as there are positive numbers, beside an output whose shape is known."""
    nodes = [
        _product(),
        helper.make_node("Relu", ["H"], ["Z"]),
        helper.make_node("NonZero", ["Z"], ["Y"]),
    ]
    outputs = [
        helper.make_tensor_value_info("Y", TensorProto.INT64, [2, "found"]),
        helper.make_tensor_value_info("Z", TensorProto.FLOAT, ["n", FEATURES]),
    ]
    requests: list[dict[str, np.ndarray]] = [
        {"X": _small(number, seed)} for seed, number in enumerate((4, 4, 1, 9, 4))
    ]
    # Nothing is found: an output without elements.
    requests.append({"X": np.zeros((4, FEATURES), np.float32)})
    return Corner("counted", _model(nodes, outputs), {}, requests)


def _model(
    nodes: list[onnx.NodeProto], outputs: list[ValueInfoProto], more: Sequence[ValueInfoProto] = ()
) -> onnx.ModelProto:
    """From X FP32 [n, 6], and what else there is, to the outputs."""
    weights = np.random.default_rng(11).integers(-3, 4, (FEATURES, FEATURES)).astype(np.float32)
    inputs = [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["n", FEATURES]), *more]
    graph = helper.make_graph(nodes, "corner", inputs, outputs, [numpy_helper.from_array(weights, "w")])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.checker.check_model(model)
    return model


def _product() -> onnx.NodeProto:
    return helper.make_node("Gemm", ["X", "w"], ["H"])


def _two_trees(source: str, result: str) -> onnx.NodeProto:
    """Each compares one feature with a half, so that no number is near its threshold, and gives a half or a whole number."""
    return helper.make_node(
        "TreeEnsembleRegressor",
        [source],
        [result],
        domain="ai.onnx.ml",
        n_targets=1,
        nodes_treeids=[0, 0, 0, 1, 1, 1],
        nodes_nodeids=[0, 1, 2, 0, 1, 2],
        nodes_featureids=[0, 0, 0, 3, 0, 0],
        nodes_values=[0.5, 0.0, 0.0, -2.5, 0.0, 0.0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"] * 2,
        nodes_truenodeids=[1, 0, 0] * 2,
        nodes_falsenodeids=[2, 0, 0] * 2,
        target_treeids=[0, 0, 1, 1],
        target_nodeids=[1, 2, 1, 2],
        target_ids=[0, 0, 0, 0],
        target_weights=[1.0, -2.5, 4.0, 0.5],
    )


def _small(rows: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-8, 9, (rows, FEATURES)).astype(np.float32)


def _in_json(name: str, values: np.ndarray) -> dict[str, object]:
    head = {"name": name, "datatype": datatype_of(values), "shape": list(values.shape)}
    return {**head, "data": values.ravel().tolist()}

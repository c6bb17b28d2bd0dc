"""Answers hold what the model computes, for outputs that ONNX Runtime does not write into a buffer that it is given.

Not here: the operators one by one (``tests/conformance/test_onnx_nodes.py``).
"""

from __future__ import annotations

from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from support.gateway import GatewayProcess
from support.models import OPSETS, identities, place
from support.tools import need_native

TYPES = {
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "INT64": TensorProto.INT64,
    "INT32": TensorProto.INT32,
}
SHAPES: dict[str, list[str | int]] = {"named": ["rows", 2], "fixed": [2, 2]}


def _negative_beside_its_input(element: int, shape: list[str | int]) -> onnx.ModelProto:
    """x -> y = -x, and x itself as a second output."""
    x = helper.make_tensor_value_info("x", element, shape)
    y = helper.make_tensor_value_info("y", element, shape)
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "negative", [x], [y, x])
    return helper.make_model(graph, opset_imports=OPSETS, ir_version=8)


@pytest.mark.parametrize("shape", SHAPES)
def test_an_input_that_is_an_output_too_comes_back_as_it_was_sent(tmp_path: Path, shape: str) -> None:
    need_native()
    for datatype, element in TYPES.items():
        place(_negative_beside_its_input(element, SHAPES[shape]), tmp_path / "models", datatype)
    with GatewayProcess(tmp_path / "state", ["--models", str(tmp_path / "models")]) as gateway:
        for datatype in TYPES:
            for first in (1, 5, 9):
                sent = [first, first + 1, first + 2, first + 3]
                body = {"inputs": [{"name": "x", "datatype": datatype, "shape": [2, 2], "data": sent}]}
                answer = httpx.post(f"http://{gateway.http}/v2/models/{datatype}/infer", json=body)
                assert answer.status_code == 200, answer.text
                outputs = {output["name"]: output["data"] for output in answer.json()["outputs"]}
                assert outputs == {"y": [-value for value in sent], "x": sent}, datatype


def test_a_large_answer_is_the_same_in_every_form(tmp_path: Path) -> None:
    need_native()
    identities(tmp_path / "models")
    sent = (np.arange(200_000, dtype=np.float32) / 8).tolist()
    tensor = {"name": "x", "datatype": "FP32", "shape": [len(sent)], "data": sent}
    with GatewayProcess(tmp_path / "state", ["--models", str(tmp_path / "models")]) as gateway:
        url = f"http://{gateway.http}/v2/models/identity-fp32"
        predict = url.replace("/v2/", "/v1/")
        listed = httpx.post(f"{url}/infer", json={"id": "a", "inputs": [tensor]})
        assert (listed.json()["id"], listed.json()["outputs"][0]["data"]) == ("a", sent)
        assert httpx.post(f"{predict}:predict", json={"instances": sent}).json() == {"predictions": sent}
        assert httpx.post(f"{predict}:predict", json={"inputs": sent}).json() == {"outputs": sent}
        binary = {"inputs": [tensor], "parameters": {"binary_data_output": True}}
        answer = httpx.post(f"{url}/infer", json=binary)
        head = int(answer.headers["inference-header-content-length"])
        assert np.frombuffer(answer.content[head:], np.float32).tolist() == sent


def _beside_its_weights(*, overridable: bool) -> onnx.ModelProto:
    """x -> y = x + w, and w itself as a second output: an initialiser that a request may replace, or one that it may not."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 2]) for name in "xy")
    w = helper.make_tensor_value_info("w", TensorProto.FLOAT, [2])
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "weights",
        [x, w] if overridable else [x],
        [y, w],
        [numpy_helper.from_array(np.array([10, 20], np.float32), "w")],
    )
    return helper.make_model(graph, opset_imports=OPSETS, ir_version=8)


def _one_or_the_other() -> onnx.ModelProto:
    """x -> y = x where its sum is below 100, a weight of the outer graph elsewhere: warm-up takes the first branch alone."""
    tensor = helper.make_tensor_value_info
    branches = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node("Identity", [source], [name])], name, [], [tensor(name, TensorProto.FLOAT, [2])]
        )
        for name, source in {"then": "x", "else": "w"}.items()
    }
    graph = helper.make_graph(
        [
            helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
            helper.make_node("Less", ["sum", "hundred"], ["small"]),
            helper.make_node("If", ["small"], ["y"], **branches),
        ],
        "branches",
        [tensor("x", TensorProto.FLOAT, [2])],
        [tensor("y", TensorProto.FLOAT, [2])],
        [
            numpy_helper.from_array(np.array([10, 20], np.float32), "w"),
            numpy_helper.from_array(np.float32(100), "hundred"),
        ],
    )
    return helper.make_model(graph, opset_imports=OPSETS, ir_version=8)


def test_an_initialiser_that_is_an_output_comes_back_as_it_is(tmp_path: Path) -> None:
    need_native()
    for overridable in (True, False):
        place(
            _beside_its_weights(overridable=overridable),
            tmp_path / "models",
            f"weights-{overridable}".lower(),
        )
    place(_one_or_the_other(), tmp_path / "models", "branches")
    with GatewayProcess(tmp_path / "state", ["--models", str(tmp_path / "models")]) as gateway:
        for name in ("weights-true", "weights-false"):
            for first in (1, 5, 9):
                body = {
                    "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [first, first]}]
                }
                answer = httpx.post(f"http://{gateway.http}/v2/models/{name}/infer", json=body)
                assert answer.status_code == 200, answer.text
                outputs = {output["name"]: output["data"] for output in answer.json()["outputs"]}
                assert outputs == {"y": [first + 10, first + 20], "w": [10, 20]}, name
        for sent, expected in [
            ([1, 2], [1, 2]),
            ([500, 1], [10, 20]),
            ([3, 4], [3, 4]),
            ([70, 40], [10, 20]),
        ]:
            body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "data": sent}]}
            answer = httpx.post(f"http://{gateway.http}/v2/models/branches/infer", json=body)
            assert answer.json()["outputs"][0]["data"] == expected, answer.text

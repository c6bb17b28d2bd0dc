"""Answers hold what the model computes, for outputs that ONNX Runtime does not write into a buffer that it is given.

Not here: the operators one by one (``tests/conformance/test_onnx_nodes.py``).
"""

from __future__ import annotations

from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

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

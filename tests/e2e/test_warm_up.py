"""What a model is warmed with, and what comes of it when that fails: a guess is a warning, a given request is not.

Not here: how the file is read (``rust/engine/src/warmup/given.rs``), whether rows may run together (``test_batch_check.py``).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import onnx
import pytest
from onnx import TensorProto, helper

from support.gateway import GatewayProcess
from support.models import OPSETS, place
from support.tools import need_native

MODELS = Path(__file__).parents[1] / "models"
INT64, INT32, FP32 = TensorProto.INT64, TensorProto.INT32, TensorProto.FLOAT
NAMES = {INT64: "INT64", INT32: "INT32", FP32: "FP32"}

Tensor = tuple[int, list[str | int], list[Any]]


def of(node: onnx.NodeProto, inputs: list[tuple[int, list[str | int]]], rank: int) -> onnx.ModelProto:
    """A model of one node that takes ``a``, ``b``, ... and gives ``y`` of the type of ``a``, with open dimensions."""
    tensors = [helper.make_tensor_value_info(name, *kind) for name, kind in zip("abc", inputs, strict=False)]
    output = helper.make_tensor_value_info("y", inputs[0][0], [f"y{axis}" for axis in range(rank)])
    graph = helper.make_graph([node], "one", tensors, [output])
    return helper.make_model(graph, opset_imports=OPSETS, ir_version=8)


#: What runs on no zeros, or on nothing that can be made up, with a request that is right and its answer.
SOUND: dict[str, tuple[str, list[Tensor], list[Any], int]] = {
    "div": ("Div", [(INT64, ["n"], [7, -9]), (INT64, ["n"], [2, 3])], [3, -3], 1),
    "div-int32": ("Div", [(INT32, ["n"], [7, 9]), (INT32, ["n"], [2, 3])], [3, 3], 1),
    "mod": ("Mod", [(INT64, ["n"], [7, 9]), (INT64, ["n"], [2, 5])], [1, 4], 1),
    "reshape": ("Reshape", [(FP32, ["n"], [1, 2, 3, 4, 5, 6]), (INT64, [2], [2, 3])], [1, 2, 3, 4, 5, 6], 2),
    "expand": ("Expand", [(FP32, [3, 1], [1, 2, 3]), (INT64, [2], [3, 2])], [1, 1, 2, 2, 3, 3], 2),
    "tile": ("Tile", [(FP32, ["n"], [1, 2]), (INT64, [1], [2])], [1, 2, 1, 2], 1),
    "matmul": ("MatMul", [(FP32, ["n", "k"], [1, 2, 3]), (FP32, ["m", 1], [1] * 3)], [6], 2),
    "slice": (
        "Slice",
        [(FP32, ["n"], [1, 2, 3]), (INT64, ["k"], [1]), (INT64, ["m"], [3])],
        [2, 3],
        1,
    ),
    "range": ("Range", [(INT64, [], [1]), (INT64, [], [7]), (INT64, [], [3])], [1, 4], 1),
    "gather": ("Gather", [(FP32, ["n", 2], [1, 2, 3, 4]), (INT64, [1], [1])], [3, 4], 2),
}


def tensor(name: str, kind: int, shape: list[int], data: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": NAMES[kind], "shape": shape, "data": data}


def shape_of(spec: list[str | int], data: list[Any]) -> list[int]:
    """The sizes of open dimensions: the first takes what the others leave; the second is 3 where there are two."""
    fixed = [3 if isinstance(dim, str) and axis else dim for axis, dim in enumerate(spec)]
    rest = 1
    for dim in fixed:
        rest *= dim if isinstance(dim, int) else 1
    return [len(data) // rest if isinstance(dim, str) else dim for dim in fixed]


def document(name: str, run: dict[str, Any] | None = None) -> dict[str, Any]:
    version: Any = {"model": f"file:{name}/1", "run": run} if run else f"file:{name}/1"
    return {
        "apiVersion": "headgate/v1",
        "kind": "Endpoint",
        "name": name,
        "versions": {"v1": version},
        "traffic": {"champion": "v1"},
    }


def applied(started: GatewayProcess, name: str, run: dict[str, Any] | None = None) -> httpx.Response:
    with started.admin() as admin:
        return admin.http.put(
            f"/v1/endpoints/{name}", json=document(name, run), headers={"If-None-Match": "*"}
        )


def version(started: GatewayProcess, name: str) -> dict[str, Any]:
    with started.admin() as admin:
        return dict(admin.get(f"/v1/endpoints/{name}")["versions"]["v1"])


def test_a_sound_model_that_takes_no_zeros_is_served(tmp_path: Path) -> None:
    need_native()
    for name, (operator, inputs, _, rank) in SOUND.items():
        kinds = [(kind, shape) for kind, shape, _ in inputs]
        node = helper.make_node(operator, list("abc"[: len(inputs)]), ["y"])
        place(of(node, kinds, rank), tmp_path, name)
    with GatewayProcess(tmp_path / "state", ["--root", str(tmp_path)]) as started:
        for name, (_, inputs, expected, _) in SOUND.items():
            taken = applied(started, name)
            assert taken.is_success, (name, taken.text)
            body = {
                "inputs": [
                    tensor(letter, kind, shape_of(spec, data), data)
                    for letter, (kind, spec, data) in zip("abc", inputs, strict=False)
                ]
            }
            answer = httpx.post(f"http://{started.http}/v2/models/{name}/infer", json=body)
            assert answer.status_code == 200, (name, answer.text)
            assert answer.json()["outputs"][0]["data"] == expected, name
        # Ones are taken where zeros are not.
        assert version(started, "div")["message"] is None


def reshaped(*shape: int) -> onnx.ModelProto:
    """X FP32 [rows, columns] -> Y of that shape, where X has as many elements."""
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["X", "shape"], ["Y"])],
        "reshaped",
        [helper.make_tensor_value_info("X", FP32, ["rows", "columns"])],
        [helper.make_tensor_value_info("Y", FP32, ["a", "b"])],
        [helper.make_tensor("shape", INT64, [len(shape)], shape)],
    )
    return helper.make_model(graph, opset_imports=OPSETS, ir_version=8)


def test_a_model_that_takes_nothing_made_up_is_served_unwarmed_and_says_so(tmp_path: Path) -> None:
    need_native()
    place(reshaped(-1, 32), tmp_path, "wide")
    place(reshaped(-1, 1000), tmp_path, "unknown")
    with GatewayProcess(tmp_path / "state", ["--root", str(tmp_path)]) as started:
        assert applied(started, "wide").is_success
        assert applied(started, "unknown", {"max_batch": 8, "placement": "pool"}).is_success
        # Some of the sizes that are tried for an open dimension fits.
        assert version(started, "wide")["message"] is None
        shown = version(started, "unknown")
        assert "served unwarmed" in shown["message"]
        assert "put a request that works into warmup.json" in shown["message"]
        assert "not batched: its rows could not be compared" in shown["message"]
        assert (shown["placement"], shown["batches"]) == ("pool", None)
        metrics = started.observe("/metrics").text
        warnings = {
            line.split('endpoint="')[1].split('"')[0]: float(line.rsplit(" ", 1)[1])
            for line in metrics.splitlines()
            if line.startswith("headgate_version_warnings{")
        }
        assert warnings == {"wide": 0.0, "unknown": 2.0}
        with httpx.Client(base_url=f"http://{started.http}") as client:

            def post(name: str, columns: int) -> httpx.Response:
                inputs = {"name": "X", "datatype": "FP32", "shape": [1, columns], "data": [0.5] * columns}
                return client.post(f"/v2/models/{name}/infer", json={"inputs": [inputs]})

            assert post("unknown", 2000).json()["outputs"][0]["data"] == [0.5] * 2000
            wrong = post("wide", 5)
            assert (wrong.status_code, wrong.json()["code"]) == (400, "invalid_argument"), wrong.text


def indices(*of: int) -> dict[str, Any]:
    return {"inputs": [tensor("index", INT64, [len(of)], list(of))]}


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ('{"inputs": [\n {"name": "index",\n  "datatype": "INT32", "shape": [1], "data": [1]}]}', "(line 3, inputs[0].datatype)"),
        ('[{"inputs": []}]', '"index" is missing (line 1, [0].inputs)'),
        ('{"inputs": [{"name": "index", "datatype": "INT64", "shape": [2],\n "data": [1,\n 1.5]}]}', "(line 3, inputs[0].data[1])"),
        ('{"inputs": [\n', "(line 2, column 0)"),
        (json.dumps([indices(1)]) [:-1] + ",\n" + json.dumps(indices(7)) + "]", "(line 2, [1])"),
    ],
)  # fmt: skip
def test_a_given_request_that_fails_refuses_the_version_and_is_named(
    tmp_path: Path, file: str, says: str
) -> None:
    """The model takes indices from 0 to 4."""
    need_native()
    model = place(MODELS / "gather.onnx", tmp_path, "gather")
    (model.parent / "warmup.json").write_text(file)
    with GatewayProcess(tmp_path / "state", ["--root", str(tmp_path)]) as started:
        refused = applied(started, "gather")
        assert (refused.status_code, refused.json()["code"]) == (422, "model_load_failed")
        assert "warmup.json: " in refused.json()["detail"]
        assert says in refused.json()["detail"], refused.json()["detail"]

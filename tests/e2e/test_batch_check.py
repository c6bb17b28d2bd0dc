"""What may be batched: rows that are together what each is alone, whatever is beside them. All else is refused or left unbatched.

Not here: how rows are compared (``rust/engine/src/batch_check.rs``), the runs themselves (``rust/server/tests/gateway/batching.rs``).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from support.gateway import GatewayProcess
from support.models import OPSETS, place
from support.tools import need_native

WIDTH = 4
TYPES = {
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "FP16": TensorProto.FLOAT16,
    "INT64": TensorProto.INT64,
    "INT32": TensorProto.INT32,
    "INT16": TensorProto.INT16,
    "INT8": TensorProto.INT8,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "BOOL": TensorProto.BOOL,
}
Nodes = list[onnx.NodeProto]


def model(
    nodes: Nodes, element: int, constants: dict[str, Any] | None = None, output: int | None = None
) -> onnx.ModelProto:
    """X [rows, WIDTH] -> Y [rows, WIDTH]."""
    graph = helper.make_graph(
        nodes,
        "rows",
        [helper.make_tensor_value_info("X", element, ["rows", WIDTH])],
        [helper.make_tensor_value_info("Y", output or element, ["rows", WIDTH])],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=OPSETS, ir_version=8)


def centred(element: int) -> onnx.ModelProto:
    """A row minus the mean of all rows, for types that ONNX Runtime does not average in FP32."""
    back = [
        helper.make_node("Cast", ["X"], ["F"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["F"], ["M"], axes=[0]),
        helper.make_node("Sub", ["F", "M"], ["D"]),
        helper.make_node("Abs", ["D"], ["A"]),
    ]
    if element == TensorProto.BOOL:
        half = {"half": np.float32(0.5)}
        return model([*back, helper.make_node("Less", ["A", "half"], ["Y"])], element, half)
    return model([*back, helper.make_node("Cast", ["A"], ["Y"], to=element)], element)


def node(operator: str, inputs: str = "X", **attributes: Any) -> Nodes:
    return [helper.make_node(operator, inputs.split(), ["Y"], **attributes)]


F = TensorProto.FLOAT


def mixed_at(rows: int) -> onnx.ModelProto:
    """A row minus the mean of all, in batches of one size; in all others the row itself."""
    branches = {}
    for branch, nodes in {
        "then": [
            helper.make_node("ReduceMean", ["X"], ["M"], axes=[0]),
            helper.make_node("Sub", ["X", "M"], ["then"]),
        ],
        "else": [helper.make_node("Identity", ["X"], ["else"])],
    }.items():
        output = helper.make_tensor_value_info(branch, F, ["rows", WIDTH])
        branches[f"{branch}_branch"] = helper.make_graph(nodes, branch, [], [output])
    return model(
        [
            helper.make_node("Shape", ["X"], ["S"], end=1),
            helper.make_node("Squeeze", ["S"], ["N"]),
            helper.make_node("Equal", ["N", "size"], ["is_size"]),
            helper.make_node("If", ["is_size"], ["Y"], **branches),
        ],
        F,
        {"size": np.int64(rows)},
    )


#: What mixes rows, each in its own way.
MIXED: dict[str, Callable[[], onnx.ModelProto]] = {
    **{f"centred-{name}": partial(centred, element) for name, element in TYPES.items()},
    "softmax-of-columns": lambda: model(node("Softmax", axis=0), F),
    "running-sum": lambda: model(node("CumSum", "X zero"), F, {"zero": np.int64(0)}),
    "sum-of-whole-numbers": lambda: model(node("CumSum", "X zero"), TensorProto.INT64, {"zero": np.int64(0)}),
    "the-other-way-round": lambda: model(
        node("Slice", "X from to axis step"),
        F,
        {
            name: np.array([value])
            for name, value in {"from": -1, "to": -(2**31), "axis": 0, "step": -1}.items()
        },
    ),
    "largest-of-all": lambda: model(
        [helper.make_node("ReduceMax", ["X"], ["M"], axes=[0]), helper.make_node("Equal", ["X", "M"], ["Y"])],
        F,
        output=TensorProto.BOOL,
    ),
    "by-their-number": lambda: model(
        [
            helper.make_node("Shape", ["X"], ["S"], end=1),
            helper.make_node("Cast", ["S"], ["N"], to=F),
            helper.make_node("Div", ["X", "N"], ["Y"]),
        ],
        F,
    ),
    "by-their-place": lambda: model(
        [
            helper.make_node("ConstantOfShape", ["one"], ["O"], value=helper.make_tensor("v", F, [1], [0.0])),
            helper.make_node("Shape", ["X"], ["S"]),
            helper.make_node("ConstantOfShape", ["S"], ["E"], value=helper.make_tensor("w", F, [1], [1.0])),
            helper.make_node("CumSum", ["E", "zero"], ["P"]),
            helper.make_node("Add", ["X", "P"], ["Y"]),
        ],
        F,
        {"zero": np.int64(0), "one": np.array([1])},
    ),
    **{f"only-{size}-together": partial(mixed_at, size) for size in (2, 5, 6, 7, 8)},
    "quantised-as-a-whole": lambda: model(
        [
            helper.make_node("DynamicQuantizeLinear", ["X"], ["Q", "scale", "at"]),
            helper.make_node("DequantizeLinear", ["Q", "scale", "at"], ["Y"]),
        ],
        F,
    ),
    "normalised-by-column": lambda: model(node("LpNormalization", axis=0), F),
}

rng = np.random.default_rng(5)
#: What does not.
SOUND: dict[str, Callable[[], onnx.ModelProto]] = {
    **{f"same-{name}": partial(model, node("Identity"), element) for name, element in TYPES.items()},
    "product": lambda: model(
        [
            helper.make_node("MatMul", ["X", "W"], ["H"]),
            helper.make_node("Relu", ["H"], ["R"]),
            helper.make_node("MatMul", ["R", "V"], ["Y"]),
        ],
        F,
        {
            "W": rng.normal(size=(WIDTH, 33)).astype(np.float32),
            "V": rng.normal(size=(33, WIDTH)).astype(np.float32),
        },
    ),
    "softmax": lambda: model(node("Softmax", axis=1), F),
    "looked-up": lambda: model(
        node("Gather", "table X"), TensorProto.INT64, {"table": rng.normal(size=2).astype(np.float32)}, F
    ),
    "divided": lambda: model(node("Div", "ten X"), TensorProto.INT64, {"ten": np.int64(1000)}),
}  # fmt: skip


def applied(
    folder: Path, models: dict[str, onnx.ModelProto], warmup: dict[str, list[Any]] | None = None
) -> dict[str, dict[str, Any]]:
    """Each model with ``max_batch: 8`` in the pool: what is shown of it, or the refusal."""
    for name, one in models.items():
        path = place(one, folder, name)
        if warmup:
            (path.parent / "warmup.json").write_text(json.dumps(warmup[name]))
    outcomes = {}
    with GatewayProcess(folder / "state", ["--root", str(folder)]) as started, started.admin() as admin:
        for name in models:
            version = {"model": f"file:{name}/1", "run": {"max_batch": 8, "placement": "pool"}}
            document = {
                "apiVersion": "headgate/v1",
                "kind": "Endpoint",
                "name": name,
                "versions": {"v1": version},
                "traffic": {"champion": "v1"},
            }
            answer = admin.http.put(f"/v1/endpoints/{name}", json=document, headers={"If-None-Match": "*"})
            if answer.is_success:
                outcomes[name] = dict(admin.get(f"/v1/endpoints/{name}")["versions"]["v1"])
            else:
                outcomes[name] = {"refused": answer.json()["detail"]}
    return outcomes


def test_a_model_that_mixes_rows_is_refused_with_max_batch_whatever_its_type(tmp_path: Path) -> None:
    need_native()
    outcomes = applied(tmp_path, {name.lower(): make() for name, make in MIXED.items()})
    assert {name for name, one in outcomes.items() if "refused" not in one} == set(), outcomes
    assert all("remove max_batch" in one["refused"] for one in outcomes.values()), outcomes


def test_a_model_that_keeps_rows_apart_is_batched_whatever_its_type(tmp_path: Path) -> None:
    need_native()
    outcomes = applied(tmp_path, {name.lower(): make() for name, make in SOUND.items()})
    shown = {
        name: (one.get("placement"), one.get("message", one.get("refused"))) for name, one in outcomes.items()
    }
    assert shown == dict.fromkeys(shown, ("batched", None))


def request(*rows: list[float], datatype: str = "FP32") -> dict[str, Any]:
    tensor = {"name": "X", "datatype": datatype, "shape": [len(rows), WIDTH], "data": list(rows)}
    return {"inputs": [tensor]}


ONE, TWO, THREE = [1.0, 2.0, 3.0, 4.0], [-4.0, 0.5, 1.0, 2.0], [100.0, 3.0, -7.0, 1.0]


def test_rows_come_from_all_given_requests_and_have_to_differ(tmp_path: Path) -> None:
    need_native()
    mixed, sound = centred(F), model(node("Neg"), F)
    given = {
        "one-row": [request(ONE)],
        "alike": [request(ONE, ONE), request(ONE)],
        "apart": [request(ONE), request(TWO)],
        "in-one": [request(ONE, TWO, THREE)],
        "mixed": [request(ONE), request(ONE), request(TWO)],
        "mixed-alike": [request(ONE, ONE), request(ONE)],
        "always-the-same": [request(ONE), request(TWO)],
    }
    constant = model(node("Sub", "X X"), F)
    made = {name: mixed if name.startswith("mixed") else sound for name in given}
    outcomes = applied(tmp_path, made | {"always-the-same": constant}, given)
    for name in ("one-row", "alike", "mixed-alike"):
        assert outcomes[name]["placement"] == "pool", outcomes
        assert outcomes[name]["message"].startswith("not batched: no two rows of warmup.json"), outcomes
    assert [outcomes[name].get("placement") for name in ("apart", "in-one")] == ["batched"] * 2, outcomes
    assert "is not the same for rows together" in outcomes["mixed"]["refused"]
    assert 'output "Y" is the same for all rows' in outcomes["always-the-same"]["message"]


def masked(mixes: bool) -> onnx.ModelProto:
    """x FP32 [rows, 2], mask INT64 [rows, 2] -> y = x + mask, less the mean of all rows' masks if rows are mixed."""
    nodes = [helper.make_node("Cast", ["mask"], ["M"], to=F), helper.make_node("Add", ["x", "M"], ["S"])]
    if mixes:
        nodes += [
            helper.make_node("ReduceMean", ["M"], ["mean"], axes=[0]),
            helper.make_node("Sub", ["S", "mean"], ["y"]),
        ]
    else:
        nodes.append(helper.make_node("Identity", ["S"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "masked",
        [
            helper.make_tensor_value_info("x", F, ["rows", 2]),
            helper.make_tensor_value_info("mask", TensorProto.INT64, ["rows", 2]),
        ],
        [helper.make_tensor_value_info("y", F, ["rows", 2])],
    )
    return helper.make_model(graph, opset_imports=OPSETS, ir_version=8)


def test_rows_that_are_mixed_by_what_all_given_requests_have_in_common_are_found(tmp_path: Path) -> None:
    need_native()

    def tensor(name: str, datatype: str, values: list[Any]) -> dict[str, Any]:
        return {"name": name, "datatype": datatype, "shape": [1, len(values)], "data": values}

    masks = [
        {"inputs": [tensor("x", "FP32", [value, 2.0]), tensor("mask", "INT64", [1, 1])]}
        for value in (1.0, 2.5, 7.0)
    ]
    columns = [{"inputs": [tensor("X", "FP32", [value, 2.0, 3.0, 4.0])]} for value in (1.0, 2.5, 7.0)]
    ids = [{"inputs": [tensor("X", "INT64", [value, 1, 1, 1])]} for value in (0, 1)]
    # The last column less its mean over all rows.
    constants = {"last": np.array([0, 0, 0, 1], np.float32)}
    mixed_column = model(
        [
            helper.make_node("Mul", ["X", "last"], ["L"]),
            helper.make_node("ReduceMean", ["L"], ["M"], axes=[0]),
            helper.make_node("Sub", ["X", "M"], ["Y"]),
        ],
        F,
        constants,
    )
    outcomes = applied(
        tmp_path,
        {
            "mask-mixed": masked(True),
            "mask-sound": masked(False),
            "column-mixed": mixed_column,
            "column-sound": model(node("Neg"), F),
            "ids-sound": SOUND["looked-up"](),
        },
        {
            "mask-mixed": masks,
            "mask-sound": masks,
            "column-mixed": columns,
            "column-sound": columns,
            "ids-sound": ids,
        },
    )
    for name in ("mask-mixed", "column-mixed"):
        assert "refused" in outcomes[name], outcomes[name]
    for name in ("mask-sound", "column-sound", "ids-sound"):
        assert outcomes[name].get("placement") == "batched", outcomes[name]


def test_what_changes_from_run_to_run_is_not_batched(tmp_path: Path) -> None:
    need_native()
    noise = model(
        [helper.make_node("RandomNormalLike", ["X"], ["N"]), helper.make_node("Add", ["X", "N"], ["Y"])], F
    )
    shown = applied(tmp_path, {"noise": noise})["noise"]
    assert (shown["placement"], shown["batches"]) == ("pool", None)
    assert "differs from run to run" in shown["message"]


@pytest.mark.parametrize("datatype", ["INT32", "FP16"])
def test_answers_of_a_model_that_mixes_rows_do_not_depend_on_who_asks_at_the_same_time(
    tmp_path: Path, datatype: str
) -> None:
    """Its only row is given, so nobody can tell that it mixes rows, and it runs unbatched."""
    need_native()
    path = place(centred(TYPES[datatype]), tmp_path / "models", "mixed")
    (path.parent / "warmup.json").write_text(json.dumps(request([1, 2, 3, 4], datatype=datatype)))
    document = {
        "apiVersion": "headgate/v1",
        "kind": "Endpoint",
        "name": "mixed",
        "versions": {"v1": {"model": "file:models/mixed/1", "run": {"max_batch": 8, "placement": "pool"}}},
        "traffic": {"champion": "v1"},
    }
    (tmp_path / "document.json").write_text(json.dumps(document))
    arguments = [str(tmp_path / "document.json"), "--root", str(tmp_path)]
    with GatewayProcess(tmp_path / "state", arguments) as started:

        def ask(first: int) -> None:
            with httpx.Client(base_url=f"http://{started.http}") as client:
                for at in range(100):
                    body = request([first + at, 2, 3, 4], datatype=datatype)
                    answer = client.post("/v2/models/mixed/infer", json=body)
                    assert answer.json()["outputs"][0]["data"] == [0, 0, 0, 0], answer.text

        with ThreadPoolExecutor(8) as executor:
            list(executor.map(ask, range(0, 800, 100)))

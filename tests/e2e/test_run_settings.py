"""How a version is run, from the document to the answer: placement, threads, batches, what is refused when it is loaded.

Not here: who gets what in a batch (``rust/server/tests/gateway/batching.rs``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import onnx
import pytest
from onnx import TensorProto, helper

from support.client import Connection
from support.gateway import GatewayProcess
from support.models import OPSETS, place, scale
from support.tools import need_native

MODELS = Path(__file__).parents[1] / "models"

DOCUMENT = """\
apiVersion: headgate/v1
kind: Endpoint
name: double
versions:
  plain: "file:models/double/1"
  batched: {model: "file:models/double/1", run: {placement: pool, max_batch: 8, max_delay: 2ms}}
  inline: {model: "file:models/double/1", run: {placement: inline}}
  pool: {model: "file:models/double/1", run: {placement: pool, instances: 1, arena: true, graph_optimization: off}}
  wide: {model: "file:models/double/1", run: {threads: auto}}
traffic: {champion: plain}
"""


def centred() -> onnx.ModelProto:
    """X FP32 [rows, 4] -> Y = X minus the mean of all rows: what one row gives depends on the others."""
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["X"], ["mean"], axes=[0]),
            helper.make_node("Sub", ["X", "mean"], ["Y"]),
        ],
        "centred",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["rows", 4])],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, ["rows", 4])],
    )
    return helper.make_model(graph, opset_imports=OPSETS, ir_version=8)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    need_native()
    folder = tmp_path_factory.mktemp("run")
    place(scale(2.0), folder / "models", "double")
    place(scale(2.0, [1, 4]), folder / "models", "fixed")
    place(centred(), folder / "models", "centred")
    (folder / "document.yaml").write_text(DOCUMENT)
    with GatewayProcess(folder / "state", [str(folder / "document.yaml"), "--root", str(folder)]) as started:
        yield started


def ask(gateway: GatewayProcess, version: str, rows: list[list[float]]) -> list[float]:
    body = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [len(rows), 4], "data": rows}]}
    with Connection(gateway.http) as connection:
        answer = connection.infer(f"double/versions/{version}", body)
    assert answer.status == 200, answer
    return list(answer.json["outputs"][0]["data"])


def shown(gateway: GatewayProcess) -> dict[str, Any]:
    with gateway.admin() as admin:
        return dict(admin.get("/v1/endpoints/double")["versions"])


def test_every_setting_gives_the_same_answers_and_is_shown(gateway: GatewayProcess) -> None:
    for version in ("plain", "batched", "inline", "pool", "wide"):
        assert ask(gateway, version, [[1.0, 2.0, 3.0, -4.0]]) == [2.0, 4.0, 6.0, -8.0]
    versions = shown(gateway)
    # Where the others run follows from their times, which a busy machine makes longer.
    placed = {name: one["placement"] for name, one in versions.items() if one["placement_fixed"]}
    assert placed == {"batched": "batched", "inline": "inline", "pool": "pool"}
    # From the warm runs on.
    assert all(one["placed_by"]["runs"] >= 20 and one["placed_by"]["p99_us"] > 0 for one in versions.values())
    assert versions["pool"]["placed_by"]["why"] == "run.placement is written"
    inline = versions["plain"]["placement"] == "inline"
    assert versions["plain"]["placed_by"]["why"].startswith("a run alone takes less than 50 us") == inline


def test_requests_that_come_together_are_run_together(gateway: GatewayProcess) -> None:
    before = statistics(gateway)

    def one(client: int) -> None:
        for at in range(40):
            value = float(100 * client + at)
            assert ask(gateway, "batched", [[value, 0.0, 1.0, 2.0]]) == [2 * value, 0.0, 2.0, 4.0]

    with ThreadPoolExecutor(8) as executor:
        list(executor.map(one, range(8)))
    after = statistics(gateway)
    runs = after["execution_count"] - before["execution_count"]
    assert after["inference_count"] - before["inference_count"] == 320
    assert 40 <= runs <= 320
    sizes = {one["batch_size"]: one["compute_infer"]["count"] for one in after["batch_stats"]}
    assert sum(sizes.values()) == after["execution_count"]
    assert sum(size * count for size, count in sizes.items()) == after["inference_count"]
    assert max(sizes) <= 8


def statistics(gateway: GatewayProcess) -> dict[str, Any]:
    with Connection(gateway.http) as connection:
        answer = connection.send("GET", "/v2/models/double/versions/batched/stats").json
    return dict(answer["model_stats"][0])


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("fixed", 'input "X" has no dynamic first dimension'),
        ("centred", 'output "Y" is not the same for rows together and for each row alone'),
    ],
)
def test_what_cannot_be_batched_is_refused_when_it_is_loaded(
    gateway: GatewayProcess, model: str, says: str
) -> None:
    document = {
        "apiVersion": "headgate/v1",
        "kind": "Endpoint",
        "name": model,
        "versions": {"v1": {"model": f"file:models/{model}/1", "run": {"max_batch": 4}}},
        "traffic": {"champion": "v1"},
    }
    with gateway.admin() as admin:
        answer = admin.http.put(f"/v1/endpoints/{model}", json=document, headers={"If-None-Match": "*"})
        assert (answer.status_code, answer.json()["code"]) == (422, "model_load_failed"), answer.text
        assert says in answer.json()["detail"]
        without = document | {"versions": {"v1": f"file:models/{model}/1"}}
        assert admin.http.put(
            f"/v1/endpoints/{model}", json=without, headers={"If-None-Match": "*"}
        ).status_code in (200, 201)


def warmed(folder: Path, requests: object) -> httpx.Response:
    """Applies an endpoint whose only version has these requests to be warmed with; it takes indices from 0 to 4."""
    model = place(MODELS / "gather.onnx", folder, "gather")
    (model.parent / "warmup.json").write_text(json.dumps(requests))
    with GatewayProcess(folder / "state", ["--root", str(folder)]) as started, started.admin() as admin:
        document = {
            "apiVersion": "headgate/v1",
            "kind": "Endpoint",
            "name": "gather",
            "versions": {"v1": {"model": "file:gather/1", "run": {"max_batch": 4}}},
            "traffic": {"champion": "v1"},
        }
        return admin.http.put("/v1/endpoints/gather", json=document, headers={"If-None-Match": "*"})


def request(*indices: int) -> dict[str, object]:
    return {
        "inputs": [{"name": "index", "datatype": "INT64", "shape": [len(indices)], "data": list(indices)}]
    }


def test_a_model_is_warmed_with_the_requests_of_its_artifact(tmp_path: Path) -> None:
    need_native()
    taken = warmed(tmp_path / "good", [request(0, 4, 2), request(3)])
    assert taken.is_success, taken.text
    refused = warmed(tmp_path / "bad", [request(1), request(7)])
    assert (refused.status_code, refused.json()["code"]) == (422, "model_load_failed")
    assert "warmup.json: request 1: " in refused.text
    wrong = warmed(tmp_path / "wrong", {"inputs": []})
    assert 'warmup.json: request 0: input \\"index\\" is missing' in wrong.text

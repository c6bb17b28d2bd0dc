"""More models than ``--memory-budget`` has room for: every one answers, the memory holds, what is to stay stays."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from support.client import Connection
from support.gateway import GatewayProcess
from support.models import OPSETS, place
from support.tools import need_native

MIB = 1 << 20
BUDGET = 8 * MIB
NAMES = [f"m{index}" for index in range(8)]
DOCUMENT = """\
apiVersion: headgate/v1
kind: Endpoint
name: kept
versions: {v1: "file:others/kept/1", v2: "file:others/kept/2"}
traffic: {champion: v1, keep_warm: true}
"""


def heavy(factor: float) -> onnx.ModelProto:
    """X FP32 [rows, 4] -> Y [rows, 16] = ``factor`` times the sum of a row, sixteen times, by way of 1.25 MiB of weights."""
    width = 1 << 14
    weights = [
        ("first", np.full((4, width), factor, np.float32)),
        ("second", np.full((width, 16), 1 / width, np.float32)),
    ]
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["X", "first"], ["wide"]),
            helper.make_node("MatMul", ["wide", "second"], ["Y"]),
        ],
        "heavy",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["rows", 4])],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, ["rows", 16])],
        [numpy_helper.from_array(values, name) for name, values in weights],
    )
    return helper.make_model(graph, opset_imports=OPSETS, ir_version=8)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    need_native()
    folder = tmp_path_factory.mktemp("memory")
    for index, name in enumerate(NAMES):
        place(heavy(float(index)), folder / "models", name)
    for version, factor in (("1", 100.0), ("2", 200.0)):
        place(heavy(factor), folder / "others", "kept", version)
    (folder / "document.yaml").write_text(DOCUMENT)
    arguments = [str(folder / "document.yaml"), "--root", str(folder), "--models", str(folder / "models")]
    with GatewayProcess(
        folder / "state", [*arguments, "--memory-budget", "8MiB", "--load-wait", "25s"]
    ) as started:
        yield started


def ask(connection: Connection, path: str) -> float:
    body = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 4], "data": [1.0, 2.0, 3.0, 4.0]}]}
    answer = connection.infer(path, body)
    assert answer.status == 200, answer
    return float(answer.json["outputs"][0]["data"][0])


def versions(gateway: GatewayProcess, name: str) -> dict[str, Any]:
    with gateway.admin() as admin:
        return dict(admin.get(f"/v1/endpoints/{name}")["versions"])


def metric(gateway: GatewayProcess, name: str) -> float:
    text = gateway.observe("/metrics").text
    return float(next(line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(f"{name} ")))


def test_every_model_answers_within_the_budget(gateway: GatewayProcess) -> None:
    def one(seed: int) -> None:
        draw = random.Random(seed)
        with Connection(gateway.http) as connection:
            for _ in range(60):
                index = draw.randrange(len(NAMES))
                assert ask(connection, NAMES[index]) == pytest.approx(10.0 * index, rel=1e-3)
                assert ask(connection, "kept") == pytest.approx(1000.0, rel=1e-3)

    with ThreadPoolExecutor(4) as executor:
        list(executor.map(one, range(4)))
    assert metric(gateway, "headgate_model_memory_bytes") <= BUDGET
    assert metric(gateway, "headgate_model_memory_budget_bytes") == BUDGET
    assert metric(gateway, "headgate_model_evictions_total") > 0
    assert metric(gateway, "headgate_cold_requests_total") > 0
    assert metric(gateway, "headgate_cold_requests_failed_total") == 0
    states = [versions(gateway, name)["1"]["memory"]["state"] for name in NAMES]
    assert states.count("cold") >= 2
    assert states.count("warm") >= 2


def test_what_is_to_stay_stays_and_a_rollback_finds_it_in_memory(gateway: GatewayProcess) -> None:
    def kept() -> dict[str, tuple[str, bool]]:
        found = {name: one["memory"] for name, one in versions(gateway, "kept").items()}
        return {name: (memory["state"], memory["pinned"]) for name, memory in found.items()}

    with gateway.admin() as admin, Connection(gateway.http) as connection:
        for name in NAMES:
            ask(connection, name)
        assert kept() == {"v1": ("warm", True), "v2": ("cold", False)}
        promoted = admin.http.patch(
            "/v1/endpoints/kept/traffic",
            json={"champion": "v2", "reason": "test"},
            headers={"If-Match": f'"{admin.revision("kept")}"'},
        )
        assert promoted.is_success, promoted.text
        for name in NAMES:
            ask(connection, name)
        assert ask(connection, "kept") == pytest.approx(2000.0, rel=1e-3)
        assert kept() == {"v1": ("warm", True), "v2": ("warm", True)}
        admin.act("kept", "rollback")
        assert ask(connection, "kept") == pytest.approx(1000.0, rel=1e-3)

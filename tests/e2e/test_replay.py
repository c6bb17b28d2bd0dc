"""Captured requests put to other versions: what a replay counts is what running both models over the same requests says.

Not here: how rows are compared (``rust/server/src/shadow``), how requests come into files (``test_capture.py``).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from support import models
from support.gateway import AdminClient, GatewayProcess
from support.tools import need_native

SECONDS = 120.0
REQUESTS = 60
DOCUMENT = """\
apiVersion: headgate/v1
kind: Endpoint
name: {name}
versions:
  v1: "file:{name}/identity"
  same: "file:{name}/same"
  abs: "file:{name}/abs"
  sqrt: "file:{name}/sqrt"
  other: {{model: "file:{name}/other", compatible: false}}
traffic:
  champion: v1
  rules: [{{when: {{header.x-tester: "1"}}, to: v1}}]
{rest}
"""


def unary(operator: str, name: str = "X") -> onnx.ModelProto:
    """Y = operator(X), element by element."""
    shape = ["rows", 4]
    graph = helper.make_graph(
        [helper.make_node(operator, [name], ["Y"])],
        operator,
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, shape)],
    )
    return helper.make_model(graph, opset_imports=models.OPSETS, ir_version=8)


MODELS = {
    "identity": unary("Identity"),
    "same": models.scale(1.0),
    "abs": unary("Abs"),
    "sqrt": unary("Sqrt"),
    "other": unary("Identity", "Z"),
}
#: One request in three has a negative number; the rest are 0 and 1, which are their own roots.
SENT = [
    np.where(np.arange(4) == index % 4, -1.0 if index % 3 == 0 else 1.0, 0.0).astype(np.float32)
    for index in range(REQUESTS)
]
NEGATIVE = sum(bool((values < 0).any()) for values in SENT)


def ask(gateway: GatewayProcess, endpoint: str, values: np.ndarray[Any, Any], **headers: str) -> None:
    inputs = [{"name": "X", "datatype": "FP32", "shape": [1, 4], "data": values.tolist()}]
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = httpx.post(
        f"http://{gateway.http}/v2/models/{endpoint}/infer", json={"inputs": inputs}, headers=named
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["outputs"][0]["data"] == values.tolist()


def written(admin: AdminClient, endpoint: str) -> int:
    return int(admin.get(f"/v1/endpoints/{endpoint}")["capture"]["rows"])


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """Three endpoints with captured requests: whole ones, some without inputs, none."""
    need_native()
    folder = tmp_path_factory.mktemp("replay")
    documents = {
        "whole": "capture: {share: 100%}",
        "redacted": "columns: {X: [a, b, c, d]}\ncapture: {share: 100%, redact: [X.b]}",
        "none": "",
    }
    paths = []
    for name, rest in documents.items():
        for version, model in MODELS.items():
            models.place(model, folder, name, version)
        path = folder / f"{name}.yaml"
        path.write_text(DOCUMENT.format(name=name, rest=rest))
        paths.append(str(path))
    with GatewayProcess(folder / "state", paths) as gateway:
        for values in SENT:
            ask(gateway, "whole", values)
        ask(gateway, "whole", SENT[0], x_tester="1")
        ask(gateway, "redacted", SENT[0])
        with gateway.admin() as admin:
            deadline = time.monotonic() + SECONDS
            while (written(admin, "whole"), written(admin, "redacted")) != (REQUESTS + 1, 1):
                assert time.monotonic() < deadline, admin.get("/v1/endpoints/whole")["capture"]
                time.sleep(0.1)
        yield gateway


def replay(gateway: GatewayProcess, endpoint: str, version: str, **more: Any) -> dict[str, Any]:
    """The report of a replay that has ended, which its operation has as well."""
    with gateway.admin() as admin:
        answer = admin.http.post(f"/v1/endpoints/{endpoint}/replays", json={"version": version, **more})
        assert answer.status_code == 202, answer.text
        deadline = time.monotonic() + SECONDS
        while (found := admin.get(answer.headers["location"]))["status"] == "running":
            assert time.monotonic() < deadline, admin.get(f"/v1/endpoints/{endpoint}/replays")
            time.sleep(0.05)
        assert found["status"] == "done", found
        report: dict[str, Any] = found["result"]
        assert admin.get(f"/v1/endpoints/{endpoint}/replays/{report['id']}") == report
        return report


def test_a_version_that_answers_the_same_does_not_disagree(gateway: GatewayProcess) -> None:
    found = replay(gateway, "whole", "same")
    assert found["requests"] == {"replayed": REQUESTS, "skipped": 1, "incompatible": 0, "not_ready": 0}
    assert (found["pairs"], found["compared"]["differing"], found["disagreement"]["share"]) == (
        REQUESTS,
        0,
        0.0,
    )
    low, high = found["disagreement"]["interval"]
    assert low == 0.0
    assert 0.0 < high < 0.1
    floor = found["noise_floor"]
    assert (floor["pairs"], floor["differing"], floor["errors"]) == (REQUESTS, 0, 0)
    runs = found["run_seconds"]
    assert [runs[which]["runs"] for which in ("version", "again", "recorded")] == [REQUESTS] * 3
    assert (found["errors"], found["nan"]["shadow"]) == ({}, 0)
    assert (found["version"], found["against"]["version"]) == ("same", "v1")


def test_disagreement_and_nan_are_those_of_both_models(gateway: GatewayProcess) -> None:
    for version, nan in (("abs", 0), ("sqrt", NEGATIVE)):
        found = replay(gateway, "whole", version)
        assert found["compared"]["differing"] == NEGATIVE
        assert found["disagreement"]["share"] == pytest.approx(NEGATIVE / REQUESTS)
        assert found["nan"] == {"champion": 0, "shadow": nan, "both": 0}
    # Within 2 the answers are the same.
    loose = replay(gateway, "whole", "abs", compare={"Y": {"within": 2}})
    assert loose["compared"]["differing"] == 0
    assert loose["outputs"]["Y"]["compare"] == {"within": {"absolute": 2.0}}


def test_a_number_and_a_span_bound_a_replay(gateway: GatewayProcess) -> None:
    assert replay(gateway, "whole", "abs", max_requests=10)["requests"]["replayed"] == 10
    past = replay(gateway, "whole", "abs", since="2020-01-01T00:00:00Z", until="2100-01-01T00:00:00Z")
    assert past["requests"]["replayed"] == REQUESTS


@pytest.mark.parametrize(
    ("endpoint", "body", "code", "words"),
    [
        ("none", {"version": "abs"}, "policy_invalid", "is captured"),
        ("whole", {"version": "abs", "until": "2020-01-01T00:00:00Z"}, "policy_invalid", "within that time"),
        ("whole", {"version": "abs", "against": "same"}, "policy_invalid", '"same"'),
        ("redacted", {"version": "abs"}, "policy_invalid", "capture.redact"),
        ("whole", {"version": "other"}, "policy_invalid", '"Z"'),
        ("whole", {"version": "abs", "compare": {"Q": "exact"}}, "policy_invalid", '"Q"'),
        ("whole", {"version": "v9"}, "version_not_found", "is not loaded"),
        ("absent", {"version": "v1"}, "model_not_found", "absent"),
    ],
)
def test_what_cannot_be_replayed_is_refused_with_the_reason(
    gateway: GatewayProcess, endpoint: str, body: dict[str, Any], code: str, words: str
) -> None:
    with gateway.admin() as admin:
        answer = admin.http.post(f"/v1/endpoints/{endpoint}/replays", json=body)
    assert answer.json()["code"] == code
    assert answer.status_code == {"policy_invalid": 422}.get(code, 404)
    assert words in answer.json()["detail"]


def test_a_replay_is_counted_for_no_version(gateway: GatewayProcess) -> None:
    with gateway.admin() as admin:
        before = admin.get("/v1/endpoints/whole")["versions"]
        replay(gateway, "whole", "abs")
        after = admin.get("/v1/endpoints/whole")["versions"]
    for version in ("v1", "abs"):
        assert after[version]["requests"] == before[version]["requests"]
        assert after[version]["runs"] == before[version]["runs"]
        assert after[version]["placement"] == before[version]["placement"]


def test_the_command_shows_what_a_person_decides_by(gateway: GatewayProcess) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "headgate", "replay", "whole", *words, "--state", str(gateway.state)]
        return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)

    done = run("abs", "--requests", "30", "--compare", "Y=exact")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].endswith("abs against what v1 answered: done")
    assert lines[1].startswith("requests: 30 replayed")
    assert lines[2].startswith("disagreement: 33.33% (")
    assert lines[3].startswith("noise floor: 0.00% (")
    assert json.loads(run("same", "-o", "json").stdout)["pairs"] == REQUESTS
    refused = run("other")
    assert refused.returncode != 0
    assert "does not fit the captured requests" in refused.stderr

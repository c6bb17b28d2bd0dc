"""The protocol's extensions over REST: ``:predict``, classification, compression, raw bodies, the repository, statistics,
traces and times. What Triton's own clients make of them is in ``test_control``.
"""

from __future__ import annotations

import base64
import gzip
import json
import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support import grpc_wire
from support.client import Answer, Connection
from support.gateway import AdminClient, GatewayProcess
from support.h2_client import Http2
from support.models import identities, pair, place, scale
from support.tools import need_native

DOCUMENT = """\
apiVersion: headgate/v1
kind: Endpoint
name: labelled
versions: {"1": "file:models/double/1"}
traffic: {champion: "1"}
labels: {Y: [cat, dog, fox, owl]}
answers: {non_finite: string}
---
apiVersion: headgate/v1
kind: Endpoint
name: nulls
versions: {"1": "file:models/double/1"}
traffic: {champion: "1"}
answers: {non_finite: "null"}
"""

ROW = [1.0, 2.0, 3.0, -4.0]
REQUEST = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 4], "data": ROW}]}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    need_native()
    folder = tmp_path_factory.mktemp("extensions")
    place(scale(2.0), folder / "models", "double")
    place(pair(), folder / "models", "pair")
    place(scale(2.0, [16_384]), folder / "models", "wide")
    identities(folder / "models")
    (folder / "documents.yaml").write_text(DOCUMENT)
    arguments = ["--models", str(folder / "models"), "--allow-repository-control", "--triton-metrics"]
    arguments += ["--access-log", str(folder / "access.jsonl"), "--max-body", "1MiB", "--gzip-above", "4KiB"]
    with GatewayProcess(folder / "state", [str(folder / "documents.yaml"), *arguments]) as started:
        yield started


@pytest.fixture
def ask(gateway: GatewayProcess) -> Iterator[Connection]:
    with Connection(gateway.http) as connection:
        yield connection


def post(ask: Connection, path: str, body: Any = None, **headers: str) -> Answer:
    content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    return ask.send("POST", path, content, {name.replace("_", "-"): value for name, value in headers.items()})


# === TensorFlow Serving's and KServe's first protocol ===


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ({"instances": [ROW, ROW]}, {"predictions": [[2.0, 4.0, 6.0, -8.0]] * 2}),
        ({"instances": [{"X": ROW}]}, {"predictions": [[2.0, 4.0, 6.0, -8.0]]}),
        ({"inputs": [ROW]}, {"outputs": [[2.0, 4.0, 6.0, -8.0]]}),
        ({"inputs": {"X": [ROW]}}, {"outputs": [[2.0, 4.0, 6.0, -8.0]]}),
        ({"instances": []}, None),
    ],
)
def test_predict_takes_rows_and_columns(ask: Connection, body: Any, wanted: Any) -> None:
    for path in ("/v1/models/double:predict", "/v1/models/double/versions/1:predict"):
        answer = post(ask, path, body)
        if wanted is None:
            assert (answer.status, answer.code) == (400, "invalid_argument")
        else:
            assert (answer.status, answer.json) == (200, wanted)
            assert answer.version == "1"


def test_predict_with_several_inputs_and_outputs(ask: Connection) -> None:
    rows = {"instances": [{"A": [1.0, 2.0], "B": 5}, {"A": [3.0, 4.0], "B": 2**53 + 1}]}
    answer = post(ask, "/v1/models/pair:predict", rows)
    assert answer.json == {"predictions": [{"A2": [1.0, 2.0], "B2": 5}, {"A2": [3.0, 4.0], "B2": 2**53 + 1}]}
    columns = {"inputs": {"A": [[1.0, 2.0]], "B": [5]}}
    answer = post(ask, "/v1/models/pair:predict", columns)
    assert answer.json == {"outputs": {"A2": [[1.0, 2.0]], "B2": [5]}}


def test_predict_carries_bytes_as_base64(ask: Connection) -> None:
    encoded = {"b64": base64.b64encode(b"\xff\x00").decode()}
    answer = post(ask, "/v1/models/identity-bytes:predict", {"instances": ["text", encoded]})
    assert answer.json == {"predictions": ["text", encoded]}


def test_a_model_s_status_serves_both_kinds_of_client(ask: Connection) -> None:
    answer = ask.send("GET", "/v1/models/double")
    assert (answer.json["name"], answer.json["ready"]) == ("double", True)
    (version,) = answer.json["model_version_status"]
    assert (version["version"], version["state"]) == ("1", "AVAILABLE")
    assert ask.send("GET", "/v1/models/nobody").status == 404


# === datatypes that JSON had no form for ===


@pytest.mark.parametrize("datatype", ["fp16"])
def test_half_precision_goes_both_ways_in_json(ask: Connection, datatype: str) -> None:
    values = [0.1, -2.0, 65504.0, 6e-8]
    tensor = {"name": "x", "datatype": datatype.upper(), "shape": [4], "data": values}
    answer = post(ask, f"/v2/models/identity-{datatype}/infer", {"inputs": [tensor]})
    assert answer.status == 200
    (output,) = answer.json["outputs"]
    assert np.array_equal(np.array(output["data"], np.float16), np.array(values, np.float16))


def test_bytes_that_are_no_text_come_and_go_as_base64(ask: Connection) -> None:
    encoded = [base64.b64encode(element).decode() for element in (b"\xff", b"text", b"")]
    tensor: dict[str, Any] = {"name": "x", "datatype": "BYTES", "shape": [3], "data": encoded}
    tensor["parameters"] = {"encoding": "base64"}
    answer = post(ask, "/v2/models/identity-bytes/infer", {"inputs": [tensor]})
    (output,) = answer.json["outputs"]
    assert (output["parameters"], output["data"]) == ({"encoding": "base64"}, encoded)
    tensor["data"] = ["not base64!"] * 3
    answer = post(ask, "/v2/models/identity-bytes/infer", {"inputs": [tensor]})
    assert (answer.status, answer.code) == (400, "invalid_argument")


def test_what_is_no_number_is_as_the_endpoint_says(ask: Connection) -> None:
    largest = float(np.finfo(np.float32).max)
    body = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 4], "data": [largest, -largest, 0, 1]}]}
    words = post(ask, "/v2/models/labelled/infer", body).json["outputs"][0]["data"]
    assert words == ["Infinity", "-Infinity", 0.0, 2.0]
    nulls = post(ask, "/v2/models/nulls/infer", body).json["outputs"][0]["data"]
    assert nulls == [None, None, 0.0, 2.0]
    answer = post(ask, "/v2/models/double/infer", body)
    assert (answer.status, answer.code) == (400, "invalid_argument")
    assert "answers.non_finite" in answer.json["error"]
    raw = post(ask, "/v2/models/double/infer", {**body, "parameters": {"binary_data_output": True}})
    assert math.isinf(struct.unpack("<f", raw.body[-16:-12])[0])


# === classification, raw bodies, compression ===


def test_classes_come_in_order_with_their_labels(ask: Connection) -> None:
    wanted = {"name": "Y", "parameters": {"classification": 3}}
    answer = post(ask, "/v2/models/labelled/infer", {**REQUEST, "outputs": [wanted]})
    (output,) = answer.json["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [1, 3])
    assert output["data"] == ["6.000000:2:fox", "4.000000:1:dog", "2.000000:0:cat"]
    plain = post(ask, "/v2/models/double/infer", {**REQUEST, "outputs": [wanted]})
    assert plain.json["outputs"][0]["data"][0] == "6.000000:2"


def test_a_body_without_json_is_the_only_input(ask: Connection) -> None:
    body = struct.pack("<8f", *ROW, *ROW)
    answer = post(ask, "/v2/models/double/infer", body, inference_header_content_length="0")
    assert answer.status == 200
    length = int(answer.headers["inference-header-content-length"])
    assert struct.unpack("<8f", answer.body[length:]) == (2.0, 4.0, 6.0, -8.0) * 2
    for path, content in (("double", body[:-2]), ("pair", body)):
        answer = post(ask, f"/v2/models/{path}/infer", content, inference_header_content_length="0")
        assert (answer.status, answer.code) == (400, "invalid_argument")


@pytest.mark.parametrize(("coding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_bodies_may_be_compressed(ask: Connection, coding: str, pack: Any) -> None:
    answer = post(ask, "/v2/models/double/infer", pack(json.dumps(REQUEST).encode()), content_encoding=coding)
    assert answer.json["outputs"][0]["data"] == [2.0, 4.0, 6.0, -8.0]
    broken = post(ask, "/v2/models/double/infer", b"not packed", content_encoding=coding)
    assert (broken.status, broken.code) == (400, "invalid_argument")
    bomb = post(ask, "/v2/models/double/infer", pack(b" " * (2 << 20)), content_encoding=coding)
    assert (bomb.status, bomb.code) == (413, "payload_too_large")


def test_large_answers_are_compressed_when_that_is_asked_for(ask: Connection) -> None:
    rows = 3000
    body = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [rows, 4], "data": ROW * rows}]}
    packed = post(ask, "/v2/models/double/infer", body, accept_encoding="gzip, deflate")
    assert packed.headers["content-encoding"] == "gzip"
    plain = post(ask, "/v2/models/double/infer", body)
    assert "content-encoding" not in plain.headers
    assert gzip.decompress(packed.body) == plain.body
    assert len(packed.body) < len(plain.body) / 10
    small = post(ask, "/v2/models/double/infer", REQUEST, accept_encoding="gzip")
    assert "content-encoding" not in small.headers


# === what there is, and how it is ===


def test_configuration_and_list(ask: Connection) -> None:
    config = ask.send("GET", "/v2/models/pair/config").json
    assert (config["name"], config["platform"], config["max_batch_size"]) == ("pair", "onnxruntime_onnx", 0)
    assert config["input"][0] == {"name": "A", "data_type": "TYPE_FP32", "dims": [-1, 2]}
    assert config["output"][1] == {"name": "B2", "data_type": "TYPE_INT64", "dims": [-1]}
    assert {"double", "pair", "labelled"} <= set(ask.send("GET", "/v2/models").json["models"])


def test_statistics_are_exact(ask: Connection) -> None:
    def stats() -> Any:
        return ask.send("GET", "/v2/models/pair/versions/1/stats").json["model_stats"][0]

    before = stats()
    rows = {"instances": [{"A": [1.0, 2.0], "B": 5}] * 3}
    assert post(ask, "/v1/models/pair:predict", rows).status == 200
    assert post(ask, "/v1/models/pair:predict", {"instances": [{"A": [1.0, 2.0]}]}).status == 400
    after = stats()
    grown = {name: after[name] - before[name] for name in ("inference_count", "execution_count")}
    assert grown == {"inference_count": 3, "execution_count": 1}
    counts = {
        name: after["inference_stats"][name]["count"] - before["inference_stats"][name]["count"]
        for name in ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")
    }
    phases = {"queue": 1, "compute_input": 1, "compute_infer": 1, "compute_output": 1}
    assert counts == {"success": 1, "fail": 1, **phases}
    assert after["last_inference"] >= before["last_inference"] > 0 or before["execution_count"] == 0
    everything = ask.send("GET", "/v2/models/stats").json["model_stats"]
    assert {model["name"] for model in everything} >= {"pair", "double"}
    assert ask.send("GET", "/v2/models/nobody/stats").status == 404


def test_unloading_takes_memory_and_nothing_else(gateway: GatewayProcess, ask: Connection) -> None:
    with gateway.admin() as admin:
        traffic = admin.traffic("labelled")
        _unload_and_load(admin, ask)
        assert admin.traffic("labelled") == traffic


def _unload_and_load(admin: AdminClient, ask: Connection) -> None:
    assert post(ask, "/v2/repository/models/labelled/unload").status == 200
    assert ask.send("GET", "/v2/health/ready").status == 200
    assert ask.send("GET", "/v2/models/labelled/ready").status == 503
    answer = post(ask, "/v2/models/labelled/infer", REQUEST)
    assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "model_not_ready", "1")
    states = {one["name"]: one for one in post(ask, "/v2/repository/index").json}
    assert (states["labelled"]["state"], states["labelled"]["reason"]) == ("UNAVAILABLE", "unloaded")
    ready = post(ask, "/v2/repository/index", {"ready": True}).json
    assert "labelled" not in {one["name"] for one in ready}
    shown = admin.get("/v1/endpoints/labelled")
    assert (shown["state"], shown["versions"]["1"]["state"]) == ("unloaded", "unloaded")
    listed = {one["name"]: one["state"] for one in admin.get("/v1/endpoints")["endpoints"]}
    assert (listed["labelled"], listed["double"]) == ("unloaded", "ready")
    assert post(ask, "/v2/repository/models/labelled/load").status == 200
    assert post(ask, "/v2/models/labelled/infer", REQUEST).status == 200


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/v2/repository/models/nobody/load", None, 404, "model_not_found"),
        ("/v2/repository/models/nobody/unload", None, 404, "model_not_found"),
        ("/v2/repository/models/double/load", {"parameters": {"config": "{}"}}, 501, "unsupported"),
        ("/v2/repository/models/double/load", {"parameters": {"file:1/model.onnx": ""}}, 501, "unsupported"),
        ("/v2/repository/models/double/load", {"parameters": 1}, 400, "invalid_argument"),
        ("/v2/repository/models/double/load", b"{", 400, "invalid_argument"),
        ("/v2/repository/other/models/double/load", None, 404, "not_found"),
        ("/v2/repository/index", {"ready": 1}, 400, "invalid_argument"),
        ("/v2/logging", {"log_info": False}, 501, "unsupported"),
        ("/v2/trace/setting", {"trace_rate": "1"}, 501, "unsupported"),
        ("/v2/systemsharedmemory/region/r/register", {"key": "k"}, 501, "unsupported"),
    ],
)
def test_what_cannot_be_done_is_said(ask: Connection, path: str, body: Any, status: int, code: str) -> None:
    answer = post(ask, path, body)
    assert (answer.status, answer.code) == (status, code)


def test_settings_and_shared_memory_are_answered_truthfully(ask: Connection) -> None:
    assert ask.send("GET", "/v2/trace/setting").json["trace_level"] == ["OFF"]
    assert ask.send("GET", "/v2/models/double/trace/setting").json["trace_level"] == ["OFF"]
    assert ask.send("GET", "/v2/logging").json["log_verbose_level"] == 0
    for kind in ("system", "cuda"):
        assert ask.send("GET", f"/v2/{kind}sharedmemory/status").json == []
        assert post(ask, f"/v2/{kind}sharedmemory/unregister").status == 200


# === traces, times, the access log, Triton's names ===


def test_a_trace_is_taken_up_and_passed_on(ask: Connection) -> None:
    trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    answer = post(ask, "/v2/models/double/infer", REQUEST, traceparent=f"00-{trace}-{span}-01")
    version, same, own, flags = answer.headers["traceparent"].split("-")
    assert (version, same, flags) == ("00", trace, "01")
    assert own != span
    for broken in (f"00-{'0' * 32}-{span}-01", f"00-{trace.upper()}-{span}-01", f"01-{trace}-{span}-01", "x"):
        answer = post(ask, "/v2/models/double/infer", REQUEST, traceparent=broken)
        assert answer.status == 200
        assert "traceparent" not in answer.headers


def test_a_time_out_of_nothing_is_none_of_its_own(ask: Connection) -> None:
    for timeout, status in [(0, 200), (1, 504), (30_000_000, 200)]:
        body = REQUEST | {"parameters": {"timeout": timeout}}
        assert post(ask, "/v2/models/double/infer", body).status == status


def test_a_client_says_on_every_wire_how_long_it_waits(gateway: GatewayProcess, ask: Connection) -> None:
    tensor = grpc_wire.blob(1, "X") + grpc_wire.blob(2, "FP32") + grpc_wire.blob(3, bytes([1, 4]))
    message = (
        grpc_wire.blob(1, "double") + grpc_wire.blob(5, tensor) + grpc_wire.blob(7, struct.pack("<4f", *ROW))
    )
    with Http2(gateway.http) as connection:
        for timeout, status, grpc in [("0ms", 504, 4), ("30s", 200, 0), ("30", 400, 3), ("later", 400, 3)]:
            assert post(ask, "/v2/models/double/infer", REQUEST, x_headgate_timeout=timeout).status == status
            headers = {"x-headgate-timeout": timeout}
            assert connection.call("ModelInfer", grpc_wire.frame(message), headers).grpc_status == grpc


def test_every_call_takes_and_gives_gzip(ask: Connection) -> None:
    packed = gzip.compress(b'{"ready": true}')
    assert post(ask, "/v2/repository/index", packed, content_encoding="gzip").status == 200
    plain = ask.send("GET", "/v2/models/stats")
    assert len(plain.body) > 4 << 10, "what is smaller is not packed"
    got = ask.send("GET", "/v2/models/stats", headers={"accept-encoding": "gzip"})
    assert got.headers["content-encoding"] == "gzip"
    assert len(gzip.decompress(got.body)) > 4 << 10


def test_a_large_tensor_of_the_wrong_size_is_the_client_s_mistake(ask: Connection) -> None:
    # 16 KiB and more are read where they lie.
    answer = post(ask, "/v2/models/wide/infer", bytes(65_532), inference_header_content_length="0")
    assert (answer.status, answer.code) == (400, "invalid_argument")
    assert "65536 bytes" in answer.json["error"]
    good = post(ask, "/v2/models/wide/infer", bytes(65_536), inference_header_content_length="0")
    assert good.status == 200


def test_times_are_told_to_who_asks(ask: Connection) -> None:
    answer = post(ask, "/v2/models/double/infer", REQUEST, x_headgate_timing="1", x_request_id="r-1")
    names = [part.split(";")[0].strip() for part in answer.headers["server-timing"].split(",")]
    assert names[0] == "decode"
    assert names[-2:] == ["run", "total"]
    assert answer.headers["x-request-id"] == "r-1"
    assert "server-timing" not in post(ask, "/v2/models/double/infer", REQUEST).headers


def test_every_request_is_in_the_access_log(gateway: GatewayProcess, ask: Connection, tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    log = folder / "access.jsonl"
    place(scale(2.0), folder / "models", "double")
    arguments = ["--models", str(folder / "models"), "--access-log", str(log)]
    with (
        GatewayProcess(folder / "state", arguments) as started,
        Connection(started.http) as own,
        Http2(started.http) as grpc,
    ):
        for index in range(50):
            assert post(own, "/v2/models/double/infer", REQUEST, x_request_id=f"r-{index}").status == 200
        assert post(own, "/v2/models/nobody/infer", REQUEST).status == 404
        assert post(own, "/v2/models/double/versions/1/infer", b"{").status == 400
        unknown = grpc_wire.frame(grpc_wire.blob(1, "x" * 100_000))
        assert grpc.call("ModelInfer", unknown).code == "model_not_found"
        assert grpc.call("ModelInfer", grpc_wire.frame(b"\xff")).code == "invalid_argument"
        assert grpc.call("ModelInfer", unknown, {"grpc-timeout": "x"}).code == "invalid_argument"
        assert len(grpc.call("ModelStreamInfer", unknown).body) < 10_000
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line.get("request_id") for line in lines[:50]] == [f"r-{index}" for index in range(50)]
    assert {line["code"] for line in lines[:50]} == {"ok"}
    assert all(line["run_us"] <= line["total_us"] and line["version"] == "1" for line in lines[:50])
    assert [(line["endpoint"], line["code"]) for line in lines[50:]] == [
        ("nobody", "model_not_found"),
        ("double", "invalid_argument"),
        ("x" * 128, "model_not_found"),
        ("", "invalid_argument"),
        ("", "invalid_argument"),
        ("x" * 128, "model_not_found"),
    ]


def test_tritons_metrics_are_there_on_request(gateway: GatewayProcess, ask: Connection) -> None:
    assert post(ask, "/v2/models/double/infer", REQUEST).status == 200
    text = gateway.observe("/metrics").text
    for name in ("request_success", "count", "exec_count", "compute_infer_duration_us"):
        assert f'nv_inference_{name}{{model="double",version="1"}}' in text
    assert 'nv_inference_request_failure{model="double",reason="OTHER",version="1"}' in text


def test_a_gateway_that_does_not_allow_control_says_so(zoo: GatewayProcess) -> None:
    with Connection(zoo.http) as ask:
        for path in ("/v2/repository/models/digits/unload", "/v2/repository/models/digits/load"):
            answer = post(ask, path)
            assert (answer.status, answer.code) == (403, "permission_denied")
            assert "--allow-repository-control" in answer.json["error"]
        assert post(ask, "/v2/logging", {"log_info": False}).status == 403
        assert "nv_inference" not in zoo.observe("/metrics").text

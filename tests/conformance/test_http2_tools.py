"""curl, h2load and nghttp, which know nothing of inference: REST over HTTP/2, and gRPC as frames and trailers.

HTTP/2 is spoken without TLS by prior knowledge. h2load does not look at trailers, so what it counts as a success is
compared with the gateway's own count. Programs that are not installed make these tests skip, aloud (``support.tools``).
"""

from __future__ import annotations

import json
import re
import struct
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from support.gateway import GatewayProcess
from support.tools import need_program

SECONDS = 60.0
REQUESTS = 4000
INFER = "/v2/models/scale/infer"
MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"
GRPC_HEADERS = ["-H", "content-type: application/grpc", "-H", "te: trailers"]

VALUES = np.array([[1, 2, 3, 4]], np.float32)
REST = json.dumps(
    {"inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
).encode()


def field(number: int, content: bytes) -> bytes:
    """A field of a protobuf message, shorter than 128 bytes."""
    return bytes([number << 3 | 2, len(content)]) + content


def model_infer(model: str) -> bytes:
    """A ModelInferRequest with its gRPC prefix, written by hand: X [1, 4] with raw contents."""
    tensor = field(1, b"X") + field(2, b"FP32") + field(3, bytes([1, 4]))
    message = field(1, model.encode()) + field(5, tensor) + field(7, VALUES.tobytes())
    return b"\0" + struct.pack(">I", len(message)) + message


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, f"{command} ended with {done.returncode}: {done.stderr}"
    return done.stdout


def written(folder: Path, content: bytes) -> str:
    path = folder / "body"
    path.write_bytes(content)
    return str(path)


def counted(gateway: GatewayProcess, code: str) -> int:
    """Requests to ``scale`` that ended so."""
    lines = re.findall(r"^headgate_requests_total\{([^}]*)\} (\S+)$", gateway.observe("/metrics").text, re.M)
    return sum(
        int(float(value))
        for labels, value in lines
        if 'endpoint="scale"' in labels and f'code="{code}"' in labels
    )


def assert_counts_on(gateway: GatewayProcess, before: int) -> None:
    """The gateway books an answer when its bytes are with the socket, which a client may see a moment earlier."""
    until = time.monotonic() + SECONDS
    while counted(gateway, "ok") < before + REQUESTS and time.monotonic() < until:
        pass
    assert counted(gateway, "ok") == before + REQUESTS


def curl(address: str, path: str, *options: str) -> tuple[str, str, str]:
    """The HTTP version, the status and the body of a request over HTTP/2."""
    form = "\n%{http_version} %{http_code}"
    command = [
        need_program("curl"),
        "--silent",
        "--show-error",
        "--http2-prior-knowledge",
        "--write-out",
        form,
    ]
    answer, _, facts = run(*command, *options, f"http://{address}{path}").rpartition("\n")
    version, status = facts.split()
    return version, status, answer


def test_curl_reads_health_and_metadata(mirror: GatewayProcess) -> None:
    assert curl(mirror.http, "/v2/health/ready")[:2] == ("2", "200")
    version, status, answer = curl(mirror.http, "/v2/models/scale/versions/1")
    assert (version, status) == ("2", "200")
    assert json.loads(answer)["inputs"] == [{"name": "X", "datatype": "FP32", "shape": [-1, 4]}]


@pytest.mark.parametrize("port", ["http", "grpc"])
def test_curl_infers_over_both_ports(mirror: GatewayProcess, tmp_path: Path, port: str) -> None:
    body = written(tmp_path, REST)
    version, status, answer = curl(mirror.addresses[port], INFER, "--data-binary", f"@{body}")
    assert (version, status) == ("2", "200")
    assert json.loads(answer)["outputs"][0]["data"] == [3, 6, 9, 12]


def test_curl_gets_an_error_as_json(mirror: GatewayProcess, tmp_path: Path) -> None:
    body = written(tmp_path, REST)
    version, status, answer = curl(mirror.http, "/v2/models/none/infer", "--data-binary", f"@{body}")
    assert (version, status) == ("2", "404")
    assert json.loads(answer)["code"] == "model_not_found"


def test_curl_sends_and_gets_binary_data(mirror: GatewayProcess, tmp_path: Path) -> None:
    """4 MiB each way: more than a stream's first window."""
    rows = 1 << 18
    sent = np.random.default_rng(3).normal(size=(rows, 4)).astype(np.float32)
    head = {
        "inputs": [
            {
                "name": "X",
                "shape": [rows, 4],
                "datatype": "FP32",
                "parameters": {"binary_data_size": sent.nbytes},
            }
        ],
        "parameters": {"binary_data_output": True},
    }
    text = json.dumps(head).encode()
    body = written(tmp_path, text + sent.tobytes())
    answer, headers = tmp_path / "answer", tmp_path / "headers"
    length = ["-H", f"Inference-Header-Content-Length: {len(text)}", "-D", str(headers), "-o", str(answer)]
    assert curl(mirror.http, INFER, "--data-binary", f"@{body}", *length)[:2] == ("2", "200")
    (size,) = re.findall(r"inference-header-content-length: (\d+)", headers.read_text())
    assert answer.read_bytes()[int(size) :] == (sent * np.float32(3)).tobytes()


@pytest.mark.parametrize("port", ["http", "grpc"])
@pytest.mark.parametrize("form", ["rest", "grpc"])
def test_thousands_of_requests_on_a_few_connections(
    mirror: GatewayProcess, tmp_path: Path, form: str, port: str
) -> None:
    load = need_program("h2load", "nghttp2-client")
    before = counted(mirror, "ok")
    body = written(tmp_path, REST if form == "rest" else model_infer("scale"))
    path, headers = (INFER, []) if form == "rest" else (MODEL_INFER, GRPC_HEADERS)
    address = mirror.addresses[port]
    command = [load, "-n", str(REQUESTS), "-c", "4", "-m", "16", "-t", "1", "-d", body, *headers]
    told = run(*command, f"http://{address}{path}")
    succeeded = f"{REQUESTS} done, {REQUESTS} succeeded, 0 failed, 0 errored, 0 timeout"
    assert succeeded in told
    assert f"status codes: {REQUESTS} 2xx, 0 3xx, 0 4xx, 0 5xx" in told
    assert_counts_on(mirror, before)


def received(gateway: GatewayProcess, folder: Path, body: bytes) -> list[list[str]]:
    """The blocks of fields that nghttp receives in answer to a gRPC call: the headers, then the trailers."""
    command = [need_program("nghttp", "nghttp2-client"), "-nv", "--no-dep", "-d", written(folder, body)]
    told = run(*command, *GRPC_HEADERS, f"http://{gateway.grpc}{MODEL_INFER}")
    blocks: list[list[str]] = [[]]
    for line in told.splitlines():
        if fields := re.search(r"recv \(stream_id=\d+\) (.*)", line):
            blocks[-1].append(fields[1])
        elif "recv HEADERS frame" in line:
            blocks.append([])
    return blocks[:-1]


def test_a_good_call_ends_with_status_0_in_trailers(mirror: GatewayProcess, tmp_path: Path) -> None:
    headers, trailers = received(mirror, tmp_path, model_infer("scale"))
    assert {":status: 200", "content-type: application/grpc", "x-headgate-version: 2"} <= set(headers)
    assert trailers == ["grpc-status: 0"]


@pytest.mark.parametrize(
    ("body", "status", "code", "mentions"),
    [
        pytest.param(model_infer("none"), 5, "model_not_found", '"none"', id="no-such-model"),
        pytest.param(model_infer("sc%ale"), 5, "model_not_found", "sc%25ale", id="percent"),
        pytest.param(model_infer("scale")[:-1], 3, "invalid_argument", "bytes", id="cut-off"),
        pytest.param(b"\0\0\0\0\2\xff\xff", 3, "invalid_argument", "", id="no-protobuf"),
        pytest.param(b"", 3, "invalid_argument", "", id="no-message"),
    ],
)
def test_a_failed_call_is_200_and_tells_its_status_in_trailers(
    mirror: GatewayProcess, tmp_path: Path, body: bytes, status: int, code: str, mentions: str
) -> None:
    blocks = received(mirror, tmp_path, body)
    assert ":status: 200" in blocks[0]
    assert {f"grpc-status: {status}", f"x-headgate-code: {code}"} <= set(blocks[-1])
    (message,) = [line for line in blocks[-1] if line.startswith("grpc-message: ")]
    assert mentions in message

"""A version on a device: does it answer what the processor answers, how many rows a second, how long for one.

wrk over loopback with binary tensors, against ``session_loop`` in the same run. Requests of as many
rows as the loop runs at a time compare like with like; requests of one row over many connections show what batching gives.
Read next: ``session_loop``.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import headgate
from benches.batches import Subject, mlp, resnet
from benches.gpu.session_loop import SIZES

ROOT = Path(__file__).resolve().parents[2]
CLIENT_THREADS = 4
BUSY = 8
CONNECTIONS = 64
DOCUMENT = """
apiVersion: headgate/v1
kind: Endpoint
name: {name}
versions:
  device: {{model: "file:models/{name}/1", run: {{device: "{device}", max_batch: 64, buckets: [1, 2, 4, 8, 16, 32, 64]}}}}
  processor: {{model: "file:models/{name}/1", run: {{placement: pool}}}}
traffic: {{champion: device}}
---
"""


@dataclass(frozen=True)
class Measured:
    """Rows a second of all clients together, and the median of one request in microseconds."""

    rows: float
    p50_us: float


@dataclass(frozen=True)
class Request:
    """A request of so many rows in binary."""

    rows: int
    body: bytes
    headers: dict[str, str]


def request_for(subject: Subject, rows: int, seed: int = 3) -> Request:
    """Random rows."""
    values = np.random.default_rng(seed).normal(size=(rows, *subject.row)).astype(np.float32)
    head: dict[str, Any] = {"name": "X", "datatype": "FP32", "shape": list(values.shape)}
    head["parameters"] = {"binary_data_size": values.nbytes}
    text = json.dumps({"inputs": [head], "parameters": {"binary_data_output": True}}).encode()
    return Request(rows, text + values.tobytes(), {"Inference-Header-Content-Length": str(len(text))})


def ask(connection: http.client.HTTPConnection, path: str, request: Request) -> np.ndarray:
    """One answer's values."""
    connection.request("POST", path, request.body, request.headers)
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != 200:
        raise SystemExit(f"{path}: {answer.status} {content[:300]!r}")
    length = int(answer.headers["inference-header-content-length"])
    return np.frombuffer(content[length:], np.float32)


def load(
    address: str, path: str, content: Path, request: Request, connections: int, seconds: float
) -> Measured:
    """Asks over some connections, each as soon as its answer is there."""
    content.write_bytes(request.body)
    command = ["wrk", "--threads", str(min(connections, CLIENT_THREADS)), "--connections", str(connections)]
    command += ["--duration", f"{max(round(seconds), 1)}s", "--timeout", "20s"]
    command += ["--script", str(ROOT / "benches" / "peers" / "post.lua")]
    for name, value in request.headers.items():
        command += ["--header", f"{name}: {value}"]
    command += [f"http://{address}{path}", "--", str(content)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    outcome = json.loads(done.stdout.splitlines()[-1])
    if outcome["failed"] or not outcome["requests"]:
        raise SystemExit(f"{path}: {outcome}")
    return Measured(request.rows * outcome["requests"] / (outcome["microseconds"] / 1e6), outcome["p50_us"])


@contextmanager
def serving(folder: Path, device: str, subjects: list[Subject]) -> Iterator[dict[str, str]]:
    """A gateway with both versions of every subject; its addresses."""
    documents = "".join(DOCUMENT.format(name=one.name, device=device) for one in subjects)
    (folder / "gpu.yaml").write_text(documents)
    command = [sys.executable, "-m", "headgate", "serve", str(folder / "gpu.yaml"), "--root", str(folder)]
    command += ["--state", str(folder / "state"), "--sketches", "off", "--max-body", "256MiB"]
    for port in ("http", "grpc", "observe", "admin"):
        command += [f"--{port}", "127.0.0.1:0"]
    with (folder / "serve.log").open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise SystemExit((folder / "serve.log").read_text()[-3000:])
        yield json.loads(line)
    finally:
        process.terminate()
        process.wait(60)


def difference(address: str, subject: Subject) -> float:
    """How far the device's answers are from the processor's at most."""
    connection = http.client.HTTPConnection(address)
    worst = 0.0
    for seed, rows in enumerate((1, 2, 3, 7, 16, 33, 64)):
        request = request_for(subject, rows, seed)
        answers = [
            ask(connection, f"/v2/models/{subject.name}/versions/{version}/infer", request)
            for version in ("device", "processor")
        ]
        scale = float(np.abs(answers[1]).max())
        worst = max(worst, float(np.abs(answers[0] - answers[1]).max()) / max(scale, 1e-9))
    return worst


def alone(model: Path, device: str, seconds: float) -> dict[str, dict[str, float]]:
    """What ONNX Runtime alone reaches, by batch size."""
    provider = "CPUExecutionProvider" if device == "cpu" else "CUDAExecutionProvider"
    command = [sys.executable, "-m", "benches.gpu.session_loop", str(model), provider, str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    found: dict[str, dict[str, float]] = json.loads(done.stdout)
    return found


def compare(
    address: str, subject: Subject, loop: dict[str, dict[str, float]], folder: Path, seconds: float
) -> list[str]:
    """The section of one model."""
    path = f"/v2/models/{subject.name}/versions/device/infer"
    content = folder / "request.body"
    far = difference(address, subject)
    lines = [
        f"## {subject.name}",
        "",
        f"Differs from the processor by at most {far:.2g} of the largest value.",
        "",
    ]
    lines += [
        "| rows a request | loop rows/s | Headgate rows/s | ratio | loop p50 us | Headgate p50 us, one connection |"
    ]
    lines += ["|---:|---:|---:|---:|---:|---:|"]
    for size in SIZES:
        request, peer = request_for(subject, size), loop[str(size)]
        one = load(address, path, content, request, 1, seconds)
        many = load(address, path, content, request, BUSY, seconds)
        cells = [f"{peer['rows']:,.0f}", f"{many.rows:,.0f}", f"{many.rows / peer['rows']:.2f}"]
        cells += [f"{peer['p50_us']:,.0f}", f"{one.p50_us:,.0f}"]
        lines.append(f"| {size} | " + " | ".join(cells) + " |")
    batched = load(address, path, content, request_for(subject, 1), CONNECTIONS, seconds)
    share = batched.rows / max(peer["rows"] for peer in loop.values())
    lines += [
        "",
        f"One row a request, {CONNECTIONS} connections: {batched.rows:,.0f} rows/s, {share:.2f} of the loop's best.",
    ]
    return [*lines, ""]


def facts(device: str) -> list[str]:
    """What it was taken on."""
    about = {"cores": str(len(os.sched_getaffinity(0))), "headgate": headgate.__version__}
    if device != "cpu":
        query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        about["device"] = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    return [*(f"- {key}: {value}" for key, value in about.items()), ""]


def main() -> None:
    """The command line; about three minutes."""
    parser = argparse.ArgumentParser(description="Measures a device against ONNX Runtime alone.")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each single run (default 3)")
    arguments = parser.parse_args()
    device, seconds = arguments.device, arguments.seconds
    subjects = [mlp(1024), resnet(64)]
    lines = [f"# {device}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC", ""]
    lines += [
        "Rows a second and medians in microseconds, over HTTP with binary tensors, against a loop that copies in, runs"
    ]
    lines += [f"bound inputs and outputs, and copies out. Throughput is with {BUSY} connections.", ""]
    with tempfile.TemporaryDirectory(prefix="headgate-gpu-") as name:
        folder = Path(name)
        loops = {}
        for subject in subjects:
            model = folder / "models" / subject.name / "1" / "model.onnx"
            model.parent.mkdir(parents=True)
            onnx.save(subject.model, model)
            loops[subject.name] = alone(model, device, seconds)
        with serving(folder, device, subjects) as addresses:
            for subject in subjects:
                lines += compare(addresses["http"], subject, loops[subject.name], folder, seconds)
    text = "\n".join([*lines, *facts(device)])
    print(text)
    if device != "cpu":
        (ROOT / "benches" / "results" / f"{datetime.now(UTC):%Y-%m-%d}-gpu.md").write_text(text)


if __name__ == "__main__":
    main()

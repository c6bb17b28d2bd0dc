"""A version on a device: does it answer what the processor answers, how many rows a second, how long for one.

wrk over loopback with binary tensors, against ``session_loop`` in the same run. Requests of as many
rows as the loop runs at a time compare like with like; requests of one row over many connections show what batching gives.
Wrong answers make it fail, when the report is written. Next: ``answers``, ``corners``, ``session_loop``.
"""

from __future__ import annotations

import argparse
import http.client
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx

import headgate
from benches.batches import Subject, mlp, resnet
from benches.clients import need
from benches.gpu.answers import Apart, Request, apart, ask, furthest, request_of
from benches.gpu.corners import Corner, corners

ROOT = Path(__file__).resolve().parents[2]
CLIENT_THREADS = 4
BUSY = 8
CONNECTIONS = 64
BATCHES: dict[str, object] = {"max_batch": 64, "buckets": [1, 2, 4, 8, 16, 32, 64]}
CHECKED_ROWS = (1, 2, 3, 7, 16, 20, 33, 64)
"""Every bucket, full and with room."""
UNMEASURED_SECONDS = 2
"""Of each load before it is measured, at most: a shape's first runs pay for memory, plans and kernels."""
LOG_END = 3000

Loop = dict[str, dict[str, dict[str, float]]]
"""By batch size and way: see ``session_loop``."""


@dataclass(frozen=True)
class Measured:
    """Rows a second of all clients together, and the median of one request in microseconds."""

    rows: float
    p50_us: float


@dataclass(frozen=True)
class Bench:
    """Where everything is and how long each run takes."""

    folder: Path
    device: str
    seconds: float

    def model(self, name: str) -> Path:
        """The model's file."""
        return self.folder / "models" / name / "1" / "model.onnx"

    def save(self, name: str, model: onnx.ModelProto, warmup: str | None = None) -> None:
        """Lays a model out as the document names it."""
        path = self.model(name)
        path.parent.mkdir(parents=True)
        onnx.save(model, path)
        if warmup is not None:
            path.with_name("warmup.json").write_text(warmup)

    def document(self, name: str, run: dict[str, object]) -> str:
        """An endpoint with a version on the device, and one on the processor."""
        model = f"file:models/{name}/1"
        versions = {
            "device": {"model": model, "run": {"device": self.device, **run}},
            "processor": {"model": model, "run": {"placement": "pool"}},
        }
        document = {"apiVersion": "headgate/v1", "kind": "Endpoint", "name": name, "versions": versions}
        return json.dumps({**document, "traffic": {"champion": "device"}}) + "\n---\n"


def output_of(command: Sequence[str]) -> str:
    """What a program prints; ends with the program's own words when it fails."""
    environment = os.environ | {"ORT_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
    if done.returncode:
        words = done.stdout[-LOG_END:] + done.stderr[-LOG_END:]
        raise SystemExit(f"{' '.join(command)}\nended with {done.returncode}:\n{words}")
    sys.stderr.write(done.stderr)
    return done.stdout


def rows_of(subject: Subject, rows: int, seed: int = 3) -> Request:
    """Random rows."""
    values = np.random.default_rng(seed).normal(size=(rows, *subject.row)).astype(np.float32)
    return request_of({"X": values})


def load(url: str, content: Path, request: Request, connections: int, seconds: float) -> Measured:
    """Asks over some connections, each as soon as its answer is there; a while unmeasured first."""
    content.write_bytes(request.body)
    command = ["wrk", "--threads", str(min(connections, CLIENT_THREADS)), "--connections", str(connections)]
    command += ["--timeout", "20s", "--script", str(ROOT / "benches" / "peers" / "post.lua")]
    for name, value in request.headers.items():
        command += ["--header", f"{name}: {value}"]
    whole = max(round(seconds), 1)
    for duration in (min(whole, UNMEASURED_SECONDS), whole):
        printed = output_of([*command, "--duration", f"{duration}s", url, "--", str(content)])
        outcome = json.loads(printed.splitlines()[-1])
        if outcome["failed"] or not outcome["requests"]:
            raise SystemExit(f"{url}: {outcome}")
    return Measured(request.rows * outcome["requests"] / (outcome["microseconds"] / 1e6), outcome["p50_us"])


@contextmanager
def serving(folder: Path, documents: str) -> Iterator[str]:
    """A gateway; its address. When something fails, what it logged last is shown."""
    (folder / "gpu.yaml").write_text(documents)
    command = [sys.executable, "-m", "headgate", "serve", str(folder / "gpu.yaml"), "--root", str(folder)]
    command += ["--state", str(folder / "state"), "--sketches", "off", "--max-body", "256MiB"]
    for port in ("http", "grpc", "observe", "admin"):
        command += [f"--{port}", "127.0.0.1:0"]
    path = folder / "serve.log"
    with path.open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            raise SystemExit("headgate serve did not start")
        yield json.loads(line)["http"]
    except BaseException:
        sys.stderr.write(path.read_text()[-LOG_END:])
        raise
    finally:
        process.terminate()
        process.wait(60)
        process.stdout.close()


def distances(address: str, name: str, requests: Sequence[Request], *, exact: bool = False) -> list[Apart]:
    """How far the device's answers are from the processor's at most, by output."""
    found: list[Apart] = []
    with closing(http.client.HTTPConnection(address)) as connection:
        for request in requests:
            device, processor = (
                ask(connection, f"/v2/models/{name}/versions/{version}/infer", request)
                for version in ("device", "processor")
            )
            found += apart(device, processor, exact=exact)
    return furthest(found)


def check(address: str, subjects: Sequence[Subject], odd: Sequence[Corner]) -> dict[str, list[Apart]]:
    """How far each model is away."""
    found = {}
    for subject in subjects:
        requests = [rows_of(subject, rows, seed) for seed, rows in enumerate(CHECKED_ROWS)]
        found[subject.name] = distances(address, subject.name, requests)
    for corner in odd:
        requests = [request_of(one) for one in corner.requests]
        found[corner.name] = distances(address, corner.name, requests, exact=True)
    return found


def measure(address: str, subject: Subject, loop: Loop, bench: Bench) -> list[str]:
    """The section of one model."""
    url = f"http://{address}/v2/models/{subject.name}/versions/device/infer"
    content = bench.folder / "request.body"
    lines = [f"## {subject.name}", ""]
    lines += [
        "| rows a request | loop rows/s | two loops rows/s | Headgate rows/s | to the loop | to the two "
        "| loop p50 us | Headgate p50 us, one connection |"
    ]
    lines += ["|---:|---:|---:|---:|---:|---:|---:|---:|"]
    for size, ways in loop.items():
        (serial, two), request = ways.values(), rows_of(subject, int(size))
        one = load(url, content, request, 1, bench.seconds)
        many = load(url, content, request, BUSY, bench.seconds)
        cells = [f"{each:,.0f}" for each in (serial["rows"], two["rows"], many.rows)]
        cells += [f"{many.rows / peer['rows']:.2f}" for peer in (serial, two)]
        cells += [f"{each:,.0f}" for each in (serial["p50_us"], one.p50_us)]
        lines.append(f"| {size} | " + " | ".join(cells) + " |")
    batched = load(url, content, rows_of(subject, 1), CONNECTIONS, bench.seconds)
    best = max(way["rows"] for ways in loop.values() for way in ways.values())
    lines += [
        "",
        f"One row a request, {CONNECTIONS} connections: {batched.rows:,.0f} rows/s, {batched.rows / best:.2f} of "
        "the best of all loops.",
    ]
    return [*lines, ""]


def verdict(checked: dict[str, list[Apart]]) -> list[str]:
    """The section about right answers."""
    lines = [
        "## Answers",
        "",
        "How far from the processor's at most, as a share of the largest magnitude.",
        "",
    ]
    for name, found in checked.items():
        told = "; ".join(f"{one}{': WRONG' if one.wrong else ''}" for one in found)
        lines.append(f"- {name}: {told}")
    return [*lines, ""]


def facts(device: str) -> list[str]:
    """What it is taken on."""
    about = {"cores": str(len(os.sched_getaffinity(0))), "headgate": headgate.__version__}
    for wheel in ("onnxruntime", "onnxruntime-gpu"):
        for one in importlib.metadata.distributions(name=wheel):
            about[wheel] = one.version
    if device != "cpu" and shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        about["device"] = output_of(query).strip()
    return [f"- {key}: {value}" for key, value in about.items()]


def report(bench: Bench) -> tuple[str, list[str]]:
    """The report, and which models answer wrongly."""
    subjects, odd = [mlp(1024), resnet(64)], corners()
    about = facts(bench.device)
    documents = ""
    for subject in subjects:
        bench.save(subject.name, subject.model)
        documents += bench.document(subject.name, BATCHES)
    for corner in odd:
        bench.save(corner.name, corner.model, corner.warmup())
        documents += bench.document(corner.name, corner.run)
    loops: dict[str, Loop] = {}
    for subject in subjects:
        command = [sys.executable, "-m", "benches.gpu.session_loop", str(bench.model(subject.name))]
        loops[subject.name] = json.loads(output_of([*command, bench.device, str(bench.seconds)]))
    lines = [f"# {bench.device}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC", ""]
    lines += [
        "Rows a second and medians in microseconds, over HTTP with binary tensors, against ONNX Runtime's Python loop that copies"
        " in, runs bound inputs and outputs, and copies out; by one thread, and by two over one session. Throughput is with"
        f" {BUSY} connections. Headgate's times contain HTTP, the client and the reading and writing of requests.",
        "",
    ]
    with serving(bench.folder, documents) as address:
        checked = check(address, subjects, odd)
        answers = verdict(checked)
        # Known at once, whatever becomes of the loads.
        print("\n".join(answers), file=sys.stderr, flush=True)
        lines += answers
        for subject in subjects:
            lines += measure(address, subject, loops[subject.name], bench)
    wrong = [f"{name}: {one}" for name, found in checked.items() for one in found if one.wrong]
    return "\n".join([*lines, *about, ""]), wrong


def main() -> None:
    """The command line; about five minutes."""
    parser = argparse.ArgumentParser(description="Measures a device against ONNX Runtime alone.")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each single run (default 3)")
    arguments = parser.parse_args()
    need("wrk")
    with tempfile.TemporaryDirectory(prefix="headgate-gpu-") as name:
        text, wrong = report(Bench(Path(name), arguments.device, arguments.seconds))
    print(text)
    if arguments.device != "cpu":
        (ROOT / "benches" / "results" / f"{datetime.now(UTC):%Y-%m-%d}-gpu.md").write_text(text)
    if wrong:
        raise SystemExit("answers differ from the processor's by more than is allowed: " + "; ".join(wrong))


if __name__ == "__main__":
    main()

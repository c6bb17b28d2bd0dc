"""``make bench-wires``: gRPC against a bare tonic echo, a large image in binary over REST and gRPC, many floats in JSON.

The server is pinned to one core and the client to another; rounds are interleaved. Versions are constants, so that the
wire is what costs. CPU time is the server's, user and system. Not here: small JSON requests (``macro``).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from benches.report import machine
from benches.servers import ROOT, Launcher, Server

ECHO = ROOT / "target" / "peers" / "release" / "tonic-echo"
PATH = "/inference.GRPCInferenceService/ModelInfer"
SIDE = 224
ELEMENTS = 3 * SIDE * SIDE
"""An image: 150 528 numbers, 602 112 bytes as FP32."""

DOCUMENT = """
apiVersion: headgate/v1
kind: Endpoint
name: {name}
versions:
  "1": "file:models/{name}/1"
  constant: {{constant: {{Y: 0.5}}}}
traffic: {{champion: "1", weights: {{constant: 100%}}}}
---
"""


@dataclass(frozen=True)
class Load:
    """One thing that is measured: whom it asks, with which bytes, and how."""

    name: str
    server: Server
    run: Callable[[Path, str, int, int], int]
    """Sends requests and returns how many were answered: body, address, client core, seconds."""
    body: Path
    body_bytes: int


def model(folder: Path, name: str, width: list[int]) -> None:
    """X FP32 [n, *width] -> Y FP32 [n]: the champion whose signature the constant takes over."""
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", ["X"], ["Y"], axes=list(range(1, 1 + len(width))), keepdims=0)],
        name,
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["n", *width])],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, ["n"])],
    )
    path = folder / "models" / name / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


# === the requests ===


def varint(value: int) -> bytes:
    """A whole number as protobuf writes it."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def blob(number: int, content: bytes) -> bytes:
    """A field with its length in front."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def grpc_body(name: str, values: np.ndarray) -> bytes:
    """A ``ModelInferRequest`` with its prefix."""
    shape = b"".join(varint(dim) for dim in values.shape)
    tensor = blob(1, b"X") + blob(2, b"FP32") + blob(3, shape)
    message = blob(1, name.encode()) + blob(5, tensor) + blob(7, values.tobytes())
    return struct.pack(">BI", 0, len(message)) + message


def rest_head(values: np.ndarray) -> dict[str, object]:
    """An input of a REST request, its elements aside."""
    return {"name": "X", "datatype": "FP32", "shape": list(values.shape)}


# === the clients ===


def h2load(body: Path, address: str, core: int, seconds: int) -> int:
    """8 connections with 16 streams each; every call must end with status 200."""
    command = [
        "taskset",
        "--cpu-list",
        str(core),
        "h2load",
        "-c",
        "8",
        "-m",
        "16",
        "-t",
        "1",
        "-D",
        str(seconds),
    ]
    command += [
        "-d",
        str(body),
        "-H",
        "content-type: application/grpc",
        "-H",
        "te: trailers",
        f"http://{address}{PATH}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=True)
    found = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", done.stdout)
    if found is None or int(found[2]) or int(found[3]) or not int(found[1]):
        raise SystemExit(f"h2load: {done.stdout}")
    return int(found[1])


def wrk(path: str, header: str) -> Callable[[Path, str, int, int], int]:
    """8 connections posting one body; ``header`` is the length of its JSON, or empty."""

    def run(body: Path, address: str, core: int, seconds: int) -> int:
        script = ROOT / "benches" / "peers" / "post.lua"
        command = ["taskset", "--cpu-list", str(core), "wrk", "--threads", "1", "--connections", "8"]
        command += ["--duration", f"{seconds}s", "--timeout", "10s", "--script", str(script)]
        if header:
            command += ["--header", f"Inference-Header-Content-Length: {header}"]
        command += [f"http://{address}{path}", "--", str(body)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=True)
        outcome = json.loads(done.stdout.splitlines()[-1])
        if outcome["failed"] or not outcome["requests"]:
            raise SystemExit(f"wrk: {outcome}")
        return int(outcome["requests"])

    return run


# === what is compared ===


def start_echo(launcher: Launcher) -> Server:
    """The bare tonic server."""
    process = launcher.run([str(ECHO)], "echo")
    assert process.stdout is not None
    return Server("tonic echo", process, process.stdout.readline().strip())


def start_headgate(launcher: Launcher) -> Server:
    """Headgate with one IO thread and two constant versions."""
    document = launcher.folder / "wires.yaml"
    document.write_text("".join(DOCUMENT.format(name=name) for name in ("small", "image")))
    return Server("Headgate", *launcher.serve(document, "headgate", "--sketches", "off"))


def loads(folder: Path, echo: Server, headgate: Server) -> Iterator[Load]:
    """Everything that is measured, peers beside each other."""
    random = np.random.default_rng(7)
    small = random.normal(size=(1, 64)).astype(np.float32)
    image = random.normal(size=(1, 3, SIDE, SIDE)).astype(np.float32)

    def load(name: str, server: Server, run: Callable[[Path, str, int, int], int], content: bytes) -> Load:
        path = folder / f"{re.sub('[^a-z0-9]+', '-', name.lower())}.body"
        path.write_bytes(content)
        return Load(name, server, run, path, len(content))

    body = grpc_body("small", small)
    yield load("gRPC, 64 numbers: tonic echo", echo, h2load, body)
    yield load("gRPC, 64 numbers: Headgate", headgate, h2load, body)
    body = grpc_body("image", image)
    yield load("gRPC, image: tonic echo", echo, h2load, body)
    yield load("gRPC, image: Headgate", headgate, h2load, body)
    head = rest_head(image) | {"parameters": {"binary_data_size": image.nbytes}}
    text = json.dumps({"inputs": [head]}).encode()
    path = "/v2/models/image/infer"
    yield load("REST, image in binary", headgate, wrk(path, str(len(text))), text + image.tobytes())
    # Shortest form, as JavaScript and Rust write singles; Python's json writes the doubles that they are.
    numbers = [float(np.format_float_positional(value, unique=True)) for value in image.ravel()]
    texts = ",".join(np.format_float_positional(value, unique=True) for value in image.ravel())
    content = json.dumps({"inputs": [rest_head(image) | {"data": []}]}).replace("[]}]}", f"[{texts}]}}]}}")
    assert len(numbers) == ELEMENTS
    yield load("REST, image in JSON", headgate, wrk(path, ""), content.encode())


@dataclass(frozen=True)
class Result:
    """One load in one round."""

    load: str
    round: int
    per_second: float
    cpu_us: float


def measure(load: Load, number: int, core: int, seconds: int) -> Result:
    """One run of one load."""
    before = load.server.cpu_seconds()
    answered = load.run(load.body, load.server.address, core, seconds)
    spent = load.server.cpu_seconds() - before
    return Result(load.name, number, answered / seconds, spent * 1e6 / answered)


def report(results: list[Result], everything: list[Load], facts: dict[str, object]) -> str:
    """Medians, and the ratios that matter, taken within a round."""
    of: dict[str, list[Result]] = {
        load.name: [r for r in results if r.load == load.name] for load in everything
    }
    lines = [f"# wires, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC", ""]
    lines += [
        "Constant versions, sketches off, one IO thread. Medians over interleaved rounds; ratios within a round.",
        "",
    ]
    lines += [
        "| load | body bytes | requests/s | CPU us/request | MB/s of CPU time |",
        "|---|---:|---:|---:|---:|",
    ]
    for load in everything:
        rate = statistics.median(r.per_second for r in of[load.name])
        cpu = statistics.median(r.cpu_us for r in of[load.name])
        lines.append(
            f"| {load.name} | {load.body_bytes:,} | {rate:,.0f} | {cpu:,.2f} | {load.body_bytes / cpu:,.0f} |"
        )
    lines.append("")
    for kind in ("64 numbers", "image"):
        ours, peer = of[f"gRPC, {kind}: Headgate"], of[f"gRPC, {kind}: tonic echo"]
        rate = statistics.median(a.per_second / b.per_second for a, b in zip(ours, peer, strict=True))
        cpu = statistics.median(b.cpu_us / a.cpu_us for a, b in zip(ours, peer, strict=True))
        lines.append(f"- gRPC, {kind}: {rate:.2f} of the echo's requests/s, {cpu:.2f} by CPU time")
    lines += ["", *(f"- {name}: {value}" for name, value in facts.items()), ""]
    return "\n".join(lines)


def main() -> None:
    """The command line; without options about three minutes."""
    parser = argparse.ArgumentParser(description="Measures the wires of Headgate.")
    parser.add_argument("--seconds", type=int, default=3, help="of each single run (default 3)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, each with every load (default 5)")
    parser.add_argument("--only", default="", help="loads whose name has this in it")
    arguments = parser.parse_args()
    for program in ("h2load", "wrk", "taskset"):
        if shutil.which(program) is None:
            raise SystemExit(
                f"the bench needs {program}; on Debian: apt-get install nghttp2-client wrk util-linux"
            )
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="headgate-wires-") as name:
        folder = Path(name)
        model(folder, "small", [64])
        model(folder, "image", [3, SIDE, SIDE])
        launcher = Launcher(cores[0], folder)
        servers = [start_echo(launcher), start_headgate(launcher)]
        try:
            everything = list(loads(folder, *servers))
            wanted = [load for load in everything if arguments.only in load.name]
            results = []
            for load in wanted:
                measure(load, 0, cores[-1], 1)
            for number in range(1, arguments.rounds + 1):
                for place in range(len(wanted)):
                    result = measure(
                        wanted[(place + number) % len(wanted)], number, cores[-1], arguments.seconds
                    )
                    print(
                        f"round {number}  {result.load:<32} {result.per_second:>10,.0f}/s  {result.cpu_us:>9.2f} us CPU",
                        file=sys.stderr,
                        flush=True,
                    )
                    results.append(result)
        finally:
            for server in servers:
                server.stop()
    if arguments.only:
        return
    facts = machine() | {
        "server core": cores[0],
        "client core": cores[-1],
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
    }
    text = report(results, everything, facts)
    (ROOT / "benches" / "results" / f"{datetime.now(UTC):%Y-%m-%d}-wires.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

"""``make bench-batches``: rows asked for one by one over 64 connections, batched by Headgate, against ONNX Runtime alone.

C is the CPU time of a row in a loop over the session at its best batch size, H the CPU time of a request to a constant
version with the same body. What a gateway can reach at best is C + H for a request; the ratio is that over what it took.
Server and loop are pinned to the same core, the client, which never sleeps, to another; rounds are interleaved.
Next: ``clients``, ``peers/session_loop``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benches.clients import Ask, Outcome, awake, need
from benches.report import machine
from benches.servers import ROOT, Launcher, Server

CONNECTIONS = 64
DOCUMENT = """
apiVersion: headgate/v1
kind: Endpoint
name: {name}
versions:
  batched: {{model: "file:models/{name}/1", run: {{max_batch: {max_batch}, arena: {arena}}}}}
  alone: {{model: "file:models/{name}/1", run: {{placement: pool, arena: {arena}}}}}
  constant: {{constant: {{Y: 0.5}}}}
traffic: {{champion: batched}}
---
"""


@dataclass(frozen=True)
class Subject:
    """A model that is asked for row by row."""

    name: str
    model: onnx.ModelProto
    row: tuple[int, ...]
    max_batch: int
    arena: bool
    """Whether the session keeps its memory: worth it where intermediate results are large."""


def initializer(random: np.random.Generator, name: str, shape: Sequence[int]) -> onnx.TensorProto:
    """Small random weights."""
    values = random.normal(scale=1 / np.sqrt(np.prod(shape[1:])), size=shape)
    return numpy_helper.from_array(values.astype(np.float32), name)


def finished(
    nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto], row: Sequence[int]
) -> onnx.ModelProto:
    """A model from X FP32 [n, *row] to Y FP32 [n, 10]."""
    graph = helper.make_graph(
        nodes,
        "bench",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["n", *row])],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, ["n", 10])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def mlp(width: int) -> Subject:
    """64 -> width -> width -> 10 with ReLU."""
    random = np.random.default_rng(7)
    sizes, nodes, weights = (64, width, width, 10), [], []
    for layer, (before, after) in enumerate(itertools.pairwise(sizes)):
        weights.append(initializer(random, f"w{layer}", (after, before)))
        out = "Y" if after == 10 else f"h{layer}"
        made = out if after == 10 else f"g{layer}"
        source = "X" if layer == 0 else f"h{layer - 1}"
        nodes.append(helper.make_node("Gemm", [source, f"w{layer}"], [made], transB=1))
        if after != 10:
            nodes.append(helper.make_node("Relu", [made], [out]))
    return Subject(f"mlp{width}", finished(nodes, weights, (64,)), (64,), 64, False)


def resnet(side: int) -> Subject:
    """As ResNet-18 is built (He et al., 2015), without normalisation and with random weights: 11 million of them."""
    random = np.random.default_rng(7)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def conv(source: str, before: int, after: int, kernel: int, stride: int) -> str:
        name = f"c{len(weights)}"
        weights.append(initializer(random, f"{name}.w", (after, before, kernel, kernel)))
        pad = kernel // 2
        attributes = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4}
        nodes.append(helper.make_node("Conv", [source, f"{name}.w"], [name], **attributes))
        return name

    def relu(source: str) -> str:
        nodes.append(helper.make_node("Relu", [source], [f"{source}.r"]))
        return f"{source}.r"

    out = relu(conv("X", 3, 64, 7, 2))
    pool = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    nodes.append(helper.make_node("MaxPool", [out], ["pooled"], **pool))
    out, channels = "pooled", 64
    for after, stride in ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)):
        short = out if stride == 1 and channels == after else conv(out, channels, after, 1, stride)
        long = conv(relu(conv(out, channels, after, 3, stride)), after, after, 3, 1)
        nodes.append(helper.make_node("Add", [long, short], [f"{long}.sum"]))
        out, channels = relu(f"{long}.sum"), after
    weights.append(initializer(random, "head", (10, 512)))
    nodes.append(helper.make_node("GlobalAveragePool", [out], ["mean"]))
    nodes.append(helper.make_node("Flatten", ["mean"], ["flat"]))
    nodes.append(helper.make_node("Gemm", ["flat", "head"], ["Y"], transB=1))
    return Subject(f"resnet18-{side}", finished(nodes, weights, (3, side, side)), (3, side, side), 32, True)


def body(subject: Subject) -> tuple[bytes, int]:
    """A request for one row in binary, and the length of its JSON."""
    values = np.random.default_rng(3).normal(size=(1, *subject.row)).astype(np.float32)
    head: dict[str, Any] = {"name": "X", "datatype": "FP32", "shape": list(values.shape)}
    head["parameters"] = {"binary_data_size": values.nbytes}
    text = json.dumps({"inputs": [head]}).encode()
    return text + values.tobytes(), len(text)


@dataclass(frozen=True)
class Load:
    """One version of one subject, and a request for it."""

    subject: str
    version: str
    path: Path
    json_length: int

    def ask(self, core: int, seconds: int) -> Ask:
        """The request on all connections."""
        path = f"/v2/models/{self.subject}/versions/{self.version}/infer"
        length = f"Inference-Header-Content-Length: {self.json_length}"
        return Ask(path, self.path, CONNECTIONS, seconds, core, (length,))


def loop(model: Path, core: int) -> dict[int, float]:
    """CPU microseconds of a row by batch size, of ONNX Runtime alone."""
    command = ["taskset", "--cpu-list", str(core), sys.executable]
    command += [str(ROOT / "benches" / "peers" / "session_loop.py"), str(model)]
    environment = os.environ | {"ORT_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return {int(size): ns / 1e3 for size, ns in json.loads(done.stdout).items()}


def start(launcher: Launcher, subjects: Sequence[Subject]) -> Server:
    """Headgate with one IO thread and one pool thread on the server's core."""
    documents = [
        DOCUMENT.format(name=one.name, max_batch=one.max_batch, arena=str(one.arena).lower())
        for one in subjects
    ]
    document = launcher.folder / "batches.yaml"
    document.write_text("".join(documents))
    return Server("Headgate", *launcher.serve(document, "headgate", "--sketches", "off"))


@dataclass
class Round:
    """All of one subject in one round."""

    loop: dict[int, float]
    by_version: dict[str, Outcome]

    @property
    def best(self) -> tuple[int, float]:
        """The batch size at which a row costs least, and what it costs."""
        return min(self.loop.items(), key=lambda item: item[1])

    @property
    def reached(self) -> float:
        """(C + H) over the CPU time of a batched request."""
        return (self.best[1] + self.by_version["constant"].cpu_us) / self.by_version["batched"].cpu_us


def report(rounds: dict[str, list[Round]], facts: dict[str, object]) -> str:
    """Medians over the rounds."""
    lines = [f"# batches, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC", ""]
    lines += [
        f"One row a request in binary, {CONNECTIONS} connections, sketches off; CPU time in microseconds."
    ]
    lines += ["Medians over interleaved rounds; ratios within a round.", ""]
    lines += [
        "| model | C at its best size | C at 1 | H | alone | batched | (C+H)/batched | batched/s | p50, p99 ms |"
    ]
    lines += ["|---|---:|---:|---:|---:|---:|---:|---:|---:|"]
    for name, found in rounds.items():

        def middle(values: Sequence[float]) -> float:
            return statistics.median(values)

        sizes = statistics.mode(one.best[0] for one in found)
        batched = [one.by_version["batched"] for one in found]
        cells = [
            f"{middle([one.best[1] for one in found]):,.1f} ({sizes})",
            f"{middle([one.loop[1] for one in found]):,.1f}",
            *(
                f"{middle([one.by_version[v].cpu_us for one in found]):,.1f}"
                for v in ("constant", "alone", "batched")
            ),
            f"{middle([one.reached for one in found]):.2f}",
            f"{middle([one.per_second for one in batched]):,.0f}",
            f"{middle([one.p50_us for one in batched]) / 1e3:.1f}, {middle([one.p99_us for one in batched]) / 1e3:.1f}",
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", *(f"- {name}: {value}" for name, value in facts.items()), ""]
    return "\n".join(lines)


def main() -> None:
    """The command line; without options about four minutes."""
    parser = argparse.ArgumentParser(description="Measures batches against ONNX Runtime alone.")
    parser.add_argument("--seconds", type=int, default=4, help="of each single run (default 4)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, each with everything (default 5)")
    arguments = parser.parse_args()
    need("taskset")
    cores = sorted(os.sched_getaffinity(0))
    subjects = [mlp(1024), resnet(64)]
    with tempfile.TemporaryDirectory(prefix="headgate-batches-") as name:
        folder = Path(name)
        loads = []
        for subject in subjects:
            model = folder / "models" / subject.name / "1" / "model.onnx"
            model.parent.mkdir(parents=True)
            onnx.save(subject.model, model)
            content, length = body(subject)
            path = folder / f"{subject.name}.body"
            path.write_bytes(content)
            loads += [
                Load(subject.name, version, path, length) for version in ("constant", "alone", "batched")
            ]
        server = start(Launcher(cores[0], folder), subjects)
        rounds: dict[str, list[Round]] = {subject.name: [] for subject in subjects}
        try:
            for load in loads:
                awake(server, load.ask(cores[-1], 1))
            for number in range(arguments.rounds):
                for subject in subjects:
                    alone = loop(folder / "models" / subject.name / "1" / "model.onnx", cores[0])
                    own = [load for load in loads if load.subject == subject.name]
                    own = own[number % 3 :] + own[: number % 3]
                    found = {
                        load.version: awake(server, load.ask(cores[-1], arguments.seconds)) for load in own
                    }
                    rounds[subject.name].append(Round(alone, found))
                    print(number + 1, subject.name, alone, found, file=sys.stderr, flush=True)
        finally:
            server.stop()
    facts = machine() | {"server core": cores[0], "client core": cores[-1], "rounds": arguments.rounds}
    text = report(rounds, facts | {"seconds": arguments.seconds})
    (ROOT / "benches" / "results" / f"{datetime.now(UTC):%Y-%m-%d}-batches.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

"""``make bench-shadows``: what a champion feels of its shadow, when the shadow hangs, always fails, or is as heavy as the champion.

The gateway has one core, wrk and the open loop have another. Each case is a gateway of its own, whose shadow gets a copy of every
request and is switched on and off in turns, so that both sides of a comparison are the same process. Throughput comes from a closed
loop, the p99 from an open loop of at most 1 000 a second; the intervals are bootstrapped over the turns. Read next: ``generator``.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benches import attacks, clients
from benches.batches import mlp
from benches.generator import Generator, Request, at_rate
from benches.report import RESULTS, machine
from benches.servers import Launcher, Server

WIDTH = 256
"""The width of the champion, which then takes some tens of microseconds."""
BUDGET = 0.1
"""The cores that shadows may use."""
SETTLE_SECONDS = 1.0
CLIENT_PER_SECOND = 1_000.0
"""What the open loop, which is written in Python, sends without being late itself."""
DOCUMENT = """
apiVersion: headgate/v1
kind: Endpoint
name: good
versions: {{v1: "file:models/champion", v2: "file:models/{case}"}}
traffic: {{champion: v1, shadow: [{{to: v2, share: 100%, timeout: 10s}}]}}
limits: {{timeout: 20s}}
"""
BODY = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 64], "data": [0.5] * 64}]}
QUIET = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 64], "data": [0.0] * 64}]}
"""What a model is warmed up with: with zeros, no model hangs or fails."""


def champion() -> onnx.ModelProto:
    """The champion's model, and that of a shadow as heavy."""
    model: onnx.ModelProto = mlp(WIDTH).model
    return model


def failing() -> onnx.ModelProto:
    """The champion's model, whose answer is then looked up at a place that does not exist unless the first input is zero."""
    nodes = [
        helper.make_node("Add", ["turns", "places"], ["looked_up"]),
        helper.make_node("Gather", ["plain", "looked_up"], ["Y"], axis=1),
    ]
    return extended(champion(), nodes)


def hanging() -> onnx.ModelProto:
    """The champion's model, and a loop that takes hours unless the first input is zero."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["on"]),
            helper.make_node("Add", ["v", "one"], ["w"]),
        ],
        "body",
        [
            value("i", TensorProto.INT64, []),
            value("go", TensorProto.BOOL, []),
            value("v", TensorProto.FLOAT, ["n", 10]),
        ],
        [value("on", TensorProto.BOOL, []), value("w", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(np.array(0.0, np.float32), "one")],
    )
    return extended(champion(), [helper.make_node("Loop", ["turns", "go_on", "plain"], ["Y"], body=body)])


def extended(model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto]) -> onnx.ModelProto:
    """``model`` with ``nodes`` after it, which read its answer as ``plain`` and the first input, enlarged, as ``turns``."""
    graph = model.graph
    last = graph.node[-1]
    last.output[0] = "plain"
    graph.node.extend(
        [
            helper.make_node("Gather", ["X", "first"], ["x0"], axis=1),
            helper.make_node("ReduceMax", ["x0"], ["greatest"], keepdims=0),
            helper.make_node("Mul", ["greatest", "large"], ["enlarged"]),
            helper.make_node("Cast", ["enlarged"], ["counted"], to=TensorProto.INT64),
            helper.make_node("Reshape", ["counted", "one_element"], ["turns"]),
            *nodes,
        ]
    )
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.array([0], np.int64), "first"),
            numpy_helper.from_array(np.array(1e12, np.float32), "large"),
            numpy_helper.from_array(np.array([1], np.int64), "one_element"),
            numpy_helper.from_array(np.arange(10, dtype=np.int64), "places"),
            numpy_helper.from_array(np.array(True), "go_on"),
        ]
    )
    onnx.checker.check_model(model)
    return model


CASES: dict[str, Callable[[], onnx.ModelProto]] = {
    "hangs until its deadline of 10 s": hanging,
    "fails always": failing,
    "as heavy as the champion": champion,
}


@dataclass
class Gateway:
    """A running gateway with one endpoint, its admin port and token."""

    server: Server
    admin: str
    token: str

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """One call of the admin API, which must succeed."""
        host, port = self.admin.rsplit(":", 1)
        connection = http.client.HTTPConnection(host, int(port), timeout=attacks.ASK_SECONDS)
        headers = {
            "Authorization": f"Bearer {self.token}",
            "Content-Type": "application/json",
            "If-Match": "*",
        }
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        if answer.status >= 400:
            raise SystemExit(f"{method} {path}: {answer.status} {text}")
        found: dict[str, Any] = json.loads(text)
        return found

    def switch(self, state: str) -> None:
        """Switches the shadow ``on`` or ``off``, and lets what it still does come to its end."""
        self.call("PATCH", "/v1/endpoints/good/traffic", {"shadows": {"v2": state}, "reason": "bench"})
        time.sleep(SETTLE_SECONDS)

    def memory_mib(self) -> float:
        """The resident memory of the process."""
        status = Path(f"/proc/{self.server.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024


@dataclass
class Sides:
    """What was measured with the shadow off and on, one value for each turn."""

    off: list[float] = field(default_factory=list)
    on: list[float] = field(default_factory=list)
    failed: dict[str, int] = field(default_factory=lambda: {"off": 0, "on": 0})
    """Requests that were not answered well, on each side."""

    def ratio(self) -> tuple[float, float, float]:
        """The median ratio of on to off, and its 95 % interval by bootstrap over the turns."""
        ratios = [on / off for on, off in zip(self.on, self.off, strict=True)]
        draw = random.Random(7)
        middles = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(2_000))
        return statistics.median(ratios), middles[49], middles[1949]


def prepare(folder: Path) -> None:
    """The models, each with its warm-up."""
    for number, (name, make) in enumerate({"champion": champion, **CASES}.items()):
        place = folder / "models" / ("champion" if number == 0 else f"case{number}")
        place.mkdir(parents=True)
        model = make()
        model.doc_string = name
        onnx.save(model, place / "model.onnx")
        (place / "warmup.json").write_text(json.dumps(QUIET))


def started(launcher: Launcher, folder: Path, case: str) -> Gateway:
    """A gateway on one core, whose shadow is that case."""
    document = folder / f"{case}.yaml"
    document.write_text(DOCUMENT.format(case=case))
    process, addresses = launcher.serve_all(
        document, case, "--root", str(folder), "--shadow-cpu", f"{BUDGET:.0%}"
    )
    server = Server(case, process, addresses["http"])
    return Gateway(server, addresses["admin"], (folder / case / "admin-token").read_text().strip())


def latency(gateway: Gateway, per_second: float, seconds: float, seed: int) -> tuple[float, int]:
    """The p99 in seconds of an open loop, and how many of its requests were not answered well."""
    request = Request("/v2/models/good/infer", json.dumps(BODY).encode())
    generator = Generator(gateway.server.address, request, wait="sleep", seed=seed)
    outcome = generator.run(at_rate(per_second, seconds))
    return outcome.response(0.99), outcome.answer["counts"]["due"] - outcome.good


def measure(
    gateway: Gateway, ask: clients.Ask, seconds: int, rounds: int
) -> tuple[Sides, Sides, dict[str, Any], float]:
    """Requests a second, p99s, what the shadow counted, and by how many MiB the process grew."""
    rate, p99 = Sides(), Sides()
    gateway.switch("off")
    per_second = min(clients.wrk(gateway.server, ask).per_second / 3, CLIENT_PER_SECOND)
    before = gateway.memory_mib()
    for turn in range(rounds):
        for state in ("off", "on") if turn % 2 else ("on", "off"):
            gateway.switch(state)
            getattr(rate, state).append(clients.wrk(gateway.server, ask).per_second)
            found, failed = latency(gateway, per_second, seconds, turn)
            getattr(p99, state).append(found)
            p99.failed[state] += failed
    gateway.switch("on")
    clients.wrk(gateway.server, ask)
    counted = gateway.call("GET", "/v1/endpoints/good/shadows")["shadows"][0]
    return rate, p99, counted, gateway.memory_mib() - before


def main() -> None:
    """The command line; about six minutes."""
    parser = argparse.ArgumentParser(description="Measures what a champion feels of its shadow.")
    parser.add_argument("--seconds", type=int, default=4, help="of each measurement (default 4)")
    parser.add_argument("--rounds", type=int, default=8, help="of each pair (default 8)")
    arguments = parser.parse_args()
    clients.need("wrk", "taskset")
    cores, facts = sorted(os.sched_getaffinity(0)), machine()
    lines = [
        "| the shadow | requests/s, on / off | 95 % | p99, on / off | 95 % | p99 off ms | failed, off and on "
        "| copies compared, dropped, failed | MiB more |",
        "|---|---:|---|---:|---|---:|---|---|---:|",
    ]
    with tempfile.TemporaryDirectory(prefix="headgate-shadows-") as name:
        folder = Path(name)
        prepare(folder)
        body = folder / "body.json"
        body.write_text(json.dumps(BODY))
        ask = clients.Ask("/v2/models/good/infer", body, 8, arguments.seconds, cores[-1])
        os.sched_setaffinity(0, {cores[-1]})
        for number, case in enumerate(CASES, 1):
            gateway = started(Launcher(cores[0], folder), folder, f"case{number}")
            try:
                rate, p99, counted, grown = measure(gateway, ask, arguments.seconds, arguments.rounds)
            finally:
                gateway.server.stop()
            (r, r_low, r_high), (p, p_low, p_high) = rate.ratio(), p99.ratio()
            dropped, failed = sum(counted["dropped"].values()), sum(counted["errors"].values())
            lines.append(
                f"| {case} | {r:.3f} | {r_low:.3f} to {r_high:.3f} | {p:.2f} | {p_low:.2f} to {p_high:.2f} "
                f"| {statistics.median(p99.off) * 1e3:.2f} | {p99.failed['off']}, {p99.failed['on']} "
                f"| {counted['pairs']}, {dropped}, {failed} | {grown:.0f} |"
            )
            print(lines[-1], flush=True)
    head = f"# shadows, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    said = (
        f"One core for the gateway, of which shadows may use {BUDGET:.0%}; every request is copied. "
        f"{arguments.rounds} turns of {arguments.seconds} s each way."
    )
    text = "\n".join(
        [head, "", said, "", *lines, "", *(f"- {key}: {value}" for key, value in facts.items()), ""]
    )
    (RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-shadows.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

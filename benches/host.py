"""The data plane within the bench's own process, and those who ask it: wrk, and a watcher that compares answers.

Not here: what is measured (``lifecycle``).
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benches.servers import ROOT
from headgate import _native, runtime_library

CONNECTIONS = 16


def tiny(path: Path, factor: float) -> Path:
    """X FP32 [n, 16] -> Y [n, 4]: ``factor`` times the first four, by way of two small layers."""
    first = np.zeros((16, 64), np.float32)
    first[:, :16] = np.eye(16)
    second = np.zeros((64, 4), np.float32)
    second[:4, :4] = factor * np.eye(4)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["X", "first"], ["a"]),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("MatMul", ["b", "second"], ["Y"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["n", 16])],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(values, name) for name, values in (("first", first), ("second", second))],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


BODY = json.dumps(
    {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 16], "data": [1.0] * 16}]}
).encode()


class Host:
    """A data plane with one IO thread."""

    def __init__(self, more: dict[str, Any]) -> None:
        library = str(runtime_library.find().path)
        config = {"http": "127.0.0.1:0", "io_threads": 1, "pool_threads": 1, "library": library, **more}
        self._plane = _native.Gateway(json.dumps(config).encode())
        self.address = json.loads(self._plane.start())["http"]
        self._plane.set_ready(True)
        self._connection = http.client.HTTPConnection(self.address)
        # Whoever gives the orders from here on is not to be what is measured.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)

    def apply(self, name: str, versions: Sequence[tuple[str, str, Path]]) -> None:
        """Serves versions, each a name, a digest and a file; returns when they are served."""
        champion = versions[0][0]
        state = {
            "name": name,
            "revision": 1,
            "spec": {
                "versions": {version: {"digest": digest} for version, digest, _ in versions},
                "traffic": {"champion": champion},
                "limits": {"timeout": 10_000},
            },
            "traffic": {"champion": champion, "last_good": champion},
            "load": {
                "versions": [version for version, _, _ in versions],
                "artifacts": {version: str(path) for version, _, path in versions},
            },
        }
        ticket = self._plane.apply(json.dumps(state).encode())
        while True:
            for event in json.loads(self._plane.events()):
                if event.get("ticket") == ticket:
                    if event["event"] != "applied":
                        raise SystemExit(f"{name}: {event}")
                    return
            time.sleep(0.0002)

    def remove(self, name: str) -> None:
        """Takes an endpoint away."""
        self._plane.remove(name)

    def ask(self, name: str) -> None:
        """One request."""
        self._connection.request("POST", f"/v2/models/{name}/infer", BODY)
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{name}: {answer.status} {content[:300]!r}")

    @property
    def plane(self) -> _native.Gateway:
        """The data plane itself."""
        return self._plane

    def metric(self, name: str) -> int:
        """A metric without labels."""
        families = json.loads(self._plane.metrics())
        found = next(family for family in families if family["name"] == name)
        return int(found["samples"][0][1])

    def settled_rss(self) -> int:
        """Resident memory in bytes, once what was replaced is gone and given back."""
        time.sleep(2.5)
        fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(fields["VmRSS"].split()[0]) * 1024

    def stop(self) -> None:
        """Ends it."""
        self._connection.close()
        self._plane.stop(0, 5_000)


@dataclass(frozen=True)
class Latencies:
    """What wrk saw."""

    requests: int
    failed: int
    p50_us: float
    p99_us: float


@dataclass
class Hammer:
    """A running wrk."""

    process: subprocess.Popen[str]
    body: Any

    def is_running(self) -> bool:
        """Whether it still asks."""
        return self.process.poll() is None

    def wait(self) -> Latencies:
        """Its outcome."""
        text, _ = self.process.communicate()
        outcome = json.loads(text.splitlines()[-1])
        return Latencies(outcome["requests"], outcome["failed"], outcome["p50_us"], outcome["p99_us"])


def hammer(address: str, name: str, seconds: int, core: int) -> Hammer:
    """Starts wrk."""
    body = tempfile.NamedTemporaryFile(suffix=".json")  # noqa: SIM115 -- it lives as long as wrk
    body.write(BODY)
    body.flush()
    command = ["taskset", "--cpu-list", str(core), "wrk", "--threads", "1", "--connections", str(CONNECTIONS)]
    command += ["--duration", f"{seconds}s", "--timeout", "10s"]
    command += ["--script", str(ROOT / "benches" / "peers" / "paced.lua")]
    command += [f"http://{address}/v2/models/{name}/infer", "--", body.name]
    return Hammer(subprocess.Popen(command, stdout=subprocess.PIPE, text=True), body)


@dataclass
class Seen:
    """What a watcher saw."""

    answers: int = 0
    mixed: int = 0
    failed: int = 0


class Watcher:
    """Asks all the time and compares each answer with the version that it names."""

    def __init__(self, address: str, name: str, factors: dict[str, float]) -> None:
        self._seen, self._stop = Seen(), threading.Event()
        self._thread = threading.Thread(target=self._watch, args=(address, name, factors))
        self._thread.start()

    def _watch(self, address: str, name: str, factors: dict[str, float]) -> None:
        connection = http.client.HTTPConnection(address)
        while not self._stop.is_set():
            connection.request("POST", f"/v2/models/{name}/infer", BODY)
            answer = connection.getresponse()
            content = answer.read()
            self._seen.answers += 1
            if answer.status != 200:
                self._seen.failed += 1
                continue
            said = json.loads(content)
            names = {said["model_version"], answer.headers["x-headgate-version"]}
            right = [factors[said["model_version"]]] * 4
            self._seen.mixed += len(names) != 1 or said["outputs"][0]["data"] != right
            time.sleep(0.002)

    def stop(self) -> Seen:
        """Ends it; what it saw."""
        self._stop.set()
        self._thread.join()
        return self._seen

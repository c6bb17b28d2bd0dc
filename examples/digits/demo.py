"""Two rollouts of the digits example in about a minute: a good challenger takes over, and a broken one is gone.

Starts a gateway of its own in a temporary folder, sends it the test images as 200 users, and runs the commands that it prints.
Times of the plan are seconds here; in production they are hours. Not here: what a rollout decides (docs/design/rollouts.md).
Read next: ``prepare.py`` for the models.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from prepare import prepare, request, split

HERE = Path(__file__).resolve().parent
REQUESTS_PER_SECOND = 200
USERS = 200
STOP_SECONDS = 60.0
WATCH_SECONDS = 60.0
DIGITS = """\
apiVersion: headgate/v1
kind: Endpoint
name: digits
versions:
  "1": "file:models/digits/1"        # logistic regression
  "2": "file:models/digits/2"        # a small neural network
  "3": "file:models/digits/3"        # the same, with a fault
traffic:
  champion: "1"
  sticky: header.x-user-id           # a user stays on one version
  fallback: {to: ["1"]}              # answers where a run of another version fails
"""
PLAN = """\
apiVersion: headgate/v1
kind: RolloutPlan
name: quick
steps:
  - {shadow: 100%, for: 3s, min_requests: 300}     # copies alone: nobody sees its answers
  - {weight: 10%, for: 3s, min_requests: 40}
  - {weight: 50%, for: 5s, min_requests: 300}
  - promote
rollback_if: {error_rate: 1.5x}
report: [disagreement]
"""
_PIXEL, _GREYS = 20, 16


def broken(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model behind a table of grey values that lacks the last one: its runs fail for the sixth of the images in which a certain
    pixel has it.
    """
    floats, numbers = TensorProto.FLOAT, TensorProto.INT64
    table = {
        "pixel": np.int64(_PIXEL),
        "greys": np.zeros(_GREYS, np.float32),
    }
    nodes = [
        helper.make_node("Gather", ["X", "pixel"], ["grey"], axis=1),
        helper.make_node("Cast", ["grey"], ["index"], to=numbers),
        helper.make_node("Gather", ["greys", "index"], ["correction"]),
        helper.make_node("Unsqueeze", ["correction", "last"], ["column"]),
        helper.make_node("Add", ["X", "column"], ["corrected"]),
    ]
    constants = {**table, "last": np.asarray([1], np.int64)}
    faulty = onnx.ModelProto()
    faulty.CopyFrom(model)
    for node in faulty.graph.node:
        node.input[:] = ["corrected" if name == "X" else name for name in node.input]
    for node in reversed(nodes):
        faulty.graph.node.insert(0, node)
    faulty.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    )
    faulty.graph.value_info.append(helper.make_tensor_value_info("corrected", floats, ["rows", 64]))
    onnx.checker.check_model(faulty)
    return faulty


class Traffic:
    """Test images from many users at a steady rate until it is left."""

    def __init__(self, address: str) -> None:
        """``address`` is the data port, ``host:port``."""
        self._address = address
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._send)
        self.answered: dict[int, int] = {}
        """Answers by status; 0 is a connection that broke."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()

    def _send(self) -> None:
        _, images, _, _ = split()
        bodies = [request(image) for image in images]
        connection = http.client.HTTPConnection(self._address, timeout=5)
        due = time.monotonic()
        for number, body in enumerate(itertools.cycle(bodies)):
            due += 1 / REQUESTS_PER_SECOND
            if self._stopped.wait(max(0.0, due - time.monotonic())):
                break
            status = _ask(connection, body, f"user-{number * 7919 % USERS}")
            self.answered[status] = self.answered.get(status, 0) + 1
        connection.close()


def _ask(connection: http.client.HTTPConnection, body: str, user: str) -> int:
    try:
        connection.request("POST", "/v2/models/digits/infer", body, {"x-user-id": user})
        answer = connection.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException):
        connection.close()
        return 0
    return answer.status


def models(folder: Path) -> None:
    """The two versions of the example, and the third with a fault."""
    if not (HERE / "models").exists():
        prepare(HERE)
    shutil.copytree(HERE / "models", folder / "models")
    fault = folder / "models" / "digits" / "3" / "model.onnx"
    fault.parent.mkdir()
    good = onnx.load(folder / "models" / "digits" / "2" / "model.onnx")
    fault.write_bytes(broken(good).SerializeToString(deterministic=True))


@contextmanager
def gateway(folder: Path) -> Iterator[dict[str, str]]:
    """A gateway on free ports; its addresses. Its log lies in the folder."""
    ports = [part for port in ("http", "grpc", "observe", "admin") for part in (f"--{port}", "127.0.0.1:0")]
    command = [sys.executable, "-m", "headgate", "serve", "digits.yaml", "--state", "state", *ports]
    with (folder / "log").open("w") as log:
        child = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert child.stdout is not None
        ready = child.stdout.readline()
        if not ready:
            raise SystemExit(f"the gateway did not start:\n{(folder / 'log').read_text()}")
        yield json.loads(ready)
    finally:
        child.terminate()
        try:
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()


class Shell:
    """Prints commands and runs them."""

    def __init__(self, folder: Path) -> None:
        """Commands run in ``folder``, where the gateway's state lies."""
        self._folder = folder
        self._environment = os.environ | {"HEADGATE_STATE": str(folder / "state")}

    def run(self, *arguments: str, codes: Sequence[int] = (0,)) -> None:
        """One command of the command line; ends the demo if it ends with another code."""
        print(f"\n$ headgate {' '.join(_quoted(one) for one in arguments)}", flush=True)
        command = [sys.executable, "-m", "headgate", *arguments]
        try:
            done = subprocess.run(
                command, cwd=self._folder, env=self._environment, timeout=WATCH_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise SystemExit(
                f"the demo ends: the rollout has not ended after {WATCH_SECONDS:.0f} s; is the machine busy with something else?"
            ) from None
        if done.returncode not in codes:
            raise SystemExit(f"the demo ends: this command ended with {done.returncode}, not with {codes[0]}")


def _quoted(word: str) -> str:
    return f'"{word}"' if " " in word else word


def play(folder: Path) -> dict[int, int]:
    """Both rollouts; what the users got, by status."""
    models(folder)
    (folder / "digits.yaml").write_text(DIGITS)
    (folder / "quick.yaml").write_text(PLAN)
    with gateway(folder) as addresses, Traffic(addresses["http"]) as traffic:
        shell = Shell(folder)
        print(f"{USERS} users send {REQUESTS_PER_SECOND} images a second; version 1 answers.\n\nThe plan:\n")
        print(PLAN)
        shell.run("apply", "quick.yaml")
        print("\n# A good challenger")
        shell.run("rollout", "start", "digits", "2", "--plan", "quick", "--reason", "a small neural network")
        shell.run("rollout", "watch", "digits")
        print("\n# A broken one: a sixth of its runs fail")
        shell.run("rollout", "start", "digits", "3", "--plan", "quick", "--reason", "a table of grey values")
        shell.run("rollout", "watch", "digits", codes=(1,))
        print("\n# What is left: who did what, and why")
        shell.run("history", "digits")
    return traffic.answered


def main() -> None:
    """The command line: ``python demo.py``; the exit code is not 0 if a rollout ended otherwise."""
    argparse.ArgumentParser(
        description="Rolls out a good and a broken version of the digits example."
    ).parse_args()
    with tempfile.TemporaryDirectory(prefix="headgate-demo-") as folder:
        answered: dict[Any, int] = dict(play(Path(folder)))
    good = answered.pop(200, 0)
    others = (
        ", ".join(f"{count} with {status}" for status, count in sorted(answered.items())) or "none otherwise"
    )
    print(f"\n{good} requests were answered with 200, {others}.")


if __name__ == "__main__":
    main()

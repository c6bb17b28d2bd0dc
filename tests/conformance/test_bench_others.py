"""``headgate bench`` against servers of others: MLServer over HTTP and gRPC, and a hand-written one. Nothing is timed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from support import environments
from support.bench_command import answered, bench
from support.models import TESTS
from support.tools import need_native

START_SECONDS = 60.0
MODEL = {
    "name": "double",
    "implementation": "conformance.clients.mlserver_double.Double",
    "inputs": [{"name": "X", "datatype": "FP32", "shape": [-1, 4]}],
    "outputs": [{"name": "Y", "datatype": "FP32", "shape": [-1, 4]}],
    "parameters": {"version": "v1"},
}
FIND = ("--slo", "p90=10s", "--start", "300/s", "--highest", "300/s", "--budget", "20s")


@pytest.fixture(scope="module")
def mlserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The addresses of its HTTP and its gRPC port."""
    need_native()
    folder = tmp_path_factory.mktemp("mlserver")
    http, grpc, metrics = free_ports(3)
    settings = {"host": "127.0.0.1", "http_port": http, "grpc_port": grpc, "metrics_port": metrics}
    settings |= {"parallel_workers": 0, "debug": False}
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(MODEL))
    command = ["-c", "from mlserver.cli import main; main()", "start", str(folder)]
    with running(command, folder) as child:
        until_ready(child, f"http://127.0.0.1:{http}/v2/models/double/ready", folder / "log")
        yield f"http://127.0.0.1:{http}", f"http://127.0.0.1:{grpc}"


@pytest.fixture(scope="module")
def starlette(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a hand-written server."""
    need_native()
    folder = tmp_path_factory.mktemp("starlette")
    with running(["-m", "conformance.clients.starlette_server"], folder) as child:
        assert child.stdout is not None
        url = f"http://127.0.0.1:{int(child.stdout.readline())}"
        until_ready(child, f"{url}/v2/health/ready", folder / "log")
        yield url


def free_ports(count: int) -> list[int]:
    """Ports that are free now, for a server that cannot choose them itself."""
    with ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(one.getsockname()[1]) for one in held]


@contextmanager
def running(command: Sequence[str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A server in the environment, which is ended afterwards."""
    with (folder / "log").open("w") as log:
        child = subprocess.Popen(
            [str(environments.python("mlserver")), *command],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(TESTS)},
            stdout=subprocess.PIPE if command[0] == "-m" else log,
            stderr=log,
            text=True,
        )
    with child:
        try:
            yield child
        finally:
            child.kill()


def until_ready(child: subprocess.Popen[str], url: str, log: Path) -> None:
    """Asks until it is ready; fails with its log if it ends or takes too long."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and child.poll() is None:
        try:
            if httpx.get(url, timeout=START_SECONDS).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    pytest.fail(f"the server did not get ready:\n{log.read_text()[-4000:]}", pytrace=False)


def test_a_load_over_http_is_answered(mlserver: tuple[str, str], tmp_path: Path) -> None:
    found = answered(["run", "double", "--rate", "20/s", "--for", "1s", "--url", mlserver[0]], tmp_path)
    assert found["target"]["server_phases"] is False


def test_a_load_over_grpc_is_answered(mlserver: tuple[str, str], tmp_path: Path) -> None:
    words = [
        "--rate",
        "20/s",
        "--for",
        "1s",
        "--protocol",
        "grpc",
        "--url",
        mlserver[0],
        "--grpc-url",
        mlserver[1],
    ]
    found = answered(["run", "double", *words], tmp_path)
    assert found["target"]["server_phases"] is False


def test_a_load_on_a_hand_written_server_is_answered(starlette: str, tmp_path: Path) -> None:
    found = answered(["run", "double", "--rate", "20/s", "--for", "1s", "--url", starlette], tmp_path)
    assert found["target"]["server_phases"] is False


@pytest.mark.parametrize("which", ["mlserver", "starlette"])
def test_a_rate_is_searched(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    given = request.getfixturevalue(which)
    url = given if isinstance(given, str) else given[0]
    code, out, said = bench(["find", "double", *FIND, "--url", url, "--json", "--no-live"], tmp_path)
    assert code in (0, 3), said
    found = json.loads(out)
    assert found["verdict"] in ("pass", "undecided", "client_limited")
    assert found["probes"] or found["verdict"] == "client_limited"

"""``headgate serve --supervise``: the gateway dies, and its clients hardly notice."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import models
from support.client import Connection, open_socket, read_answer
from support.gateway import ANY_PORT_OPTIONS, GatewayProcess
from support.tools import need_native

BODY = {"inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[GatewayProcess]:
    need_native()
    models.place(models.scale(2.0), tmp_path / "models", "scale")
    arguments = ["--models", str(tmp_path / "models"), "--supervise"]
    with GatewayProcess(tmp_path / "state", arguments) as started:
        yield started


def child_of(gateway: GatewayProcess) -> int:
    """The process that serves."""
    (child,) = Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children").read_text().split()
    return int(child)


def started(gateway: GatewayProcess, before: int = 0) -> int:
    """Waits for the next process after ``before`` to begin, and no longer."""
    assert gateway.child is not None
    listed = Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children")
    while True:
        with contextlib.suppress(OSError):
            for child in map(int, listed.read_text().split()):
                environment = Path(f"/proc/{child}/environ").read_bytes()
                # What the parent was a moment ago has other variables.
                if child != before and b"HEADGATE_SUPERVISED=" in environment:
                    return child
        assert gateway.child.poll() is None, gateway.log.read_text()


@contextlib.contextmanager
def beginning(gateway: GatewayProcess) -> Iterator[subprocess.Popen[str]]:
    """A supervised gateway that has begun to start."""
    gateway.stop()
    log = gateway.log.open("w")
    command = [
        sys.executable,
        "-m",
        "headgate",
        "serve",
        *gateway.arguments,
        f"--state={gateway.state}",
        *ANY_PORT_OPTIONS,
    ]
    with log, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as parent:
        gateway.child = parent
        try:
            yield parent
        finally:
            if parent.poll() is None:
                parent.kill()


def next_ready_line(gateway: GatewayProcess) -> dict[str, str]:
    assert gateway.child is not None
    assert gateway.child.stdout is not None
    return dict(json.loads(gateway.child.stdout.readline()))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGFPE])
def test_a_new_process_serves_on_the_same_ports(gateway: GatewayProcess, number: int) -> None:
    first = child_of(gateway)
    os.kill(first, number)
    while Path(f"/proc/{first}").exists():
        pass
    # No port is closed meanwhile: this waits for the next process, and is answered by it.
    with open_socket(gateway.http) as sock, sock.makefile("rb") as stream:
        sock.sendall(b"GET /v2/health/ready HTTP/1.1\r\nHost: t\r\n\r\n")
        assert next_ready_line(gateway) == gateway.addresses
        assert read_answer(stream).status in {200, 503}
    with Connection(gateway.http) as connection:
        assert connection.infer("scale", BODY).json["outputs"][0]["data"] == [2, 4, 6, 8]
    assert "headgate_process_restarts_total 1.0" in gateway.observe("/metrics").text
    assert gateway.observe("/readyz").status_code == 200
    with gateway.admin() as admin:
        assert admin.get("/v1/endpoints")["endpoints"][0]["name"] == "scale"
    assert gateway.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_parent_drains_and_the_exit_code_is_0(gateway: GatewayProcess, number: int) -> None:
    child = child_of(gateway)
    gateway.signal(number)
    assert gateway.child is not None
    assert gateway.child.wait(60) == 0
    assert not Path(f"/proc/{child}").exists()


def test_a_signal_to_the_child_alone_ends_both(gateway: GatewayProcess) -> None:
    os.kill(child_of(gateway), signal.SIGTERM)
    assert gateway.child is not None
    assert gateway.child.wait(60) == 0


@pytest.mark.parametrize("numbers", [[signal.SIGTERM], [signal.SIGINT], [signal.SIGTERM, signal.SIGTERM]])
def test_a_signal_during_the_start_is_a_stop(gateway: GatewayProcess, numbers: list[signal.Signals]) -> None:
    with beginning(gateway) as parent:
        started(gateway)
        for number in numbers:
            parent.send_signal(number)
        assert parent.wait(60) == 0


def test_a_signal_during_a_restart_is_a_stop(gateway: GatewayProcess) -> None:
    first = child_of(gateway)
    os.kill(first, signal.SIGKILL)
    started(gateway, first)
    gateway.signal(signal.SIGTERM)
    assert gateway.child is not None
    assert gateway.child.wait(60) == 0


@pytest.mark.parametrize("ready", [True, False])
def test_the_sixth_death_within_a_minute_is_the_last(gateway: GatewayProcess, ready: bool) -> None:
    with contextlib.nullcontext(gateway.child) if ready else beginning(gateway) as parent:
        assert parent is not None
        child = 0
        for _ in range(6):
            child = started(gateway, child)
            os.kill(child, signal.SIGKILL)
        assert parent.wait(60) == 128 + signal.SIGKILL
    assert "the 6th within 60 s: no new one begins" in gateway.log.read_text()


def test_the_gateway_dies_with_its_parent_and_another_can_start(gateway: GatewayProcess) -> None:
    assert gateway.kill() == -signal.SIGKILL
    gateway.start()
    assert gateway.observe("/readyz").status_code == 200


def test_what_keeps_a_gateway_from_starting_is_told_once(gateway: GatewayProcess, tmp_path: Path) -> None:
    second = GatewayProcess(gateway.state, gateway.arguments)
    with pytest.raises(AssertionError, match=r"exit code (2|3)"):
        second.start()
    assert gateway.observe("/readyz").status_code == 200

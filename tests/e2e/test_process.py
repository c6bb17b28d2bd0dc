"""One process from start to end: signals, exit codes, the lock on the state folder, what a restart serves."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from support import models
from support.client import Connection, infer_bytes, open_socket, until_closed
from support.gateway import ANY_PORT_OPTIONS, STOP_SECONDS, GatewayProcess
from support.tools import need_native


def in_flight(gateway: GatewayProcess) -> float:
    """How many requests are being answered, as the metrics say."""
    lines = gateway.observe("/metrics").text.splitlines()
    return sum(
        float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("headgate_requests_in_flight")
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_the_exit_code_is_0(digits: GatewayProcess, number: int) -> None:
    digits.signal(number)
    assert digits.child is not None
    assert digits.child.wait(STOP_SECONDS) == 0


def test_a_signal_that_a_wrapper_sends_twice_is_one(digits: GatewayProcess) -> None:
    digits.signal(signal.SIGINT)
    digits.signal(signal.SIGTERM)
    assert digits.child is not None
    assert digits.child.wait(STOP_SECONDS) == 0


def test_an_open_event_stream_does_not_hold_up_the_end(digits: GatewayProcess) -> None:
    with digits.admin() as admin, admin.http.stream("GET", "/v1/events") as stream:
        assert stream.status_code == 200
        assert digits.stop() == 0


def test_an_event_tells_of_a_change_of_traffic(digits: GatewayProcess) -> None:
    with (
        digits.admin() as reader,
        digits.admin() as writer,
        reader.http.stream("GET", "/v1/events") as stream,
    ):
        revision = writer.set_weights("digits", {"2": "20%"})["revision"]
        for line in stream.iter_lines():
            if line.startswith("data:"):
                event = json.loads(line.removeprefix("data:"))
                if event["type"] == "applied" and event["revision"] == revision:
                    assert event["data"]["weights"] == {"2": "20%"}
                    return
    raise AssertionError("the stream ended without the event")


def test_a_second_gateway_on_the_same_state_refuses_to_start(digits: GatewayProcess) -> None:
    command = [sys.executable, "-m", "headgate", "serve", "--state", str(digits.state)]
    command += ANY_PORT_OPTIONS
    second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode in {2, 3}
    assert "another" in second.stderr
    assert digits.observe("/readyz").status_code == 200


def test_what_was_changed_live_survives_a_restart(digits: GatewayProcess) -> None:
    with digits.admin() as admin:
        revision = admin.set_weights("digits", {"2": "44%"})["revision"]
        table = admin.traffic("digits")["table"]
    assert digits.stop() == 0
    # Forks share the seed of the hashes of strings, which a restart changes.
    digits.as_a_person = True
    digits.start()
    with digits.admin() as admin:
        traffic = admin.traffic("digits")
    assert (traffic["revision"], traffic["weights"], traffic["table"]) == (revision, {"2": "44%"}, table)


def test_a_run_in_flight_is_answered_before_the_end(tmp_path: Path) -> None:
    need_native()
    models.place(models.slow(), tmp_path / "models", "slow")
    gateway = GatewayProcess(tmp_path / "state", ["--models", str(tmp_path / "models")])
    tensor = {"name": "rounds", "shape": [1], "datatype": "INT64", "data": [2000]}
    body = json.dumps({"inputs": [tensor], "outputs": [{"name": "y", "parameters": {"binary_data": True}}]})
    with gateway:
        sock = open_socket(gateway.http)
        sock.sendall(infer_bytes("slow", body.encode()))
        while not in_flight(gateway):
            pass
        assert gateway.stop() == 0
        answer = until_closed(sock)
        sock.close()
    assert answer.startswith(b"HTTP/1.1 200 ")


def test_one_broken_endpoint_does_not_keep_the_others_from_starting(tmp_path: Path) -> None:
    need_native()
    models.place(models.scale(2.0), tmp_path / "models", "good")
    broken = tmp_path / "models" / "broken" / "1" / "model.onnx"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"this is no model")
    body = {"inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
    gateway = GatewayProcess(tmp_path / "state", ["--models", str(tmp_path / "models")])
    with gateway, Connection(gateway.http) as connection:
        assert connection.infer("good", body).status == 200
        assert connection.infer("broken", body).status in {404, 503}


def counted(gateway: GatewayProcess, *labels: str) -> float:
    """How many requests the metrics count under all these labels, whether a version was known or not."""
    families = ("headgate_requests_total{", "headgate_requests_refused_total{")
    lines = [line for line in gateway.observe("/metrics").text.splitlines() if line.startswith(families)]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if all(label in line for label in labels))


def test_the_metrics_count_requests_by_endpoint_version_and_code(digits: GatewayProcess) -> None:
    path = "/v2/models/digits/versions/1/infer"
    body = (models.DIGITS / "request.json").read_bytes()
    with httpx.Client(base_url=f"http://{digits.http}") as client:
        for _ in range(10):
            assert client.post(path, content=body).status_code == 200
        assert client.post(path, content=b"{}").status_code == 400
    # Taps run once the bytes are with the socket, so the client may look before them.
    deadline = time.monotonic() + STOP_SECONDS
    good = bad = 0.0
    while (good, bad) != (10, 1) and time.monotonic() < deadline:
        good = counted(digits, 'endpoint="digits"', 'version="1"', 'code="ok"')
        bad = counted(digits, 'code="invalid_argument"')
    assert (good, bad) == (10, 1)

"""A real gateway on damaged files: calls are told why, on every port the same."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import httpx

from support.gateway import ANY_PORT_OPTIONS, GatewayProcess
from support.grpc_wire import frame
from support.h2_client import Http2
from support.models import DIGITS, TESTS
from support.tools import need_digits, need_native

UNAVAILABLE = 14
BODY = json.loads((DIGITS / "request.json").read_text())


def beside(folder: Path) -> Path:
    """The document of a second endpoint, whose model lies beside it."""
    (folder / "models" / "v1").mkdir(parents=True)
    shutil.copy(TESTS / "models" / "identity_fp32.onnx", folder / "models" / "v1" / "model.onnx")
    path = folder / "beside.yaml"
    path.write_text(
        "apiVersion: headgate/v1\nkind: Endpoint\nname: beside\n"
        'versions: {v1: "file:models/v1"}\ntraffic: {champion: v1}\n'
    )
    return path


def test_a_damaged_champion_is_503_with_its_reason_and_turns_no_readiness(tmp_path: Path) -> None:
    need_native()
    state = tmp_path / "state"
    with GatewayProcess(state, [str(need_digits() / "digits.yaml"), str(beside(tmp_path))]) as gateway:
        assert httpx.post(f"http://{gateway.http}/v2/models/digits/infer", json=BODY).status_code == 200
    whole = (TESTS / "models" / "identity_fp32.onnx").read_bytes()
    for model in state.glob("artifacts/*/model.onnx"):
        if model.read_bytes() == whole:
            continue
        data = bytearray(model.read_bytes())
        data[len(data) // 2] ^= 0xFF
        model.chmod(0o600)
        model.write_bytes(data)
    with GatewayProcess(state) as gateway:
        base = f"http://{gateway.http}/v2"
        refused = httpx.post(f"{base}/models/digits/infer", json=BODY)
        assert refused.status_code == 503
        assert "did not load" in refused.text
        assert httpx.get(f"{base}/models/digits/ready").status_code == 503
        assert httpx.get(f"{base}/models/beside/ready").status_code == 200
        assert httpx.get(f"{base}/models/nobody/ready").status_code == 404
        assert httpx.get(f"{base}/health/ready").status_code == 200
        assert gateway.observe("/readyz").json() == {"ready": True, "reasons": []}
        gauges = gateway.observe("/metrics").text
        assert 'headgate_endpoint_ready{endpoint="digits"} 0.0' in gauges
        assert 'headgate_endpoint_ready{endpoint="beside"} 1.0' in gauges
        with Http2(gateway.grpc) as connection:
            assert connection.call("ServerReady", frame(b"")).messages == [b"\x08\x01"]
            refused_too = connection.call("ModelInfer", frame(b"\n\x06digits"))
            assert (refused_too.grpc_status, refused_too.code) == (UNAVAILABLE, "model_not_ready")


def test_a_damaged_row_is_503_and_a_lost_database_does_not_start(tmp_path: Path) -> None:
    need_native()
    state = tmp_path / "state"
    with GatewayProcess(state, [str(beside(tmp_path))]):
        pass
    with sqlite3.connect(state / "headgate.db") as database:
        database.execute("UPDATE revisions SET body = replace(body, '30000', '30001')")
    database.close()
    with GatewayProcess(state) as gateway:
        refused = httpx.post(f"http://{gateway.http}/v2/models/beside/infer", json={"inputs": []})
        assert refused.status_code == 503
        assert "headgate state check" in refused.text
        assert gateway.observe("/readyz").status_code == 200
    (state / "headgate.db").unlink()
    command = [sys.executable, "-m", "headgate", "serve", "--state", str(state), *ANY_PORT_OPTIONS]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 3
    assert "headgate state restore" in ended.stderr

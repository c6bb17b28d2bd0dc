"""A real gateway on damaged files: calls are told why, on every port the same."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import httpx
import onnx

from support.gateway import ANY_PORT_OPTIONS, GatewayProcess
from support.grpc_wire import frame
from support.h2_client import Http2
from support.models import TESTS
from support.tools import need_native
from support.waiting import until

UNAVAILABLE = 14
BODY = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": [1.5]}]}


def damaged(state: Path, source: Path) -> bytes:
    """Flips a byte of the artifact that was made of a model, and takes the model away; its bytes as they were."""
    whole = source.read_bytes()
    source.unlink()
    for model in state.glob("artifacts/*/model.onnx"):
        if model.read_bytes() == whole:
            model.chmod(0o600)
            model.write_bytes(whole[:20] + bytes([whole[20] ^ 0xFF]) + whole[21:])
    return whole


def served(folder: Path, name: str, datatype: str) -> Path:
    """The document of an endpoint whose model lies beside it."""
    (folder / name).mkdir()
    shutil.copy(TESTS / "models" / f"identity_{datatype}.onnx", folder / name / "model.onnx")
    path = folder / f"{name}.yaml"
    path.write_text(
        f"apiVersion: headgate/v1\nkind: Endpoint\nname: {name}\n"
        f'versions: {{v1: "file:{name}"}}\ntraffic: {{champion: v1}}\n'
    )
    return path


def headgate(state: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command of the command line, called as a program."""
    command = [sys.executable, "-m", "headgate", *words, "--state", str(state)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_a_damaged_champion_is_503_with_its_reason_and_turns_no_readiness(tmp_path: Path) -> None:
    need_native()
    state, source = tmp_path / "state", tmp_path / "broken" / "model.onnx"
    documents = [str(served(tmp_path, "broken", "fp64")), str(served(tmp_path, "beside", "fp32"))]
    with GatewayProcess(state, documents) as gateway:
        assert httpx.post(f"http://{gateway.http}/v2/models/broken/infer", json=BODY).status_code == 200
    whole = damaged(state, source)
    with GatewayProcess(state) as gateway:
        base = f"http://{gateway.http}/v2"
        refused = httpx.post(f"{base}/models/broken/infer", json=BODY)
        assert refused.status_code == 503
        assert "did not load" in refused.text
        assert httpx.get(f"{base}/models/broken/ready").status_code == 503
        assert httpx.get(f"{base}/models/beside/ready").status_code == 200
        assert httpx.get(f"{base}/models/nobody/ready").status_code == 404
        assert httpx.get(f"{base}/health/ready").status_code == 200
        assert gateway.observe("/readyz").json() == {"ready": True, "reasons": []}
        gauges = gateway.observe("/metrics").text
        assert 'headgate_endpoint_ready{endpoint="broken"} 0.0' in gauges
        assert 'headgate_endpoint_ready{endpoint="beside"} 1.0' in gauges
        with Http2(gateway.grpc) as connection:
            assert connection.call("ServerReady", frame(b"")).messages == [b"\x08\x01"]
            refused_too = connection.call("ModelInfer", frame(b"\n\x06broken"))
            assert (refused_too.grpc_status, refused_too.code) == (UNAVAILABLE, "model_not_ready")
        source.write_bytes(whole)
        until(lambda: httpx.post(f"{base}/models/broken/infer", json=BODY).status_code == 200)


def test_a_version_that_is_left_out_is_503_by_its_name_and_its_fallback_answers(tmp_path: Path) -> None:
    need_native()
    state, source = tmp_path / "state", tmp_path / "broken" / "model.onnx"
    document = served(tmp_path, "broken", "fp64")
    (tmp_path / "other").mkdir()
    shutil.copy(TESTS / "models" / "identity_fp64.onnx", tmp_path / "other" / "model.onnx")
    changed = onnx.load(tmp_path / "other" / "model.onnx")
    changed.producer_name = "another"
    onnx.save(changed, tmp_path / "other" / "model.onnx")
    text = document.read_text().replace('v1: "file:broken"', 'v1: "file:broken", v2: "file:other"')
    document.write_text(text.replace("champion: v1}", "champion: v1, fallback: {to: [v2]}}"))
    with GatewayProcess(state, [str(document)]):
        pass
    damaged(state, source)
    with GatewayProcess(state) as gateway:
        base = f"http://{gateway.http}/v2/models/broken"
        answered = httpx.post(f"{base}/infer", json=BODY)
        assert (answered.status_code, answered.json()["model_version"]) == (200, "v2")
        refused = httpx.post(f"{base}/versions/v1/infer", json=BODY)
        assert (refused.status_code, refused.json()["code"]) == (503, "model_not_ready")
        assert "is damaged" in refused.text
        assert httpx.get(f"{base}/versions/v1/ready").status_code == 503
        assert httpx.post(f"{base}/versions/v9/infer", json=BODY).status_code == 404


def test_a_damaged_row_is_503_and_a_lost_database_does_not_start(tmp_path: Path) -> None:
    need_native()
    state = tmp_path / "state"
    document = str(served(tmp_path, "beside", "fp32"))
    with GatewayProcess(state, [document]):
        pass
    with sqlite3.connect(state / "headgate.db") as database:
        database.execute("UPDATE revisions SET body = replace(body, '30000', '30001')")
    database.close()
    with GatewayProcess(state, [document]) as gateway:
        refused = httpx.post(f"http://{gateway.http}/v2/models/beside/infer", json={"inputs": []})
        assert refused.status_code == 503
        assert "headgate state check" in refused.text
        assert gateway.observe("/readyz").status_code == 200
        refused_write = headgate(state, "apply", document)
        assert refused_write.returncode == 3
        assert "--take-traffic" in refused_write.stderr
        assert headgate(state, "apply", "--take-traffic", document).returncode == 0
        assert httpx.get(f"http://{gateway.http}/v2/models/beside/ready").status_code == 200
    with GatewayProcess(state) as gateway:
        assert httpx.get(f"http://{gateway.http}/v2/models/beside/ready").status_code == 200
    (state / "headgate.db").unlink()
    command = [sys.executable, "-m", "headgate", "serve", "--state", str(state), *ANY_PORT_OPTIONS]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 3
    assert "headgate state restore" in ended.stderr

"""``headgate bench replay`` of requests that a real gateway captured: at their own pace, faster, and never through a shared endpoint."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pyarrow as pa
import pytest

from support import models
from support.bench_command import answered, bench
from support.gateway import GatewayProcess
from support.tools import need_native

REQUESTS = 40
SECONDS = 120.0
DOCUMENT = """\
apiVersion: headgate/v1
kind: Endpoint
name: scale
versions: {v1: "file:scale/1", v2: "file:scale/2"}
traffic: {champion: v1, sticky: header.x-user-id}
capture: {share: 100%}
"""


def captured(state: Path) -> int:
    """Requests in complete batches."""
    return sum(_rows(path) for path in (state / "captures" / "scale").glob("*.arrows*"))


def _rows(path: Path) -> int:
    rows = 0
    try:
        with pa.ipc.open_stream(path.read_bytes()) as stream:
            for batch in stream:
                rows += batch.num_rows
    except pa.ArrowInvalid:
        pass  # behind the last complete batch of a file that is open
    return rows


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """One whose endpoint was asked forty times, with requests of one and two rows."""
    need_native()
    folder = tmp_path_factory.mktemp("replay")
    for version in ("1", "2"):
        models.place(models.scale(2.0), folder, "scale", version)
    document = folder / "scale.yaml"
    document.write_text(DOCUMENT)
    with GatewayProcess(folder / "state", [str(document)]) as made:
        with httpx.Client(base_url=f"http://{made.http}", timeout=SECONDS) as client:
            for at in range(REQUESTS):
                rows = 1 + at % 2
                tensor = {"name": "X", "datatype": "FP32", "shape": [rows, 4], "data": [float(at)] * 4 * rows}
                client.post("/v2/models/scale/infer", json={"inputs": [tensor]}).raise_for_status()
        deadline = time.monotonic() + SECONDS
        while captured(made.state) < REQUESTS:
            assert time.monotonic() < deadline, captured(made.state)
            time.sleep(0.05)
        yield made


def test_each_request_is_sent_once_at_its_own_pace_and_faster(
    gateway: GatewayProcess, tmp_path: Path
) -> None:
    words = [
        "replay",
        "scale",
        "--url",
        f"http://{gateway.http}",
        "--state",
        str(gateway.state),
        "--version",
        "v2",
    ]
    # The endpoint captures what is replayed, too: both loads are of the copy that was there before.
    folder = tmp_path / "captures"
    folder.mkdir()
    for path in (gateway.state / "captures" / "scale").glob("*.arrows*"):
        (folder / path.name).write_bytes(path.read_bytes())
    data = ["--data", f"capture:{folder}"]

    own = answered([*words, *data], tmp_path)
    fast = answered([*words, *data, "--speed", "4"], tmp_path)

    for found in (own, fast):
        window = found["windows"][0]
        assert window["name"] == "replay"
        assert window["answer"]["counts"]["due"] == REQUESTS
        assert found["target"]["models"][0]["version"] == "v2"
    length = own["windows"][0]["for_ns"]
    assert fast["windows"][0]["for_ns"] == round(length / 4)
    # No load is over before its last request was due.
    assert own["windows"][0]["answer"]["elapsed_ns"] >= length - 1_000_000


def test_routing_decides_if_one_version_has_all_traffic(gateway: GatewayProcess, tmp_path: Path) -> None:
    words = ["replay", "scale", "--url", f"http://{gateway.http}", "--state", str(gateway.state)]

    found = answered([*words, "--as-traffic", "--speed", "4"], tmp_path)

    assert found["target"]["models"][0]["version"] is None
    assert found["windows"][0]["answer"]["counts"]["due"] >= REQUESTS


def test_a_load_through_routing_is_refused_while_versions_share_traffic(
    gateway: GatewayProcess, tmp_path: Path
) -> None:
    words = ["replay", "scale", "--url", f"http://{gateway.http}", "--state", str(gateway.state)]
    with gateway.admin() as admin:
        admin.set_weights("scale", {"v2": "10%"})
    try:
        code, _, said = bench([*words, "--as-traffic", "--no-live"], tmp_path)
        assert code == 5, said
        assert "v2 10%" in said
        assert "a load would decide the rollout" in said
    finally:
        with gateway.admin() as admin:
            admin.set_weights("scale", {"v2": "0%"})


def test_an_endpoint_that_captures_nothing_is_said(gateway: GatewayProcess, tmp_path: Path) -> None:
    words = ["replay", "scale", "--url", f"http://{gateway.http}", "--data", f"capture:{tmp_path}"]

    code, _, said = bench([*words, "--no-live"], tmp_path)

    assert code == 2
    assert "nothing was captured: the document needs capture, and traffic" in said

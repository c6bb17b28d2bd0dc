"""``headgate bench compare``, ``plan`` and ``report`` with the real generator and gateways. What is decided may depend on how busy the
machine is, so that only what cannot be is a failure. Next: test_bench.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from headgate.bench.results import read_result
from support import models
from support.bench_command import bench
from support.gateway import GatewayProcess
from support.oip_server import OipServer, serving
from support.tools import need_native

SCALE = {
    "name": "scale",
    "versions": ["1"],
    "platform": "other",
    "inputs": [{"name": "X", "datatype": "FP32", "shape": [-1, 4]}],
    "outputs": [{"name": "Y", "datatype": "FP32", "shape": [-1, 4]}],
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    need_native()
    folder = tmp_path_factory.mktemp("plan")
    for version in ("1", "2"):
        models.place(models.scale(float(version)), folder / "models", "scale", version)
    with GatewayProcess(folder / "state", ["--models", str(folder / "models")]) as made:
        yield made


def test_a_gateway_is_compared_with_a_slower_server(gateway: GatewayProcess, tmp_path: Path) -> None:
    """The other one is Python's ``http.server``, which takes a new connection and some milliseconds for each request."""
    with serving(OipServer(name=None, models={"scale": SCALE})) as slower:
        words = ["scale", "--url-a", f"http://{gateway.http}", "--url-b", slower.url, "--margin", "30%"]
        more = [
            "--rate",
            "20/s",
            "--for",
            "3s",
            "--noise-pairs",
            "2",
            "--max-pairs",
            "6",
            "--json",
            "--no-live",
        ]
        code, out, said = bench(["compare", *words, *more], tmp_path)
    found = json.loads(out)
    assert code in (1, 3), said
    assert found["finding"] in ("slower", "undecided", "too_noisy"), found
    if found["ratio"] is not None:
        assert found["ratio"] > 1.0, found


def test_results_of_one_endpoint_are_compared_and_of_two_versions_are_not(
    gateway: GatewayProcess, tmp_path: Path
) -> None:
    words = [
        "--rate",
        "20/s",
        "--url",
        f"http://{gateway.http}",
        "--no-live",
        "--state",
        str(gateway.state),
    ]
    # Half of a run may be warm-up: of 14 s, at least six whole seconds are left.
    for name, version, length in (("a", "1", "14s"), ("b", "2", "3s")):
        code, _, said = bench(
            ["run", "scale", "--version", version, "--for", length, *words, "--out", str(tmp_path / name)],
            tmp_path,
        )
        assert code in (0, 3), said
    a = read_result(tmp_path / "a")
    # The digest and the settings are those of the admin API.
    assert a.target.models[0].digest
    assert a.target.models[0].run == {}
    code, out, said = bench(
        ["compare", str(tmp_path / "a"), str(tmp_path / "a"), "--margin", "900%"], tmp_path
    )
    assert code in (0, 3), said
    assert out.startswith("p50: ")
    code, _, said = bench(["compare", str(tmp_path / "a"), str(tmp_path / "b")], tmp_path)
    assert code == 2
    assert "the scenario's mix" in said


def test_a_search_ends_with_a_number_of_replicas(gateway: GatewayProcess, tmp_path: Path) -> None:
    words = ["--slo", "p90=2s", "--start", "500/s", "--highest", "500/s", "--budget", "30s", "--no-live"]
    out = tmp_path / "found"
    code, _, said = bench(
        ["find", "scale", *words, "--url", f"http://{gateway.http}", "--out", str(out)], tmp_path
    )
    assert code in (0, 3), said
    passed = read_result(out).capacity
    code, told, said = bench(
        ["plan", str(out), "--target", "2400/s", "--headroom", "0%", "--out", str(out)], tmp_path
    )
    if passed is None or passed.passed is None:
        assert code == 3
        return
    assert code == 0, said
    # One rate is no ground for a model: 500/s is what a replica may be asked for.
    assert told.startswith("6 replicas for 2400/s with 0 % headroom and 1 spare, p90 within 2 s"), told
    assert "planned by the measured capacity of 500/s alone" in told
    code, told, said = bench(["report", str(out)], tmp_path)
    assert code == 0, said
    assert "2400/s need 6 replicas, 1 of them spare." in (out / "report.html").read_text()

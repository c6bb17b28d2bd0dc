"""``headgate bench`` with the real generator against a real gateway, and against servers that go wrong. Nothing is timed."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from headgate.bench.results import read_result
from support import models
from support.bad_server import Fault, going_wrong
from support.bench_command import answered, bench, ended, start
from support.gateway import GatewayProcess
from support.tools import need_native


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    need_native()
    folder = tmp_path_factory.mktemp("bench")
    models.place(models.scale(2.0), folder / "models", "scale", "1")
    with GatewayProcess(folder / "state", ["--models", str(folder / "models")]) as made:
        yield made


@pytest.mark.parametrize(
    "words",
    [
        ("--rate", "50/s"),
        ("--rate", "50/s", "--tensors", "binary"),
        ("--rate", "50/s", "--protocol", "grpc"),
        ("--rate", "50/s", "--protocol", "grpc_stream"),
        ("--clients", "8"),
    ],
    ids=" ".join,
)
def test_each_form_of_a_load_is_answered(
    gateway: GatewayProcess, tmp_path: Path, words: tuple[str, ...]
) -> None:
    found = answered(["run", "scale", *words, "--for", "1s", "--url", f"http://{gateway.http}"], tmp_path)
    assert found["target"]["server_phases"] is True
    # A closed loop has no due times, and so no lateness.
    lateness = found["windows"][0]["answer"]["lateness"]["p99_ns"]
    assert (lateness is None) == ("--clients" in words)


def test_rows_of_a_file_are_sent(gateway: GatewayProcess, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.arange(8, dtype=np.float32).reshape(2, 4))
    words = ["--rate", "50/s", "--for", "1s", "--data", f"file:{tmp_path / 'rows.npy'}"]
    answered(["run", "scale", *words, "--url", f"http://{gateway.http}"], tmp_path)


def test_ctrl_c_keeps_what_was_measured(gateway: GatewayProcess, tmp_path: Path) -> None:
    words = ["--rate", "50/s", "--for", "60s", "--out", str(tmp_path / "out")]
    child = start(["run", "scale", *words, "--url", f"http://{gateway.http}"], tmp_path)
    assert child.stderr is not None
    # The line of the load itself: before it, the self-test runs.
    assert any(" run " in line for line in child.stderr)
    child.send_signal(signal.SIGINT)
    code, out, _ = ended(child)
    assert code == 130
    assert out.startswith("Interrupted: ")
    assert read_result(tmp_path / "out").verdict == "interrupted"


def test_a_server_that_is_killed_ends_the_load(tmp_path: Path) -> None:
    need_native()
    models.place(models.scale(2.0), tmp_path / "models", "scale", "1")
    arguments = ["--models", str(tmp_path / "models"), "--no-supervise"]
    with GatewayProcess(tmp_path / "state", arguments) as gateway:
        words = ["--rate", "50/s", "--for", "60s", "--url", f"http://{gateway.http}"]
        child = start(["run", "scale", *words, "--out", str(tmp_path / "out")], tmp_path)
        assert child.stderr is not None
        assert any(" run " in line for line in child.stderr)
        gateway.kill()
        code, out, _ = ended(child)
    assert code == 3
    assert out.startswith("The server is gone")
    kept = read_result(tmp_path / "out")
    assert kept.verdict == "unreachable"
    assert kept.windows[0].answer.counts.failed > 0


@pytest.mark.parametrize(
    ("fault", "counted"), [("hangs", "timed_out"), ("garbage", "failed"), ("closes", "failed")]
)
def test_a_server_that_goes_wrong_is_counted_and_said_first(
    tmp_path: Path, fault: Fault, counted: str
) -> None:
    need_native()
    with going_wrong(fault) as url:
        kept = tmp_path / "out"
        # A server that does answer has the time that a busy machine needs.
        timeout = "300ms" if fault == "hangs" else "60s"
        words = ["--rate", "50/s", "--for", "1s", "--timeout", timeout, "--no-live", "--out", str(kept)]
        code, out, said = bench(["run", "digits", *words, "--url", url], tmp_path)
    assert code == 3, said
    answer = read_result(kept).windows[0].answer
    assert answer.counts.good == 0
    assert getattr(answer.counts, counted) == answer.counts.due > 0
    # On a busy machine the client was late, too: that comes second.
    first = f"Nothing was answered well: {answer.counts.due} requests, first error: {answer.errors[0].what}."
    assert out.splitlines()[0] == first


def test_a_disk_that_takes_no_more_costs_no_measurement(gateway: GatewayProcess, tmp_path: Path) -> None:
    kept = tmp_path / "out"
    words = ["--rate", "50/s", "--for", "1s", "--url", f"http://{gateway.http}", "--out", str(kept)]
    # No file of the child may become longer, as on a disk without a free block.
    child = start(["run", "scale", *words, "--no-live"], tmp_path, longest_file=512)
    code, out, said = ended(child)
    assert code == 3
    assert " offered, " in out.splitlines()[0]
    assert f"the result could not be kept in {kept}: File too large" in said
    assert not (kept / "result.json").exists()


def test_a_port_of_something_else_is_said_to_be(tmp_path: Path) -> None:
    code, _, said = bench(["run", "digits", "--rate", "5/s", "--url", "http://127.0.0.1:1"], tmp_path)
    assert code == 3
    assert "Connection refused" in said

"""That the bench of a GPU fails aloud: wrong answers after the report, a failed part with its words, a machine without wrk."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from benches.batches import mlp
from benches.gpu import compare, corners
from benches.gpu.answers import Apart
from support.models import ROOT
from support.tools import need_native, need_program


def test_wrong_answers_fail_when_the_report_is_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compare, "need", lambda *_: None)
    monkeypatch.setattr(compare, "report", lambda _: ("the report", ["trees: Y (FP32) 0.5, allowed 0"]))
    monkeypatch.setattr(sys, "argv", ["compare", "--device", "cpu"])
    with pytest.raises(SystemExit, match=r"trees: Y \(FP32\) 0.5") as ended:
        compare.main()
    assert ended.value.code != 0
    assert "the report" in capsys.readouterr().out


def test_right_answers_do_not_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "need", lambda *_: None)
    monkeypatch.setattr(compare, "report", lambda _: ("the report", []))
    monkeypatch.setattr(sys, "argv", ["compare", "--device", "cpu"])
    compare.main()


def test_the_report_marks_the_wrong_ones() -> None:
    checked = {"mlp": [Apart("Y", "FP32", 1e-3, 2e-2)], "trees": [Apart("Y", "FP32", float("nan"), 0.0)]}
    lines = compare.verdict(checked)
    assert [line for line in lines if "WRONG" in line] == ["- trees: Y (FP32) nan, allowed 0: WRONG"]


def test_what_fails_is_shown_with_its_words() -> None:
    program = "import sys; print('half'); print('no libcublasLt.so.13', file=sys.stderr); sys.exit(3)"
    with pytest.raises(SystemExit) as ended:
        compare.output_of([sys.executable, "-c", program])
    assert "no libcublasLt.so.13" in str(ended.value.code)
    assert "ended with 3" in str(ended.value.code)


def test_what_is_warned_of_is_passed_on(capsys: pytest.CaptureFixture[str]) -> None:
    program = "import sys; print('out'); print('beware', file=sys.stderr)"
    assert compare.output_of([sys.executable, "-c", program]) == "out\n"
    assert "beware" in capsys.readouterr().err


def test_each_load_is_run_once_unmeasured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    durations = []

    def run(command: list[str]) -> str:
        durations.append(command[command.index("--duration") + 1])
        requests = 1 if len(durations) == 1 else 50
        return json.dumps({"requests": requests, "microseconds": 1_000_000, "p50_us": 7.0, "failed": 0})

    monkeypatch.setattr(compare, "output_of", run)
    request = compare.rows_of(mlp(8), 4)
    measured = compare.load("http://h/x", tmp_path / "body", request, 8, 3.0)
    assert durations == ["2s", "3s"]
    assert measured == compare.Measured(200.0, 7.0)


def test_a_log_is_shown_when_the_gateway_does_not_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    need_native()
    with pytest.raises(SystemExit, match="did not start"), compare.serving(tmp_path, "kind: Nothing\n"):
        pass
    assert "kind" in capsys.readouterr().err


def test_the_corners_are_answered_alike_and_another_model_is_found_out(tmp_path: Path) -> None:
    need_native()
    bench, odd = compare.Bench(tmp_path, "cpu", 1.0), corners.corners()
    documents = ""
    for corner in odd:
        bench.save(corner.name, corner.model, corner.warmup())
        documents += bench.document(corner.name, corner.run)
    first, other = mlp(8), mlp(16)
    bench.save(first.name, first.model)
    bench.save(other.name, other.model)
    text = bench.document(first.name, {})
    documents += text.replace(f"models/{first.name}/1", f"models/{other.name}/1", 1)
    with compare.serving(tmp_path, documents) as address:
        found = compare.check(address, [first], odd)
    wrong = {name for name, outputs in found.items() if any(output.wrong for output in outputs)}
    assert wrong == {first.name}
    assert {name: [output.allowed for output in outputs] for name, outputs in found.items()} == {
        first.name: [2e-2],
        "trees": [0.0],
        "reshaped": [0.0],
        "counted": [0.0, 0.0],
    }


def loop(model: Path, device: str, seconds: float) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benches.gpu.session_loop", str(model), device, str(seconds)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_the_loop_runs_each_size_serially_and_overlapping(tmp_path: Path) -> None:
    need_native()
    onnx.save(mlp(8).model, tmp_path / "model.onnx")
    done = loop(tmp_path / "model.onnx", "cpu", 0.02)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert list(found) == ["1", "2", "4", "8", "16", "32", "64"]
    for ways in found.values():
        assert list(ways) == ["serial", "overlapping"]
        assert all(
            np.isfinite(way["rows"]) and way["rows"] > 0 and way["p50_us"] > 0 for way in ways.values()
        )


MEETING = """
from threading import Barrier
from benches.gpu import session_loop

class Idle(session_loop.Lane):
    def __init__(self, *_): pass
    def step(self): pass
    def steps(self, start, seconds):
        super().steps(start, seconds)
        return [1.0, 3.0]

class Together(Idle):
    # Lanes of which one waited for the other would never meet here.
    both = Barrier(2, timeout=20)
    def step(self): self.both.wait()

class Broken(Idle):
    def step(self): raise MemoryError

assert session_loop.measured([Together(), Together()], 4, 0) == {"rows": 4.0, "p50_us": 2e6}
try:
    session_loop.measured([Idle(), Broken()], 4, 0)
    raise AssertionError
except MemoryError:
    pass
session_loop.measured = lambda lanes, rows, seconds: len(lanes)
session_loop.main()
"""


def test_two_lanes_run_at_the_same_time_and_one_that_fails_ends_both(tmp_path: Path) -> None:
    need_native()
    onnx.save(mlp(8).model, tmp_path / "model.onnx")
    command = [sys.executable, "-c", MEETING, str(tmp_path / "model.onnx"), "cpu", "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["64"] == {"serial": 1, "overlapping": 2}


def test_the_loop_does_not_fall_back_to_the_processor(tmp_path: Path) -> None:
    need_native()
    onnx.save(mlp(8).model, tmp_path / "model.onnx")
    # A number that no machine has, so that one with a GPU says no as well.
    done = loop(tmp_path / "model.onnx", "cuda:4711", 0.02)
    assert done.returncode != 0
    assert "not with CUDAExecutionProvider" in done.stderr


def script(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The script with no more programs on PATH than it begins with."""
    programs = folder / "programs"
    programs.mkdir()
    for name in ("bash", "sh", "dirname", "realpath", "mktemp", "mkdir", "cp", "chmod", "rm"):
        (programs / name).symlink_to(need_program(name, "coreutils"))
    command = [str(ROOT / "benches" / "gpu" / "run.sh"), *arguments]
    environment = {"PATH": str(programs), "PYTHON": "/nowhere/python", "TMPDIR": str(folder)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def test_without_wrk_the_script_says_so_before_anything_else(tmp_path: Path) -> None:
    done = script(tmp_path)
    assert done.returncode != 0
    assert "wrk is not on PATH" in done.stderr
    assert "/nowhere/python" not in done.stderr


def test_a_wrk_beside_the_wheels_is_used_whatever_its_mode(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "wrk").write_text('#!/bin/sh\necho "wrk 4 from $LD_LIBRARY_PATH"\n')
    done = script(tmp_path, str(wheels))
    # It goes on to the Python that is not there.
    assert "wrk" not in done.stderr
    assert "/nowhere/python" in done.stderr
    assert not list(tmp_path.glob("tmp.*"))


def test_a_wrk_that_does_not_run_is_said_with_its_words(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "wrk").write_text("#!/bin/sh\necho no libluajit-5.1.so.2 >&2\nexit 127\n")
    done = script(tmp_path, str(wheels))
    assert done.returncode != 0
    assert "wrk does not run: no libluajit-5.1.so.2" in done.stderr

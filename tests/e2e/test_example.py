"""What ``make serve`` starts: the example's gateway, its addresses and three curl lines that work when pasted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.gateway import ANY_PORT_OPTIONS
from support.models import ROOT, digits_scripts
from support.tools import need_digits, need_native, need_program

SECONDS = 90


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """``examples/digits/serve.py`` in a process group of its own, and the lines that it printed."""
    need_native()
    script = need_digits() / "serve.py"
    command = [sys.executable, str(script), "--state", str(tmp_path / "state"), *ANY_PORT_OPTIONS]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path, start_new_session=True)
    assert child.stdout is not None
    lines: list[str] = []
    for line in child.stdout:
        lines.append(line.rstrip("\n"))
        if line.startswith("Ctrl-C"):
            break
    yield child, lines
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait(SECONDS)
    child.stdout.close()


def test_the_curl_lines_work_when_pasted_and_ctrl_c_ends_it_with_0(
    serving: tuple[subprocess.Popen[str], list[str]],
) -> None:
    need_program("curl")
    child, lines = serving
    curls = [line.strip() for line in lines if line.startswith("  curl ")]
    assert len(curls) == 3
    answers = [
        json.loads(subprocess.run(["bash", "-c", line], capture_output=True, timeout=30, check=True).stdout)
        for line in curls
    ]
    by_user, by_version, traffic = answers
    assert by_user["model_version"] in {"1", "2"}
    assert by_version["model_version"] == "2"
    assert all(answer["outputs"][0]["data"] == [2] for answer in (by_user, by_version))
    assert traffic["weights"] == {"2": "10%"}
    os.killpg(child.pid, signal.SIGINT)
    assert child.wait(SECONDS) == 0


def test_the_committed_request_is_the_one_that_the_script_makes() -> None:
    prepare = digits_scripts("prepare")
    _, test_images, _, _ = prepare.split()
    assert (ROOT / "examples" / "digits" / "request.json").read_text() == prepare.request(test_images[0])


def test_nothing_is_built_or_trained_twice() -> None:
    if Path(sys.prefix) != ROOT / ".venv":
        pytest.skip("not run in .venv: make test")
    done = subprocess.run(
        ["make", "--question", ".venv/stamps/native", ".venv/stamps/digits"],
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0

"""The abi3 wheel installs and serves in a clean virtual environment without Rust on PATH."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from support.gateway import GatewayProcess
from support.models import DIGITS, ROOT
from support.tools import need_digits, need_native, need_program

BUILD_SECONDS = 1800
INSTALL_SECONDS = 600


def build(folder: Path) -> Path:
    """Builds the wheel as ``make wheel`` does."""
    need_program("cargo", "cargo (or rustup)")
    command = [
        sys.executable,
        "-m",
        "maturin",
        "build",
        "--profile",
        # What the extension beside this test was built with, so that nothing is built again.
        os.environ.get("NATIVE_PROFILE", "release"),
        "--locked",
        "--interpreter",
        sys.executable,
    ]
    done = subprocess.run(
        [*command, "--out", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    (wheel,) = folder.glob("*.whl")
    return wheel


def constraints(folder: Path) -> Path:
    """The versions of requirements.lock without their hashes, so that the wheel itself, which has none, is taken."""
    lock = (ROOT / "requirements.lock").read_text()
    path = folder / "constraints.txt"
    path.write_text(
        "".join(f"{line}\n" for line in re.findall(r"^([A-Za-z0-9][^\\\n]*?) *\\?$", lock, re.MULTILINE))
    )
    return path


def install(wheel: Path, folder: Path) -> tuple[Path, dict[str, str]]:
    """A fresh environment with the wheel and its ``cpu`` extra: its Python, and the variables to run it with."""
    home = folder / "clean"
    subprocess.run([sys.executable, "-m", "venv", str(home)], timeout=INSTALL_SECONDS, check=True)
    variables = {"PATH": str(home / "bin"), "PYTHONPATH": "", "VIRTUAL_ENV": ""}
    assert shutil.which("cargo", path=variables["PATH"]) is None
    python = home / "bin" / "python"
    command = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--constraint",
        constraints(folder),
        f"{wheel}[cpu]",
    ]
    done = subprocess.run(
        [str(part) for part in command],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=INSTALL_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return python, variables


@pytest.mark.slow
def test_the_wheel_installs_and_serves_without_rust(tmp_path: Path) -> None:
    need_native()
    wheel = build(tmp_path / "dist")
    assert re.search(r"-cp311-abi3-(manylinux|linux)", wheel.name), wheel.name
    python, variables = install(wheel, tmp_path)
    version = subprocess.run(
        [str(python.parent / "headgate"), "--version"],
        env=os.environ | variables,
        capture_output=True,
        timeout=60,
    )
    assert version.returncode == 0, version.stderr
    models = need_digits() / "models"
    gateway = GatewayProcess(
        tmp_path / "state", ["--models", str(models)], environment=variables, python=str(python)
    )
    with gateway:
        answer = httpx.post(
            f"http://{gateway.http}/v2/models/digits/infer", content=(DIGITS / "request.json").read_bytes()
        )
        assert answer.is_success, answer.text
        assert answer.json()["outputs"][0]["data"] == [2]

"""What a test needs from the machine: the built extension, the example's files, programs from Debian.

A test that lacks one of them is skipped, aloud; ``HEADGATE_NO_SKIP=1``, which ``.ci/run`` sets, makes any skip a
failure of the whole run (see ``tests/conftest.py``).
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

from support.models import DIGITS


def need_native() -> None:
    """Skips unless ``headgate._native`` is built and an ONNX Runtime wheel is installed."""
    if importlib.util.find_spec("headgate._native") is None:
        pytest.skip("headgate._native is not built: make test")
    if importlib.util.find_spec("onnxruntime") is None:
        pytest.skip('ONNX Runtime is not installed: pip install "headgate[cpu]"')


def need_digits() -> Path:
    """The folder of the prepared digits example; skips when it was not prepared."""
    if not (DIGITS / "models" / "digits" / "2" / "model.onnx").exists():
        pytest.skip("the digits example is not prepared: python examples/digits/prepare.py")
    return DIGITS


def need_program(name: str, package: str | None = None) -> str:
    """The path of a program; skips with the Debian package to install when it is missing."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed: apt-get install {package or name}")
    return path


def need_network_namespace() -> None:
    """Skips where a process may have no network of its own."""
    need_program("unshare", "util-linux")
    done = subprocess.run(["unshare", "-rn", "true"], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(
            f"unshare -rn is not permitted, so the default ports cannot be had: {done.stderr.strip()}"
        )


def need_postgres() -> Path:
    """The folder of PostgreSQL's programs, of the newest version that is installed; skips without one."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[4]))
    if not found:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    return found[-1].parent


def thread_count() -> int:
    """How many threads this process has, the interpreter's and all others."""
    return len(list(Path("/proc/self/task").iterdir()))


def descriptor_count() -> int:
    """How many file descriptors this process has open; the one that lists them does not count."""
    return len(list(Path("/proc/self/fd").iterdir())) - 1

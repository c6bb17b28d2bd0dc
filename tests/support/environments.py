"""Virtual environments for clients that others wrote: what they need clashes with each other's and with the tests' own.

One environment for each file in ``tests/conformance/environments``, made when a test first asks for it and kept under
``.cache/environments`` until the file changes: 3 s for ``grpcio``, 9 s each for ``triton`` and ``kserve``. What the clients
do is in ``tests/conformance/clients``.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.models import ROOT, TESTS

REQUIREMENTS = TESTS / "conformance" / "environments"
CACHE = ROOT / ".cache" / "environments"
INSTALL_SECONDS = 600.0
RUN_SECONDS = 180.0
#: A line of a requirement file that gives pip's own options.
OPTIONS = "# pip:"
#: Written last: an environment without it is not whole. Tells how long the installation took.
STAMP = "installed.json"


def python(name: str) -> Path:
    """The interpreter of an environment, made first if need be; without it the test is skipped, or fails in ``.ci/run``."""
    made = _made(name)
    if isinstance(made, Path):
        return made
    if os.environ.get("HEADGATE_NO_SKIP"):
        pytest.fail(made, pytrace=False)
    pytest.skip(made)


def run(name: str, module: str, arguments: Sequence[str], seconds: float = RUN_SECONDS) -> Any:
    """Runs a module of ``tests`` in an environment; what it prints, one line of JSON."""
    done = subprocess.run(
        [str(python(name)), "-W", "ignore", "-m", module, *arguments],
        env=os.environ | {"PYTHONPATH": str(TESTS), "GRPC_VERBOSITY": "NONE"},
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert done.returncode == 0, f"{module} in {name} ended with {done.returncode}:\n{done.stderr[-4000:]}"
    return json.loads(done.stdout)


@functools.cache
def _made(name: str) -> Path | str:
    """The interpreter, or why there is none; asked once for each environment, so that a failure is not tried again."""
    requirements = REQUIREMENTS / f"{name}.txt"
    identity = requirements.read_bytes() + sys.version.encode()
    folder = CACHE / f"{name}-{hashlib.sha256(identity).hexdigest()[:16]}"
    interpreter = folder / "bin" / "python"
    if not (folder / STAMP).exists():
        try:
            with _alone(folder):
                _install(requirements, folder)
        except (subprocess.SubprocessError, OSError) as error:
            said = getattr(error, "stderr", None) or ""
            return f"the environment {name} cannot be installed: {error}\n{said[-2000:]}"
    return interpreter


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Tests that run side by side install an environment once: the others wait for the first."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _install(requirements: Path, folder: Path) -> None:
    """Installs under another name and renames at the end: half an environment is never seen under its name."""
    if (folder / STAMP).exists():
        return
    begun = time.monotonic()
    half = folder.with_name(f"{folder.name}.{os.getpid()}")
    shutil.rmtree(half, ignore_errors=True)
    try:
        # Without pip: this interpreter's own installs into it, and does not have to be unpacked first.
        _checked([sys.executable, "-m", "venv", "--without-pip", str(half)])
        pip = [sys.executable, "-m", "pip", "--python", str(half / "bin" / "python"), "install", "--quiet"]
        _checked(
            [*pip, "--no-compile", "--no-input", *_options(requirements), "--requirement", str(requirements)]
        )
        (half / STAMP).write_text(json.dumps({"seconds": round(time.monotonic() - begun, 1)}))
        shutil.rmtree(folder, ignore_errors=True)
        half.rename(folder)
    finally:
        shutil.rmtree(half, ignore_errors=True)


def _options(requirements: Path) -> list[str]:
    lines = requirements.read_text().splitlines()
    return [option for line in lines if line.startswith(OPTIONS) for option in line[len(OPTIONS) :].split()]


def _checked(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_SECONDS)

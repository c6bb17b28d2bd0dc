"""The gateways of the tests that are forks of a process that has loaded one: what is loaded, when a fork is too late, and their end.

Not here: what such a gateway answers, which every other test here says.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from support import forks
from support.gateway import GatewayProcess
from support.models import ROOT
from support.tools import need_native
from support.waiting import until

#: Starts a gateway that no signal but SIGKILL can end, and ends without it.
LEAKS = """
import json, os, pathlib, signal, sys
sys.path[:0] = json.loads(sys.argv[2])
from support.gateway import GatewayProcess
gateway = GatewayProcess(pathlib.Path(sys.argv[1])).start()
os.kill(gateway.pid, signal.SIGSTOP)
print(gateway.pid, flush=True)
"""


@pytest.mark.parametrize("name", forks.LOADED)
def test_what_is_loaded_before_a_fork_is_there(name: str) -> None:
    need_native()
    assert importlib.import_module(name).__name__ == name


def test_a_gateway_that_hangs_does_not_keep_the_tests_from_their_end(tmp_path: Path) -> None:
    need_native()
    paths = json.dumps([str(ROOT / "python"), str(ROOT / "tests")])
    command = [sys.executable, "-c", LEAKS, str(tmp_path / "state"), paths]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    until(lambda: has_ended(int(ended.stdout)))


def has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.parametrize(
    ("variables", "fresh"),
    [
        ({}, False),
        ({"HOOK_URL": "http://localhost"}, False),
        *[
            ({name: "1"}, True)
            for name in ("LD_PRELOAD", "PYTHONHASHSEED", "MALLOC_ARENA_MAX", "GLIBC_TUNABLES")
        ],
        *[({name: "C"}, True) for name in ("OMP_NUM_THREADS", "LC_ALL", "LANG", "TZ")],
    ],
    ids=str,
)
def test_variables_that_are_read_at_a_start_are_not_for_a_fork(
    tmp_path: Path, variables: dict[str, str], fresh: bool
) -> None:
    assert GatewayProcess(tmp_path / "state", environment=variables).fresh is fresh

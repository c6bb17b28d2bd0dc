"""What a real gateway leaves in its state folder is its owner's alone, and a folder that others can write is shared with nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from support.gateway import GatewayProcess
from support.modes import modes
from support.tools import need_digits, need_native, need_program

REQUEST = b'{"inputs":[{"name":"X","datatype":"FP32","shape":[1,64],"data":[' + b"0," * 63 + b"0]}]}"
SECONDS = 60
#: Root opens what its mode closes; without these rights it is held to the modes as everybody is.
AS_ANYBODY = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []


@pytest.mark.parametrize("umask", ["000", "777"])
def test_no_umask_opens_or_closes_a_file_of_the_state(tmp_path: Path, umask: str) -> None:
    need_native()
    need_program("setpriv", "util-linux")
    state = tmp_path / "state"
    log = state / "access.jsonl"
    arguments = [str(need_digits() / "digits.yaml"), "--access-log", str(log)]
    prefix = ["sh", "-c", f'umask {umask}; exec "$@"', "sh", *AS_ANYBODY]
    with GatewayProcess(state, arguments, prefix=prefix) as gateway:
        httpx.post(f"http://{gateway.http}/v2/models/digits/infer", content=REQUEST).raise_for_status()
        with gateway.admin() as admin:
            admin.set_weights("digits", {"2": "20%"})
        assert {"headgate.db", "headgate.db-wal", "admin-token", "addresses.json", "access.jsonl"} <= {
            path.name for path in state.iterdir()
        }
        assert modes(state) == {}
        log.rename(state / "access.1.jsonl")
        gateway.signal(signal.SIGHUP)
        deadline = time.monotonic() + SECONDS
        while "was opened anew" not in gateway.log.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert log.exists()
        assert modes(state) == {}
    assert (state / "applied.json").exists()
    assert modes(state) == {}


def test_a_volume_that_everybody_can_write_holds_a_folder_of_ours(tmp_path: Path) -> None:
    need_native()
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)

    def headgate(*words: str) -> str:
        command = [sys.executable, "-m", "headgate", *words, "--state", str(shared)]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            env={**os.environ, "HOME": str(tmp_path)},
        )
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    with GatewayProcess(shared, [str(need_digits() / "digits.yaml")]):
        assert [path.name for path in shared.iterdir()] == ["headgate"]
        assert modes(shared / "headgate") == {}
        assert headgate("get", "-o", "name") == "digits\n"
        assert "whole" in headgate("state", "check")
        headgate("token", "create", "--offline", "--name", "me", "--role", "viewer")
        headgate("traffic", "digits", "2=20%", "--reason", "test")
    with GatewayProcess(shared):
        assert "20%" in headgate("get", "digits", "-o", "json")

from __future__ import annotations

import fcntl
import json
import os
import resource
import socket
from pathlib import Path

import pytest

from headgate.errors import ModelLoadFailed
from headgate.gateway import checks
from headgate.gateway.units import Address
from headgate.runtime_library import RuntimeLibrary

LIBRARY = RuntimeLibrary(Path("/lib/libonnxruntime.so.1.32.0"), "1.32.0", "onnxruntime")


def test_a_taken_port_fails_unless_a_gateway_runs_on_the_state_folder() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = Address("127.0.0.1", taken.getsockname()[1])
        found = checks.port("http", address, running=False)
        assert (found.status, "--http" in found.remedy) == ("fail", True)
        assert checks.port("http", address, running=True).status == "ok"
    assert checks.port("http", address, running=False).status == "ok"


@pytest.mark.parametrize(
    ("limit", "status"), [(64, "fail"), (1024, "warn"), (65_536, "ok"), (resource.RLIM_INFINITY, "ok")]
)
def test_open_files(limit: int, status: str) -> None:
    assert checks.open_files(limit).status == status


def test_a_state_folder_that_is_not_there_yet_is_made(tmp_path: Path) -> None:
    found = checks.state_folder(tmp_path / "a" / "b", running=False)
    assert found.status == "ok"
    assert "will be made" in found.message
    assert not (tmp_path / "a").exists()


def test_a_state_folder_that_is_a_file_fails(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert checks.state_folder(tmp_path / "file", running=False).status == "fail"


def test_a_state_folder_of_another_user_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = tmp_path.stat().st_uid + 1
    os.chown(tmp_path, owner, -1) if os.geteuid() == 0 else monkeypatch.setattr(os, "geteuid", lambda: owner)
    found = checks.state_folder(tmp_path, running=False)
    assert found.status == "fail"
    assert "belongs to user" in found.message


def test_the_lock_of_a_running_gateway_is_seen_and_left_alone(tmp_path: Path) -> None:
    assert not checks.is_locked(tmp_path)
    with (tmp_path / "lock").open("w") as lock:
        assert not checks.is_locked(tmp_path)
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert checks.is_locked(tmp_path)
        assert checks.is_locked(tmp_path)


def test_a_library_that_does_not_open_fails_with_its_words() -> None:
    def broken(path: str) -> bytes:
        raise ModelLoadFailed(f"{path}: invalid ELF header")

    last = list(checks.native(LIBRARY, broken))[-1]
    assert (last.check, last.status) == ("library", "fail")
    assert "invalid ELF header" in last.message


def test_a_library_without_the_cpu_provider_fails() -> None:
    info = json.dumps({"version": "1.32.0", "providers": []}).encode()
    assert list(checks.native(LIBRARY, lambda _: info))[-1].status == "fail"


def test_telemetry_that_was_switched_on_again_fails() -> None:
    assert checks.telemetry({"ORT_DISABLE_TELEMETRY": "1"}).status == "ok"
    assert checks.telemetry({"ORT_DISABLE_TELEMETRY": "0"}).status == "fail"

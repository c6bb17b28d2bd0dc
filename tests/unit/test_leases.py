"""Leases: held by any number, within a process and across processes, and never beside an exclusive use."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

from headgate.leases import Lease, exclusive

HOLDER = """
import sys
from pathlib import Path
from headgate.leases import Lease
with Lease() as lease:
    assert lease.hold(Path(sys.argv[1]))
    print("held", flush=True)
    sys.stdin.read()
"""


def is_free(path: Path) -> bool:
    with exclusive(path) as free:
        return free


def test_what_is_held_is_not_free(tmp_path: Path) -> None:
    for path in (tmp_path / "folder", tmp_path / "file"):
        path.mkdir() if path.name == "folder" else path.write_bytes(b"")
        assert is_free(path)
        with Lease() as one, Lease() as other:
            assert one.hold(path)
            assert other.hold(path)
            assert not is_free(path)
        assert is_free(path)


def test_a_lease_follows_a_rename_and_there_is_none_on_nothing(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    with Lease() as lease:
        assert not lease.hold(after)
        assert lease.hold(before)
        before.rename(after)
        assert not is_free(after)
        assert not is_free(before)


def test_another_process_is_seen_until_it_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert not is_free(tmp_path)
        process.kill()
        process.wait()
        assert is_free(tmp_path)


def test_who_wants_what_is_removed_meanwhile_is_told(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.mkdir()
    found: list[bool] = []
    with Lease() as lease:
        waiting = threading.Thread(target=lambda: found.append(lease.hold(path)))
        with exclusive(path) as free:
            assert free
            waiting.start()
            path.rename(tmp_path / "gone")
        waiting.join()
    assert found == [False]


def test_what_a_thread_holds_too_late_is_free(tmp_path: Path) -> None:
    with Lease() as lease:
        pass
    assert lease.hold(tmp_path)
    assert is_free(tmp_path)

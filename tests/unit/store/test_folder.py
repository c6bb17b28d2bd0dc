"""The state folder: its lock, its modes, what is refused in place of a database."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from headgate.errors import Conflict, StorageFailed
from headgate.store import open_store


def test_the_database_is_durable_and_private(tmp_path: Path) -> None:
    state = tmp_path / "state"
    store = open_store(state)
    with store.transactions.read() as session:
        assert session.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert session.execute(text("PRAGMA synchronous")).scalar() == 2
    for folder in (state, state / "baselines", state / "blobs", state / "artifacts"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    store.close()


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "headgate.db").write_bytes(
        b"not a database, but long enough to be read as one" * 20
    )
    with pytest.raises(StorageFailed):
        open_store(tmp_path / "state")


def test_another_process_is_kept_out_until_this_one_ends(tmp_path: Path) -> None:
    state = tmp_path / "state"
    code = (
        f"from pathlib import Path; from headgate.store import open_store; open_store(Path({str(state)!r}))"
    )
    here = Path(__file__).parents[3] / "python"
    environment = {**os.environ, "PYTHONPATH": str(here)}
    store = open_store(state)
    other = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert other.returncode != 0
    assert f"another gateway (process {os.getpid()})" in other.stderr
    with pytest.raises(Conflict):
        open_store(state)
    store.close()
    other = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert other.returncode == 0, other.stderr


def test_a_state_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(StorageFailed, match="cannot be used"):
        open_store(tmp_path / "state")

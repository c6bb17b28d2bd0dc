"""What nobody references is removed, what somebody references or uses stays; killed at any step, nothing is half there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from headgate.drift import keep_baseline
from headgate.errors import StorageFailed
from headgate.leases import Lease, exclusive
from headgate.registry import ArtifactStore, Collected, collect, unreferenced
from headgate.registry import store as artifact_store

from .conftest import Save


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def store(state: Path) -> ArtifactStore:
    return ArtifactStore(state)


def blobs(state: Path) -> list[str]:
    return sorted(path.name for path in (state / "blobs" / "sha256").iterdir())


def test_what_is_referenced_stays(store: ArtifactStore, state: Path, save: Save, tmp_path: Path) -> None:
    kept = store.ingest(save(tmp_path / "a", 1.0, location="w.data", data=bytes(16)))
    gone = store.ingest(save(tmp_path / "b", 2.0, location="v.data", data=bytes(16)))
    (state / "staging" / "gone-by-a-kill").mkdir()
    for folder in ("artifacts", "blobs/sha256", "baselines"):
        (state / folder / "lost+found").mkdir(parents=True)
    size = (tmp_path / "b" / "model.onnx").stat().st_size
    found = unreferenced(state, lambda: {kept})
    assert (found.artifacts, len(found.blobs), found.bytes) == ([gone], 1, size)
    assert collect(state, lambda: {kept}, 9) == Collected(artifacts=1, blobs=1, bytes=size)
    assert all(
        (state / folder / "lost+found").exists() for folder in ("artifacts", "blobs/sha256", "baselines")
    )
    assert kept in store.digests()
    store.verify(kept)
    assert not store.contains(gone)
    assert list((state / "staging").iterdir()) == []
    assert collect(state, lambda: {kept}, 9) == Collected()
    assert store.ingest(tmp_path / "b") == gone


def test_baselines_go_as_well(state: Path) -> None:
    digests = [keep_baseline(state, f"baseline {n}".encode())[0] for n in range(3)]
    (state / "baselines" / ".new-left-by-a-kill").write_bytes(b"half")
    with Lease() as lease:
        keep_baseline(state, b"baseline 2", lease)
        assert collect(state, lambda: digests[:1], 9) == Collected(baselines=1, bytes=10)
        assert not unreferenced(state, lambda: digests).baselines
    assert collect(state, lambda: digests[:1], 9).baselines == 1
    assert [path.stem for path in (state / "baselines").iterdir()] == [digests[0].removeprefix("sha256:")]


def test_a_call_is_bounded(store: ArtifactStore, state: Path, save: Save, tmp_path: Path) -> None:
    for n in range(5):
        store.ingest(save(tmp_path / str(n), float(n + 1)))
    found = [collect(state, set, 2) for _ in range(3)]
    assert [(one.artifacts, one.more) for one in found] == [(2, True), (2, True), (1, False)]
    assert blobs(state) == []


def test_what_is_in_use_stays_until_it_is_free(
    store: ArtifactStore, state: Path, save: Save, tmp_path: Path
) -> None:
    with Lease() as lease:
        digest = store.ingest(save(tmp_path / "a"), lease)
        again = store.ingest(save(tmp_path / "b", 3.0))
        with Lease() as other:
            assert store.hold(again, other)
            assert collect(state, set, 9) == Collected()
        assert collect(state, set, 9).artifacts == 1
        store.verify(digest)
        with Lease() as backup:
            backup.hold(state / "artifacts")
            assert collect(state, set, 9).busy
    assert collect(state, set, 9).artifacts == 1


def test_a_row_that_a_lease_left_behind_counts(
    store: ArtifactStore, state: Path, save: Save, tmp_path: Path
) -> None:
    """The row is written, and the lease ends, between the first look at the rows and the lock."""
    digest = store.ingest(save(tmp_path / "a"))
    rows: list[set[str]] = [set(), {digest}]
    assert collect(state, lambda: rows.pop(0), 9) == Collected()
    store.verify(digest)


def test_a_blob_is_not_collected_before_its_artifact_is_there(
    store: ArtifactStore, state: Path, save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Collected] = []
    publish = ArtifactStore._publish_artifact

    def collected_between(*given: object) -> None:
        found.append(collect(state, set, 9))
        publish(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(ArtifactStore, "_publish_artifact", collected_between)
    with Lease() as lease:
        store.verify(store.ingest(save(tmp_path / "a"), lease))
    assert found[0].busy


def test_a_disk_that_fails_is_said(
    store: ArtifactStore, state: Path, save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = store.ingest(save(tmp_path / "a"))

    def broken(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", broken)
        with pytest.raises(StorageFailed, match="Input/output error"):
            collect(state, set, 9)
    store.verify(digest)
    with exclusive(state / "artifacts") as free:
        assert free


KILLED = """
import os, signal, sys
from pathlib import Path
from headgate.registry import collect
step, left = sys.argv[2], int(sys.argv[3])

def watched(event, args):
    global left
    if event == step:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

kept = set(sys.argv[4:])
sys.addaudithook(watched)
collect(Path(sys.argv[1]), lambda: kept, 9)
"""


@pytest.mark.parametrize("step", ["os.rename", "os.remove", "os.rmdir", "tempfile.mkdtemp"])
def test_killed_at_any_step_nothing_is_half_there(state: Path, save: Save, tmp_path: Path, step: str) -> None:
    for n in range(4):
        save(tmp_path / str(n), float(n + 1), location="w.data", data=bytes([n]) * 16)
    times, killed = 0, True
    while killed:
        times += 1
        store = ArtifactStore(state)
        digests = [store.ingest(tmp_path / str(n)) for n in range(4)]
        orphan = keep_baseline(state, b"orphan")[0]
        killed = _killed(state, step, times, digests[:2])
        store = ArtifactStore(state)
        for digest in digests[:2]:
            store.verify(digest)
        for digest in store.digests():
            # What is still there is whole, and can be used again.
            store.verify(digest)
        collect(state, partial(set, digests[:2]), 9)
        assert store.digests() == sorted(digests[:2])
        assert len(blobs(state)) == 3
        assert not list((state / "staging").iterdir())
        assert not list((state / "baselines").iterdir()), orphan
    assert times > 1


def _killed(state: Path, step: str, times: int, kept: list[str]) -> bool:
    """Whether the process came to the step that often."""
    command = [sys.executable, "-c", KILLED, str(state), step, str(times), *kept]
    code = subprocess.run(command, check=False, env={**os.environ}).returncode
    assert code in (0, -signal.SIGKILL)
    return code != 0


def test_a_lost_artifact_that_is_held_is_taken_in_anew(
    store: ArtifactStore, state: Path, save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is collected by another process after its bytes were compared."""
    digest = store.ingest(save(tmp_path / "a"))
    hold: Callable[..., bool] = artifact_store.Lease.hold

    def late(lease: Lease, path: Path) -> bool:
        if path.name == digest[7:]:
            monkeypatch.undo()
            path.rename(tmp_path / "collected")
        return hold(lease, path)

    monkeypatch.setattr(artifact_store.Lease, "hold", late)
    with Lease() as lease:
        assert store.ingest(tmp_path / "a", lease) == digest
        store.verify(digest)
        assert collect(state, set, 9).artifacts == 0

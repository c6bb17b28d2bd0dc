"""Passes over a tree: what is new, refused, failed, settling, gone."""

from __future__ import annotations

import os
import resource
import shutil
from pathlib import Path

import pytest

from headgate.errors import StorageFailed
from headgate.leases import Lease
from headgate.registry import ArtifactStore, Manifest, Registry, SyncResult, TreeSync, scan
from headgate.registry.sync import SETTLE_SECONDS

from .conftest import Save
from .test_registry import MemoryPins


@pytest.fixture
def root(tmp_path: Path, save: Save) -> Path:
    save(tmp_path / "models" / "digits" / "1", 1.0)
    save(tmp_path / "models" / "digits" / "2", 2.0, location="w.data")
    return tmp_path / "models"


@pytest.fixture
def pins() -> MemoryPins:
    return MemoryPins()


@pytest.fixture
def registry(tmp_path: Path, pins: MemoryPins) -> Registry:
    return Registry(ArtifactStore(tmp_path / "state"), pins)


@pytest.fixture
def tree(registry: Registry) -> TreeSync:
    return TreeSync(registry)


def test_an_unchanged_tree_is_not_read_again(
    tree: TreeSync, root: Path, save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tree.sync(scan(root))
    assert [(a.found.version, a.digest[:7]) for a in first.new] == [("1", "sha256:"), ("2", "sha256:")]

    def not_read(*_: object) -> Manifest:
        raise AssertionError("read again")

    with monkeypatch.context() as patched:
        patched.setattr(ArtifactStore, "fingerprint", not_read)
        patched.setattr(ArtifactStore, "ingest", not_read)
        assert tree.sync(scan(root)) == SyncResult(unchanged=2)
    save(root / "digits" / "3", 3.0)
    later = tree.sync(scan(root))
    assert ([a.found.version for a in later.new], later.unchanged) == (["3"], 2)


@pytest.mark.parametrize("changed", ["model.onnx", "w.data"])
def test_changed_bytes_are_refused_once_until_they_change_again(
    tree: TreeSync, pins: MemoryPins, root: Path, changed: str
) -> None:
    for one in tree.sync(scan(root)).new:
        pins.pin(one.found.endpoint, one.found.version, one.digest)
    path = root / "digits" / "2" / changed
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"scale", b"SCALE") if changed == "model.onnx" else bytes(len(whole)))
    second = tree.sync(scan(root))
    assert [(r.endpoint, r.version) for r in second.refused] == [("digits", "2")]
    assert (second.new, second.unchanged) == ([], 1)
    assert tree.sync(scan(root)) == SyncResult(unchanged=2)
    path.write_bytes(whole)
    third = tree.sync(scan(root))
    assert [a.found.version for a in third.new] == ["2"]


def test_a_broken_model_is_tried_again_when_anything_in_its_folder_changes(
    tree: TreeSync, root: Path, save: Save
) -> None:
    save(root / "digits" / "3", 3.0, location="w.data", data=None)
    first = tree.sync(scan(root))
    assert [f.found.version for f in first.failed] == ["3"]
    assert [f.found.version for f in tree.failures()] == ["3"]
    assert tree.sync(scan(root)) == SyncResult(unchanged=3)
    (root / "digits" / "3" / "w.data").write_bytes(bytes(16))
    assert [a.found.version for a in tree.sync(scan(root)).new] == ["3"]
    assert tree.failures() == []


def test_a_folder_that_fails_in_an_unforeseen_way_keeps_no_other_waiting(
    tree: TreeSync, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest = ArtifactStore.ingest

    def odd(store: ArtifactStore, path: Path, lease: Lease | None) -> str:
        if path.name == "1":
            raise TypeError("a type that does not fit")
        return ingest(store, path, lease)

    monkeypatch.setattr(ArtifactStore, "ingest", odd)
    result = tree.sync(scan(root))
    assert [a.found.version for a in result.new] == ["2"]
    assert [(f.found.version, f.error.code) for f in result.failed] == [("1", "model_load_failed")]


def test_a_full_disk_is_tried_again_at_the_next_pass(
    tree: TreeSync, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        assert len(tree.sync(scan(root)).failed) == 2
        assert len(tree.sync(scan(root)).failed) == 2
    assert len(tree.sync(scan(root)).new) == 2


def test_a_process_without_descriptors_tries_again_at_the_next_pass(
    tree: TreeSync, root: Path, pins: MemoryPins
) -> None:
    found = scan(root)
    for admitted in tree.sync(found).new:
        pins.pin(admitted.found.endpoint, admitted.found.version, admitted.digest)
        os.utime(admitted.found.folder / "model.onnx")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        failed = tree.sync(found).failed
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert {type(one.error) for one in failed} == {StorageFailed}
    assert "Too many open files" in failed[0].error.message
    assert len(tree.sync(found).new) == len(found)


def test_a_fresh_folder_settles_first(tree: TreeSync, root: Path) -> None:
    changed = max(path.stat().st_ctime for path in root.rglob("*") if path.is_file())
    early = tree.sync(scan(root), now=changed + SETTLE_SECONDS / 2)
    assert ([f.version for f in early.settling], early.new) == (["1", "2"], [])
    late = tree.sync(scan(root), now=changed + SETTLE_SECONDS + 1)
    assert [a.found.version for a in late.new] == ["1", "2"]


def test_what_disappears_is_told_and_stays_in_the_store(tree: TreeSync, root: Path, tmp_path: Path) -> None:
    first = tree.sync(scan(root))
    shutil.rmtree(root / "digits" / "1")
    assert tree.sync(scan(root)) == SyncResult(gone=[("digits", "1")], unchanged=1)
    assert tree.sync(scan(root)) == SyncResult(unchanged=1)
    ArtifactStore(tmp_path / "state").verify(first.new[0].digest)


def test_a_refusal_ends_when_its_folder_is_gone(
    tree: TreeSync, registry: Registry, pins: MemoryPins, root: Path
) -> None:
    pins.pin("digits", "1", "sha256:" + "0" * 64)
    assert len(tree.sync(scan(root)).refused) == 1
    assert [one.version for one in registry.refusals()] == ["1"]
    shutil.rmtree(root / "digits" / "1")
    assert tree.sync(scan(root)).gone == [("digits", "1")]
    assert registry.refusals() == []

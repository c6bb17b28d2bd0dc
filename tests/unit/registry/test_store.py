"""The artifact store: what belongs to an artifact, its digest, damage, and what is refused on the way in."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from headgate.errors import ModelLoadFailed, NotFound, StorageFailed
from headgate.registry import ArtifactStore, Entry, Manifest, Unsettled
from headgate.registry import source as sources
from headgate.registry.external import external_files

from .conftest import Save, scale_model


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "state")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def no_leftovers(tmp_path: Path) -> bool:
    return not list((tmp_path / "state" / "staging").iterdir())


def test_a_folder_becomes_an_artifact(store: ArtifactStore, save: Save, tmp_path: Path) -> None:
    folder = save(tmp_path / "m")
    (folder / "README.md").write_text("not part of it")
    model = (folder / "model.onnx").read_bytes()
    digest = store.ingest(folder)
    expected = f'{{"model.onnx":{{"sha256":"{sha256(model)}","size":{len(model)}}}}}'.encode()
    assert digest == "sha256:" + sha256(expected)
    assert store.manifest(digest).to_bytes() == expected
    path = store.model_path(digest)
    assert path == tmp_path / "state" / "artifacts" / digest[7:] / "model.onnx"
    assert path.read_bytes() == model
    assert path.samefile(tmp_path / "state" / "blobs" / "sha256" / sha256(model))
    assert sorted(p.name for p in path.parent.iterdir()) == ["manifest.json", "model.onnx"]
    assert path.stat().st_mode & 0o222 == 0
    onnx.checker.check_model(onnx.load(path))
    assert store.digests() == [digest]
    assert store.fingerprint(folder).digest == digest
    assert no_leftovers(tmp_path)


def test_the_digest_is_of_the_bytes_alone(store: ArtifactStore, save: Save, tmp_path: Path) -> None:
    folder = save(tmp_path / "m")
    digest = store.ingest(folder)
    renamed = folder / "other-name.onnx"
    (folder / "model.onnx").rename(renamed)
    assert store.ingest(renamed) == digest
    with pytest.raises(ModelLoadFailed, match=r"holds no model\.onnx"):
        store.ingest(folder)
    assert store.ingest(save(tmp_path / "n", 3.0)) != digest


def test_extras_belong_to_a_folder(store: ArtifactStore, save: Save, tmp_path: Path) -> None:
    folder = save(tmp_path / "m")
    plain = store.ingest(folder)
    (folder / "warmup.json").write_text("{}")
    (folder / "labels.txt").write_text("a\nb\n")
    digest = store.ingest(folder)
    assert digest != plain
    assert sorted(store.manifest(digest).files) == ["labels.txt", "model.onnx", "warmup.json"]
    assert store.ingest(folder / "model.onnx") == plain


def test_external_data_comes_along(store: ArtifactStore, save: Save, tmp_path: Path) -> None:
    folder = save(tmp_path / "m", 5.0, location="weights/w.data")
    (folder / "unused.data").write_bytes(b"not referred to")
    digest = store.ingest(folder)
    assert sorted(store.manifest(digest).files) == ["model.onnx", "weights/w.data"]
    kept = store.model_path(digest).parent / "weights" / "w.data"
    assert np.frombuffer(kept.read_bytes(), np.float32).tolist() == [5.0] * 4
    assert kept.stat().st_nlink == 2
    assert store.fingerprint(folder).digest == digest


@pytest.mark.parametrize(
    "location", ["/etc/passwd", "../out.data", "a/../../out.data", "", "a\\..\\b", "a\0b", "x" * 2000]
)
def test_external_data_outside_the_folder_is_refused(
    location: str, store: ArtifactStore, save: Save, tmp_path: Path
) -> None:
    (tmp_path / "out.data").write_bytes(bytes(16))
    folder = save(tmp_path / "m", location=location, data=None)
    with pytest.raises(ModelLoadFailed, match="relative path below the model's folder"):
        store.ingest(folder)
    with pytest.raises(ModelLoadFailed, match="relative path below the model's folder"):
        store.fingerprint(folder)
    assert store.digests() == []
    assert no_leftovers(tmp_path)


@pytest.mark.parametrize("location", ["model.onnx", "manifest.json", "warmup.json", "./labels.txt"])
def test_external_data_may_not_take_a_name_that_is_used(
    location: str, store: ArtifactStore, save: Save, tmp_path: Path
) -> None:
    with pytest.raises(ModelLoadFailed, match="taken"):
        store.ingest(save(tmp_path / "m", location=location, data=None))


def test_missing_and_short_external_data_are_refused(
    store: ArtifactStore, save: Save, tmp_path: Path
) -> None:
    with pytest.raises(ModelLoadFailed, match=r"w\.data is missing"):
        store.ingest(save(tmp_path / "a", location="w.data", data=None))
    with pytest.raises(ModelLoadFailed, match="has 5 bytes; the model wants at least 16"):
        store.ingest(save(tmp_path / "b", location="w.data", data=b"short"))
    with pytest.raises(ModelLoadFailed, match="negative"):
        store.ingest(save(tmp_path / "c", location="w.data", length=-1))


def test_links_may_not_leave_the_folder(store: ArtifactStore, save: Save, tmp_path: Path) -> None:
    (tmp_path / "out.data").write_bytes(bytes(16))
    folder = save(tmp_path / "m", location="w.data", data=None)
    (folder / "w.data").symlink_to(tmp_path / "out.data")
    with pytest.raises(ModelLoadFailed, match="leaves the folder"):
        store.ingest(folder)
    (folder / "w.data").unlink()
    (folder / "kept.data").write_bytes(bytes(16))
    (folder / "w.data").symlink_to("kept.data")
    assert "w.data" in store.manifest(store.ingest(folder)).files
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "model.onnx").symlink_to(save(tmp_path / "n") / "model.onnx")
    with pytest.raises(ModelLoadFailed, match="leaves the folder"):
        store.ingest(linked)


def test_a_pipe_is_refused_and_does_not_hang(store: ArtifactStore, save: Save, tmp_path: Path) -> None:
    folder = save(tmp_path / "m", location="w.data", data=None)
    os.mkfifo(folder / "w.data")
    with pytest.raises(ModelLoadFailed, match="not a regular file"):
        store.ingest(folder)


def test_a_folder_in_the_place_of_a_file_is_refused(store: ArtifactStore, save: Save, tmp_path: Path) -> None:
    folder = save(tmp_path / "m", location="w.data", data=None)
    (folder / "w.data").mkdir()
    with pytest.raises(ModelLoadFailed, match="not a regular file"):
        store.ingest(folder)
    (save(tmp_path / "n") / "warmup.json").mkdir()
    with pytest.raises(ModelLoadFailed, match="not a regular file"):
        store.ingest(tmp_path / "n")


@pytest.mark.parametrize("keep", [0, 1, 20, -10, -1])
def test_what_is_no_whole_model_is_refused(
    keep: int, store: ArtifactStore, save: Save, tmp_path: Path
) -> None:
    path = save(tmp_path / "m") / "model.onnx"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelLoadFailed, match="not an ONNX model, or not whole"):
        store.ingest(path)
    path.write_text("hello")
    with pytest.raises(ModelLoadFailed, match="not an ONNX model"):
        store.ingest(path)
    assert no_leftovers(tmp_path)


def test_paths_that_are_no_model(store: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "m.bin").touch()
    for path, says in ((tmp_path / "none", "does not exist"), (tmp_path / "m.bin", "not an .onnx file")):
        with pytest.raises(ModelLoadFailed, match=says):
            store.ingest(path)


def test_a_file_that_changes_while_it_is_read_is_unsettled(save: Save, tmp_path: Path) -> None:
    source = sources.find(save(tmp_path / "m"))

    def also_written(_chunk: bytes) -> None:
        with source.path_of("model.onnx").open("ab") as file:
            file.write(b"more")

    with pytest.raises(Unsettled, match="changed while it was read"):
        sources.read(source, "model.onnx", also_written)


def test_a_folder_that_becomes_a_link_while_a_file_is_opened_leads_nowhere(
    save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = sources.find(save(tmp_path / "m", location="deep/w.data"))
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "w.data").write_bytes(b"a secret")
    open_file = os.open

    def swapped(path: Path, flags: int) -> int:
        (tmp_path / "m" / "deep").rename(tmp_path / "m" / "was")
        (tmp_path / "m" / "deep").symlink_to(tmp_path / "outside")
        return open_file(path, flags)

    monkeypatch.setattr(os, "open", swapped)
    with pytest.raises(ModelLoadFailed, match="was moved out of"):
        sources.read(source, "deep/w.data", lambda _chunk: None)


def test_damage_is_found_and_repaired(store: ArtifactStore, save: Save, tmp_path: Path) -> None:
    folder = save(tmp_path / "m")
    digest = store.ingest(folder)
    path = store.model_path(digest)
    whole = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(whole[:-1] + b"?")
    for use in (store.verify, store.model_path):
        with pytest.raises(StorageFailed, match=r"damaged: model\.onnx has sha256"):
            use(digest)
    assert store.ingest(folder) == digest
    assert store.model_path(digest).read_bytes() == whole
    store.verify(digest)
    store.model_path(digest).unlink()
    with pytest.raises(StorageFailed, match="damaged"):
        store.verify(digest)


def test_a_manifest_with_other_bytes_is_damage(store: ArtifactStore, save: Save, tmp_path: Path) -> None:
    digest = store.ingest(save(tmp_path / "m"))
    manifest = tmp_path / "state" / "artifacts" / digest[7:] / "manifest.json"
    manifest.chmod(0o644)
    manifest.write_bytes(b"{}")
    with pytest.raises(StorageFailed, match="its manifest has other bytes"):
        store.manifest(digest)
    with pytest.raises(NotFound, match="not in the store"):
        store.verify("sha256:" + "0" * 64)
    with pytest.raises(StorageFailed, match="not in the store; bring the same model again"):
        store.model_path("sha256:" + "0" * 64)
    with pytest.raises(ValueError, match="not a digest"):
        store.verify("../../etc")


def test_an_unchanged_artifact_is_hashed_once(
    store: ArtifactStore, save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = store.ingest(save(tmp_path / "m"))
    store.model_path(digest)

    def no_more(_path: Path) -> Entry:
        raise AssertionError("hashed again")

    monkeypatch.setattr("headgate.registry.store._hash", no_more)
    store.model_path(digest)
    with pytest.raises(AssertionError, match="hashed again"):
        store.verify(digest)


def test_a_manifest_that_changes_after_the_first_use_is_noticed(
    store: ArtifactStore, save: Save, tmp_path: Path
) -> None:
    path = store.model_path(store.ingest(save(tmp_path / "m")))
    (path.parent / "manifest.json").unlink()
    (path.parent / "manifest.json").write_bytes(b"{}")
    with pytest.raises(StorageFailed, match="its manifest has other bytes"):
        store.model_path(f"sha256:{path.parent.name}")


def test_what_was_just_taken_in_is_not_hashed_again(
    store: ArtifactStore, save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = store.ingest(save(tmp_path / "a", 1.0, location="w.data", data=bytes(16)))
    second = store.ingest(save(tmp_path / "b", 2.0, location="w.data", data=bytes(16)))

    def no_more(_path: Path) -> Entry:
        raise AssertionError("hashed again")

    monkeypatch.setattr("headgate.registry.store._hash", no_more)
    for digest in (first, second):
        assert store.model_path(digest) == store.place(digest)


def test_what_a_killed_process_left_is_removed_at_the_next_start(tmp_path: Path, save: Save) -> None:
    left = tmp_path / "state" / "staging" / "left-by-a-kill"
    left.mkdir(parents=True)
    (left / "half").write_bytes(b"half a model")
    store = ArtifactStore(tmp_path / "state")
    assert no_leftovers(tmp_path)
    store.verify(store.ingest(save(tmp_path / "m")))


@pytest.mark.parametrize("use", ["ingest", "fingerprint"])
def test_a_location_that_is_no_text_is_a_model_that_does_not_load(
    store: ArtifactStore, save: Save, tmp_path: Path, use: str
) -> None:
    path = save(tmp_path / "m", location="w.data") / "model.onnx"
    path.write_bytes(path.read_bytes().replace(b"w.data", b"w\xff\xfedat"))
    with pytest.raises(ModelLoadFailed):
        getattr(store, use)(path.parent)


def test_equal_files_are_kept_once(store: ArtifactStore, save: Save, tmp_path: Path) -> None:
    first = store.ingest(save(tmp_path / "a", 1.0, location="w.data"))
    second = store.ingest(save(tmp_path / "b", 2.0, location="other.data", data=bytes(16)))
    third = store.ingest(save(tmp_path / "c", 3.0, location="w.data", data=bytes(16)))
    assert len({first, second, third}) == 3
    blobs = list((tmp_path / "state" / "blobs" / "sha256").iterdir())
    hashes = {e.sha256 for digest in (first, second, third) for e in store.manifest(digest).files.values()}
    assert {blob.name for blob in blobs} == hashes


def test_a_disk_that_fails_is_said(
    store: ArtifactStore, save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save(tmp_path / "m")

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(StorageFailed, match="No space left"):
            store.ingest(folder)
    assert store.digests() == []
    assert no_leftovers(tmp_path)
    store.verify(store.ingest(folder))


def test_tensors_are_found_wherever_they_hide(tmp_path: Path) -> None:
    def external(name: str, location: str) -> TensorProto:
        tensor = TensorProto(
            name=name, data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL
        )
        tensor.external_data.add(key="location", value=location)
        return tensor

    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=external("t", "in-attribute"))],
        "inner",
        [],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, [1])],
        [external("i", "in-subgraph")],
    )
    model = scale_model(1.0)
    model.graph.node.append(helper.make_node("If", ["cond"], ["z"], then_branch=inner, else_branch=inner))
    model.graph.initializer.append(external("w", "in-graph"))
    sparse = model.graph.sparse_initializer.add()
    sparse.values.CopyFrom(external("s", "in-sparse"))
    function = model.functions.add(name="f", domain="d")
    function.node.append(helper.make_node("Constant", [], ["c"], value=external("f", "in-function")))
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    assert sorted(external_files(path)) == [
        "in-attribute",
        "in-function",
        "in-graph",
        "in-sparse",
        "in-subgraph",
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        [],
        {"../x": {"sha256": "0" * 64, "size": 1}},
        {"a": {"sha256": "0", "size": 1}},
        {"a": {"sha256": "0" * 64, "size": -1}},
        {"a": {"sha256": "0" * 64, "size": True}},
        {"a": {"sha256": "0" * 64}},
        {"manifest.json": {"sha256": "0" * 64, "size": 1}},
    ],
)
def test_manifests_are_checked_when_read(wrong: object) -> None:
    with pytest.raises(StorageFailed, match="manifest"):
        Manifest.from_bytes(json.dumps(wrong).encode())


def test_manifest_bytes_are_canonical() -> None:
    one, two = Entry("0" * 64, 1), Entry("f" * 64, 2)
    assert Manifest({"b": two, "ä": one}).to_bytes() == Manifest({"ä": one, "b": two}).to_bytes()
    manifest = Manifest({"b": two, "ä": one})
    assert Manifest.from_bytes(manifest.to_bytes()).files == manifest.files
    assert manifest.size == 3


def test_onnx_runtime_loads_hard_linked_external_data(
    store: ArtifactStore, save: Save, tmp_path: Path
) -> None:
    digest = store.ingest(save(tmp_path / "m", 5.0, location="weights/w.data"))
    session = onnxruntime.InferenceSession(store.model_path(digest), providers=["CPUExecutionProvider"])
    [answer] = session.run(None, {"X": np.ones((1, 4), np.float32)})
    assert answer.tolist() == [[5.0] * 4]

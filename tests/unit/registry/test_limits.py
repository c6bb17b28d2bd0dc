"""What a model may be, judged before a byte is copied; and a large one is read without being taken into memory."""

from __future__ import annotations

import os
import random
import tracemalloc
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from benches.intake import write_sparse
from headgate.errors import ModelLoadFailed, StorageFailed
from headgate.registry import ArtifactStore, wire
from headgate.registry import source as sources
from headgate.registry.external import external_files
from support.models import TESTS

from .conftest import Save, scale_model

GIB = 1 << 30


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArtifactStore:
    """A store with a memory budget of 1 GiB, and a test that fails if a file of a model is opened."""
    made = ArtifactStore(tmp_path / "state", GIB)

    def read(*given: object, **_: object) -> None:
        raise AssertionError(f"{given} is read")

    monkeypatch.setattr(sources, "read", read)
    return made


def large(path: Path, size: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.truncate(size)
    return path


@pytest.mark.parametrize("use", ["ingest", "fingerprint"])
def test_a_model_file_beyond_what_any_may_have_is_not_read(
    store: ArtifactStore, tmp_path: Path, use: str
) -> None:
    path = large(tmp_path / "m" / "model.onnx", 3 * GIB)
    with pytest.raises(
        ModelLoadFailed, match=f"has {3 * GIB} bytes, which is more than 2 GiB: save it with external data"
    ):
        getattr(store, use)(path.parent)


def test_a_model_beyond_the_memory_budget_is_not_read(store: ArtifactStore, tmp_path: Path) -> None:
    path = large(tmp_path / "model.onnx", GIB + 1)
    with pytest.raises(ModelLoadFailed, match=f"has {GIB + 1} bytes, and --memory-budget is {GIB}"):
        store.ingest(path)


class Full:
    """A disk with so many bytes free."""

    f_frsize = 4096

    def __init__(self, free: int) -> None:
        self.f_bavail = free // self.f_frsize


@pytest.mark.parametrize("name", ["model.onnx", "warmup.json", "w.data"])
def test_a_model_without_room_on_the_disk_is_not_copied(
    save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    store = ArtifactStore(tmp_path / "state")
    folder = save(tmp_path / "m", location="w.data", data=bytes(16))
    large(folder / name, 3 * GIB if name != "model.onnx" else GIB)
    monkeypatch.setattr(os, "statvfs", lambda _path: Full(GIB // 2))
    copied: list[str] = []
    read = sources.read

    def watched(source: sources.Source, one: str, *given: object, **least: int) -> object:
        copied.append(one)
        return read(source, one, *given, **least)  # type: ignore[arg-type]

    monkeypatch.setattr(sources, "read", watched)
    with pytest.raises(
        StorageFailed, match=rf"no room to copy a model: .* are free for it below {tmp_path / 'state'}"
    ):
        store.ingest(folder)
    assert name not in copied
    assert list((tmp_path / "state" / "staging").iterdir()) == []


def test_a_large_tensor_is_skipped_and_not_read(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    write_sparse(path, 900 << 20)
    tracemalloc.start()
    try:
        assert external_files(path) == {}
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    write_sparse(path, 1 << 10)
    onnx.checker.check_model(onnx.load(path))


def by_onnx(path: Path) -> dict[str, int]:
    """The files of a model, as the onnx package finds them."""
    found: dict[str, int] = {}
    for tensor in onnx.load(path, load_external_data=False).graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            said = {entry.key: entry.value for entry in tensor.external_data}
            end = int(said.get("offset", "0")) + int(said.get("length", "0"))
            found[said["location"]] = max(found.get(said["location"], 0), end)
    return found


def test_models_are_understood_as_by_onnx(tmp_path: Path) -> None:
    for path in sorted((TESTS / "models").glob("*.onnx")):
        assert external_files(path) == by_onnx(path) == {}, path
    model = scale_model(1.0)
    for n in range(300):
        tensor = helper.make_tensor(f"w{n}", TensorProto.FLOAT, [4], bytes(16), raw=True)
        onnx.external_data_helper.set_external_data(tensor, f"weights/{n % 7}.bin", n * 16, 16)
        tensor.ClearField("raw_data")
        model.graph.initializer.append(tensor)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    assert external_files(tmp_path / "model.onnx") == by_onnx(tmp_path / "model.onnx")


def test_no_bytes_make_it_fail_in_another_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_FIELDS", 5_000)
    draw = random.Random(20_261)
    whole = (TESTS / "models" / "mlp.onnx").read_bytes()[:20_000]
    path = tmp_path / "model.onnx"
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(draw.randint(1, 8)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        path.write_bytes(data[: draw.randint(1, len(data))])
        try:
            external_files(path)
        except ModelLoadFailed as error:
            assert "model.onnx" in error.message


def test_a_file_of_nothing_but_fields_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_FIELDS", 1_000)
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x08\x01" * 5_000)
    with pytest.raises(ModelLoadFailed, match="cannot be decoded"):
        external_files(path)


def test_graphs_that_nest_without_end_are_refused(tmp_path: Path) -> None:
    graph = b""
    for _ in range(200):
        attribute = b"\x32" + _length(graph) + graph
        node = b"\x2a" + _length(attribute) + attribute
        graph = b"\x0a" + _length(node) + node
    output = b"\x62\x00"
    body = graph + output
    (tmp_path / "model.onnx").write_bytes(b"\x42\x00" + b"\x3a" + _length(body) + body)
    with pytest.raises(ModelLoadFailed, match="nests graphs deeper than 64"):
        external_files(tmp_path / "model.onnx")


def _length(content: bytes) -> bytes:
    number, out = len(content), b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])

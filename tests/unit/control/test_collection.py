"""What nobody references is collected; what a change in progress, the history or a damaged state needs is not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from headgate.control.writes.data_plane import DataPlane
from headgate.errors import ModelLoadFailed, StorageFailed
from headgate.registry import Collected
from unit.control.test_models import model, text
from unit.control_harness import Gate, gateway, run, until

SAMPLE = 'columns: {X: [a, b, c]}\ndrift: {baseline: "file:sample.csv"}\n'


def models(folder: Path, *names: str) -> None:
    for n, name in enumerate(names):
        model(folder / "models" / name, n + 1.0)
    (folder / "sample.csv").write_text("a,b,c\n" + "1,2,3\n" * 50)


def written(folder: Path, words: str) -> Path:
    path = folder / "scale.yaml"
    path.write_text(words)
    return path


def kept(gate: Gate) -> tuple[int, int, int]:
    """How many artifacts, baselines and files of models there are."""
    folders = ("artifacts", "baselines", "blobs/sha256")
    return tuple(len(list((gate.state / name).iterdir())) for name in folders)  # type: ignore[return-value]


async def collect(gate: Gate) -> Collected:
    return await gate.control._maintenance.collection.collect()


def test_a_refused_document_leaves_nothing(tmp_path: Path) -> None:
    async def body() -> None:
        models(tmp_path, "v1", "v2", "v3")
        async with gateway(tmp_path) as gate:
            await gate.control.apply_file(written(tmp_path, text(SAMPLE)))
            gate.native.failing["v2"] = "unsupported operator"
            with pytest.raises(ModelLoadFailed):
                await gate.control.apply_file(written(tmp_path, text(SAMPLE, versions="v1 v2")))
            # A failed revision is in the history, which is kept.
            assert (await collect(gate)).artifacts == 0
            (tmp_path / "models" / "v4").mkdir()
            (tmp_path / "models" / "v4" / "model.onnx").write_bytes(b"no model")
            with pytest.raises(ModelLoadFailed, match="v4"):
                await gate.control.apply_file(written(tmp_path, text(versions="v1 v3 v4")))
            assert kept(gate) == (3, 1, 3)
            found = await collect(gate)
            assert (found.artifacts, found.baselines, found.blobs) == (1, 0, 1)
            assert kept(gate) == (2, 1, 2)
            assert gate.control.removed()["blob"] == 1

    run(body)


def test_a_change_in_progress_keeps_what_it_refers_to(tmp_path: Path) -> None:
    async def body() -> None:
        models(tmp_path, "v1", "v2")
        async with gateway(tmp_path) as gate:
            await gate.control.apply_file(written(tmp_path, text()))
            heal = gate.hung_disk()
            change = asyncio.create_task(
                gate.control.apply_file(written(tmp_path, text(SAMPLE, versions="v1 v2")))
            )
            # Copied and fitted, and its row is not written.
            try:
                await until(gate.control._endpoints["scale"].turn.locked)
                assert kept(gate) == (2, 1, 2)
                assert await collect(gate) == Collected()
            finally:
                heal()
            await change
            assert await collect(gate) == Collected()
            assert gate.native.served["scale"]["versions"]

    run(body)


def test_a_restore_keeps_what_it_goes_back_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        models(tmp_path, "v1", "v2")
        async with gateway(tmp_path) as gate:
            await gate.control.apply_file(written(tmp_path, text(SAMPLE)))
            await gate.control.apply_file(written(tmp_path, text(traffic="{champion: v2}", versions="v2")))
            monkeypatch.setattr(gate.store, "referenced_digests", set)
            heal = gate.hung_disk()
            change = asyncio.create_task(gate.control.restore("scale", 1))
            try:
                await until(gate.control._endpoints["scale"].turn.locked)
                found = await collect(gate)
                assert (found.artifacts, found.baselines) == (1, 0)
            finally:
                heal()
            await change

    run(body)


def test_a_plan_is_made_of_what_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        models(tmp_path, "v1")
        found: list[Collected] = []
        async with gateway(tmp_path) as gate:
            await gate.control.apply_file(written(tmp_path, text()))
            monkeypatch.setattr(gate.store, "referenced_digests", set)
            inspect: DataPlane = gate.native.inspect  # type: ignore[assignment]

            def collected_before(path: str) -> object:
                collection = gate.control._maintenance.collection
                found.append(asyncio.run_coroutine_threadsafe(collection.collect(), loop).result())
                return inspect(path)  # type: ignore[operator]

            loop = asyncio.get_running_loop()
            gate.native.inspect = collected_before  # type: ignore[assignment, method-assign]
            await gate.apply(text(SAMPLE), dry_run=True)
            assert found == [Collected()]

    run(body)


def test_nothing_is_collected_while_rows_cannot_be_read(tmp_path: Path) -> None:
    async def body() -> None:
        models(tmp_path, "v1", "v2")
        async with gateway(tmp_path) as gate:
            await gate.control.apply_file(written(tmp_path, text()))
            gate.control.registry.admit("scale", "v2", tmp_path / "models" / "v2")
            gate.control._endpoints["scale"].damage = ("its history is damaged",)
            with pytest.raises(StorageFailed, match="while the state of scale is damaged"):
                await collect(gate)
            gate.control._endpoints["scale"].damage = ()
            assert (await collect(gate)).artifacts == 1

    run(body)

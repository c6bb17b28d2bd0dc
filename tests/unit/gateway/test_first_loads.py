"""What a start loads, beside one endpoint whose load hangs: the others are served, and readiness does not come too early."""

from __future__ import annotations

import asyncio
import gc
import shutil
from pathlib import Path
from typing import Any

import pytest

from headgate.control import Control
from headgate.gateway import first_loads
from headgate.store import Store
from unit.control_harness import document, holding, until
from unit.gateway.process_harness import Plane, Running, play, settings

MODEL = Path(__file__).resolve().parents[2] / "models" / "identity_fp32.onnx"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience is over before anything is loaded, so that no test waits for it and none depends on how fast the machine is."""
    monkeypatch.setattr(first_loads, "PATIENCE_SECONDS", 0.0)


@pytest.fixture
def patient(impatient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience is longer than a test."""
    monkeypatch.setattr(first_loads, "PATIENCE_SECONDS", 600.0)


def described(folder: Path, file: str, *endpoints: tuple[str, str]) -> Path:
    """A file of documents: each an endpoint, and the version that is its champion."""
    path = folder / file
    parts = [document(f"{{champion: {version}}}", version, name) for name, version in endpoints]
    path.write_text("---\n".join(parts))
    return path


def hanging(*versions: str) -> Plane:
    plane = Plane()
    plane.held.update(versions)
    return plane


def control_of(gate: Running) -> Control:
    assert gate.process._control is not None
    return gate.process._control


async def states(gate: Running) -> dict[str, str]:
    return {one["name"]: one["state"] for one in await control_of(gate).list()}


async def stored(gate: Running, *names: str) -> None:
    """Waits until the documents of ``names`` were answered: what is served alone would not outlive a stop."""
    await until(lambda: all(any(text.startswith(f"{name}: ") for text in gate.said) for name in names))


async def readiness(gate: Running) -> tuple[int, list[str]]:
    answer = await gate.get("observe", "/readyz")
    return answer.status_code, answer.json()["reasons"]


def test_a_document_whose_load_hangs_keeps_none_behind_it_waiting(tmp_path: Path) -> None:
    async def work() -> None:
        files = [
            described(tmp_path, f"{name}.yaml", (name, version))
            for name, version in (("a", "w1"), ("b", "v1"))
        ]
        async with Running(settings(tmp_path, *files), hanging("w1")) as gate:
            await until(lambda: set(gate.plane.served) == {"b"})
            assert (503, [f"starting: still being loaded: {files[0]}"]) == await readiness(gate)
            assert ("ready", True) not in gate.plane.calls
            gate.plane.release()
            await until(lambda: ("ready", True) in gate.plane.calls)
            await until(lambda: set(gate.plane.served) == {"a", "b"})
            assert await readiness(gate) == (200, [])
            assert any(text.startswith("a: ") for text in gate.said)
        async with Running(settings(tmp_path, *files)) as gate:
            assert sum("applied from there before" in text for text in gate.said) == 2

    play(work)


def test_one_document_of_a_file_keeps_no_other_of_it_waiting(tmp_path: Path) -> None:
    async def work() -> None:
        file = described(tmp_path, "all.yaml", ("a", "w1"), ("b", "v1"), ("c", "v1"))
        async with Running(settings(tmp_path, file), hanging("w1")) as gate:
            await until(lambda: set(gate.plane.served) == {"b", "c"})

    play(work)


def test_a_document_that_is_refused_or_fails_hides_no_other_of_its_file(
    tmp_path: Path, patient: None
) -> None:
    async def work() -> None:
        file = described(tmp_path, "all.yaml", ("a", "w1"), ("b", "v1"), ("c", "v1"), ("d", "v1"))
        text = file.read_text()
        last = text.rindex("champion: v1")
        file.write_text(text[:last] + "champion: v9" + text[last + len("champion: v1") :])
        plane = Plane()
        plane.failing["w1"] = "unsupported operator"
        async with Running(settings(tmp_path, file), plane) as gate:
            assert set(gate.plane.served) == {"b", "c"}
            for said in ("unsupported operator", "v9", "b: ", "c: "):
                assert any(said in text for text in gate.said)
        file.write_text(text)
        async with Running(settings(tmp_path, file)) as gate:
            assert set(gate.plane.served) == {"a", "b", "c", "d"}

    play(work)


def test_a_document_of_a_file_that_is_served_late_is_not_waited_for_with_the_others(
    tmp_path: Path,
) -> None:
    async def work() -> None:
        file = described(tmp_path, "all.yaml", ("a", "w1"), ("b", "x1"))
        plane = hanging("w1", "x1")
        start = asyncio.create_task(Running(settings(tmp_path, file), plane).__aenter__())
        await until(lambda: {("apply", "a"), ("apply", "b")} <= set(map(tuple, plane.calls)))
        for _ in range(20):
            await asyncio.sleep(0.001)
        plane.release("x1")
        gate = await start
        assert set(gate.plane.served) == {"b"}
        await gate.__aexit__()

    play(work)


def test_documents_of_one_endpoint_are_applied_in_the_order_of_the_files(tmp_path: Path) -> None:
    async def work() -> None:
        files = [described(tmp_path, f"{n}.yaml", ("a", f"v{n}")) for n in (3, 1, 2)]
        async with Running(settings(tmp_path, *files)) as gate:
            await until(lambda: gate.plane.served["a"]["revision"] == 3)
            assert gate.plane.served["a"]["champion"] == "v2"

    play(work)


def test_a_document_that_fails_late_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    async def work() -> None:
        files = [
            described(tmp_path, f"{name}.yaml", (name, version))
            for name, version in (("a", "w1"), ("b", "v1"))
        ]
        async with Running(settings(tmp_path, *files), hanging("w1")) as gate:
            gate.plane.failing["w1"] = "it took too long"
            gate.plane.release()
            await until(lambda: any("it took too long" in text for text in gate.said))
            await until(lambda: ("ready", True) in gate.plane.calls)
            assert await states(gate) == {"a": "failed", "b": "ready"}
            assert "it took too long" in gate.plane.refused["a"][""]
            gate.plane.failing.clear()
            await control_of(gate).apply_file(files[0])
            assert await states(gate) == {"a": "ready", "b": "ready"}
            assert gate.plane.refused == {}

    play(work)


def test_nothing_opens_before_something_is_served(tmp_path: Path) -> None:
    async def work() -> None:
        file = described(tmp_path, "a.yaml", ("a", "w1"))
        gate = Running(settings(tmp_path, file), hanging("w1"))
        start = asyncio.create_task(gate.__aenter__())
        await until(lambda: ("apply", "a") in gate.plane.calls)
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert gate.announcer.addresses == {}
        gate.plane.release()
        await start
        assert set(gate.plane.served) == {"a"}
        await gate.__aexit__()

    play(work)


def test_after_a_restart_what_is_well_is_served_beside_what_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        file = described(tmp_path, "all.yaml", ("a", "w1"), ("b", "v1"))
        async with Running(settings(tmp_path, file)) as gate:
            await stored(gate, "a", "b")
        newer = described(tmp_path, "newer.yaml", ("b", "v2"))
        gate = Running(settings(tmp_path, newer), hanging("w1"))
        start = asyncio.create_task(gate.__aenter__())
        # The data ports are open, and nobody can write before all that was served last is loaded or has failed.
        await until(lambda: "start" in gate.plane.calls)
        assert gate.plane.served["b"]["champion"] == "v1"
        assert gate.process.reasons() == ["starting: still being loaded: a"]
        assert ("ready", True) not in gate.plane.calls
        assert gate.announcer.addresses == {}
        # An endpoint's state is its own from then on.
        monkeypatch.setattr(first_loads, "READY_SECONDS", 0.0)
        await until(lambda: ("ready", True) in gate.plane.calls)
        assert gate.process.reasons() == []
        gate.plane.failing["w1"] = "it took too long"
        gate.plane.release()
        await start
        await until(lambda: gate.plane.served["b"]["champion"] == "v2")
        assert await states(gate) == {"a": "failed", "b": "ready"}
        assert await readiness(gate) == (200, [])
        await gate.__aexit__()

    play(work)


def test_a_stop_ends_a_start_that_waits_for_what_was_served_last(tmp_path: Path) -> None:
    async def work() -> None:
        file = described(tmp_path, "all.yaml", ("a", "w1"), ("b", "v1"))
        async with Running(settings(tmp_path, file)) as gate:
            await stored(gate, "a", "b")
        gate = Running(settings(tmp_path), hanging("w1"))
        gate.begin()
        await until(lambda: "start" in gate.plane.calls)
        await gate.__aexit__()
        async with Running(settings(tmp_path)) as again:
            assert set(again.plane.served) == {"a", "b"}

    play(work)


def test_a_store_that_is_read_longer_than_the_patience_keeps_no_port_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        file = described(tmp_path, "all.yaml", ("a", "w1"), ("b", "v1"))
        async with Running(settings(tmp_path, file)) as gate:
            await stored(gate, "a", "b")
        reached, go = holding(monkeypatch, Store, "start_records")
        gate = Running(settings(tmp_path), hanging("w1"))
        gate.begin()
        await until(reached.is_set)
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert gate.plane.calls == []
        go.set()
        # Nothing was loaded when the patience was over, and one endpoint hangs.
        await until(lambda: "start" in gate.plane.calls)
        await until(lambda: gate.process.reasons() == ["starting: still being loaded: a"])
        assert set(gate.plane.served) == {"b"}
        await gate.__aexit__()

    play(work)


@pytest.mark.parametrize("begun", [False, True])
def test_a_stop_during_a_load_leaves_no_task_behind(tmp_path: Path, begun: bool) -> None:
    async def work() -> None:
        said: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
        for name in ("a", "b"):
            target = tmp_path / "models" / name / "1"
            target.mkdir(parents=True)
            shutil.copy(MODEL, target / "model.onnx")
        file = described(tmp_path, "all.yaml", ("c", "w1"), *([("d", "v1")] if begun else []))
        gate = Running(settings(tmp_path, file, models=str(tmp_path / "models")), hanging("1", "w1"))
        if begun:
            await gate.__aenter__()
        else:
            gate.begin()
        await until(
            lambda: {("apply", "a"), ("apply", "b"), ("apply", "c")} <= set(map(tuple, gate.plane.calls))
        )
        await gate.__aexit__()
        gc.collect()
        await asyncio.sleep(0)
        assert said == []

    play(work)


@pytest.mark.usefixtures("patient")
def test_plans_of_any_file_are_stored_before_the_endpoints_of_all(tmp_path: Path) -> None:
    async def work() -> None:
        endpoint = described(tmp_path, "a.yaml", ("a", "v1"))
        endpoint.write_text(endpoint.read_text() + "rollout: careful\n")
        plan = tmp_path / "plan.yaml"
        plan.write_text(
            "apiVersion: headgate/v1\nkind: RolloutPlan\nname: careful\nsteps: [{weight: 5%}, promote]\n"
        )
        async with Running(settings(tmp_path, endpoint, plan)) as gate:
            await until(lambda: "a" in gate.plane.served)
            assert [one["name"] for one in control_of(gate).plans()] == ["careful"]

    play(work)


@pytest.mark.usefixtures("patient")
def test_defaults_that_are_refused_keep_no_endpoint_from_being_served(tmp_path: Path) -> None:
    async def work() -> None:
        file = described(tmp_path, "a.yaml", ("a", "v1"))
        file.write_text(file.read_text() + "---\napiVersion: headgate/v1\nkind: Defaults\nrollout: careful\n")
        async with Running(settings(tmp_path, file)) as gate:
            await until(lambda: "a" in gate.plane.served)
            await until(lambda: any('no plan is named "careful"' in text for text in gate.said))

    play(work)

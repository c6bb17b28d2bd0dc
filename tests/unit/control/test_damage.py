"""Damaged files at a start: a version that cannot be loaded stops no move away from it, and is never gone back to."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from headgate.errors import Conflict, HeadgateError, ModelLoadFailed, StorageFailed
from unit.control.test_models import model, text
from unit.control_harness import Gate, gateway, run
from unit.fake_native import FakeNative

TWO = "v1 v2"
SHARED = "{champion: v1, weights: {v2: 10%}}"


def write(folder: Path, traffic: str = SHARED, versions: str = TWO, extra: str = "") -> Path:
    """A document whose models lie beside it."""
    for name in versions.split():
        if not (folder / "models" / name).exists():
            model(folder / "models" / name, float(name.removeprefix("v")))
    path = folder / "scale.yaml"
    path.write_text(text(extra, traffic, versions))
    return path


def flip(path: Path) -> None:
    """One byte in the middle of a file is another one from now on."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.chmod(0o600)
    path.write_bytes(data)


def forget_sources(folder: Path) -> None:
    """The models are in the state folder alone from now on."""
    for path in (folder / "models").rglob("model.onnx"):
        path.unlink()


async def look(gate: Gate) -> None:
    """What the loop does every few seconds, once it is not at it itself."""
    state = gate.control._endpoints["scale"]
    async with state.turn:
        await gate.control._artifact_repair._endpoint(state)


@asynccontextmanager
async def damaged(
    folder: Path,
    *versions: str,
    traffic: str = SHARED,
    names: str = TWO,
    moves: tuple[dict[str, Any], ...] = (),
) -> AsyncIterator[Gate]:
    """A gateway that was started again on artifacts with a flipped byte, and without their sources."""
    async with gateway(folder) as gate:
        await gate.control.apply_file(write(folder, traffic, names))
        for move in moves:
            await gate.control.patch_traffic("scale", **move)
        served = {v["name"]: Path(v["artifact"]) for v in gate.native.served["scale"]["versions"]}
    forget_sources(folder)
    for version in versions:
        flip(served[version])
    async with gateway(folder) as gate:
        yield gate


def test_the_champion_is_left_for_a_whole_version(tmp_path: Path) -> None:
    async def body() -> None:
        async with damaged(tmp_path, "v1") as gate:
            assert gate.native.served == {}
            await gate.control.patch_traffic("scale", weights={}, champion="v2")
            assert gate.native.served["scale"]["champion"] == "v2"
            traffic = await gate.control.traffic("scale")
            assert (traffic["champion"], traffic["last_good"], traffic["rollback_to"]) == ("v2", "v1", "v2")
            rolled = await gate.control.rollback("scale")
            assert rolled["message"].startswith("already 100 % v2 since")
            assert "v1 cannot be loaded" in rolled["message"]
            assert (rolled["traffic"]["champion"], rolled["plan"]["block"]) == ("v2", [])

    run(body)


def test_a_missing_artifact_is_damage_and_not_a_missing_endpoint(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.control.apply_file(write(tmp_path, "{champion: v1}"))
            await gate.control.patch_traffic("scale", weights={}, champion="v2")
            served = {v["name"]: Path(v["artifact"]) for v in gate.native.served["scale"]["versions"]}
        forget_sources(tmp_path)
        shutil.rmtree(served["v1"].parent)
        async with gateway(tmp_path) as gate:
            for call in (
                gate.control.patch_traffic("scale", weights={"v1": "10%"}),
                gate.control.restore("scale", 1),
            ):
                with pytest.raises(StorageFailed, match="is not in the store; bring the same model again"):
                    await call

    run(body)


def test_a_rollback_with_a_challenger_stays_with_the_champion(tmp_path: Path) -> None:
    async def body() -> None:
        moves = ({"weights": {}, "champion": "v2"}, {"weights": {"v3": "10%"}})
        async with damaged(
            tmp_path, "v1", names="v1 v2 v3", traffic="{champion: v1}", moves=moves[:1]
        ) as gate:
            await gate.control.patch_traffic("scale", weights={"v3": "10%"})
            rolled = await gate.control.rollback("scale")
            assert (rolled["traffic"]["champion"], rolled["traffic"]["weights"]) == ("v2", {})
            assert rolled["plan"]["block"] == ["v3"]
            assert "100 % v1" not in rolled["message"]

    run(body)


def test_a_rollback_that_nothing_can_take_is_refused_and_blocks_nothing(tmp_path: Path) -> None:
    async def body() -> None:
        async with damaged(tmp_path, "v1") as gate:
            assert (await gate.control.traffic("scale"))["rollback_to"] is None
            with pytest.raises(
                Conflict, match=r"v1 cannot be loaded .*; make another version champion \(v2 can be"
            ):
                await gate.control.rollback("scale")
            assert (await gate.control.get("scale"))["blocks"] == []
            await gate.control.patch_traffic("scale", weights={}, champion="v2")
            assert gate.native.served["scale"]["champion"] == "v2"

    run(body)


def test_block_of_the_damaged_champion_names_a_remedy_that_works(tmp_path: Path) -> None:
    async def body() -> None:
        async with damaged(tmp_path, "v1") as gate:
            with pytest.raises(Conflict, match=r"first make another version champion \(v2 can be loaded\)"):
                await gate.control.block("scale", "v1")
            await gate.control.patch_traffic("scale", weights={}, champion="v2")
            blocked = await gate.control.block("scale", "v1")
            assert blocked["status"] == "applied"
            assert (await gate.control.traffic("scale"))["last_good"] == "v2"

    run(body)


def test_a_document_without_it_and_a_restore_succeed(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.control.apply_file(write(tmp_path, "{champion: v2}", "v2"))
            await gate.control.apply_file(write(tmp_path, SHARED, TWO))
            await gate.control.patch_traffic("scale", weights={}, champion="v1")
            served = {v["name"]: Path(v["artifact"]) for v in gate.native.served["scale"]["versions"]}
        flip(served["v1"])
        (tmp_path / "models" / "v1" / "model.onnx").unlink()
        async with gateway(tmp_path) as gate:
            assert gate.native.served == {}
            restored = await gate.control.restore("scale", 1)
            assert restored["traffic"]["champion"] == "v2"
            assert gate.native.served["scale"]["champion"] == "v2"
        async with gateway(tmp_path) as gate:
            (applied,) = await gate.control.apply_file(
                write(tmp_path, "{champion: v2}", "v2", "limits: {timeout: 2s}\n")
            )
            assert applied["status"] == "applied"
            assert gate.native.served["scale"]["champion"] == "v2"

    run(body)


def test_a_document_with_the_whole_version_alone_takes_over_at_once(tmp_path: Path) -> None:
    async def body() -> None:
        async with damaged(tmp_path, "v1") as gate:
            model(tmp_path / "models" / "v2", 2.0)
            await gate.control.apply_file(write(tmp_path, "{champion: v2}", "v2"))
            assert gate.native.served["scale"]["champion"] == "v2"
            view = await gate.control.get("scale")
            assert view["versions"]["v1"]["state"] == "failed"
            assert view["traffic"]["rollback_to"] == "v2"

    run(body)


def test_the_declared_fallback_answers_for_a_damaged_champion(tmp_path: Path) -> None:
    async def body() -> None:
        traffic = "{champion: v1, weights: {v3: 10%}, fallback: {to: [v2]}}"
        async with damaged(tmp_path, "v1", traffic=traffic, names="v1 v2 v3") as gate:
            served = gate.native.served["scale"]
            assert (served["champion"], len(served["table"]["given"])) == ("v2", 1)
            view = await gate.control.get("scale")
            assert (view["state"], view["traffic"]["champion"]) == ("ready", "v1")
            assert any("v2, its fallback, answers for it" in alarm for alarm in view["alarms"])
            assert view["traffic"]["rollback_to"] == "v2"
            await gate.control.freeze("scale")
            rolled = await gate.control.rollback("scale")
            assert rolled["traffic"]["champion"] == "v2"
            assert "takes over as the fallback" in rolled["message"]

    run(body)


def test_a_fallback_that_is_damaged_too_is_passed_over(tmp_path: Path) -> None:
    async def body() -> None:
        traffic = "{champion: v1, fallback: {to: [v2, v3]}}"
        async with damaged(tmp_path, "v1", "v2", traffic=traffic, names="v1 v2 v3") as gate:
            assert gate.native.served["scale"]["champion"] == "v3"
            blocked = await gate.control.block("scale", "v1")
            assert blocked["traffic"]["champion"] == "v3"

    run(body)


def test_what_the_data_plane_refuses_is_left_the_same_way(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.control.apply_file(write(tmp_path))
        native = FakeNative()
        native.failing["v1"] = "not enough memory"
        async with gateway(tmp_path, native) as gate:
            assert "not enough memory" in native.excused["scale"]
            with pytest.raises(ModelLoadFailed, match="not enough memory"):
                await gate.control.patch_traffic("scale", weights={"v2": "20%"})
            # It names v1 still, and gives it nothing.
            (applied,) = await gate.control.apply_file(write(tmp_path, "{champion: v2}"))
            assert (applied["status"], native.served["scale"]["champion"]) == ("applied", "v2")
            with pytest.raises(HeadgateError, match="not enough memory"):
                await gate.control.patch_traffic("scale", weights={"v1": "1%"})

    run(body)


def test_a_broken_endpoint_tells_its_calls_why_and_keeps_no_other_from_traffic(tmp_path: Path) -> None:
    async def body() -> None:
        async with damaged(tmp_path, "v1") as gate:
            assert "its champion v1 did not load" in gate.native.excused["scale"]
            assert gate.control.readiness().ready
            (one,) = await gate.control.list()
            assert one["state"] == "failed"

    run(body)


@pytest.mark.parametrize("how", ["lost", "cut", "altered"])
def test_a_damaged_baseline_costs_drift_alone(tmp_path: Path, how: str) -> None:
    async def body() -> None:
        sample = tmp_path / "sample.csv"
        sample.write_text("a,b,c\n" + "1,2,3\n" * 50)
        extra = 'columns: {X: [a, b, c]}\ndrift: {baseline: "file:sample.csv"}\n'
        async with gateway(tmp_path) as gate:
            await gate.control.apply_file(write(tmp_path, extra=extra))
            baseline = Path(gate.native.served["scale"]["baseline"])
        if how == "lost":
            baseline.unlink()
        elif how == "cut":
            baseline.chmod(0o600)
            baseline.write_bytes(baseline.read_bytes()[:40])
        else:
            flip(baseline)
        async with gateway(tmp_path, root=tmp_path) as gate:
            served = gate.native.served["scale"]
            assert (served["champion"], served["baseline"]) == ("v1", None)
            (alarm,) = (await gate.control.get("scale"))["alarms"]
            assert "drift is not measured" in alarm
            assert (await gate.control.drift("scale"))["fault"] == alarm
            await gate.control.patch_traffic("scale", weights={"v2": "20%"})
            path = write(tmp_path, extra=extra)
            await gate.control.apply(await gate.control.parse("scale", path.read_bytes(), source=path))
            assert gate.native.served["scale"]["baseline"] == str(baseline)
            assert (await gate.control.get("scale"))["alarms"] == []

    run(body)


def test_a_damaged_artifact_is_repaired_from_its_source_and_served(tmp_path: Path) -> None:
    async def body() -> None:
        async with damaged(tmp_path, "v1") as gate:
            assert gate.native.served == {}
            await look(gate)
            assert gate.native.served == {}, "the source is gone"
            model(tmp_path / "models" / "v1", 9.0)
            await look(gate)
            assert gate.native.served == {}, "the source has other bytes"
            model(tmp_path / "models" / "v1", 1.0)
            await look(gate)
            assert gate.native.served["scale"]["champion"] == "v1"
            view = await gate.control.get("scale")
            assert (view["state"], view["alarms"], view["revision"]) == ("ready", [], 1)
            assert (await gate.control.models())["refusals"] == []

    run(body)


def test_a_challenger_that_was_brought_back_by_hand_gets_its_slots_again(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.control.apply_file(write(tmp_path))
            before = gate.live("scale")
            kept = Path(gate.native.served["scale"]["versions"][1]["artifact"])
        whole = kept.read_bytes()
        forget_sources(tmp_path)
        flip(kept)
        async with gateway(tmp_path) as gate:
            assert gate.live("scale")[1] == []
            kept.write_bytes(whole)
            await look(gate)
            assert gate.live("scale") == before

    run(body)


def test_a_repair_that_does_not_load_leaves_what_is_served(tmp_path: Path) -> None:
    async def body() -> None:
        async with damaged(tmp_path, "v2") as gate:
            gate.native.failing["v2"] = "not enough memory"
            model(tmp_path / "models" / "v2", 2.0)
            await look(gate)
            assert gate.native.served["scale"]["champion"] == "v1"
            asked = len(gate.native.applied)
            await look(gate)
            assert len(gate.native.applied) == asked, "what has not changed is not tried again"
            (alarm,) = (await gate.control.get("scale"))["alarms"]
            assert "not enough memory" in alarm

    run(body)


def test_a_version_that_is_kept_is_repaired_from_where_it_came_from(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.control.apply_file(write(tmp_path, "{champion: v1}"))
            await gate.control.patch_traffic("scale", weights={}, champion="v2")
            await gate.control.patch_traffic("scale", weights={}, champion="v1")
            await gate.control.apply_file(write(tmp_path, "{champion: v1, weights: {v3: 5%}}", "v1 v3"))
            await gate.control.patch_traffic("scale", weights={}, champion="v3")
            await gate.control.apply_file(write(tmp_path, "{champion: v3}", "v3"))
            assert (await gate.control.get("scale"))["versions"]["v1"]["in_document"] is False
            kept = {v["name"]: Path(v["artifact"]) for v in gate.native.served["scale"]["versions"]}["v1"]
        forget_sources(tmp_path)
        flip(kept)
        async with gateway(tmp_path) as gate:
            assert (await gate.control.traffic("scale"))["rollback_to"] == "v3"
            model(tmp_path / "models" / "v1", 1.0)
            await look(gate)
            assert (await gate.control.traffic("scale"))["rollback_to"] == "v1"

    run(body)


def test_a_restore_succeeds_although_the_damaged_version_is_in_the_old_document(tmp_path: Path) -> None:
    async def body() -> None:
        moves = ({"weights": {}, "champion": "v2"}, {"weights": {}, "champion": "v1"})
        async with damaged(tmp_path, "v1", traffic="{champion: v1}", moves=moves) as gate:
            restored = await gate.control.restore("scale", 2)
            assert restored["traffic"]["champion"] == "v2"
            assert restored["plan"]["rollback_to"] == "v2"
            with pytest.raises(HeadgateError, match="is damaged"):
                await gate.control.restore("scale", 1)
            assert gate.native.served["scale"]["champion"] == "v2"

    run(body)

"""Repairs of damaged files that meet other calls: what an emergency call left is never undone, and no repair is forgotten."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from headgate.control.writes import artifact_repair
from headgate.errors import HeadgateError
from unit.control.test_damage import damaged, look
from unit.control.test_models import model
from unit.control_harness import holding, run, until

THREE: dict[str, Any] = {"names": "v1 v2 v3", "traffic": "{champion: v1, weights: {v2: 10%, v3: 5%}}"}


def test_an_emergency_call_is_not_undone_by_a_repair_that_began_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body() -> None:
        async with damaged(tmp_path, "v3", **THREE) as gate:
            await gate.control.background.close()
            model(tmp_path / "models" / "v3", 3.0)
            reached, go = holding(monkeypatch, artifact_repair, "native_apply")
            repair = asyncio.create_task(look(gate))
            await until(reached.is_set)
            assert (await gate.control.rollback("scale"))["revision"] == 2
            go.set()
            await repair
            assert gate.live("scale")[:2] == ("v1", [])
            assert (await gate.control.get("scale"))["revision"] == 2
            assert gate.native.served["scale"]["revision"] == gate.store.endpoints()[0].applied == 2

    run(body)


def test_a_freeze_beside_a_repair_that_loads_is_not_undone_by_it(tmp_path: Path) -> None:
    async def body() -> None:
        async with damaged(tmp_path, "v1") as gate:
            await gate.control.background.close()
            model(tmp_path / "models" / "v1", 1.0)
            gate.native.held.add("v1")
            repair = asyncio.create_task(look(gate))
            await until(lambda: bool(gate.native.applied))
            freezing = asyncio.create_task(gate.control.freeze("scale"))
            await until(lambda: freezing.done() or gate.native.applied[-1]["urgent"])
            gate.native.release()
            assert (await freezing)["revision"] == 2
            await repair
            one = (await gate.control.list())[0]
            assert (one["revision"], one["frozen"], one["state"]) == (2, True, "ready")

    run(body)


def test_a_repair_that_an_emergency_call_passes_is_tried_again(tmp_path: Path) -> None:
    async def body() -> None:
        async with damaged(tmp_path, "v3", **THREE) as gate:
            await gate.control.background.close()
            model(tmp_path / "models" / "v3", 3.0)
            gate.native.held.add("v3")
            asked = len(gate.native.applied)
            repair = asyncio.create_task(look(gate))
            await until(lambda: len(gate.native.applied) > asked)
            await gate.control.block("scale", "v2")
            await repair
            gate.native.release()
            await look(gate)
            assert [v["name"] for v in gate.native.served["scale"]["versions"]] == ["v1", "v3"]
            assert (await gate.control.get("scale"))["alarms"] == []

    run(body)


def test_a_repaired_version_is_served_although_another_one_is_refused(tmp_path: Path) -> None:
    async def body() -> None:
        async with damaged(tmp_path, "v2", "v3", **THREE) as gate:
            await gate.control.background.close()
            model(tmp_path / "models" / "v2", 2.0)
            model(tmp_path / "models" / "v3", 3.0)
            gate.native.failing["v2"] = "not enough memory"
            await look(gate)
            await look(gate)
            assert [v["name"] for v in gate.native.served["scale"]["versions"]] == ["v1", "v3"]
            (alarm,) = (await gate.control.get("scale"))["alarms"]
            assert "not enough memory" in alarm
            asked = len(gate.native.applied)
            await look(gate)
            assert len(gate.native.applied) == asked

    run(body)


def test_a_repair_that_finds_no_room_is_tried_again(tmp_path: Path) -> None:
    async def body() -> None:
        async with damaged(tmp_path, "v2") as gate:
            await gate.control.background.close()
            model(tmp_path / "models" / "v2", 2.0)
            apply = gate.native.apply

            def full(endpoint: bytes) -> int:
                raise HeadgateError("too many endpoints wait to be loaded; try again")

            gate.native.apply = full  # type: ignore[method-assign]
            await look(gate)
            gate.native.apply = apply  # type: ignore[method-assign]
            await look(gate)
            assert (await gate.control.get("scale"))["alarms"] == []

    run(body)

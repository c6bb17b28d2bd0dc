"""Emergency calls on one endpoint while another one's load is under way: none waits for a load that it does not need, none is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from headgate.errors import Draining, ModelLoadFailed
from unit.control_harness import Gate, document, gateway, run, until
from unit.fake_native import FakeNative


async def statuses(gate: Gate) -> list[tuple[int, str, str]]:
    return [(r["revision"], r["kind"], r["status"]) for r in await gate.control.revisions("digits")]


async def a_while() -> None:
    for _ in range(20):
        await asyncio.sleep(0.001)


@asynccontextmanager
async def rolling_back(folder: Path) -> AsyncIterator[tuple[Gate, asyncio.Task[Any]]]:
    """A gateway whose champion v2 (v3 beside it) does not load, and that rolls back to v1, whose load hangs: revision 3."""
    async with gateway(folder) as gate:
        await gate.apply(document("{champion: v1, weights: {v3: 20%}}"))
        await gate.control.patch_traffic("digits", weights={}, champion="v2")
    native = FakeNative()
    native.failing["v2"] = "not now"
    async with gateway(folder, native) as gate:
        native.failing.clear()
        native.held.add("v1")
        urgent = asyncio.create_task(gate.control.rollback("digits"))
        await until(lambda: native.applied[-1]["urgent"])
        yield gate, urgent
        native.release()
        await asyncio.gather(urgent, return_exceptions=True)


@pytest.mark.parametrize("act", ["freeze", "abort"])
def test_a_call_that_loads_nothing_waits_for_no_load_and_takes_nothing_from_it(
    tmp_path: Path, act: str
) -> None:
    async def body() -> None:
        async with rolling_back(tmp_path) as (gate, urgent):
            async with asyncio.timeout(20):
                passed = await getattr(gate.control, act)("digits")
            assert (passed["status"], passed["durable"], passed["revision"]) == ("applied", True, 4)
            await until(lambda: gate.native.applied[-1]["revision"] == 5)
            assert not urgent.done()
            view = await gate.control.get("digits")
            assert (view["state"], view["revision"]) == ("failed", 4)
            gate.native.release()
            rolled = await urgent
            assert (rolled["status"], rolled["durable"], rolled["revision"]) == ("applied", True, 5)
            assert gate.live()[:2] == ("v1", [])
            one = (await gate.control.list())[0]
            assert (one["state"], one["revision"], one["frozen"]) == ("ready", 5, act == "freeze")
            assert (await statuses(gate))[:3] == [
                (5, "rollback", "applied"),
                (4, act, "applied"),
                (3, "rollback", "superseded"),
            ]
            assert gate.store.check() == []

    run(body)


def test_a_load_that_ends_before_the_call_is_decided_again_takes_no_freeze_away(tmp_path: Path) -> None:
    async def body() -> None:
        async with rolling_back(tmp_path) as (gate, urgent):
            freezing = asyncio.create_task(gate.control.freeze("digits"))
            state = gate.control._endpoints["digits"]
            await until(lambda: state.revision == 4)
            # The data plane did not hear of the freeze: what it loads is served for a moment.
            gate.native.release()
            await freezing
            assert (await urgent)["revision"] == 5
            assert (gate.live()[0], state.revision, state.passed) == ("v1", 5, set())
            assert (await gate.control.list())[0]["frozen"]

    run(body)


def test_a_call_that_another_one_passed_is_decided_again(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document("{champion: v1}"))
            await gate.control.patch_traffic("digits", weights={}, champion="v2")
            # As after an unload: everything must be loaded anew.
            gate.native._loaded.clear()
            gate.native.held.add("v1")
            urgent = asyncio.create_task(gate.control.rollback("digits"))
            await until(lambda: gate.native.applied[-1]["revision"] == 3)
            newer = asyncio.create_task(gate.control.block("digits", "v3"))
            await until(lambda: gate.native.applied[-1]["revision"] == 4)
            gate.native.release()
            assert (await newer)["revision"] == 4
            assert (await urgent)["revision"] == 5
            assert gate.live()[:2] == ("v1", [])
            assert (await statuses(gate))[:3] == [
                (5, "rollback", "applied"),
                (4, "block", "applied"),
                (3, "rollback", "superseded"),
            ]

    run(body)


def test_a_call_that_is_said_again_waits_for_the_same_load(tmp_path: Path) -> None:
    async def body() -> None:
        async with rolling_back(tmp_path) as (gate, urgent):
            again = asyncio.create_task(gate.control.rollback("digits"))
            await a_while()
            gate.native.release()
            assert ((await urgent)["status"], (await again)["status"]) == ("applied", "already")
            assert [one["revision"] for one in gate.native.applied if one["urgent"]] == [3]

    run(body)


def test_a_call_that_is_said_again_is_tried_again_if_the_first_does_not_load(tmp_path: Path) -> None:
    async def body() -> None:
        async with rolling_back(tmp_path) as (gate, urgent):
            again = asyncio.create_task(gate.control.rollback("digits"))
            await a_while()
            gate.native.failing["v1"] = "truncated"
            gate.native.release()
            for one in (urgent, again):
                with pytest.raises(ModelLoadFailed):
                    await one

    run(body)


def test_a_block_of_what_is_loaded_is_decided_after_it(tmp_path: Path) -> None:
    async def body() -> None:
        async with rolling_back(tmp_path) as (gate, urgent):
            block = asyncio.create_task(gate.control.block("digits", "v3"))
            await a_while()
            assert not block.done()
            gate.native.release()
            assert (await urgent)["revision"] == 3
            assert (await block)["status"] in ("applied", "already")
            assert gate.live()[:2] == ("v1", [])

    run(body)


def test_a_dry_run_waits_for_no_load(tmp_path: Path) -> None:
    async def body() -> None:
        async with rolling_back(tmp_path) as (gate, urgent):
            async with asyncio.timeout(20):
                planned = await gate.apply(document("{champion: v3}"), dry_run=True)
            assert (planned["status"], urgent.done()) == ("planned", False)

    run(body)


def test_a_stop_completes_what_was_decided_last(tmp_path: Path) -> None:
    async def body() -> None:
        async with rolling_back(tmp_path) as (gate, urgent):
            await gate.control.freeze("digits")
            await until(lambda: gate.native.applied[-1]["revision"] == 5)
            await gate.control.stop()
            with pytest.raises(Draining):
                await urgent
        async with gateway(tmp_path) as gate:
            assert gate.live()[:2] == ("v1", [])
            assert (await gate.control.list())[0]["frozen"]
            assert (await statuses(gate))[:3] == [
                (5, "rollback", "applied"),
                (4, "freeze", "applied"),
                (3, "rollback", "superseded"),
            ]
            assert gate.store.check() == []

    run(body)


def test_an_ordinary_write_is_decided_on_what_all_of_them_leave(tmp_path: Path) -> None:
    async def body() -> None:
        async with rolling_back(tmp_path) as (gate, urgent):
            await gate.control.freeze("digits")
            ordinary = asyncio.create_task(gate.control.unfreeze("digits"))
            await a_while()
            assert not ordinary.done()
            gate.native.release()
            assert ((await urgent)["revision"], (await ordinary)["plan"]["base_revision"]) == (5, 5)
            assert gate.live()[0] == "v1"

    run(body)

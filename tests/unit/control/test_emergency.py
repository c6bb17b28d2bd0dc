"""Emergency calls beside everything else: ordinary writes in every step, damaged files, busy threads, broken champions."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from headgate.errors import Conflict, ModelLoadFailed, ModelNotFound, StorageFailed
from unit.control.test_models import model, text
from unit.control_harness import Gate, document, gateway, run, until
from unit.fake_native import FakeNative

SHARED = "{champion: v1, weights: {v2: 10%}, sticky: header.x-user-id}"


def truncated() -> FakeNative:
    native = FakeNative()
    native.failing["v1"] = "file is truncated"
    return native


async def statuses(gate: Gate, endpoint: str = "digits") -> list[tuple[str, str]]:
    return [(r["kind"], r["status"]) for r in await gate.control.revisions(endpoint)]


def test_a_swapped_write_stands_when_the_emergency_after_it_does_not_load(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document("{champion: v1}"))
            await gate.control.patch_traffic("digits", weights={}, champion="v2")
        native = FakeNative()
        native.failing["v1"] = "broken"
        async with gateway(tmp_path, native) as gate:
            events = native.events
            native.events = lambda: b"[]"  # type: ignore[method-assign]
            passed = asyncio.create_task(gate.control.patch_traffic("digits", weights={"v3": "20%"}))
            await until(lambda: gate.native.served["digits"]["revision"] == 3)
            gate.control._endpoints["digits"].omitted.clear()  # nobody knows yet that it does not load
            urgent = asyncio.create_task(gate.control.rollback("digits"))
            await until(lambda: gate.native.applied[-1]["urgent"])
            native.events = events  # type: ignore[method-assign]
            gate.control.pump()
            with pytest.raises(ModelLoadFailed):
                await urgent
            assert (await passed)["revision"] == 3
            assert (await gate.control.get("digits"))["revision"] == 3

    run(body)


def test_an_ordinary_write_waits_for_an_emergency_that_loads(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document("{champion: v1}"))
            await gate.control.patch_traffic("digits", weights={}, champion="v2")
        native = FakeNative()
        native.failing["v2"] = "not now"
        async with gateway(tmp_path, native) as gate:
            native.failing.clear()
            native.held.add("v1")
            urgent = asyncio.create_task(gate.control.rollback("digits"))
            await until(lambda: native.applied[-1]["urgent"])
            ordinary = asyncio.create_task(gate.control.patch_traffic("digits", weights={"v3": "5%"}))
            for _ in range(20):
                await asyncio.sleep(0.001)
            native.release()
            assert (await urgent)["revision"] == 3
            assert (await ordinary)["plan"]["base_revision"] == 3
            assert gate.live()[0] == "v1"

    run(body)


def test_a_full_thread_pool_of_models_keeps_no_emergency_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body() -> None:
        reading, go = threading.Semaphore(0), threading.Event()

        def slow(*_: object, **_named: object) -> str:
            reading.release()
            assert go.wait(120)
            raise ModelLoadFailed("the test is over")

        model(tmp_path / "models" / "v1", 1.0)
        async with gateway(tmp_path, roots=(tmp_path,)) as gate:
            await gate.apply(document(SHARED))
            monkeypatch.setattr(gate.control.registry, "admit", slow)
            source = tmp_path / "scale.yaml"
            parsed = await gate.control.parse("scale", text().encode(), source=source)
            applies = [asyncio.create_task(gate.control.apply(parsed)) for _ in range(8)]
            await until(lambda: reading.acquire(blocking=False))
            try:
                async with asyncio.timeout(60):
                    assert (await gate.control.rollback("digits"))["status"] == "applied"
                    await gate.control.get("digits")
            finally:
                go.set()
            await asyncio.gather(*applies, return_exceptions=True)

    run(body)


def test_a_damaged_file_of_a_loaded_version_stops_no_rollback(tmp_path: Path) -> None:
    async def body() -> None:
        for name, factor in (("v1", 1.0), ("v2", 2.0), ("v3", 3.0)):
            model(tmp_path / "models" / name, factor)
        path = tmp_path / "scale.yaml"
        path.write_text(text(traffic="{champion: v1, weights: {v2: 10%}}", versions="v1 v2 v3"))
        async with gateway(tmp_path) as gate:
            await gate.control.apply_file(path)
            served = {v["name"]: Path(v["artifact"]) for v in gate.native.served["scale"]["versions"]}
            served["v3"].chmod(0o600)
            served["v3"].write_bytes(b"damage")
            assert (await gate.control.rollback("scale"))["status"] == "applied"
            assert gate.native.served["scale"]["table"]["given"] == []

    run(body)


def test_nothing_is_hashed_in_the_step_of_a_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        model(tmp_path / "models" / "v1", 1.0)
        model(tmp_path / "models" / "v2", 2.0)
        path = tmp_path / "scale.yaml"
        path.write_text(text(traffic="{champion: v1, weights: {v2: 10%}}", versions="v1 v2"))
        async with gateway(tmp_path) as gate:
            await gate.control.apply_file(path)
            await gate.control.rollback("scale")
        async with gateway(tmp_path) as gate:
            held: list[bool] = []
            verify = gate.control.registry.store.verify

            def watched(digest: str) -> Any:
                held.append(gate.control._endpoints["scale"].step.locked())
                return verify(digest)

            monkeypatch.setattr(gate.control.registry.store, "verify", watched)
            await gate.control.unblock("scale", "v2")
            assert held == [False]

    run(body)


@pytest.mark.parametrize("act", ["freeze", "abort"])
def test_an_endpoint_that_does_not_answer_can_be_frozen_and_aborted(tmp_path: Path, act: str) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document(SHARED))
        async with gateway(tmp_path, truncated()) as gate:
            result = await getattr(gate.control, act)("digits")
            assert (result["status"], result["revision"]) == ("applied", 2)
            view = await gate.control.get("digits")
            assert (view["state"], view["revision"]) == ("failed", 2)
            if act == "freeze":
                await gate.control.unfreeze("digits")
        async with gateway(tmp_path, truncated()) as gate:
            assert [status for _, status in await statuses(gate)][:2] == ["applied", "applied"]
            assert gate.native.served == {}

    run(body)


def test_a_freeze_beside_a_load_that_heals_is_not_undone_by_it(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document(SHARED))
        native = truncated()
        async with gateway(tmp_path, native) as gate:
            native.failing.clear()
            native.held.add("v3")
            healing = asyncio.create_task(gate.apply(document(SHARED)))
            await until(lambda: native.applied[-1]["revision"] == 2)
            freezing = asyncio.create_task(gate.control.freeze("digits"))
            await until(lambda: native.applied[-1]["revision"] == 3)
            native.release()
            assert (await freezing)["revision"] == 3
            with pytest.raises(Conflict, match="was overtaken"):
                await healing
            one = (await gate.control.list())[0]
            assert (one["revision"], one["frozen"], one["state"]) == (3, True, "ready")
            assert native.served["digits"]["revision"] == 3

    run(body)


@pytest.mark.parametrize("between", ["rollback", "rollback, which steps aside for block"])
def test_a_first_load_that_was_taken_over_outlives_a_call_that_does_not_load(
    tmp_path: Path, between: str
) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document("{champion: v1}"))
            await gate.control.patch_traffic("digits", weights={}, champion="v2")
        native = FakeNative()
        native.failing["v2"] = "not now"
        async with gateway(tmp_path, native) as gate:
            native.failing.clear()
            native.held.update({"v1", "v2"})
            healing = asyncio.create_task(gate.apply(document("{champion: v2}")))
            await until(lambda: native.applied[-1]["revision"] == 3)
            freezing = asyncio.create_task(gate.control.freeze("digits"))
            await until(lambda: native.applied[-1]["revision"] == 4)
            rolling = asyncio.create_task(gate.control.rollback("digits"))
            await until(lambda: native.applied[-1]["revision"] == 5)
            blocking = None
            if "block" in between:
                blocking = asyncio.create_task(gate.control.block("digits", "v3"))
                await until(lambda: native.applied[-1]["revision"] == 6 or blocking.done())
                assert not blocking.done(), "it loads in place of the freeze"
            # v1, where the rollback goes, does not load; v2, which is in force, does.
            native.held.remove("v1")
            native.failing["v1"] = "broken"
            native.release("v2")
            # After the block it is known that v1 does not load, and the rollback stays.
            (outcome,) = await asyncio.gather(rolling, return_exceptions=True)
            assert isinstance(outcome, ModelLoadFailed) == (blocking is None)
            assert (await freezing)["status"] == "applied"
            if blocking is not None:
                assert (await blocking)["status"] == "applied"
            with pytest.raises(Conflict, match="was overtaken"):
                await healing
            one = (await gate.control.list())[0]
            assert (one["champion"], one["frozen"], one["state"]) == ("v2", True, "ready")
            assert native.served["digits"]["champion"] == "v2"

    run(body)


def test_an_emergency_that_could_not_be_written_and_did_not_load_is_written_as_failed(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document("{champion: v1}"))
            await gate.control.patch_traffic("digits", weights={}, champion="v2")
        native = FakeNative()
        native.failing["v2"] = "broken"
        async with gateway(tmp_path, native) as gate:
            native.failing["v1"] = "broken too"
            heal = gate.full_disk()
            with pytest.raises(ModelLoadFailed):
                await gate.control.rollback("digits")
            with pytest.raises(StorageFailed):
                await gate.control.flush()
            heal()
            await gate.flush_healed()
            assert (await statuses(gate))[0] == ("rollback", "failed")

    run(body)


def test_a_newer_document_ends_the_load_of_the_one_before(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document(SHARED))
            gate.native.held.add("v4")
            hangs = asyncio.create_task(gate.apply(document("{champion: v1}", "v1 v2 v3 v4")))
            await until(lambda: len(gate.native.applied) == 2)
            newer = await gate.apply(document("{champion: v2}"))
            assert (newer["status"], gate.native.served["digits"]["champion"]) == ("applied", "v2")
            with pytest.raises(Conflict, match="a newer write, which cancelled its load"):
                await hangs

    run(body)


def test_a_newer_document_ends_the_loads_of_all_that_wait_before_it(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document(SHARED))
            gate.native.held.add("v4")
            state = gate.control._endpoints["digits"]
            older = []
            for _ in range(3):
                writes = state.writes
                older.append(asyncio.create_task(gate.apply(document("{champion: v1}", "v1 v2 v3 v4"))))
                await until(lambda writes=writes: state.writes > writes)  # type: ignore[misc]
            await until(lambda: len(gate.native.applied) == 2)
            async with asyncio.timeout(60):
                newer = await gate.apply(document("{champion: v2}"))
            assert (newer["status"], gate.native.served["digits"]["champion"]) == ("applied", "v2")
            for one in older:
                with pytest.raises(Conflict, match="a newer write, which cancelled its load"):
                    await one

    run(body)


def test_the_same_document_said_again_waits_for_its_load(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            gate.native.held.add("v4")
            twice = [
                asyncio.create_task(gate.apply(document("{champion: v1}", "v1 v2 v3 v4"))) for _ in range(2)
            ]
            await until(lambda: len(gate.native.applied) == 1)
            for _ in range(20):
                await asyncio.sleep(0.001)
            gate.native.release("v4")
            # Which of the two is read first is not told.
            assert sorted([(await one)["status"] for one in twice]) == ["applied", "unchanged"]

    run(body)


def test_a_delete_ends_a_first_load_that_hangs(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            gate.native.held.add("v1")
            hangs = asyncio.create_task(gate.apply(document("{champion: v1}")))
            await until(lambda: len(gate.native.applied) == 1)
            with pytest.raises(ModelNotFound, match="the load of its first revision was cancelled"):
                await gate.control.delete("digits")
            with pytest.raises(Conflict, match="a newer write"):
                await hangs
            gate.native.release("v1")
            assert (await gate.apply(document("{champion: v1}")))["status"] == "applied"

    run(body)

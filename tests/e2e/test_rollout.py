"""Rollouts on the real data plane with real models: nobody touches a good one, and a bad one is gone.

Control plane and data plane run in the test's process; an unclean end is one after which nothing was written. Not here: what is decided
(``unit/rollout``), the calls over HTTP (``admin``).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from headgate import _native, runtime_library
from headgate.control import Call, Control, Native, Settings
from headgate.registry import ArtifactStore
from headgate.store import Store, open_store
from support import models
from support import native as plane
from support.tools import need_native

SECONDS = 120.0
DOCUMENT = """\
apiVersion: headgate/v1
kind: Endpoint
name: scale
versions: {v1: "file:scale/1", v2: "file:scale/2"}
traffic:
  champion: v1
  sticky: header.x-user-id
  fallback: {to: [v1]}
"""
PLAN = """\
apiVersion: headgate/v1
kind: RolloutPlan
name: quick
steps:
  - {shadow: 100%, for: 1s, min_requests: 20}
  - {weight: 50%, for: 1s, min_requests: 20}
  - {weight: 90%, for: 1s, min_requests: 20}
  - promote
rollback_if: {error_rate: 1.5x}
"""
HELD = PLAN.replace("name: quick", "name: held").replace(
    "for: 1s, min_requests: 20}\n  - {weight: 90%", "for: 10m}\n  - {weight: 90%"
)


# Beside other tests the champion gets slower under way, and the rollout pauses for it, as it should.
pytestmark = pytest.mark.alone


@pytest.fixture(autouse=True)
def _native_is_there() -> None:
    need_native()


@dataclass
class Running:
    """A gateway without its admin port, and a client that asks as long as it runs."""

    control: Control
    store: Store
    address: str
    asked: int = 0
    answered: int = 0
    refused: int = 0

    async def view(self) -> Any:
        return await self.control.rollout_view("scale")

    async def until(self, true: Callable[[Any], bool]) -> Any:
        view: Any = None
        try:
            async with asyncio.timeout(SECONDS):
                while not true(view := await self.view()):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            loops = self.control.background.status()["advance_rollouts"]
            raise AssertionError(
                f"{json.dumps(view, indent=1)[:3000]} {loops} {self.asked} {self.refused}"
            ) from None
        return view

    def served(self) -> dict[str, int]:
        current = self.control.current("scale")
        assert current is not None
        return {
            current.traffic.champion: 10_000 - sum(current.traffic.weights().values()),
            **current.traffic.weights(),
        }


@asynccontextmanager
async def running(folder: Path, *, clean: bool = True) -> AsyncIterator[Running]:
    """Serves the folder's state; without ``clean`` the process ends as if it were killed."""
    with plane.running(shadow_cpu=1.0) as (gateway, address):
        store = open_store(folder / "state")
        native = Native(gateway, _native, str(runtime_library.find().path))
        control = Control(store, native, ArtifactStore(folder / "state"), Settings(root=folder))
        loop = asyncio.get_running_loop()
        loop.add_reader(native.event_fd(), control.pump)
        await control.start()
        found = Running(control, store, address)
        client = asyncio.create_task(_ask(found))
        try:
            yield found
        finally:
            client.cancel()
            await asyncio.gather(client, return_exceptions=True)
            if clean:
                await control.close()
            else:
                # What a kill leaves: nothing more is written.
                store.transactions.write = _dead  # type: ignore[method-assign]
                await control.stop(0.1)
            loop.remove_reader(native.event_fd())
            store.close()


def _dead() -> Any:
    raise SystemError("the process is dead")


async def _ask(running: Running) -> None:
    """Requests of many users, one after another."""
    body = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 4], "data": [9.0] * 4}]}
    async with httpx.AsyncClient(base_url=f"http://{running.address}") as client:
        while True:
            user = f"user-{running.asked}"
            answer = await client.post("/v2/models/scale/infer", json=body, headers={"x-user-id": user})
            running.asked += 1
            # Before the first answer nothing is served.
            running.answered += answer.status_code == 200
            running.refused += running.answered > 0 and answer.status_code != 200


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def body() -> None:
        await work()

    asyncio.run(body())


async def serve(running: Running, *plans: str) -> None:
    for text in plans or (PLAN,):
        await running.control.put_plan(text.encode())
    await running.control.put("scale", DOCUMENT.encode())


def place(folder: Path, challenger: Any) -> None:
    models.place(models.scale(2.0), folder, "scale", "1")
    models.place(challenger, folder, "scale", "2")


def failing() -> onnx.ModelProto:
    """As ``models.scale``, but a run with an element above 5 fails: an index is out of range."""
    floats = TensorProto.FLOAT
    initial = {"five": np.float32(5), "seven": np.int64(7), "factor": np.ones(1, np.float32)}
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMax", ["X"], ["most"], keepdims=0),
            helper.make_node("Greater", ["most", "five"], ["is_high"]),
            helper.make_node("Cast", ["is_high"], ["number"], to=TensorProto.INT64),
            helper.make_node("Mul", ["number", "seven"], ["index"]),
            helper.make_node("Gather", ["factor", "index"], ["one"]),
            helper.make_node("Mul", ["X", "one"], ["Y"]),
        ],
        "failing",
        [helper.make_tensor_value_info("X", floats, ("rows", 4))],
        [helper.make_tensor_value_info("Y", floats, ("rows", 4))],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in initial.items()],
    )
    return helper.make_model(graph, opset_imports=models.OPSETS, ir_version=8)


ANN = Call("ann", reason="it is better")


def test_a_good_challenger_is_promoted_without_anybody(tmp_path: Path) -> None:
    place(tmp_path, models.scale(3.0))

    async def work() -> None:
        async with running(tmp_path) as gateway:
            await serve(gateway)
            planned = await gateway.control.rollout_start(
                "scale", "v2", "quick", call=Call("ann", dry_run=True)
            )
            assert "shadow 100%" in planned["plan"]["text"]
            assert await gateway.view() is None
            await gateway.control.rollout_start("scale", "v2", "quick", call=ANN)
            view = await gateway.until(lambda view: view["phase"] != "progressing")
            assert view["phase"] == "promoted", view
            assert "No harm shown." in view["end"]["said"]
            assert [one["step"] for one in view["finished"]] == ["shadow 100%", "weight 50%", "weight 90%"]
            assert all(one["requests"] >= 20 for one in view["finished"])
            assert gateway.served() == {"v2": 10_000}
            kinds = [one["kind"] for one in await gateway.control.revisions("scale")]
            assert kinds == ["rollout_promote", *["rollout_step"] * 3, "rollout_start", "apply"]
            again = await gateway.control.put("scale", DOCUMENT.encode())
            assert gateway.served() == {"v2": 10_000}, again
            (told,) = await gateway.control.rollouts("scale")
            assert (told["id"], told["phase"], told["started_by"]) == ("r1", "promoted", "ann")
            assert gateway.refused == 0

    run(work)


def test_a_challenger_whose_runs_fail_is_rolled_back_and_stays_so(tmp_path: Path) -> None:
    place(tmp_path, failing())

    async def work() -> None:
        async with running(tmp_path) as gateway:
            await serve(gateway, PLAN.replace("  - {shadow: 100%, for: 1s, min_requests: 20}\n", ""))
            await gateway.control.rollout_start("scale", "v2", "quick", call=ANN)
            view = await gateway.until(lambda view: view["phase"] != "progressing")
            assert (view["phase"], view["end"]["reason"]) == ("rolled_back", "error_rate"), view
            assert gateway.served() == {"v1": 10_000}
            current = gateway.control.current("scale")
            assert current is not None
            assert [block.version for block in current.traffic.blocked] == ["v2"]
            assert "error_rate fails" in current.traffic.blocked[0].reason
            assert gateway.refused == 0

    run(work)


def test_a_crash_takes_the_weight_away_and_a_clean_restart_goes_on(tmp_path: Path) -> None:
    place(tmp_path, models.scale(3.0))

    async def work() -> None:
        async with running(tmp_path, clean=False) as gateway:
            await serve(gateway, HELD)
            await gateway.control.rollout_start("scale", "v2", "held", call=ANN)
            await gateway.until(lambda view: view["weight"] == 5_000)
        async with running(tmp_path) as gateway:
            view = await gateway.view()
            assert (view["phase"], view["pause"]["reason"]) == ("paused", "crash"), view
            assert gateway.served() == {"v1": 10_000}
            await gateway.control.rollout_resume("scale", call=ANN)
            assert gateway.served() == {"v1": 5_000, "v2": 5_000}
        async with running(tmp_path, clean=False) as gateway:
            view = await gateway.view()
            assert (view["phase"], view["weight"]) == ("progressing", 5_000)
            assert gateway.served() == {"v1": 5_000, "v2": 5_000}
            await gateway.until(lambda view: view["step"]["requests"] > 0)
        async with running(tmp_path) as gateway:
            view = await gateway.view()
            assert (view["phase"], view["end"]["reason"]) == ("rolled_back", "crash"), view
            assert gateway.served() == {"v1": 10_000}

    run(work)

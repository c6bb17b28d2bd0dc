"""Rollouts that begin with a replay, on the real data plane: captured requests decide before any caller is involved.

Not here: what a replay counts (``test_replay``), how it is judged (``unit/rollout/test_replays``).
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from e2e.rollout_harness import ANN, Running, look_often, run, running
from headgate.control import Call
from headgate.errors import PolicyInvalid
from support import models
from support.tools import need_native

REQUESTS = 60
#: Four of ten requests have elements above 5, on which some challengers are wrong.
WRONG = sum(number % 10 > 5 for number in range(REQUESTS))
DOCUMENT = """\
apiVersion: headgate/v1
kind: Endpoint
name: scale
versions:
  v1: "file:scale/champion"
  same: "file:scale/same"
  other: "file:scale/other"
  failing: "file:scale/failing"
  nan: "file:scale/nan"
  unlike: {model: "file:scale/unlike", compatible: false}
traffic:
  champion: v1
  sticky: header.x-user-id
"""
CAPTURED = DOCUMENT + "capture: {share: 100%}\n"
PLAN = f"""\
apiVersion: headgate/v1
kind: RolloutPlan
name: first
steps:
  - {{replay: {REQUESTS}}}
  - {{weight: 50%, for: 10m}}
  - promote
rollback_if: {{error_rate: 1.5x, disagreement: 2%}}
"""
PAUSING = PLAN.replace("name: first", "name: pausing").replace(
    "rollback_if: {error_rate: 1.5x, disagreement: 2%}", "pause_if: {disagreement: 2%}"
)

# As all rollouts: beside other tests the champion gets slower under way.
pytestmark = pytest.mark.quiet


@pytest.fixture(autouse=True)
def _supported(monkeypatch: pytest.MonkeyPatch) -> None:
    look_often(monkeypatch)


def numbers(number: int) -> list[float]:
    return [float(number % 10)] * 4


def graph(nodes: list[onnx.NodeProto], name: str = "X", **constants: float) -> onnx.ModelProto:
    """A model with one input and Y, FP32 [rows, 4]."""
    shape = ["rows", 4]
    made = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.float32(value), called) for called, value in constants.items()],
    )
    return helper.make_model(made, opset_imports=models.OPSETS, ir_version=8)


def challengers() -> dict[str, onnx.ModelProto]:
    node = helper.make_node
    is_high = [node("Add", ["X", "X"], ["twice"]), node("Greater", ["X", "five"], ["high"])]
    nan = [*is_high, node("Where", ["high", "none", "twice"], ["Y"])]
    return {
        "champion": models.scale(2.0),
        "same": graph([node("Add", ["X", "X"], ["Y"])]),
        "other": models.scale(3.0),
        "failing": models.failing(2.0),
        "nan": graph(nan, five=5.0, none=float("nan")),
        "unlike": graph([node("Add", ["Z", "Z"], ["Y"])], "Z"),
    }


def place(folder: Path) -> None:
    for name, model in challengers().items():
        models.place(model, folder, "scale", name)


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an endpoint of which some requests are captured; the stop of its gateway wrote them."""
    need_native()
    folder = tmp_path_factory.mktemp("captured")
    place(folder)

    async def work() -> None:
        async with running(folder, values=numbers) as gateway:
            await gateway.control.put("scale", CAPTURED.encode())
            async with asyncio.timeout(60):
                while gateway.answered < REQUESTS:
                    await asyncio.sleep(0.01)
            gateway.sends.clear()

    run(work)
    return folder


@pytest.fixture
def folder(captured: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(captured, tmp_path / "copy"))


async def start(gateway: Running, challenger: str, plan: str = PLAN) -> None:
    gateway.values = numbers
    stored = await gateway.control.put_plan(plan.encode())
    await gateway.control.rollout_start("scale", challenger, stored["name"], call=ANN)


async def replays(gateway: Running) -> list[dict[str, Any]]:
    """Those that steps asked for, newest first."""
    found = await gateway.control.replays.list("scale")
    return [one for one in found if one["max_requests"] != 0]


async def until_replaying(gateway: Running) -> dict[str, Any]:
    async with asyncio.timeout(60):
        while not (found := await replays(gateway)):
            await asyncio.sleep(0.02)
    return found[0]


def test_a_challenger_that_answers_the_same_goes_on_to_callers(folder: Path) -> None:
    async def work() -> None:
        async with running(folder) as gateway:
            await start(gateway, "same")
            view = await gateway.until(lambda view: view["weight"] == 5_000)
            assert view["phase"] == "progressing"
            (left,) = view["finished"]
            assert (left["step"], left["requests"]) == (f"replay {REQUESTS}", REQUESTS)
            found = {gate["gate"]: gate for gate in left["gates"]}
            assert {name: gate["verdict"] for name, gate in found.items()} == {
                "error_rate": "pass",
                "disagreement": "pass",
            }
            assert found["disagreement"]["challenger"] == {"units": 0, "n": REQUESTS, "bad": 0}
            assert gateway.refused == 0

    run(work)


@pytest.mark.parametrize(
    ("challenger", "gate", "words"),
    [
        ("other", "disagreement", "of answers differ beyond the noise floor"),
        ("nan", "disagreement", f"({WRONG} because the challenger alone answers NaN)"),
        ("failing", "error_rate", f"champion 0 of {REQUESTS}, challenger {WRONG} of {REQUESTS}"),
    ],
)
def test_a_bad_challenger_is_gone_before_any_caller_gets_it(
    folder: Path, challenger: str, gate: str, words: str
) -> None:
    async def work() -> None:
        async with running(folder) as gateway:
            await start(gateway, challenger)
            view = await gateway.until_held()
            assert (view["phase"], view["end"]["reason"]) == ("rolled_back", gate), view
            assert words in view["end"]["said"]
            (status,) = [one for one in view["gates"] if one["gate"] == gate]
            assert (status["verdict"], status["challenger"]["n"]) == ("fail", REQUESTS)
            (report,) = await replays(gateway)
            assert status["replay"] == report["id"]
            # A rollback is written behind.
            await gateway.control.flush()
            (told,) = await gateway.control.rollouts("scale")
            assert (told["phase"], told["said"]) == ("rolled_back", view["end"]["said"])
            assert (gateway.served(), gateway.blocked()) == ({"v1": 10_000}, [challenger])
            # It never had a request.
            current = gateway.control.current("scale")
            assert current is not None
            assert current.traffic.attempt == 0

    run(work)


def test_a_plan_may_pause_for_what_a_replay_shows(folder: Path) -> None:
    async def work() -> None:
        async with running(folder) as gateway:
            await start(gateway, "other", PAUSING)
            view = await gateway.until_held()
            assert (view["phase"], view["pause"]["reason"]) == ("paused", "gate"), view
            assert "disagreement fails" in view["pause"]["said"]
            assert gateway.blocked() == []

    run(work)


def test_a_rollout_that_has_nothing_to_replay_does_not_begin(tmp_path: Path, folder: Path) -> None:
    place(tmp_path)

    async def empty() -> None:
        async with running(tmp_path) as gateway:
            gateway.sends.clear()
            await gateway.control.put("scale", DOCUMENT.encode())
            with pytest.raises(
                PolicyInvalid, match=r"steps\[0\]: there is nothing to replay: write capture:"
            ):
                await start(gateway, "same")
            await gateway.control.put("scale", CAPTURED.encode())
            with pytest.raises(
                PolicyInvalid, match=r"steps\[0\]: no request .* is captured.* plan without replay"
            ):
                await start(gateway, "same")
            # The plan that needs nothing goes on without it.
            planned = await gateway.control.rollout_start("scale", "same", call=Call("ann", dry_run=True))
            notes = planned["plan"]["notes"]
            assert [one for one in notes if one.startswith("there is no replay: no request of endpoint")]
            assert " replay 10000" not in planned["plan"]["text"]
            assert await gateway.view() is None

    async def unlike() -> None:
        async with running(folder) as gateway:
            with pytest.raises(PolicyInvalid, match=r'steps\[0\]: version "unlike" does not fit .*"Z"'):
                await start(gateway, "unlike")
            assert await gateway.view() is None
            assert await replays(gateway) == []

    run(empty)
    run(unlike)


#: So little time for replays that one run takes a second of waiting.
HARDLY_ANY = 0.0001


def test_a_clean_restart_begins_the_replay_again(folder: Path) -> None:
    async def work() -> None:
        async with running(folder, shadow_cpu=HARDLY_ANY) as gateway:
            await start(gateway, "same")
            assert (await until_replaying(gateway))["state"] == "running"
            before = await gateway.view()
        async with running(folder) as gateway:
            view = await gateway.until(lambda view: view["weight"] == 5_000)
            (left,) = view["finished"]
            assert (before["step"]["what"], left["step"]) == ("replay 60", "replay 60")
            assert left["requests"] == REQUESTS
            assert left["begun"] >= before["step"]["begun"]

    run(work)


def test_an_unclean_end_while_it_replays_waits_for_a_person(folder: Path) -> None:
    async def work() -> None:
        async with running(folder, clean=False, shadow_cpu=HARDLY_ANY) as gateway:
            await start(gateway, "same")
            await until_replaying(gateway)
        async with running(folder) as gateway:
            view = await gateway.view()
            assert (view["phase"], view["pause"]["reason"]) == ("paused", "crash"), view
            assert await replays(gateway) == []
            await gateway.control.rollout_resume("scale", call=ANN)
            await gateway.until(lambda view: view["weight"] == 5_000)

    run(work)


@pytest.mark.parametrize("call", ["abort", "pause"])
def test_a_replay_ends_with_its_step(folder: Path, call: str) -> None:
    async def work() -> None:
        async with running(folder, shadow_cpu=HARDLY_ANY) as gateway:
            await start(gateway, "same")
            assert (await until_replaying(gateway))["state"] == "running"
            stop = gateway.control.rollout_abort if call == "abort" else gateway.control.rollout_pause
            await stop("scale", call=ANN)
            async with asyncio.timeout(60):
                while (found := (await replays(gateway))[0])["state"] == "running":
                    await asyncio.sleep(0.02)
            assert (found["state"], found["error"]) == ("cancelled", None)
            assert found["requests"]["replayed"] < REQUESTS

    run(work)

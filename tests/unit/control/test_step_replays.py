"""Replays of rollouts through the control plane on a fake data plane: begun once, tried again, ended with their step.

Not here: what a replay says of gates (``unit/rollout/test_replays``), real ones (``e2e/test_rollout_replay``).
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from headgate.control import Call
from headgate.control.domain.rollout.actions import StartReplay
from headgate.control.domain.rollout.missing import replay_key
from headgate.errors import HeadgateError, ModelNotReady, PolicyInvalid, from_code
from support.shadow_reports import replayed
from unit.control_harness import Gate, document, gateway, run, until

PLAN = """\
apiVersion: headgate/v1
kind: RolloutPlan
name: first
steps:
  - {replay: 600}
  - {weight: 5%, for: 1m}
  - promote
rollback_if: {error_rate: 1.5x}
pause_if: {disagreement: 2%}
"""
ANN = Call("ann", reason="better")
CAPTURED = "capture: {share: 10%}\n"
NOTHING = PolicyInvalid(
    'no request of endpoint "digits" that "v1" (sha256:1) answered is captured; '
    "write capture in its document, or name the version whose requests are meant (against)"
)


async def start(gate: Gate, text: str = document() + CAPTURED) -> None:
    await gate.control.put_plan(PLAN.encode(), call=ANN)
    await gate.apply(text)
    await gate.control.rollout_start("digits", "v2", "first", call=ANN)
    # What the start asked whether there is something to replay.
    gate.native.replayed.clear()


async def look(gate: Gate) -> Any:
    gate.clock.forward(5)
    await gate.control._rollouts.turn()
    await until(lambda: all(task.done() for task in gate.control._rollouts._moving.values()))
    return await gate.control.rollout_view("digits")


async def replaying(gate: Gate, **report: Any) -> dict[str, Any]:
    """A rollout whose replay has begun; that one."""
    await start(gate)
    await look(gate)
    (begun,) = gate.native.replayed
    begun.update(report)
    return begun


def found(begun: dict[str, Any], **counts: Any) -> None:
    """The replay ends with these counts."""
    kept = {name: begun[name] for name in ("id", "endpoint", "version", "against", "asked")}
    begun.update({**replayed(**counts), **kept})


def test_a_replay_is_begun_once_and_decides(tmp_path: Path) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            begun = await replaying(
                gate, requests={"replayed": 40, "skipped": 0, "incompatible": 0, "not_ready": 0}
            )
            assert begun["asked"] == {"version": "v2", "span": {}, "max_requests": 600, "compare": {}}
            view = await look(gate)
            assert view["missing"] == ["the replay, which has put 40 requests"]
            assert len(gate.native.replayed) == 1
            found(begun, pairs=600)
            view = await look(gate)
            assert (view["weight"], view["step"]["what"]) == (500, "weight 5%")
            assert [one["requests"] for one in view["finished"]] == [600]

    run(work)


def test_it_is_compared_as_the_document_compares_the_shadow_of_that_version(tmp_path: Path) -> None:
    shadow = "{to: v2, share: 1%, compare: {score: {within: 1%}}, timeout: 2s}"

    async def work() -> None:
        async with gateway(tmp_path) as gate:
            await start(gate, document(f"{{champion: v1, shadow: [{shadow}]}}") + CAPTURED)
            await look(gate)
            (begun,) = gate.native.replayed
            assert begun["asked"]["compare"] == {"score": {"within": {"relative": 0.01}}}
            assert begun["asked"]["timeout"] == 2_000

    run(work)


@pytest.mark.parametrize(
    "error", [from_code("overloaded", "2 replays run already"), ModelNotReady("v2 is out of memory")]
)
def test_what_goes_away_by_itself_is_tried_again(tmp_path: Path, error: HeadgateError) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            await start(gate)
            gate.native.replay_error = error
            await look(gate)
            view = await look(gate)
            assert view["missing"] == [f"the replay, which waits: {error.message}"]
            gate.native.replay_error = None
            await look(gate)
            assert len(gate.native.replayed) == 1
            assert (await look(gate))["missing"] == ["the replay, which has put 0 requests"]

    run(work)


def test_what_does_not_go_away_waits_for_a_person_who_may_replay_again(tmp_path: Path) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            await start(gate)
            gate.native.replay_error = PolicyInvalid(
                'version "v2" does not fit: it has an input "Z"; name another one (against)'
            )
            await look(gate)
            view = await look(gate)
            assert (view["phase"], view["pause"]["reason"]) == ("paused", "undecided")
            assert 'which failed: version "v2" does not fit: it has an input "Z".' in view["pause"]["said"]
            gate.native.replay_error = None
            gate.clock.forward(1)
            await gate.control.rollout_resume("digits", call=ANN)
            await look(gate)
            assert len(gate.native.replayed) == 1

    run(work)


@pytest.mark.parametrize("call", ["abort", "pause", "promote", "weights", "remove"])
def test_a_replay_whose_step_is_over_is_ended(tmp_path: Path, call: str) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            begun = await replaying(gate)
            control = gate.control
            calls = {
                "abort": lambda: control.rollout_abort("digits", call=ANN),
                "pause": lambda: control.rollout_pause("digits", call=ANN),
                "promote": lambda: control.rollout_promote("digits", call=ANN),
                "weights": lambda: control.patch_traffic("digits", weights={"v2": "1%"}, call=ANN),
                "remove": lambda: control.delete("digits", call=ANN),
            }
            assert begun["state"] == "running"
            await calls[call]()
            gate.clock.forward(2)
            await control._rollouts.turn()
            assert begun["state"] == "cancelled"

    run(work)


def test_a_resume_replays_again_and_ends_the_one_before(tmp_path: Path) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            begun = await replaying(gate)
            # Both before the next look.
            await gate.control.rollout_pause("digits", call=ANN)
            gate.clock.forward(1)
            await gate.control.rollout_resume("digits", call=ANN)
            await look(gate)
            assert [one["state"] for one in gate.native.replayed] == ["cancelled", "running"]
            assert begun is gate.native.replayed[0]

    run(work)


def test_what_a_replay_found_counts_while_the_step_is_paused(tmp_path: Path) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            begun = await replaying(gate)
            await gate.control.freeze("digits", call=ANN)
            found(begun, pairs=600, differing=300)
            # A freeze holds what would pause.
            assert (await look(gate))["phase"] == "progressing"
            await gate.control.unfreeze("digits", call=ANN)
            await gate.control.rollout_pause("digits", call=ANN)
            found(begun, pairs=600, failed=300)
            view = await look(gate)
            assert (view["phase"], view["end"]["reason"]) == ("rolled_back", "error_rate")

    run(work)


def test_one_that_was_begun_while_its_step_ended_is_ended(tmp_path: Path) -> None:
    """The data plane reads files before it answers with the number of a replay; meanwhile the rollout is paused and resumed."""

    async def work() -> None:
        async with gateway(tmp_path) as gate:
            await start(gate)
            control = gate.control
            step_replays = control._rollouts.replays
            assert step_replays is not None
            begin, gates = step_replays._replays.begin, [asyncio.Event(), asyncio.Event()]
            held = iter(gates)

            async def slow(*given: Any) -> int:
                await next(held).wait()
                return await begin(*given)

            step_replays._replays.begin = slow  # type: ignore[method-assign]
            first = asyncio.create_task(look(gate))
            await until(lambda: bool(step_replays._begun))
            assert step_replays._begun["digits"].number is None
            await step_replays.end_others({})
            await control.rollout_pause("digits", call=ANN)
            gate.clock.forward(1)
            await control.rollout_resume("digits", call=ANN)
            current = control.current("digits")
            assert current is not None
            rollout = current.traffic.rollout
            assert rollout is not None
            second = asyncio.create_task(step_replays.begin(current, StartReplay(replay_key(rollout), 600)))
            await until(lambda: step_replays._begun["digits"].key == replay_key(rollout))
            gates[1].set()
            await second
            gates[0].set()
            await first
            assert [one["state"] for one in gate.native.replayed] == ["running", "cancelled"]

    run(work)


def test_a_rollout_without_captured_requests_is_refused_and_the_built_in_plan_leaves_it_out(
    tmp_path: Path,
) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            await gate.control.put_plan(PLAN.encode(), call=ANN)
            await gate.apply(document())
            with pytest.raises(PolicyInvalid, match=r"steps\[0\]: there is nothing to replay: write capture"):
                await gate.control.rollout_start("digits", "v2", "first", call=ANN)
            planned = await gate.control.rollout_start("digits", "v2", call=Call("ann", dry_run=True))
            assert [
                note
                for note in planned["plan"]["notes"]
                if note.startswith("nothing is captured, so there is no replay")
            ]
            await gate.apply(document() + CAPTURED)
            planned = await gate.control.rollout_start("digits", "v2", call=Call("ann", dry_run=True))
            assert "1. replay 10000" in planned["plan"]["text"]
            assert [(one["asked"]["max_requests"], one["state"]) for one in gate.native.replayed] == [
                (0, "cancelled")
            ]
            gate.native.replay_error = NOTHING
            with pytest.raises(
                PolicyInvalid,
                match=r"steps\[0\]: no request .* answered is captured\. Wait until .* without replay",
            ):
                await gate.control.rollout_start("digits", "v2", "first", call=ANN)
            planned = await gate.control.rollout_start("digits", "v2", call=Call("ann", dry_run=True))
            (note,) = [one for one in planned["plan"]["notes"] if one.startswith("there is no replay: ")]
            assert note.endswith("answered is captured")
            assert "1. shadow 100%" in planned["plan"]["text"]
            # What may be otherwise later keeps no rollout from its start.
            gate.native.replay_error = ModelNotReady("v2 is out of memory")
            await gate.control.rollout_start("digits", "v2", "first", call=ANN)

    run(work)

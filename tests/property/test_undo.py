"""The undo of a plan brings back what it promises, after any history: champion, slots, salt, switches, blocks, freeze and document."""

from __future__ import annotations

import random
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from headgate.control import Call
from headgate.control.domain.traffic import LiveTraffic
from headgate.errors import HeadgateError
from unit.control.test_plan import DRY, random_write
from unit.control_harness import Gate, gateway, run

STEPS = 60


def random_change(dice: random.Random, gate: Gate) -> Any:
    """Those of a plan's test, and freezing and deleting."""
    if gate.control.current("digits") is None or dice.random() < 0.8:
        return random_write(dice, gate)
    control = gate.control
    return dice.choice(
        [
            lambda call: control.freeze("digits", call=call),
            *[lambda call: control.unfreeze("digits", call=call)] * 2,
            lambda call: control.delete("digits", force=True, call=call),
        ]
    )


async def carry_out(gate: Gate, call: dict[str, Any]) -> None:
    """One call of an undo, as its text says it."""
    control, body = gate.control, call["body"]
    place = "/v1/endpoints/digits"
    if call["action"] == "remove":
        assert (call["method"], call["path"], call["query"]) == ("DELETE", place, {"force": "true"})
        await control.delete("digits", force=True)
        return
    assert (call["method"], call["path"]) == ("POST", f"{place}:{call['action']}")
    await {
        "restore": lambda: control.restore("digits", body["revision"]),
        "block": lambda: control.block("digits", body["digest"]),
        "unblock": lambda: control.unblock("digits", body["digest"]),
        "freeze": lambda: control.freeze("digits"),
        "unfreeze": lambda: control.unfreeze("digits"),
    }[call["action"]]()


def promised(gate: Gate) -> Any:
    """What an undo promises: everything about live traffic but who blocked or froze and when, and the document."""
    current = gate.control.current("digits")
    if current is None:
        return None
    live: LiveTraffic = current.traffic
    blocks = {block.digest for block in live.blocked}
    switches = live.shadows_off, live.capture_off
    return live.champion, live.table, switches, blocks, live.frozen is not None, current.document.digest


def last_good(gate: Gate) -> str | None:
    current = gate.control.current("digits")
    return None if current is None else current.traffic.last_good


@pytest.mark.parametrize("seed", range(8))
def test_the_undo_of_a_plan_brings_back_what_was(seed: int) -> None:
    undone: set[str] = set()

    async def body() -> None:
        dice = random.Random(seed)
        with tempfile.TemporaryDirectory() as folder:
            async with gateway(Path(folder)) as gate:
                for _ in range(STEPS):
                    undone.update(await _changed_and_undone(gate, random_change(dice, gate), dice))

    run(body)
    assert "restore" in undone


async def _changed_and_undone(gate: Gate, write: Any, dice: random.Random) -> list[str]:
    """Makes a change, takes it back, and mostly makes it again, so that the history goes on."""
    try:
        planned = (await write(DRY))["plan"]
        before, good = promised(gate), last_good(gate)
        done = (await write(Call("ann")))["plan"]
    except HeadgateError:
        return []
    assert replace_revision(done) == replace_revision(planned)
    assert bool(planned["undo"]) == planned["changes"], planned["text"]
    for call in planned["undo"]:
        await carry_out(gate, call)
    assert promised(gate) == before, planned["text"]
    told = "after it a rollback goes to" in planned["text"]
    if before is not None:
        assert told == (last_good(gate) != good), planned["text"]
    if dice.random() < 0.7:
        with suppress(HeadgateError):  # an endpoint that was made again may have other versions
            await write(Call("ann"))
    return [call["action"] for call in planned["undo"]]


def replace_revision(plan: dict[str, Any]) -> dict[str, Any]:
    return {**plan, "revision": None}

"""Looks at drift: what is counted, who is told and how often, and that one endpoint keeps no other from being looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headgate.errors import Internal, ModelNotReady
from unit.control.test_collection import SAMPLE, models, text, written
from unit.control_harness import Gate, document, gateway, run


def feature(verdict: str, column: str = "age", version: str = "v1") -> dict[str, Any]:
    return {"version": version, "tensor": "X", "column": column, "direction": "input", "verdict": verdict}


async def serving(gate: Gate, folder: Path) -> None:
    models(folder, "v1")
    await gate.control.apply_file(written(folder, text(SAMPLE)))
    await gate.apply(document())


async def told(gate: Gate) -> list[Any]:
    events = await gate.control.stored_events(0, limit=100, endpoint=None)
    return [event.data for event in events if event.type == "drift"]


def test_people_are_told_once_when_features_begin_to_fail(tmp_path: Path) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            await serving(gate, tmp_path)
            watch = gate.control.drift_watch
            gate.native.features["scale"] = [feature("pass"), feature("undecided", "X[3]")]
            await watch.turn()
            assert await told(gate) == []
            gate.native.features["scale"] = [feature("fail"), feature("fail", "X[3]"), feature("pass", "b")]
            await watch.turn()
            await watch.turn()
            (event,) = await told(gate)
            assert (event["version"], event["count"], event["features"]) == ("v1", 2, ["X.age", "X[3]"])
            assert watch.verdicts() == {
                ("scale", "v1", "fail"): 2, ("scale", "v1", "pass"): 1, ("scale", "v1", "undecided"): 0,
            }  # fmt: skip
            gate.native.features["scale"] = [feature("pass")]
            await watch.turn()
            gate.native.features["scale"] = [feature("fail")]
            await watch.turn()
            assert len(await told(gate)) == 2

    run(work)


def test_an_event_names_few_features_and_says_how_many_there_are(tmp_path: Path) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            await serving(gate, tmp_path)
            gate.native.features["scale"] = [feature("fail", str(number)) for number in range(1_000)]
            await gate.control.drift_watch.turn()
            (event,) = await told(gate)
            assert (event["count"], len(event["features"])) == (1_000, 10)

    run(work)


def test_an_endpoint_without_a_baseline_is_not_asked_and_a_failure_keeps_no_other(tmp_path: Path) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            await serving(gate, tmp_path)
            await gate.control.apply_file(
                written(tmp_path, text(SAMPLE).replace("name: scale", "name: another"))
            )
            # Without a baseline: it would be an error to ask.
            gate.native.drift_errors["digits"] = Internal("asked")
            gate.native.drift_errors["another"] = Internal("broken")
            gate.native.features["scale"] = [feature("pass")]
            with pytest.raises(Internal, match="broken"):
                await gate.control.drift_watch.turn()
            assert gate.control.drift_watch.verdicts()["scale", "v1", "pass"] == 1
            gate.native.drift_errors["scale"] = ModelNotReady("gone")
            gate.native.drift_errors.pop("another")
            await gate.control.drift_watch.turn()
            assert gate.control.drift_watch.verdicts() == {}

    run(work)

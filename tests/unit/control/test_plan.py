"""Dry runs: what a write would be refused for is found before it, and nothing is left behind."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headgate.control import ABSENT, EXISTS, Call
from headgate.control.domain.copies import Switches
from headgate.errors import HeadgateError, ModelLoadFailed, PolicyInvalid, RevisionConflict
from headgate.registry import Refused
from unit.control.test_models import model, text
from unit.control_harness import Gate, at, document, gateway, run, until

DRY = Call("ann", dry_run=True)


def document_in(folder: Path, written: str) -> Path:
    path = folder / "scale.yaml"
    path.write_text(written)
    return path


async def planned(gate: Gate, path: Path) -> list[str]:
    [result] = await gate.control.apply_file(path, call=DRY)
    assert result["status"] == "planned"
    return result["plan"]["notes"]


def test_a_stale_precondition_is_refused(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            with pytest.raises(RevisionConflict):
                await gate.apply(document(), dry_run=True, precondition=EXISTS)
            await gate.apply(document())
            await gate.apply(document(), dry_run=True, precondition=at(1))
            for stale in (at(7), ABSENT):
                call = Call("ann", dry_run=True, precondition=stale)
                for work in (
                    gate.apply(document("{champion: v2}"), dry_run=True, precondition=stale),
                    gate.control.patch_traffic("digits", weights={"v2": "1%"}, call=call),
                    gate.control.unfreeze("digits", call=call),
                    gate.control.restore("digits", 1, call=call),
                    gate.control.delete("digits", call=call),
                ):
                    with pytest.raises(RevisionConflict):
                        await work

    run(body)


def test_a_model_is_opened_where_it_lies_and_nothing_is_left_behind(tmp_path: Path) -> None:
    async def body() -> None:
        source = model(tmp_path / "models" / "v1", 1.0)
        path = document_in(tmp_path, text())
        async with gateway(tmp_path) as gate:
            asked: list[bytes] = []
            rehearse = gate.native.dry_run
            gate.native.dry_run = lambda endpoint: asked.append(endpoint) or rehearse(endpoint)  # type: ignore[method-assign, func-returns-value]
            await planned(gate, path)
            assert str(source / "model.onnx").encode() in asked[0]
            gate.native.unopenable["v1"] = "No Op registered for Foo"
            with pytest.raises(ModelLoadFailed, match="scale: No Op registered") as refused:
                await planned(gate, path)
            assert refused.value.detail["version"] == "v1"
            assert gate.native.applied == []
            assert gate.control.registry.store.digests() == []
            assert await gate.control.list() == []
            assert gate.control._endpoints == {}

    run(body)


def test_a_version_that_cannot_be_opened_for_want_of_room_is_named(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            gate.native.unopened = ["v2"]
            plan = await gate.apply(document(), dry_run=True)
            assert any(note.startswith("v2 was not opened") for note in plan["plan"]["notes"])

    run(body)


def test_what_a_write_would_leave_out_is_left_out_of_the_plan(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            gate.native.failing["v3"] = "broken"
            with pytest.raises(ModelLoadFailed):
                await gate.apply(document())
            await gate.apply(document(versions="v1 v2"))
            gate.native.unopenable["v2"] = "broken since"
            plan = await gate.control.patch_traffic("digits", weights={}, champion="v1", call=DRY)
            assert plan["plan"]["changes"] is False
            with pytest.raises(ModelLoadFailed):
                await gate.control.patch_traffic("digits", weights={"v2": "5%"}, call=DRY)
            state = gate.control._endpoints["digits"]
            assert (state.omitted, state.damaged) == ({}, set())

    run(body)


def test_a_baseline_is_fitted_for_a_model_that_was_never_taken_in(tmp_path: Path) -> None:
    async def body() -> None:
        model(tmp_path / "models" / "v1", 1.0)
        path = document_in(tmp_path, text('drift: {baseline: "file:sample.npy"}\n'))
        np.save(tmp_path / "sample.npy", np.ones((4, 3)))
        async with gateway(tmp_path) as gate:
            await planned(gate, path)
            assert not list((gate.state / "baselines").iterdir())
            np.save(tmp_path / "sample.npy", np.ones((4, 2)))
            with pytest.raises(PolicyInvalid, match="2 values per row"):
                await planned(gate, path)

    run(body)


def test_other_bytes_are_refused_as_an_apply_refuses_them(tmp_path: Path) -> None:
    async def body() -> None:
        model(tmp_path / "models" / "v1", 1.0)
        path = document_in(tmp_path, text())
        async with gateway(tmp_path) as gate:
            await gate.control.apply_file(path)
            model(tmp_path / "models" / "v1", 2.0)
            path.write_text(text("# changed\n"))
            codes = []
            for call in (DRY, Call("ann")):
                with pytest.raises(HeadgateError) as refused:
                    await gate.control.apply_file(path, call=call)
                codes.append(refused.value.code)
            assert codes == [Refused.code, Refused.code]

    run(body)


def test_a_dry_run_waits_for_no_write(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document(versions="v1"))
            gate.native.held.add("v2")
            write = asyncio.create_task(gate.apply(document(versions="v1 v2")))
            await until(lambda: len(gate.native.applied) == 2)
            plan = await gate.apply(document(versions="v1 v3"), dry_run=True)
            assert plan["plan"]["load"] == ["v3"]
            gate.native.release()
            await write

    run(body)


# === versions that are kept because they are live ===


def without_v1(traffic: str, versions: str) -> str:
    return document(traffic, versions).replace("  v1: {constant: {score: 0.5}}\n", "")


def test_a_version_that_is_kept_because_it_is_live_can_be_given_weight(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document(versions="v1 v2"))
            await gate.apply(without_v1("{champion: v2}", "v1 v2"))
            assert gate.control.current("digits").kept == ("v1",)  # type: ignore[union-attr]
            await gate.control.patch_traffic("digits", weights={"v1": "10%"}, call=DRY)
            await gate.control.patch_traffic("digits", weights={"v1": "10%"})
            assert gate.live()[:2] == ("v2", [["v1", 0, 999]])
            # Neither an unrelated document nor another change of traffic takes it away.
            after = await gate.apply(without_v1("{champion: v2}", "v1 v2 v3"))
            assert any("v1 is not among your document's versions" in note for note in after["plan"]["notes"])
            await gate.control.patch_traffic("digits", weights={"v3": "1%"})
            assert gate.live()[1] == [["v1", 0, 999], ["v3", 1000, 1099]]
            await gate.control.restore("digits", 3)
            assert gate.live()[1] == [["v1", 0, 999]]
            await gate.control.abort("digits")
            assert "v1" not in gate.control.current("digits").spec.versions  # type: ignore[union-attr]

    run(body)


def test_a_merge_that_is_refused_names_what_is_kept_and_how_to_move(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document())
            await gate.control.patch_traffic("digits", weights={"v2": "60%"})
            for call in ({"dry_run": True}, {}):
                with pytest.raises(PolicyInvalid) as refused:
                    await gate.apply(document("{champion: v1, weights: {v3: 50%}}"), **call)
                told = refused.value.message
                for words in ("110%", "v2 60%", "v3 50%", "live weight of v2 is 60%", "--take-traffic"):
                    assert words in told
            with pytest.raises(PolicyInvalid, match=r"110% \(v2 60%, v3 50%\)"):
                await gate.control.patch_traffic("digits", weights={"v3": "50%"})
            await gate.apply(document("{champion: v1, weights: {v3: 50%}}"), take_traffic=True)

    run(body)


# === a plan says what happens ===

NAMES = ("v1", "v2", "v3", "v4")


def random_document(dice: random.Random) -> str:
    """One of some of the versions, each a constant of its own; what it says of traffic may not fit what is live."""
    named = dice.sample(NAMES, dice.randint(1, 4))
    champion = dice.choice(named)
    weights = {name: f"{dice.choice((0, 10, 40, 70))}%" for name in named if name != champion}
    lines = [f"  {name}: {{constant: {{score: {name[1:]}.5}}}}" for name in named]
    weighed = ", ".join(f"{name}: {share}" for name, share in weights.items())
    copies = ", ".join(
        f"{{to: {name}, share: {dice.choice((1, 10))}%}}" for name in weights if dice.random() < 0.5
    )
    head = "apiVersion: headgate/v1\nkind: Endpoint\nname: digits\nversions:\n"
    traffic = f"\ntraffic: {{champion: {champion}, weights: {{{weighed}}}, shadow: [{copies}]}}\n"
    capture = f"capture: {{share: {dice.choice((1, 10))}%}}\n" if dice.random() < 0.5 else ""
    return head + "\n".join(lines) + traffic + capture


def random_write(dice: random.Random, gate: Gate) -> Callable[[Call], Awaitable[Any]]:
    """Some write, to be called twice; often about a version that is not in the document."""
    control, live, share = gate.control, gate.control.current("digits"), f"{dice.choice((0, 1, 30, 60))}%"
    kept, n = ((), 1) if live is None else (live.kept, dice.randint(1, live.n))
    version = dice.choice((*NAMES, *kept * 4))
    shadow = dice.choice((live.spec.shadows if live else ()) or NAMES)
    switches = Switches({shadow: dice.random() < 0.5}, dice.choice((None, True, False)))
    text, take = random_document(dice), dice.random() < 0.2
    if live is None:
        return lambda call: control.put("digits", text.encode(), call=call)
    return dice.choice(
        [
            lambda call: control.put("digits", text.encode(), call=call, take_traffic=take),
            lambda call: control.put("digits", text.encode(), call=call, take_traffic=take),
            *[lambda call: control.patch_traffic("digits", weights={version: share}, call=call)] * 3,
            lambda call: control.patch_traffic("digits", weights={}, champion=version, call=call),
            *[lambda call: control.patch_traffic("digits", switches=switches, call=call)] * 2,
            lambda call: control.rollback("digits", call=call),
            lambda call: control.abort("digits", call=call),
            lambda call: control.block("digits", version, call=call),
            *[lambda call: control.unblock("digits", version, call=call)] * 3,
            lambda call: control.restore("digits", n, call=call),
        ]
    )


async def outcome(work: Awaitable[Any]) -> Any:
    try:
        result = await work
    except HeadgateError as error:
        return error.code, error.message
    return {**result["plan"], "revision": None}, result["message"], result["traffic"]


@pytest.mark.parametrize("seed", range(0, 12, 2))
def test_a_write_does_what_its_plan_says_whatever_came_before(seed: int, tmp_path: Path) -> None:
    async def body() -> None:
        dice, refused = random.Random(seed), 0
        async with gateway(tmp_path) as gate:
            for _ in range(60):
                write = random_write(dice, gate)
                planned, done = await outcome(write(DRY)), await outcome(write(Call("ann")))
                assert planned == done
                assert "overlaps" not in str(done), "what is decided must not contradict itself"
                refused += isinstance(planned[0], str)
                live = gate.control.current("digits")
                assert live is None or live.traffic.named() <= live.spec.versions.keys()
        assert 0 < refused < 60

    run(body)

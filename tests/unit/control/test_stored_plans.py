"""Plans and defaults that two people write at once, and plans that are removed while something is on the way to naming them.

Not here: one writer (``test_rollouts``, ``admin/test_rollouts``).
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from headgate.control import Call, Precondition
from headgate.errors import Conflict, ModelLoadFailed, RevisionConflict
from unit.control.test_rollouts import ANN, PLAN
from unit.control_harness import Gate, document, gateway, holding, run, until

NAMING = document() + "rollout: careful\n"
DEFAULTS = b"apiVersion: headgate/v1\nkind: Defaults\nrollout: careful\n"


def names(gate: Gate, endpoint: str = "digits") -> Any:
    """The plan that the endpoint in force names."""
    current = gate.control.current(endpoint)
    return None if current is None else current.spec.rollout


def test_a_removal_is_of_the_plan_that_was_read_and_not_of_one_stored_meanwhile(tmp_path: Path) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            await gate.control.put_plan(PLAN.encode(), call=ANN)
            read = Call("ann", precondition=Precondition.at(1))
            other = PLAN.replace("shadow: 10%", "shadow: 20%").encode()
            found = await asyncio.gather(
                gate.control.put_plan(other, call=read),
                gate.control.delete_plan("careful", call=read),
                gate.control.delete_plan("careful", call=read),
                return_exceptions=True,
            )
            lost = [one for one in found if isinstance(one, BaseException)]
            assert [type(one) for one in lost] == [RevisionConflict] * 2, found
            stored = gate.store.plans.all()
            assert [one.n for one in stored] == [view["n"] for view in gate.control.plans()]

    run(work)


def test_a_plan_is_not_removed_while_an_endpoint_that_names_it_loads(tmp_path: Path) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            await gate.control.put_plan(PLAN.encode(), call=ANN)
            gate.native.held = {"v1"}
            loading = asyncio.create_task(gate.apply(NAMING))
            await until(lambda: len(gate.native.applied) == 1)
            with pytest.raises(Conflict, match="plan careful is named by digits, which is being applied"):
                await gate.control.delete_plan("careful", call=ANN)
            gate.native.release()
            await loading
            assert (names(gate), len(gate.control.plans())) == ("careful", 1)
            with pytest.raises(Conflict, match="used by digits"):
                await gate.control.delete_plan("careful", call=ANN)

    run(work)


def test_what_did_not_come_to_name_a_plan_keeps_it_no_longer(tmp_path: Path) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            await gate.control.put_plan(PLAN.encode(), call=ANN)
            gate.native.failing = {"v1": "no model"}
            with pytest.raises(ModelLoadFailed):
                await gate.apply(NAMING)
            gate.native.failing = {}
            assert (await gate.apply(NAMING, dry_run=True))["status"] == "planned"
            assert (await gate.control.delete_plan("careful", call=ANN))["status"] == "applied"

    run(work)


def test_a_plan_whose_removal_is_being_written_is_named_by_nothing_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            await gate.control.put_plan(PLAN.encode(), call=ANN)
            reached, go = holding(monkeypatch, gate.store.plans, "delete")
            removal = asyncio.create_task(gate.control.delete_plan("careful", call=ANN))
            await until(reached.is_set)
            with pytest.raises(Conflict, match="plan careful is being removed"):
                await gate.apply(NAMING)
            with pytest.raises(Conflict, match="plan careful is being removed"):
                await gate.control.put_plan(DEFAULTS, call=ANN)
            go.set()
            assert (await removal)["status"] == "applied"
            assert (names(gate), gate.control.plans()) == (None, [])

    run(work)


def test_a_plan_is_not_removed_while_defaults_that_name_it_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            await gate.control.put_plan(PLAN.encode(), call=ANN)
            reached, go = holding(monkeypatch, gate.store.plans, "put")
            writing = asyncio.create_task(gate.control.put_plan(DEFAULTS, call=ANN))
            await until(reached.is_set)
            with pytest.raises(Conflict, match="plan careful is named by the defaults, which"):
                await gate.control.delete_plan("careful", call=ANN)
            go.set()
            await writing
            with pytest.raises(Conflict, match="used by the defaults"):
                await gate.control.delete_plan("careful", call=ANN)

    run(work)


def test_an_old_revision_whose_plan_is_gone_comes_back_with_a_note(tmp_path: Path) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            await gate.control.put_plan(PLAN.encode(), call=ANN)
            await gate.apply(NAMING)
            await gate.apply(document())
            back = await gate.control.restore("digits", 1, call=Call("ann", dry_run=True))
            assert not [note for note in back["plan"]["notes"] if "careful" in note]
            await gate.control.delete_plan("careful", call=ANN)
            back = await gate.control.restore("digits", 1, call=ANN)
            assert [
                note for note in back["plan"]["notes"] if note.startswith("no plan is named careful any more")
            ]

    run(work)


def test_a_trial_run_of_several_plans_counts_them_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headgate.control.writes.stored_plans.MOST", 2)

    async def work() -> None:
        async with gateway(tmp_path) as gate:
            await gate.control.put_plan(PLAN.encode(), call=ANN)
            new, trial = PLAN.replace("careful", "bold").encode(), Call("ann", dry_run=True)
            beside = {"call": trial, "with_plans": frozenset({"careful", "quick"})}
            with pytest.raises(
                Conflict, match="there are 1 plans, and there is no room for 2 more: 2 are stored"
            ):
                await gate.control.put_plan(new, **beside)
            # What is stored already, and the plan itself, take no more room.
            for known in ({"careful"}, {"bold", "careful"}):
                planned = await gate.control.put_plan(new, call=trial, with_plans=frozenset(known))
                assert planned["status"] == "planned"
            await gate.control.put_plan(new, call=ANN)
            with pytest.raises(Conflict, match="there are 2 plans already"):
                await gate.control.put_plan(PLAN.replace("careful", "quick").encode(), call=trial)

    run(work)

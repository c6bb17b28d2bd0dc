"""Documents in files: each is applied once for each content of it, whoever applied it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from headgate.control import Call
from headgate.errors import PolicyInvalid
from unit.control.test_models import model, text
from unit.control_harness import Gate, document, gateway, run

FIRST, SECOND = document("{champion: v1}"), document("{champion: v2}")


async def send(gate: Gate, content: str, source: Path) -> str:
    """As ``headgate apply FILE`` sends it."""
    gate.control.roots_add(source.parent)
    parsed = await gate.control.parse("digits", content.encode(), source=source)
    return str((await gate.control.apply(parsed, call=Call("ann"), take_traffic=True))["status"])


def champion(gate: Gate) -> str:
    return str(gate.native.served["digits"]["champion"])


def test_what_was_applied_by_hand_is_not_applied_again_by_a_restart(tmp_path: Path) -> None:
    file, other = tmp_path / "p.yaml", tmp_path / "other.yaml"

    async def body() -> None:
        file.write_text(FIRST)
        async with gateway(tmp_path) as gate:
            await gate.control.apply_file(file)
            file.write_text(SECOND)
            assert await send(gate, SECOND, file) == "applied"
            assert await send(gate, FIRST, other) == "applied"
            assert champion(gate) == "v1"
        async with gateway(tmp_path) as gate:
            assert await gate.control.read_file(file) is None
            assert await gate.control.apply_file(file) == []
            assert champion(gate) == "v1"

    run(body)


def test_a_document_that_changed_nothing_was_applied_too(tmp_path: Path) -> None:
    file, other = tmp_path / "p.yaml", tmp_path / "other.yaml"

    async def body() -> None:
        file.write_text(FIRST)
        async with gateway(tmp_path) as gate:
            assert await send(gate, FIRST, other) == "applied"
            assert await send(gate, FIRST, file) == "unchanged"
            assert await send(gate, SECOND, other) == "applied"
        async with gateway(tmp_path) as gate:
            assert await gate.control.apply_file(file) == []
            assert champion(gate) == "v2"

    run(body)


def test_a_dry_run_and_a_refusal_are_not_remembered(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"

    async def body() -> None:
        file.write_text(FIRST)
        async with gateway(tmp_path) as gate:
            await gate.control.apply_file(file)
            file.write_text(SECOND)
            await gate.control.apply_file(file, call=Call("ann", dry_run=True))
            assert len(await gate.control.apply_file(file)) == 1
            same = await gate.control.parse("digits", SECOND.encode(), source=tmp_path / "other.yaml")
            await gate.control.apply(same, call=Call("ann", dry_run=True))
            assert gate.store.applied_from(str(tmp_path / "other.yaml")) == frozenset()

    run(body)


def test_of_a_file_only_the_documents_that_are_new_are_applied(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"

    def written(*documents: str) -> None:
        file.write_text("---\n".join(documents))

    async def body() -> None:
        async with gateway(tmp_path) as gate:
            written(document(name="one"), document(name="two"))
            assert len(await gate.control.apply_file(file)) == 2
            await gate.control.patch_traffic("one", weights={}, champion="v3")
            written(document(name="one"), document("{champion: v2}", name="two"))
            (changed,) = await gate.control.apply_file(file)
            assert changed["endpoint"] == "two"
            assert gate.native.served["one"]["champion"] == "v3"

    run(body)


def test_models_that_were_moved_away_keep_nothing_that_is_stored_from_being_served(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"

    async def body() -> None:
        model(tmp_path / "models" / "v1", 2)
        file.write_text(text())
        async with gateway(tmp_path) as gate:
            await gate.control.apply_file(file)
        shutil.rmtree(tmp_path / "models")
        async with gateway(tmp_path) as gate:
            assert await gate.control.read_file(file) is None

    run(body)


PLAN = "apiVersion: headgate/v1\nkind: RolloutPlan\nname: careful\nsteps: [{weight: 5%}, promote]\n"
DEFAULTS = "apiVersion: headgate/v1\nkind: Defaults\nlimits: {timeout: 2s}\nrollout: careful\n"


def test_plans_and_defaults_of_a_file_come_first_and_are_applied_once(tmp_path: Path) -> None:
    file = tmp_path / "all.yaml"

    async def body() -> None:
        file.write_text(f"{FIRST}---\n{DEFAULTS}---\n{PLAN}")
        async with gateway(tmp_path) as gate:
            assert [one["endpoint"] for one in await gate.control.apply_file(file)] == ["digits"]
            assert gate.native.served["digits"]["timeout_ms"] == 2_000
            assert [one["name"] for one in gate.control.plans()] == ["careful"]
            changed = PLAN.replace("5%", "6%")
            await gate.control.put_plan(changed.encode(), call=Call("ann"))
        async with gateway(tmp_path) as gate:
            # What was changed since by a call stays, as an endpoint's document does.
            assert await gate.control.read_file(file) is None
            assert gate.control.plan("careful")["document"]["steps"][0]["weight"] == "6%"
            file.write_text(f"{FIRST}---\n{DEFAULTS}---\n{PLAN.replace('5%', '7%')}")
            found = await gate.control.read_file(file)
            assert found is not None
            assert [one.kind for one in found.others] == ["RolloutPlan"]
            await gate.control.apply_file(file)
            assert gate.control.plan("careful")["document"]["steps"][0]["weight"] == "7%"

    run(body)


def test_a_plan_that_is_refused_keeps_no_other_document_of_its_file(tmp_path: Path) -> None:
    file = tmp_path / "all.yaml"

    async def body() -> None:
        file.write_text(f"{DEFAULTS.replace('careful', 'bold')}---\n{PLAN}---\n{FIRST}")
        async with gateway(tmp_path) as gate:
            found = await gate.control.read_file(file)
            assert found is not None
            with pytest.raises(PolicyInvalid, match="bold"):
                await gate.control.put_read(found)
            assert [one["name"] for one in gate.control.plans()] == ["careful"]
            assert len(await gate.control.apply_read(found)) == 1

    run(body)

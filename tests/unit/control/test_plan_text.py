"""The words of a plan: what moves, who is affected, what is needed, how it is undone; with what is not known said to be so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headgate.control import Call
from headgate.control.domain.plan import make_plan
from headgate.control.domain.plan_facts import PlanFacts, RecentRequests, VersionMemory
from headgate.control.domain.step import Step
from headgate.control.domain.traffic import KnownVersions, Stamp, rollback
from headgate.errors import ModelLoadFailed
from headgate.readable import percent
from unit.control.test_models import model, text
from unit.control_harness import Gate, at, document, gateway, run
from unit.fake_native import set_weights

DRY = Call("ann", dry_run=True)
MIB = 1 << 20


async def said(work: Any) -> str:
    """The text of a dry run."""
    result = await work
    assert result["status"] == "planned"
    return str(result["plan"]["text"])


def trial(rest: str = "", versions: str = "v7 v8") -> str:
    """5 % of the keys of users on v8."""
    return document(f"{{champion: v7, weights: {{v8: 5%}}, sticky: header.x-user-id{rest}}}", versions)


async def rolled_back(gate: Gate, facts: PlanFacts) -> Step:
    """A rollback of the trial, with these facts."""
    before = gate.control.current("digits")
    assert before is not None
    known = KnownVersions("digits", before.spec.digests(), set_weights, ruled=before.spec.ruled)
    change = rollback(before.traffic, known, Stamp("ann", "2027-03-01T03:12:05Z", ""))
    return Step(
        "digits",
        before.n + 1,
        before,
        before.moved(change.live),
        "rollback",
        loaded=frozenset(before.spec.versions),
        blocks=change.blocks,
        facts=facts,
    )


def test_a_rollback_in_full(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(trial())
            recent = RecentRequests(600, {"v7": 907, "v8": 93})
            memory = {name: VersionMemory("warm", None) for name in ("v7", "v8")}
            step = await rolled_back(gate, PlanFacts(recent, memory))
            digest = step.before.spec.digests()["v8"]  # type: ignore[union-attr]
            plan = make_plan(step)
            assert plan["text"] == (
                "Roll digits back to v7. 500 of 10 000 slots (5 % of keys, 9.3 % of requests in 10 min) move from v8 to v7. "
                "v7 is warm. v8 is unloaded, and how much that frees is not known. "
                f"v8 ({digest[:19]}...) is blocked until unblocked. Undo: unblock v8, restore revision 1."
            )
            assert plan["share_of_requests"] == "9.3%"
            assert [(one["action"], one["body"]) for one in plan["undo"]] == [
                ("unblock", {"digest": digest}),
                ("restore", {"revision": 1}),
            ]

    run(body)


def test_a_dry_run_looks_up_requests_and_memory(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(trial())
            gate.native.requests = {("digits", "v7"): 90, ("digits", "v8"): 10, ("other", "v8"): 900}
            recent = gate.control._recent
            begun = recent._samples[0].when
            recent._clock = lambda: begun + 300.0
            told = await said(gate.control.rollback("digits", call=DRY))
            assert "(5 % of keys, 10 % of requests in 5 min) move from v8 to v7. v7 is warm (1 MiB)." in told
            # What an emergency call answers with comes from memory.
            gate.native.totals = None  # type: ignore[assignment, method-assign]
            gate.native.status = None  # type: ignore[assignment, method-assign]
            done = await gate.control.rollback("digits", call=Call("ann"))
            assert done["plan"]["text"] == told

    run(body)


@pytest.mark.parametrize(
    ("recent", "words"),
    [
        (RecentRequests(), "5 % of keys) move from v8 to v7. Requests lately are not known."),
        (RecentRequests(300), "5 % of keys) move from v8 to v7. It answered no request in 5 min."),
        (RecentRequests(90, {"v7": 1}), "5 % of keys, 0 % of requests in 90 s) move"),
        (RecentRequests(90, {"v7": 99_999, "v8": 1}), "less than 0.01 % of requests"),
    ],
)
def test_requests_lately_that_are_none_or_not_known(
    recent: RecentRequests, words: str, tmp_path: Path
) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(trial())
            assert words in make_plan(await rolled_back(gate, PlanFacts(recent)))["text"]

    run(body)


def test_a_part_of_a_versions_slots_is_about_that_part_of_its_requests(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(trial())
            step = await rolled_back(gate, PlanFacts(RecentRequests(60, {"v7": 900, "v8": 100})))
            assert step.before is not None
            half = set_weights(step.before.traffic.table, {"v8": 250})
            after = step.before.moved(replace(step.before.traffic, table=half))
            told = make_plan(replace(step, kind="traffic", after=after))["text"]
            assert (
                "250 of 10 000 slots (2.5 % of keys, about 5 % of requests in 60 s) move from v8 to v7"
                in told
            )

    run(body)


def test_rules_and_fallbacks_that_a_move_affects_are_named(tmp_path: Path) -> None:
    rules = ', rules: [{when: {header.x-tester: "1"}, to: v8}], fallback: {to: [v8, v7]}'

    async def body() -> None:
        async with gateway(tmp_path) as gate:
            created = await said(gate.apply(trial(rules), dry_run=True))
            assert created.startswith("Create digits: champion v7, v8 5%. Rules send requests to v8.")
            await gate.apply(trial(rules))
            back = await said(gate.control.rollback("digits", call=DRY))
            assert "Rules send no more requests to v8." in back
            assert "The fallback changes from v8 and v7 to v7." in back
            aborted = await said(gate.control.abort("digits", call=DRY))
            assert "Rules still send requests to v8." in aborted
            recent = RecentRequests(60, {"v7": 900, "v8": 100})
            assert "at most 10 % of requests" in make_plan(await rolled_back(gate, PlanFacts(recent)))["text"]
            other = trial(rules).replace('{header.x-tester: "1"}', '{header.x-tester: "2"}')
            assert "The rules that send requests to v8 change." in await said(gate.apply(other, dry_run=True))
            await gate.control.rollback("digits")
            lifted = await said(gate.control.unblock("digits", "v8", call=DRY))
            assert (
                "No slot moves. Rules send requests to v8. The fallback changes from v7 to v8 and v7."
                in lifted
            )
            assert lifted.endswith("Undo: block v8.")

    run(body)


def test_memory_and_sessions_of_what_is_loaded(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            for number in (1, 2, 3):
                model(tmp_path / "models" / f"v{number}", float(number))
            (tmp_path / "scale.yaml").write_text(text())
            [planned] = await gate.control.apply_file(tmp_path / "scale.yaml", call=DRY)
            size = planned["plan"]["needs"]["v1"]["file_bytes"]
            assert size == sum(one.stat().st_size for one in (tmp_path / "models" / "v1").iterdir())
            assert planned["plan"]["needs"]["v1"] == {
                "state": "unloaded", "sessions": 1, "file_bytes": size, "memory_bytes": None
            }  # fmt: skip
            assert (
                f"v1 is loaded first: 1 session, {size} B of model files; its memory is not known before."
                in (planned["plan"]["text"])
            )
            await gate.control.apply_file(tmp_path / "scale.yaml")
            more = text().replace(
                "traffic: ", "  v2: {model: file:models/v2, run: {device: cuda:0, instances: 3}}\ntraffic: "
            )
            (tmp_path / "scale.yaml").write_text(more)
            [planned] = await gate.control.apply_file(tmp_path / "scale.yaml", call=DRY)
            assert planned["plan"]["needs"]["v2"]["sessions"] == 3
            assert "v2 is loaded first: 3 sessions, " in planned["plan"]["text"]

    run(body)


def test_a_version_out_of_memory_is_said_to_be_fetched(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(trial())
            memory = {"v7": VersionMemory("cold", 24 * MIB), "v8": VersionMemory("warm", 3 * MIB)}
            told = make_plan(await rolled_back(gate, PlanFacts(memory=memory)))["text"]
            assert "v7 is cold: it is fetched into memory before it answers (24 MiB)." in told
            assert "v8 is unloaded, which frees 3 MiB." in told
            memory["v8"] = VersionMemory("cold", 3 * MIB)
            told = make_plan(await rolled_back(gate, PlanFacts(memory=memory)))["text"]
            assert "v8 is unloaded, which frees nothing: no memory is taken while a version is cold." in told

    run(body)


def test_a_new_salt_and_a_new_sticky_key_move_keys_whose_slots_stay(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(trial())
            await gate.control.abort("digits")
            await gate.control.patch_traffic("digits", weights={"v8": "50%"})
            told = await said(gate.control.restore("digits", 1, call=DRY))
            # A key stays if it draws the same version twice: 0.5 * 0.95 + 0.5 * 0.05.
            assert "every key draws its slot anew, and 50 % of keys change their version" in told
            other = trial().replace("x-user-id", "x-tenant")
            told = await said(gate.apply(other, dry_run=True))
            assert "The sticky key changes from x-user-id to x-tenant: every key draws" in told

    run(body)


def test_what_does_not_load_keeps_an_undo_from_being_carried_out(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(trial())
            step = await rolled_back(gate, PlanFacts())
            told = make_plan(replace(step, unloadable={"v8": "it is damaged"}))["text"]
            assert told.endswith(
                "Undo: unblock v8, restore revision 1; it is refused as long as v8 does not load."
            )

    run(body)


def test_what_nobody_knows_cannot_be_brought_back(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(trial())
            after = gate.control.current("digits")
            plan = make_plan(
                Step("digits", 7, None, after, broken="digits does not start: its row is damaged")
            )
            assert plan["text"].endswith("No undo: digits does not start: its row is damaged.")
            assert plan["undo"] == []

    run(body)


def test_what_an_undo_does_not_bring_back_is_said(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document())
            await gate.control.patch_traffic("digits", weights={}, champion="v2")
            told = await said(gate.control.block("digits", "v1", call=DRY))
            assert "A rollback then goes to v2." in told
            assert told.endswith("Undo: unblock v1; after it a rollback goes to v2, not to v1.")

    run(body)


def test_an_emergency_on_a_frozen_endpoint_is_undone_between_unfreeze_and_freeze(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(trial())
            assert (await said(gate.control.freeze("digits", call=DRY))).endswith("Undo: unfreeze.")
            await gate.control.freeze("digits")
            told = await said(gate.control.rollback("digits", call=DRY))
            assert told.endswith("Undo: unfreeze, unblock v8, restore revision 2, freeze.")
            assert (await said(gate.control.unfreeze("digits", call=DRY))) == "Unfreeze digits. Undo: freeze."

    run(body)


def test_what_changes_nothing_has_nothing_to_undo(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document())
            result = await gate.control.rollback("digits", call=DRY)
            assert result["plan"]["text"] == (
                "Nothing changes on digits: already 100 % v1 since 2027-03-01T03:12:04Z."
            )
            assert result["plan"]["undo"] == []
            again = await gate.apply(document(), dry_run=True)
            assert again["plan"]["text"] == "Nothing changes: digits is as the document says already."

    run(body)


def test_a_deleted_endpoint_comes_back_with_its_traffic_and_its_blocks(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(trial(versions="v7 v8 v9"))
            await gate.control.block("digits", "v9")
            before = gate.live(), gate.control.current("digits").traffic.blocked  # type: ignore[union-attr]
            told = await said(gate.control.delete("digits", call=DRY))
            assert told.startswith(
                "Delete digits; its history stays. All its requests are refused from then on."
            )
            assert told.endswith("Undo: restore revision 2.")
            await gate.control.delete("digits")
            assert gate.native.served == {}
            told = await said(gate.control.restore("digits", 2, call=DRY))
            assert told.startswith("Create digits again as revision 2: champion v7, v8 5%.")
            assert told.endswith("Undo: delete it.")
            back = await gate.control.restore("digits", 2, call=Call("ann"))
            assert (back["revision"], back["message"]) == (4, "back as revision 2: champion v7, v8 5%")
            assert (gate.live(), gate.control.current("digits").traffic.blocked) == before  # type: ignore[union-attr]
        async with gateway(tmp_path) as gate:
            assert gate.live() == before[0]
            assert gate.store.check() == []

    run(body)


def test_what_is_blocked_when_an_endpoint_is_deleted_does_not_come_back(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(trial())
            await gate.control.rollback("digits")
            await gate.control.delete("digits")
            with pytest.raises(Exception, match=r"v8 .* is blocked since .*: unblock it first"):
                await gate.control.restore("digits", 1, call=Call("ann"))
            with pytest.raises(Exception, match="does not exist"):
                await gate.control.restore("digits", 2, call=Call("ann", precondition=at(2)))
            await gate.control.restore("digits", 2)
            assert gate.live()[0] == "v7"

    run(body)


def test_a_defect_in_the_words_of_a_plan_fails_no_emergency_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> str:
        raise KeyError("words")

    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(trial())
            monkeypatch.setattr("headgate.control.domain.plan.plan_text", fail)
            with pytest.raises(KeyError):
                await gate.control.unfreeze("digits", call=DRY)
            for work in (gate.control.abort, gate.control.freeze, gate.control.rollback):
                done = await work("digits", call=Call("ann"))
                assert done["plan"]["text"].startswith("The plan could not be made because of a defect")
            assert gate.live() == ("v7", [], "")
            await gate.control.block("digits", "v8", call=Call("ann"))
            assert "the plan of rollback could not be made" in caplog.text

    run(body)


RULED = (
    ', rules: [{when: {header.x-tester: "1"}, to: v9}], fallback: {to: [v9]}, shadow: [{to: v9, share: 10%}]'
)


async def without_v9(gate: Gate) -> None:
    """The trial, with v9 left out since its load failed."""
    await gate.apply(trial(RULED, "v7 v8 v9"))
    state = gate.control._endpoints["digits"]
    state.omitted["v9"] = "it is damaged"
    state.loaded -= {"v9"}


def test_what_stays_out_is_neither_loaded_nor_tried_again(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await without_v9(gate)
            already = await gate.control.patch_traffic("digits", weights={"v8": "5%"}, call=DRY)
            assert (already["plan"]["load"], already["plan"]["needs"]) == ([], {})
            assert already["plan"]["text"] == "Nothing changes on digits: the traffic is as asked already."
            for work in (
                gate.control.patch_traffic("digits", weights={"v8": "6%"}, call=DRY),
                gate.control.rollback("digits", call=DRY),
                gate.control.freeze("digits", call=DRY),
            ):
                plan = (await work)["plan"]
                assert plan["load"] == []
                assert "v9" not in plan["needs"]
                assert "v9" not in plan["text"]

    run(body)


def test_what_is_tried_again_is_loaded_and_gets_its_rules_back(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await without_v9(gate)
            again = await gate.apply(trial(RULED, "v7 v8 v9"), dry_run=True)
            assert again["plan"]["load"] == ["v9"]
            assert again["plan"]["text"].endswith("v9 is tried again.")
            weighted = await gate.control.patch_traffic("digits", weights={"v9": "1%"}, call=DRY)
            assert weighted["plan"]["load"] == ["v9"]
            for words in (
                "v9 is a constant and needs no session.",
                "Rules send requests to v9.",
                "The fallback changes from none to v9.",
                "Shadow v9 gets copies",
            ):
                assert words in weighted["plan"]["text"]

    run(body)


def test_a_call_that_loads_nothing_says_so_of_every_version(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await without_v9(gate)
            state = gate.control._endpoints["digits"]
            state.loaded, state.broken = frozenset(), "digits does not answer: v7 is damaged"
            aborted = (await gate.control.abort("digits", call=DRY))["plan"]
            assert (aborted["load"], aborted["needs"]) == ([], {})
            assert "loaded first" not in aborted["text"]

    run(body)


def test_what_is_left_out_has_no_requests_of_its_own(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(trial())
            facts = PlanFacts(RecentRequests(60, {"v7": 1000}))
            step = replace(await rolled_back(gate, facts), unloadable={"v8": "it is damaged"})
            plan = make_plan(step)
            assert (
                "(5 % of keys) move from v8 to v7. v8 does not load: v7 answers its requests until then."
                in plan["text"]
            )
            assert plan["share_of_requests"] is None

    run(body)


def test_a_version_that_stands_in_for_another_has_at_most_what_it_answered(tmp_path: Path) -> None:
    facts = PlanFacts(RecentRequests(60, {"v7": 600, "v8": 400}))

    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(trial(", fallback: {to: [v8]}"))
            assert "at most 40 % of requests" in make_plan(await rolled_back(gate, facts))["text"]
        async with gateway(tmp_path / "other") as gate:
            await gate.apply(trial())
            told = make_plan(await rolled_back(gate, facts))["text"]
            assert "(5 % of keys, 40 % of requests in 60 s)" in told

    run(body)


def test_a_version_that_is_left_out_during_its_load_stands_in_the_notes(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(trial(versions="v7 v8"))
            gate.native.failing["v9"] = "broken"
            state = gate.control._endpoints["digits"]
            with pytest.raises(ModelLoadFailed):
                await gate.apply(trial(versions="v7 v8 v9"))
            gate.native.failing.clear()
            await gate.apply(trial(versions="v7 v8 v9"))
            state.omitted["v9"] = "it is damaged"
            state.loaded -= {"v9"}
            gate.native._loaded["digits"] = {one for one in gate.native._loaded["digits"] if one[0] != "v9"}
            gate.native.failing["v9"] = gate.native.unopenable["v9"] = "broken"
            again = trial(versions="v7 v8 v9")
            planned = await gate.apply(again, dry_run=True)
            assert planned["plan"]["notes"] == ["v9 would be left out, because it does not load: broken"]
            done = await gate.apply(again)
            assert done["plan"]["notes"] == ["v9 is left out, because it did not load: broken"]

    run(body)


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (0.999, "99.9 %"),
        (0.99949, "99.9 %"),
        (0.9995, "more than 99.9 %"),
        (0.99999, "more than 99.9 %"),
        (1.0, "100 %"),
    ],
)
def test_what_is_less_than_all_never_reads_as_all(share: float, words: str) -> None:
    assert percent(share) == words

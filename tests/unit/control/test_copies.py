"""Shadows and the capture as live traffic: their switches, what keeps a shadow from copies, what a document keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headgate.control import Call
from headgate.control.domain.copies import Switches
from headgate.control.domain.plan_facts import VersionMemory
from headgate.control.reads.explanation import HypotheticalRequest
from headgate.control.writes.transition import prepare
from headgate.errors import Conflict, ModelNotFound, ModelNotReady, PolicyInvalid
from support.shadow_reports import never_ran
from unit.control_harness import Gate, document, gateway, run

DRY = Call("ann", dry_run=True)
OFF = Switches({"v2": False}, False)


def shadowed(share: str = "10%", capture: str = "1%", versions: str = "v1 v2 v3", more: str = "") -> str:
    """v2 gets copies; some requests are captured."""
    return document(f"{{champion: v1, shadow: [{{to: v2, share: {share}}}]{more}}}", versions) + (
        f"capture: {{share: {capture}}}\n"
    )


def served(gate: Gate) -> tuple[list[str], bool]:
    """What the data plane is told of the switches."""
    state = gate.native.served["digits"]
    return state["shadows_off"], state["capture_off"]


async def states(gate: Gate) -> tuple[list[str], str | None]:
    traffic = await gate.control.traffic("digits")
    capture = traffic["capture"]
    return [shadow["state"] for shadow in traffic["shadows"]], capture and capture["state"]


async def text(work: Any) -> str:
    return str((await work)["plan"]["text"])


def test_a_switch_is_a_revision_that_is_served_and_outlives_a_restart(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(shadowed())
            assert served(gate) == ([], False)
            result = await gate.control.patch_traffic("digits", switches=OFF, call=Call("ann"))
            assert (result["revision"], result["kind"]) == (2, "traffic")
            assert result["message"] == "champion v1, shadow v2 off, capture off"
            assert result["traffic"] == {
                "champion": "v1", "weights": {}, "shadows_off": ["v2"], "capture_off": True
            }  # fmt: skip
            assert served(gate) == (["v2"], True)
            again = await gate.control.patch_traffic("digits", switches=OFF, call=Call("ann"))
            assert (again["status"], again["revision"]) == ("already", 2)
        async with gateway(tmp_path) as gate:
            assert served(gate) == (["v2"], True)
            assert await states(gate) == (["off"], "off")
            on = await gate.control.patch_traffic("digits", switches=Switches({"v2": True}))
            assert on["message"] == "champion v1, capture off"
            assert served(gate) == ([], True)
            assert gate.store.check() == []

    run(body)


def test_history_events_audit_and_views_know_switches(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(shadowed())
            await gate.control.patch_traffic("digits", switches=OFF, call=Call("ann", reason="it slows us"))
            newest, first = await gate.control.revisions("digits")
            assert (newest["shadows_off"], newest["capture_off"]) == (["v2"], True)
            assert (first["shadows_off"], first["capture_off"]) == ([], False)
            first_event, event = (e.data for e in gate.store.events_after(0, limit=100) if e.revision)
            assert (first_event["shadows"], first_event["capture"]) == ({"v2": "10%"}, "1%")
            assert (event["shadows"], event["capture"], "rules" in event) == ({"v2": "off"}, "off", False)
            entry = (await gate.control.audit(endpoint="digits", limit=1, before=None))[0]
            assert (entry["action"], entry["detail"]["shadows"]) == ("traffic", {"v2": "off"})
            view = await gate.control.get("digits")
            assert view["declared"]["shadows"] == {"v2": "10%"}
            assert view["declared"]["capture"] == "1%"
            assert view["versions"]["v2"]["role"] == "shadow"
            assert view["notes"] == [
                "shadow v2 is switched off, your document says 10%",
                "the capture is switched off, your document says 1%",
            ]
            [line] = await gate.control.list()
            assert line["notes"] == view["notes"]

    run(body)


def test_what_a_document_does_not_declare_has_no_switch(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document())
            with pytest.raises(PolicyInvalid) as refused:
                await gate.control.patch_traffic("digits", switches=OFF)
            paths = {fault["path"]: fault["message"] for fault in refused.value.detail["faults"]}
            assert paths == {
                "shadows.v2": "v2 is no shadow of digits; its document declares none",
                "capture": "the document of digits declares no capture",
            }
            await gate.apply(shadowed())
            with pytest.raises(PolicyInvalid, match="v3 is no shadow of digits; its document declares v2"):
                await gate.control.patch_traffic("digits", switches=Switches({"v3": False}))
            await gate.control.freeze("digits")
            with pytest.raises(Conflict, match="frozen"):
                await gate.control.patch_traffic("digits", switches=OFF)

    run(body)


def test_weights_and_switches_go_together(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(shadowed())
            result = await gate.control.patch_traffic("digits", weights={"v3": "5%"}, switches=OFF)
            assert result["message"] == "champion v1, v3 5%, shadow v2 off, capture off"
            await gate.control.abort("digits")
            assert served(gate) == (["v2"], True)

    run(body)


@pytest.mark.parametrize(
    ("then", "take", "kept", "note"),
    [
        (shadowed(), False, (["v2"], True), "shadow v2 is switched off, your document says 10%: kept"),
        (shadowed(versions="v1 v2 v3 v4"), False, (["v2"], True), "the capture is switched off, your document says 1%: kept"),
        (shadowed(share="20%"), False, ([], True), "shadow v2 is switched on, because your document changes its share"),
        (shadowed(capture="2%"), False, (["v2"], False), "the capture is switched on, because your document changes its share"),
        (shadowed(), True, ([], False), None),
        (document(), False, ([], False), None),
    ],
)  # fmt: skip
def test_a_document_keeps_a_switch_unless_it_changes_the_share(
    then: str, take: bool, kept: tuple[list[str], bool], note: str | None, tmp_path: Path
) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(shadowed())
            await gate.control.patch_traffic("digits", switches=OFF)
            planned = await gate.apply(then, dry_run=True, take_traffic=take)
            assert served(gate) == (["v2"], True)
            notes = planned["plan"]["notes"]
            assert any(note in one for one in notes) if note else not notes
            await gate.apply(then, take_traffic=take)
            assert served(gate) == kept
            # A document that declares it again finds nothing switched off from before.
            if then == document():
                await gate.apply(shadowed())
                assert served(gate) == ([], False)

    run(body)


def test_a_restore_brings_switches_back(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(shadowed())
            await gate.control.patch_traffic("digits", switches=OFF)
            told = await text(gate.control.restore("digits", 1, call=DRY))
            assert (
                "Shadow v2 gets copies of 10 % of the requests that slots give to the champion. 1 % of requests are captured."
                in told
            )
            await gate.control.restore("digits", 1)
            assert served(gate) == ([], False)
            await gate.control.restore("digits", 2)
            assert served(gate) == (["v2"], True)

    run(body)


def test_a_plan_says_what_a_switch_does_and_how_it_is_undone(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            created = await gate.apply(shadowed(), dry_run=True)
            told = created["plan"]["text"]
            assert (
                "Shadow v2 gets copies of 10 % of the requests that slots give to the champion. 1 % of requests are captured."
                in told
            )
            assert created["plan"]["needs"].keys() == {"v1", "v2", "v3"}
            await gate.apply(shadowed())
            assert await text(gate.control.patch_traffic("digits", switches=OFF, call=DRY)) == (
                "Change the traffic of digits: champion v1, shadow v2 off, capture off. No slot moves. Shadow v2 gets no copies: it is "
                "switched off. No request is captured any more. Undo: restore revision 1."
            )
            assert (
                "Shadow v2 gets copies of 20 % of the requests that slots give to the champion."
                in await text(gate.apply(shadowed("20%"), dry_run=True))
            )
            assert "Shadow v2 gets no copies: it is removed." in await text(
                gate.apply(document(), dry_run=True)
            )
            crowned = await text(gate.control.patch_traffic("digits", champion="v2", call=DRY))
            assert "Shadow v2 gets no copies: it is the champion." in crowned

    run(body)


def test_a_version_that_only_a_shadow_uses_is_loaded_at_the_apply(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document(versions="v1"))
            planned = await gate.apply(shadowed(versions="v1 v2"), dry_run=True)
            assert planned["plan"]["load"] == ["v2"]
            assert planned["plan"]["needs"]["v2"]["sessions"] == 0, "it is a constant"
            await gate.apply(shadowed(versions="v1 v2"))
            assert {v["name"] for v in gate.native.served["digits"]["versions"]} == {"v1", "v2"}

    run(body)


def test_a_blocked_version_gets_no_copies_until_it_is_unblocked(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(shadowed())
            told = await text(gate.control.block("digits", "v2", call=DRY))
            assert "Shadow v2 gets no copies: it is blocked." in told
            await gate.control.block("digits", "v2")
            assert (await states(gate))[0] == ["blocked"]
            assert {v["name"] for v in gate.native.served["digits"]["versions"]} == {"v1", "v3"}
            again = await text(gate.apply(shadowed("20%"), dry_run=True))
            assert "copies" not in again.replace("1 % of requests are captured", "")
            told = await text(gate.control.unblock("digits", "v2", call=DRY))
            assert "Shadow v2 gets copies of 10 % of the requests that slots give to the champion." in told
            await gate.control.unblock("digits", "v2")
            assert (await states(gate))[0] == ["on"]

    run(body)


def test_a_new_document_with_a_blocked_shadow_says_that_it_gets_nothing(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document())
            await gate.control.block("digits", "v2")
            assert "Shadow v2 gets no copies: it is blocked." in await text(
                gate.apply(shadowed(), dry_run=True)
            )
            await gate.apply(shadowed())
            assert (await states(gate))[0] == ["blocked"]

    run(body)


def test_an_explanation_says_why_a_shadow_gets_no_copy(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(shadowed(more=', rules: [{when: {header.x-tester: "1"}, to: v3}]'))
            asked = HypotheticalRequest()

            async def why() -> tuple[list[tuple[bool | None, str]], tuple[bool | None, str] | None]:
                found = await gate.control.explain("digits", asked)
                capture = found["capture"]
                assert [shadow["version"] for shadow in found["shadows"]] == ["v2"]
                return (
                    [(shadow["chosen"], shadow["why"]) for shadow in found["shadows"]],
                    capture and (capture["chosen"], capture["why"]),
                )

            drawn = (None, "each request that slots give to the champion is drawn for itself: 10% are copied")
            assert (await why())[0] == [drawn]
            await gate.control.patch_traffic("digits", switches=OFF)
            assert await why() == ([(False, "it is switched off")], (False, "it is switched off"))
            await gate.control.patch_traffic("digits", switches=Switches({"v2": True}, True))
            await gate.control.block("digits", "v2")
            assert (await why())[0] == [(False, "it is blocked")]
            await gate.control.unblock("digits", "v2")
            await gate.control.patch_traffic("digits", champion="v2")
            assert (await why())[0] == [(False, "it is the champion")]

    run(body)


def test_rules_are_told_with_what_keeps_them_from_matching(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(shadowed(more=', rules: [{when: {header.x-tester: "1"}, to: v3}]'))
            assert (await gate.control.traffic("digits"))["rules"] == [
                {"when": 'header.x-tester is "1"', "to": "v3", "state": "on"}
            ]
            await gate.control.block("digits", "v3")
            [rule] = (await gate.control.traffic("digits"))["rules"]
            assert rule["state"] == "blocked"
            assert [e.data.get("rules") for e in gate.store.events_after(0, limit=100) if e.revision] == [
                {"v3": 1}
            ] * 2

    run(body)


def test_a_body_without_switches_is_as_an_earlier_build_wrote_it(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(shadowed())
            revision = gate.control.current("digits")
            assert revision is not None
            assert not {"shadows_off", "capture_off"} & revision.body()["traffic"].keys()
            await gate.control.patch_traffic("digits", switches=OFF)
            revision = gate.control.current("digits")
            assert revision is not None
            assert revision.body()["traffic"]["shadows_off"] == ["v2"]

    run(body)


def test_the_report_says_why_a_shadow_is_not_loaded(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(shadowed())
            gate.native.shadow_reports = [
                never_ran(to="v2", state="not_loaded", reason="its version is not loaded"),
                never_ran(to="v3", state="not_loaded", reason="its version is out of memory"),
            ]
            await gate.control.block("digits", "v2", call=Call("ann", reason="wrong month"))
            blocked, cold = (await gate.control.shadows("digits"))["shadows"]
            assert blocked["reason"] == "v2 is blocked since 2027-03-01T03:12:04Z (wrong month)"
            assert cold["reason"] == "its version is out of memory"
            gate.control._endpoints["digits"].omitted["v3"] = "it is damaged"
            _, left_out = (await gate.control.shadows("digits"))["shadows"]
            assert left_out["reason"] == "v3 did not load: it is damaged"

    run(body)


def without_v2(gate: Gate) -> None:
    """v2 is left out since its load failed."""
    state = gate.control._endpoints["digits"]
    state.omitted["v2"] = "it is damaged"
    state.loaded -= {"v2"}


def test_switching_a_shadow_on_tries_to_load_what_is_left_out(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(shadowed())
            await gate.control.patch_traffic("digits", switches=OFF)
            without_v2(gate)
            on = Switches({"v2": True})
            planned = (await gate.control.patch_traffic("digits", switches=on, call=DRY))["plan"]
            assert planned["load"] == ["v2"]
            assert "Shadow v2 gets copies of 10 %" in planned["text"]
            await gate.control.patch_traffic("digits", switches=on)
            assert gate.control._endpoints["digits"].omitted == {}
            assert (await states(gate))[0] == ["on"]

    run(body)


def test_another_reason_why_a_shadow_gets_no_copies_is_said(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(shadowed())
            await gate.control.patch_traffic("digits", switches=OFF)
            await gate.control.block("digits", "v2")
            told = await text(gate.control.patch_traffic("digits", switches=Switches({"v2": True}), call=DRY))
            assert "Shadow v2 gets no copies: it is blocked." in told
            assert "no copies" not in await text(
                gate.control.patch_traffic("digits", weights={"v3": "1%"}, call=DRY)
            )

    run(body)


def test_an_unblock_says_what_the_version_gets_again(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(shadowed(more=", fallback: {to: [v2, v3]}"))
            await gate.control.block("digits", "v2")
            both = await gate.control.unblock("digits", "v2", call=DRY)
            assert both["message"] == (
                "v2 unblocked; it answers as a fallback again, it gets copies of requests again"
            )
            await gate.control.patch_traffic("digits", switches=OFF)
            one = await gate.control.unblock("digits", "v2", call=DRY)
            assert one["message"] == "v2 unblocked; it answers as a fallback again"

    run(body)


def test_no_copy_fetches_a_version_into_memory(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(shadowed())
            await gate.control.patch_traffic("digits", switches=OFF)
            state = gate.control._endpoints["digits"]
            on = Switches({"v2": True})
            decide = gate.control._decisions.patch({}, None, on)
            state.memory = {"v2": VersionMemory("cold", 24 << 20)}
            told = prepare(gate.control._context, state, DRY, decide(state)).plan["text"]
            assert (
                "v2 is cold: no copy fetches it into memory, and it gets none until it is there (24 MiB)."
                in told
            )
            decide = gate.control._decisions.patch({"v2": 100}, None, on)
            told = prepare(gate.control._context, state, DRY, decide(state)).plan["text"]
            assert "v2 is cold: it is fetched into memory before it answers" in told

    run(body)


def test_the_report_on_shadows_of_an_endpoint_that_is_loaded_is_not_ready(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(shadowed())
            # As after a restart, before the first load has ended.
            gate.native.served.clear()
            with pytest.raises(ModelNotReady, match="digits is not served yet"):
                await gate.control.shadows("digits")
            with pytest.raises(ModelNotFound):
                await gate.control.shadows("other")

    run(body)

"""What the call ``:explain`` says of rules, of versions that are named, and of a time that has passed."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from headgate.store.retention import drop_revisions
from unit.admin_harness import Port, port, problem
from unit.control_harness import document, run

E = "/v1/endpoints/digits"
NEW = {"content-type": "application/yaml", "if-none-match": "*"}
RULES = '{champion: v1, sticky: header.x-user-id, rules: [{when: {header.x-tester: "1", parameter.tier: 3}, to: v2}]}'


async def explained(p: Port, **request: Any) -> dict[str, Any]:
    answer = await p.viewer.post(f"{E}:explain", json=request)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_the_rule_that_decides_is_named_with_its_conditions(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            await p.operator.put(E, content=document(RULES), headers=NEW)
            found = await explained(p, headers={"X-Tester": " 1 "}, parameters={"tier": 3})
            assert (found["version"], found["by"], found["rule"]) == ("v2", "rule", 0)
            assert found["why"] == 'rules[0] matches: header.x-tester is "1" and parameter.tier is "3"'
            assert (await explained(p, headers={"x-tester": "1"}))["by"] == "champion"
            named = await explained(p, version="v3")
            assert (named["version"], named["by"]) == ("v3", "direct")
            assert problem(await p.viewer.post(f"{E}:explain", json={"version": "v9"})) == (
                404,
                "version_not_found",
            )

    run(body)


def test_a_rule_of_a_blocked_version_is_said_to_be_passed_over(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            await p.operator.put(E, content=document(RULES), headers=NEW)
            await p.operator.post(f"{E}:block", json={"version": "v2"})
            found = await explained(p, headers={"x-tester": "1"}, parameters={"tier": 3})
            assert (found["version"], found["notes"]) == ("v1", ["rules[0] is passed over: v2 is blocked"])

    run(body)


SHADOWED = "{champion: v1, sticky: header.x-user-id, shadow: [{to: v2, share: 50%, by: sticky}, {to: v3, share: 1%}]}"


def test_shadows_and_the_capture_are_said_to_copy_or_not(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            text = document(SHADOWED) + "capture: {share: 100%}\n"
            answer = await p.operator.put(E, content=text, headers=NEW)
            assert answer.status_code == 201, answer.text
            found = [await explained(p, key=f"user-{n}") for n in range(20)]
            chosen = [each["shadows"][0]["chosen"] for each in found]
            assert {*chosen} == {True, False}
            assert "is among the 50%" in found[chosen.index(True)]["shadows"][0]["why"]
            assert "is not among the 50%" in found[chosen.index(False)]["shadows"][0]["why"]
            drawn = {"version": "v3", "share": "1%", "chosen": None}
            assert found[0]["shadows"][1].items() >= drawn.items()
            assert found[0]["capture"] == {
                "version": None,
                "share": "100%",
                "chosen": True,
                "why": "every request is copied",
            }
            named = await explained(p, version="v3")
            assert named["shadows"][0]["chosen"] is False
            assert "names its version" in named["shadows"][0]["why"]

    run(body)


def test_a_time_is_explained_by_what_was_served_then(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            start = p.gate.clock.now
            p.gate.clock.forward(60)
            await p.operator.put(E, content=document("{champion: v1}"), headers=NEW)
            p.gate.clock.forward(60)
            await p.operator.patch(f"{E}/traffic", json={"champion": "v2"}, headers={"if-match": "1"})
            for seconds, version in ((60, "v1"), (119, "v1"), (120, "v2"), (10_000, "v2")):
                when = (start + timedelta(seconds=seconds)).isoformat()
                assert (await explained(p, at=when))["version"] == version, seconds
            before = await p.viewer.post(f"{E}:explain", json={"at": start.isoformat()})
            assert problem(before) == (404, "not_found")
            for bad in (
                {"at": "yesterday"},
                {"at": "2027-03-01T00:00:00"},
                {"at": "0001-01-01T00:00:00+14:00"},
                {"at": "9999-12-31T23:59:59-14:00"},
                {"at": "0999-01-01T00:00:00Z"},
                {"at": start.isoformat(), "revision": 1},
            ):
                assert problem(await p.viewer.post(f"{E}:explain", json=bad)) == (400, "invalid_argument"), (
                    bad
                )

    run(body)


def test_a_rollback_blocks_what_rules_send_requests_to_and_an_abort_says_that_they_stay(
    tmp_path: Path,
) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            await p.operator.put(E, content=document(RULES), headers=NEW)
            aborted = (await p.operator.post(f"{E}:abort", json={})).json()
            assert "rules still send requests to v2" in aborted["message"]
            answer = (await p.operator.post(f"{E}:rollback", json={})).json()
            assert (answer["status"], answer["message"]) == (
                "applied",
                "100 % v1; v2 blocked until unblocked",
            )
            again = (await p.operator.post(f"{E}:rollback", json={})).json()
            assert again["status"] == "already"
            here = {"if-match": str(answer["revision"])}
            lifted = (await p.operator.post(f"{E}:unblock", json={"version": "v2"}, headers=here)).json()
            assert "rules send requests to it again" in lifted["message"]

    run(body)


def test_a_time_whose_revision_was_dropped_has_no_answer(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            start = p.gate.clock.now
            await p.operator.put(E, content=document("{champion: v1}"), headers=NEW)
            for n, champion in enumerate(("v2", "v3", "v1"), start=1):
                p.gate.clock.forward(60)
                await p.operator.patch(
                    f"{E}/traffic", json={"champion": champion}, headers={"if-match": str(n)}
                )
            with p.gate.store.transactions.write() as write:
                drop_revisions(write, "digits", [2])
            at = {seconds: (start + timedelta(seconds=seconds)).isoformat() for seconds in (30, 90, 150)}
            # The first one may have been followed by the dropped one by then.
            for seconds in (30, 90):
                gone = await p.viewer.post(f"{E}:explain", json={"at": at[seconds]})
                assert problem(gone) == (404, "not_found"), seconds
            assert (await explained(p, at=at[150]))["version"] == "v3"

    run(body)

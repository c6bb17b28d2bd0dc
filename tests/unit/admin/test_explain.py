"""What the call ``:explain`` says of rules, of versions that are named, and of a time that has passed."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

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
                {"at": start.isoformat(), "revision": 1},
            ):
                assert problem(await p.viewer.post(f"{E}:explain", json=bad)) == (400, "invalid_argument"), (
                    bad
                )

    run(body)

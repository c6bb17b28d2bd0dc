"""The commands about plans and defaults, and documents of these kinds beside those of endpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from unit.cli.fake_admin import PLAN as PLANNED
from unit.cli.fake_admin import RESULT, FakeAdmin, call, ok, problem

PLAN = """\
apiVersion: headgate/v1
kind: RolloutPlan
name: careful
steps: [{replay: 100}, {shadow: 10%}, {weight: 5%, for: 1m}, {approve: {}}, pause, promote]
"""
DEFAULTS = "apiVersion: headgate/v1\nkind: Defaults\nrollout: careful\n"
ENDPOINT = """\
apiVersion: headgate/v1
kind: Endpoint
name: digits
versions: {v1: {constant: {score: 0.5}}}
traffic: {champion: v1}
rollout: careful
"""
STORED: dict[str, Any] = {
    "kind": "RolloutPlan", "name": "careful", "n": 2, "digest": "sha256:00", "who": "ann", "written": "then",
    "document": {
        "apiVersion": "headgate/v1", "kind": "RolloutPlan", "name": "careful",
        "steps": [
            {"shadow": "10%"}, {"weight": "5%", "for": "1m"}, {"approve": {"role": "admin"}}, {"replay": 100}, "pause",
            "promote",
        ],
    },
}  # fmt: skip
WRITTEN = {
    **STORED,
    "status": "applied",
    "changes": True,
    "message": "plan careful changes",
    "diff": "-a\n+b",
    "used_by": [],
}
PATH = "/v1/plans/careful"
MISSING = problem(404, "not_found", "no plan is named 'careful'")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "all.yaml"
    path.write_text(f"{ENDPOINT}---\n{DEFAULTS}---\n{PLAN}")
    return path


def test_the_list_has_the_steps_of_each() -> None:
    fake = FakeAdmin({"GET /v1/plans": ok({"plans": [STORED]})})
    row = call(fake, "plans", "list").stdout.splitlines()[1]
    assert [cell.strip() for cell in row.split("  ") if cell] == [
        "careful", "2", "shadow 10%, weight 5%, approve (admin), replay 100, pause, promote", "then", "ann",
    ]  # fmt: skip
    assert call(fake, "plans", "list", "-o", "name").stdout == "careful\n"


def test_one_is_shown_as_its_document() -> None:
    said = call(FakeAdmin({f"GET {PATH}": ok(STORED, 2)}), "plans", "show", "careful").stdout
    assert "RolloutPlan careful  number 2  written then by ann" in said
    assert "- shadow: 10%" in said
    defaults = {**STORED, "kind": "Defaults", "name": "", "document": {"rollout": "careful"}}
    fake = FakeAdmin({"GET /v1/defaults": ok(defaults, 1)})
    assert "rollout: careful" in call(fake, "plans", "show", "--defaults").stdout
    assert call(FakeAdmin(), "plans", "show").exit_code == 2
    assert call(FakeAdmin(), "plans", "show", "careful", "--defaults").exit_code == 2
    assert call(FakeAdmin({f"GET {PATH}": MISSING}), "plans", "show", "careful").exit_code == 4


@pytest.mark.parametrize(("stored", "header"), [(ok(STORED, 2), "if-match"), (MISSING, "if-none-match")])
def test_apply_is_based_on_what_is_stored(tmp_path: Path, stored: Any, header: str) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN)
    fake = FakeAdmin({f"GET {PATH}": stored, f"PUT {PATH}": ok(WRITTEN, 3)})
    result = call(fake, "plans", "apply", str(path), "-m", "why")
    assert (result.exit_code, result.stdout) == (0, "plan careful changes (number 2)\n")
    assert fake.last.content == PLAN.encode()
    assert fake.last.headers[header] == ('"2"' if header == "if-match" else "*")
    assert dict(fake.last.url.params) == {"reason": "why"}
    fake = FakeAdmin({f"GET {PATH}": stored, f"PUT {PATH}": ok({**WRITTEN, "status": "planned"}, 3)})
    planned = call(fake, "plans", "apply", str(path), "--dry-run")
    assert planned.stdout.splitlines() == ["dry run: plan careful changes (number 2)", "-a", "+b"]
    assert fake.last.url.params["dry_run"] == "true"


@pytest.fixture
def two(tmp_path: Path) -> tuple[str, str]:
    """The files of the defaults and of a plan that they name."""
    for name, text in {"defaults": DEFAULTS, "plan": PLAN}.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    return str(tmp_path / "defaults.yaml"), str(tmp_path / "plan.yaml")


class Refusing(FakeAdmin):
    """Refuses to store the defaults: already in a dry run, or only then."""

    in_dry_run = True

    def __call__(self, request: httpx.Request) -> httpx.Response:
        answer = super().__call__(request)
        is_about = (request.method, request.url.path) == ("PUT", "/v1/defaults")
        if not is_about or (not self.in_dry_run and "dry_run" in request.url.params):
            return answer
        status, body, headers = problem(409, "conflict", "there are 1000 plans already")
        return httpx.Response(status, json=body, headers=headers)


def test_one_of_several_that_is_refused_keeps_the_others_from_being_stored(two: tuple[str, str]) -> None:
    fake = Refusing(answers())
    result = call(fake, "plans", "apply", *two)
    assert (result.exit_code, result.stdout, "there are 1000 plans" in result.stderr) == (5, "", True)
    puts = [request for request in fake.requests if request.method == "PUT"]
    assert [(one.url.path, one.url.params["dry_run"]) for one in puts] == [
        (PATH, "true"), ("/v1/defaults", "true"),
    ]  # fmt: skip
    # The defaults may name the plan of the other file.
    assert puts[1].url.params["with_plans"] == "careful"


def test_each_of_several_plans_is_tried_with_the_others(tmp_path: Path) -> None:
    paths = []
    for name in ("careful", "bold"):
        paths.append(tmp_path / f"{name}.yaml")
        paths[-1].write_text(PLAN.replace("careful", name))
    other = PATH.replace("careful", "bold")
    fake = FakeAdmin(
        {
            f"GET {PATH}": MISSING,
            f"PUT {PATH}": ok(WRITTEN, 1),
            f"GET {other}": MISSING,
            f"PUT {other}": ok(WRITTEN, 1),
        }
    )
    result = call(fake, "plans", "apply", *map(str, paths))
    assert result.exit_code == 0, result.output
    tried = {
        one.url.path: one.url.params.get("with_plans")
        for one in fake.requests
        if one.method == "PUT" and "dry_run" in one.url.params
    }
    assert tried == {PATH: "bold", other: "careful"}


@pytest.mark.parametrize("command", [["plans", "apply"], ["apply"], ["plan"]])
def test_one_name_in_two_files_is_refused(tmp_path: Path, command: list[str]) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    for path in (first, second):
        path.write_text(PLAN)
    fake = FakeAdmin(answers())
    result = call(fake, *command, str(first), str(second))
    assert (result.exit_code, fake.requests) == (2, [])
    assert f"RolloutPlan careful: it is in {first} and in {second}; name it once" in result.stderr
    again = call(fake, *command, str(first), str(first))
    assert "RolloutPlan careful: the same file is named twice; name it once" in again.stderr


def test_what_was_stored_before_a_failure_is_told_by_plans_apply_too(two: tuple[str, str]) -> None:
    fake = Refusing(answers())
    fake.in_dry_run = False
    result = call(fake, "plans", "apply", *two)
    assert (result.exit_code, result.stdout) == (5, "plan careful changes (number 2)\n")
    assert "there are 1000 plans" in result.stderr
    told = call(fake, "plans", "apply", *two, "--json")
    assert (told.exit_code, [one["name"] for one in json.loads(told.stdout)["results"]]) == (5, ["careful"])


def test_apply_takes_no_endpoints(file: Path) -> None:
    result = call(FakeAdmin(), "plans", "apply", str(file))
    assert (result.exit_code, "headgate apply" in result.stderr) == (2, True)


def test_delete_is_based_on_what_was_read() -> None:
    gone = {**WRITTEN, "message": "plan careful is removed"}
    fake = FakeAdmin({f"GET {PATH}": ok(STORED, 2), f"DELETE {PATH}": ok(gone)})
    result = call(fake, "plans", "delete", "careful")
    assert (result.exit_code, fake.last.headers["if-match"]) == (0, '"2"')
    assert result.stdout == "plan careful is removed (number 2)\n"


def answers() -> dict[str, Any]:
    none = problem(404, "model_not_found", "no")
    return {
        f"GET {PATH}": MISSING, f"PUT {PATH}": ok(WRITTEN, 1), "GET /v1/defaults": MISSING,
        "PUT /v1/defaults": ok({**WRITTEN, "kind": "Defaults", "name": "", "message": "the defaults are new"}, 1),
        "GET /v1/endpoints/digits/traffic": none, "PUT /v1/endpoints/digits": ok(RESULT, 1),
    }  # fmt: skip


def test_plans_are_applied_before_the_defaults_and_these_before_the_endpoints(file: Path) -> None:
    fake = FakeAdmin(answers())
    result = call(fake, "apply", "-f", str(file))
    assert result.exit_code == 0, result.output
    puts = [request.url.path for request in fake.requests if request.method == "PUT"]
    assert puts == [PATH, "/v1/defaults", "/v1/endpoints/digits"]
    assert result.stdout.splitlines()[:2] == [
        "plan careful changes (number 2)",
        "the defaults are new (number 2)",
    ]
    told = json.loads(call(FakeAdmin(answers()), "apply", str(file), "--json").stdout)
    assert [one["kind"] for one in told["documents"]] == ["RolloutPlan", "Defaults"]
    assert told["results"] == [RESULT]


def test_what_was_stored_before_a_refusal_is_told(file: Path) -> None:
    fake = FakeAdmin({**answers(), "PUT /v1/defaults": problem(422, "policy_invalid", "wrong")})
    result = call(fake, "apply", str(file), "--json")
    assert result.exit_code == 2
    assert [one["name"] for one in json.loads(result.stdout)["documents"]] == ["careful"]


def test_a_plan_of_the_same_file_counts_as_stored_in_a_dry_run(file: Path) -> None:
    for command in (["plan"], ["apply", "--dry-run"]):
        fake = FakeAdmin({**answers(), "PUT /v1/endpoints/digits": ok(PLANNED)})
        result = call(fake, *command, str(file))
        assert result.exit_code == 0, result.output
        assert dict(fake.last.url.params) == {"dry_run": "true", "with_plans": "careful"}
        asked = {one.url.path: dict(one.url.params) for one in fake.requests if one.method == "PUT"}
        assert asked["/v1/defaults"] == {"dry_run": "true", "with_plans": "careful"}
        assert asked[PATH] == {"dry_run": "true"}
    unchanged = {**answers(), "PUT /v1/endpoints/digits": ok({**PLANNED, "changes": False})}
    assert call(FakeAdmin(unchanged), "plan", "--check", str(file)).exit_code == 1


def test_validate_knows_all_kinds(tmp_path: Path) -> None:
    path = tmp_path / "plans.yaml"
    path.write_text(f"{DEFAULTS}---\n{PLAN}")
    result = call(FakeAdmin(), "validate", str(path))
    assert (result.exit_code, result.stdout.splitlines()) == (
        0, [f"{path}: Defaults: ok", f"{path}: RolloutPlan careful: ok"],
    )  # fmt: skip
    path.write_text(PLAN.replace("5%", "5"))
    assert call(FakeAdmin(), "validate", str(path)).exit_code == 2

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from headgate.cli import main
from headgate.cli.client import Timing
from headgate.cli.session import CliEnvironment
from unit.cli.fake_admin import PLAN, RESULT, TRAFFIC, FakeAdmin, FakeTransport, call, ok, problem

ENTRY = {
    "id": 9, "when": "then", "who": "ci", "role": "operator", "action": "traffic", "endpoint": "digits", "revision": 41,
    "outcome": "applied", "reason": "why", "detail": {"token": "kid", "more": [1]},
}  # fmt: skip
OPERATION = {
    "id": "3f9a", "endpoint": "digits", "kind": "traffic", "status": "running", "started": "then", "finished": None,
    "result": None, "problem": None,
}  # fmt: skip
DONE = OPERATION | {"status": "done", "finished": "now", "result": RESULT}
PROBLEM = {"code": "model_load_failed", "detail": "v2 does not load"}
FAILED = OPERATION | {"status": "failed", "finished": "now", "problem": PROBLEM}


class Operation(FakeAdmin):
    """An operation that has ended when it is asked for the third time; a write is answered with it."""

    def __init__(self, end: dict[str, object]) -> None:
        super().__init__({"GET /v1/endpoints/digits/traffic": ok(TRAFFIC, 41)})
        self.end = end
        self.slept: list[float] = []

    def __call__(self, request):  # type: ignore[no-untyped-def]
        asked = sum("operations" in one.url.path for one in self.requests)
        self.answers["GET /v1/operations/3f9a"] = ok(OPERATION if asked < 2 else self.end)
        self.answers["PATCH /v1/endpoints/digits/traffic"] = (202, OPERATION, {})
        return super().__call__(request)

    def run(self, *arguments: str, seconds: float = 900.0):  # type: ignore[no-untyped-def]
        around = CliEnvironment(
            variables={"HEADGATE_TOKEN": "headgate_a_b", "HOME": "/nonexistent"},
            make_transport=lambda address: FakeTransport(self, str(address)),
            timing=Timing(write_seconds=seconds, sleep=self.slept.append, clock=lambda: sum(self.slept)),
        )
        return CliRunner().invoke(main, list(arguments), obj=around)


class Pages(FakeAdmin):
    """2 500 entries, as the API gives them."""

    def __call__(self, request):  # type: ignore[no-untyped-def]
        first = int(request.url.params.get("before", 2_501)) - 1
        last = max(first - int(request.url.params["limit"]), 0)
        entries = [ENTRY | {"id": n} for n in range(first, last, -1)]
        self.answers["GET /v1/audit"] = ok({"entries": entries})
        return super().__call__(request)


def test_the_whole_audit_is_read_in_pages() -> None:
    fake = Pages()
    result = call(fake, "audit", "digits", "--all", "-o", "name")
    assert result.stdout.split() == [str(n) for n in range(2_500, 0, -1)]
    assert [one.url.params.get("before") for one in fake.requests] == [None, "1501", "501"]
    assert "older ones" not in call(Pages(), "audit", "--all").stderr


def test_audit_lists_entries_and_says_where_it_goes_on() -> None:
    fake = FakeAdmin({"GET /v1/audit": ok({"entries": [ENTRY]})})
    result = call(fake, "audit", "digits", "--limit", "1", "--before", "10")
    assert result.exit_code == 0, result.output
    assert dict(fake.last.url.params) == {"endpoint": "digits", "limit": "1", "before": "10"}
    assert result.stdout.splitlines()[1].split() == [
        "9", "then", "ci", "operator", "traffic", "digits", "41", "applied", "why", "token=kid", "more=[1]",
    ]  # fmt: skip
    assert "headgate audit digits --before 9" in result.stderr
    assert call(fake, "audit", "-o", "name").stdout == "9\n"


def test_whoami_says_as_whom_and_where() -> None:
    fake = FakeAdmin({"GET /v1/whoami": ok({"name": "ci", "role": "viewer", "token": "kid"})})
    assert call(fake, "whoami").stdout == "ci (viewer), token kid, at http://127.0.0.1:8003\n"
    assert json.loads(call(fake, "whoami", "--json").stdout)["admin"] == "http://127.0.0.1:8003"


@pytest.mark.parametrize(("end", "code", "says"), [(DONE, 0, "revision 42"), (FAILED, 5, "v2 does not load")])
def test_an_operation_is_shown_and_waited_for(end: dict[str, object], code: int, says: str) -> None:
    gateway = Operation(end)
    shown = gateway.run("operations", "3f9a")
    assert (shown.exit_code, gateway.slept) == (0, [])
    assert "running" in shown.stdout
    waited = Operation(end).run("operations", "3f9a", "--wait")
    assert waited.exit_code == code
    assert says in waited.output


def test_operations_are_listed() -> None:
    fake = FakeAdmin({"GET /v1/operations": ok({"operations": [FAILED, DONE]})})
    result = call(fake, "operations", "--limit", "7")
    assert result.exit_code == 0, result.output
    assert fake.last.url.params["limit"] == "7"
    first, second = result.stdout.splitlines()[1:]
    assert first.split("  ")[0] == "3f9a"
    assert "v2 does not load" in first
    assert "v1, 5% to v2" in second
    assert call(fake, "operations", "-o", "name").stdout == "3f9a\n3f9a\n"
    assert call(fake, "operations", "--wait").exit_code == 2


def test_an_operation_that_does_not_end_in_time_is_exit_code_3() -> None:
    gateway = Operation(DONE)
    assert gateway.run("operations", "3f9a", "--wait", "--timeout", "0.5").exit_code == 3


@pytest.mark.parametrize(("end", "code"), [(DONE, 0), (FAILED, 5)])
def test_a_write_that_goes_on_as_an_operation_is_followed_to_its_end(
    end: dict[str, object], code: int
) -> None:
    gateway = Operation(end)
    result = gateway.run("traffic", "digits", "v2=5%")
    assert result.exit_code == code, result.output
    writes = [request for request in gateway.requests if request.method == "PATCH"]
    assert [request.headers["prefer"] for request in writes] == ["respond-async"]


def test_a_write_that_outlasts_patience_goes_on_and_names_its_operation() -> None:
    result = Operation(DONE).run("traffic", "digits", "v2=5%", seconds=0.5)
    assert result.exit_code == 3
    assert "headgate operations 3f9a --wait" in result.stderr


def test_an_operation_that_is_not_there_is_exit_code_4() -> None:
    fake = FakeAdmin({"GET /v1/operations/x": problem(404, "not_found", "no operation")})
    assert call(fake, "operations", "x").exit_code == 4


def test_delete_sends_the_revision_it_read_and_what_was_asked() -> None:
    path = "/v1/endpoints/digits"
    fake = FakeAdmin(
        {f"GET {path}/traffic": ok(TRAFFIC, 41), f"DELETE {path}": ok(RESULT | {"kind": "remove"}, 42)}
    )
    result = call(fake, "delete", "digits", "--force", "--yes", "--reason", "gone")
    assert result.exit_code == 0, result.output
    assert fake.last.headers["if-match"] == '"41"'
    assert dict(fake.last.url.params) == {"force": "true", "reason": "gone"}
    assert call(fake, "delete", "digits", "-o", "name").stdout == "digits\n"


@pytest.mark.parametrize(("answer", "code", "done"), [("y\n", 0, True), ("n\n", 1, False)])
def test_delete_says_what_it_does_and_asks_on_a_terminal(
    answer: str, code: int, done: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = "/v1/endpoints/digits"
    fake = FakeAdmin({f"GET {path}/traffic": ok(TRAFFIC, 41), f"DELETE {path}": ok(RESULT | PLAN, 42)})
    monkeypatch.setattr("headgate.cli.removal.is_terminal", lambda: True)
    result = call(fake, "delete", "digits", stdin=answer.encode())
    assert result.exit_code == code
    assert f"{PLAN['text']}\nGo on? [y/N]" in result.stderr
    deletions = [request for request in fake.requests if request.method == "DELETE"]
    assert [request.url.params.get("dry_run") for request in deletions] == ["true", None][: 1 + done]

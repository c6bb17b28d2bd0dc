from __future__ import annotations

from typing import Any

import httpx
import pytest

from unit.cli.fake_admin import FakeAdmin, call, ok

SHARE = {"share": 0.03, "interval": [0.0268, 0.0335]}
REPORT: dict[str, Any] = {
    "id": 4,
    "endpoint": "digits",
    "version": "v8",
    "against": {"version": "v7", "digest": "sha256:7"},
    "state": "done",
    "pairs": 10_000,
    "requests": {"replayed": 10_020, "skipped": 7, "incompatible": 2, "not_ready": 0},
    "last_mismatch": "it needs the input Z",
    "disagreement": SHARE,
    "noise_floor": {"share": 0.0, "interval": [0.0, 0.0038], "pairs": 1000, "reason": None},
    "errors": {"backend_failed": 4, "deadline_exceeded": 1},
    "champion_failed": {"by_code": {"backend_failed": 14}, "shadow_answered": 13, "shadow_failed": 1},
    "nan": {"champion": 0, "shadow": 3, "both": 0},
    "outputs": {
        "label": {
            "pairs": 10_000, "differing": 290, "rows": 10_000, "differing_rows": 290,
            "direction": {"moves": [{"from": "8", "to": "3", "rows": 200}, {"from": "1", "to": "7", "rows": 90}]},
        },
        "score": {"pairs": 10_000, "differing": 303, "rows": 10_000, "differing_rows": 303, "direction": None},
    },
    "run_seconds": {
        "version": {"p50": 0.0011, "p95": 0.0024, "p99": 0.003, "runs": 10_020},
        "again": {"p50": 0.001, "p95": 0.002, "p99": 0.0025, "runs": 1000},
        "recorded": {"p50": None, "p95": None, "p99": None, "runs": 0},
    },
}  # fmt: skip
BEGUN = {
    "id": "ab12",
    "endpoint": "digits",
    "kind": "replay",
    "status": "running",
    "problem": None,
    "result": None,
}


def admin(**ended: Any) -> FakeAdmin:
    operation = BEGUN | {"status": "done", "result": REPORT} | ended
    return FakeAdmin(
        {
            "POST /v1/endpoints/digits/replays": (202, BEGUN, {}),
            "GET /v1/operations/ab12": ok(operation),
        }
    )


def test_replay_waits_for_the_end_and_shows_what_decides() -> None:
    result = call(admin(), "replay", "digits", "v8")
    assert result.exit_code == 0, result.output
    for line in [
        "replay 4 of digits: v8 against what v7 answered: done",
        "requests: 10020 replayed; 7 skipped, because rules or callers chose the version; 2 incompatible (it needs the input Z)",
        "disagreement: 3.00% (2.68% to 3.35%) of 10000 pairs",
        "noise floor: 0.00% (0.00% to 0.38%) of 1000 pairs, v7 asked again",
        "errors: 4 backend_failed, 1 deadline_exceeded",
        "requests that v7 failed on: 13 answered, 1 failed as well",
        "pairs with NaN: 3 in v8, 0 before",
    ]:
        assert line in result.stdout.splitlines()
    assert "8 to 3: 200, 1 to 7: 90" in result.stdout
    assert "1.1/2.4/3 ms" in result.stdout


def test_replay_sends_what_was_asked_for() -> None:
    fake = admin()
    words = ["--requests", "9", "--since", "2027-03-01T00:00:00Z", "--against", "v6", "--timeout", "2s"]
    forms = ["--compare", "label=exact", "--compare", 'score={"within": "1%"}']
    assert call(fake, "replay", "digits", "v8", *words, *forms).exit_code == 0
    (sent,) = [request for request in fake.requests if request.method == "POST"]
    fake.requests = [sent]
    assert fake.body == {
        "version": "v8",
        "against": "v6",
        "since": "2027-03-01T00:00:00Z",
        "max_requests": 9,
        "timeout": "2s",
        "compare": {"label": "exact", "score": {"within": "1%"}},
    }


@pytest.mark.parametrize("form", ["label", "=exact", "score={within: 1}"])
def test_a_form_that_cannot_be_read_is_wrong_usage(form: str) -> None:
    fake = admin()
    assert call(fake, "replay", "digits", "v8", "--compare", form).exit_code == 2
    assert fake.requests == []


def test_a_replay_that_goes_on_or_fails_says_so() -> None:
    going = call(admin(status="running", result=None), "replay", "digits", "v8", "--wait", "0")
    assert going.exit_code == 3
    assert "headgate operations ab12 --wait" in going.stderr
    problem = {"code": "storage_failed", "status": 503, "detail": "the replay ended: a file", "title": "x"}
    failed = call(admin(status="failed", result=None, problem=problem), "replay", "digits", "v8")
    assert failed.exit_code == 3
    assert "the replay ended: a file" in failed.stderr


def test_without_pairs_nothing_is_known() -> None:
    nothing = {"share": None, "interval": None}
    floor = {**nothing, "pairs": 0, "reason": "the version that answered computes on a device"}
    report = REPORT | {"pairs": 0, "disagreement": nothing, "noise_floor": floor, "errors": {}}
    shown = call(admin(result=report), "replay", "digits", "v8").stdout
    assert "disagreement: unknown of 0 pairs" in shown
    assert "noise floor: none: the version that answered computes on a device" in shown


@pytest.mark.parametrize(("state", "code"), [("done", 0), ("cancelled", 1)])
def test_the_operation_of_a_replay_that_has_ended_shows_its_report(state: str, code: int) -> None:
    times = {"started": "2027-03-01T03:12:04Z", "finished": "2027-03-01T03:13:04Z"}
    result = call(admin(**times, result=REPORT | {"state": state}), "operations", "ab12")
    assert result.exit_code == code, result.output
    first, second = result.stdout.splitlines()[:2]
    assert first.startswith("ab12  replay of digits: done (since ")
    assert second == f"replay 4 of digits: v8 against what v7 answered: {state}"


def test_the_operation_is_named_at_once_and_a_cancelled_replay_is_no_success() -> None:
    result = call(admin(result=REPORT | {"state": "cancelled"}), "replay", "digits", "v8")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[0] == "the replay is operation ab12"
    assert "against what v7 answered: cancelled" in result.stdout


@pytest.mark.parametrize(
    ("running", "number"),
    [([REPORT], "4"), ([], "<number>, which GET"), ([REPORT, REPORT], "<number>, which GET")],
)
def test_ctrl_c_says_how_the_replay_is_ended(running: list[dict[str, Any]], number: str) -> None:
    class Interrupted(FakeAdmin):
        def __call__(self, request: httpx.Request) -> httpx.Response:
            if request.url.path.startswith("/v1/operations"):
                raise KeyboardInterrupt
            return super().__call__(request)

    others = [REPORT | {"id": 3}, REPORT | {"id": 2, "version": "v9", "state": "running"}]
    replays = [*(one | {"state": "running"} for one in running), *others]
    answers = {
        "POST /v1/endpoints/digits/replays": (202, BEGUN, {}),
        "GET /v1/endpoints/digits/replays": ok({"replays": replays}),
    }
    result = call(Interrupted(answers), "replay", "digits", "v8")
    assert result.exit_code == 130
    assert "headgate operations ab12 --wait" in result.stderr
    assert f"end it with DELETE /v1/endpoints/digits/replays/{number}" in result.stderr

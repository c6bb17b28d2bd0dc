"""The command that tries the webhooks of an endpoint."""

from __future__ import annotations

import json
from typing import Any

import pytest

from unit.cli.fake_admin import Answer, FakeAdmin, call, ok, problem

PATH = "POST /v1/endpoints/digits/notify:test"
TAKEN: dict[str, Any] = {
    "webhook": "hooks.example", "events": ["rollback", "pause"], "status": "delivered", "detail": None,
}  # fmt: skip
REFUSED: dict[str, Any] = {
    "webhook": "env:HOOK_URL", "events": ["alarm"], "status": "failed",
    "detail": "the variable HOOK_URL is not set where the gateway runs",
}  # fmt: skip


def test_each_webhook_has_a_row_and_all_taken_is_a_success() -> None:
    fake = FakeAdmin({PATH: ok({"webhooks": [TAKEN]})})
    result = call(fake, "notify", "test", "digits", "-m", "does it work?")
    assert result.exit_code == 0, result.output
    assert fake.body == {"reason": "does it work?"}
    rows = [line.split("  ") for line in result.stdout.splitlines()]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert cells == [
        ["WEBHOOK", "EVENTS", "STATUS", "WHY"],
        ["hooks.example", "rollback, pause", "delivered", "-"],
    ]


def test_one_that_took_nothing_says_why_and_is_a_no() -> None:
    fake = FakeAdmin({PATH: ok({"webhooks": [TAKEN, REFUSED]})})
    result = call(fake, "notify", "test", "digits")
    assert result.exit_code == 1
    assert fake.body == {}
    assert "the variable HOOK_URL is not set where the gateway runs" in result.stdout.splitlines()[2]
    told = call(fake, "notify", "test", "digits", "--json")
    assert (told.exit_code, json.loads(told.stdout)) == (1, {"webhooks": [TAKEN, REFUSED]})
    assert call(fake, "notify", "test", "digits", "-o", "name").stdout.split() == [
        "hooks.example",
        "env:HOOK_URL",
    ]


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (problem(409, "conflict", "digits has no webhook: its document needs notify"), 5),
        (problem(404, "model_not_found", "no endpoint is named 'digits'"), 4),
        (problem(403, "permission_denied", "the call needs the role operator"), 6),
        (problem(503, "draining", "the gateway stops"), 3),
    ],
)
def test_a_refusal_has_the_exit_code_of_its_kind(answer: Answer, code: int) -> None:
    result = call(
        FakeAdmin({PATH: answer, "GET /v1/endpoints": ok({"endpoints": []})}), "notify", "test", "digits"
    )
    assert (result.exit_code, answer[1]["detail"] in result.stderr) == (code, True)

"""Webhooks of a real gateway process: a rollback reaches a receiver, signed; one that was down gets it after a kill."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from support import models
from support.gateway import GatewayProcess, checked
from support.receiver import Received, Receiver
from support.tools import need_native

SECONDS = 120.0
KEY = "a key of more than sixteen bytes"
DOCUMENT = """\
apiVersion: headgate/v1
kind: Endpoint
name: digits
versions: {v1: "file:scale/1", v2: "file:scale/2"}
traffic: {champion: v1, weights: {v2: 10%}}
notify: [{webhook: "${env:HOOK_URL}", secret: "${file:SECRET}", events: [rollback, alarm]}]
"""


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    need_native()
    (tmp_path / "secret").write_text(KEY + "\n")
    models.place(models.scale(2.0), tmp_path, "scale", "1")
    models.place(models.scale(3.0), tmp_path, "scale", "2")
    document = tmp_path / "digits.yaml"
    document.write_text(DOCUMENT.replace("SECRET", str(tmp_path / "secret")))
    return [str(document), "--private-webhooks"]


def alarms(served: GatewayProcess) -> list[str]:
    with served.admin() as admin:
        found: list[str] = admin.get("/v1/endpoints/digits")["alarms"]
        return found


def test_a_rollback_is_told_and_signed(tmp_path: Path, arguments: list[str]) -> None:
    with (
        Receiver() as receiver,
        GatewayProcess(tmp_path / "state", arguments, {"HOOK_URL": receiver.url}) as served,
        served.admin() as admin,
    ):
        answer = checked(
            admin.http.post("/v1/endpoints/digits/notify:test", json={"reason": "does it work?"})
        )
        assert answer == {
            "webhooks": [
                {"webhook": "env:HOOK_URL", "events": ["rollback", "alarm"], "status": "delivered", "detail": None}
            ]
        }  # fmt: skip
        admin.act("digits", "rollback")
        test, told = receiver.wait(2)
        assert (test.data["type"], told.data["type"]) == ("headgate.test", "headgate.rollback")
        assert all(one.is_signed_by(KEY.encode()) for one in (test, told))
        assert not told.is_signed_by(b"another key")
        assert (told.data["data"]["endpoint"], told.data["data"]["reason"]) == ("digits", "test")
        page = served.observe("/metrics").text
        assert 'headgate_webhook_failed_total{endpoint="digits",receiver="env:HOOK_URL"} 0.0' in page
        entries = admin.get("/v1/audit?endpoint=digits")["entries"]
        assert [one["action"] for one in entries][:2] == ["rollback", "notify_test"]


def test_a_message_outlives_a_kill(tmp_path: Path, arguments: list[str]) -> None:
    up = False

    def answer(_: Received) -> int:
        return 200 if up else 500

    with Receiver(answer=answer) as receiver:
        served = GatewayProcess(tmp_path / "state", arguments, {"HOOK_URL": receiver.url})
        with served, served.admin() as admin:
            admin.act("digits", "rollback")
            receiver.wait(1)
            _until(lambda: any("it answers 500" in one for one in alarms(served)))
            served.kill()
        up = True
        with GatewayProcess(tmp_path / "state", arguments, {"HOOK_URL": receiver.url}) as again:
            _until(lambda: len(receiver.received) >= 2 and not alarms(again))
        first, *_, last = receiver.received
        assert first.fields["webhook-id"] == last.fields["webhook-id"]
        assert first.body == last.body


def test_without_the_setting_nothing_goes_to_this_machine(tmp_path: Path, arguments: list[str]) -> None:
    with (
        Receiver() as receiver,
        GatewayProcess(tmp_path / "state", arguments[:1], {"HOOK_URL": receiver.url}) as served,
        served.admin() as admin,
    ):
        (one,) = checked(admin.http.post("/v1/endpoints/digits/notify:test", json={"reason": "x"}))[
            "webhooks"
        ]
        assert (one["status"], "--private-webhooks" in one["detail"]) == ("failed", True)
        assert receiver.received == []


def _until(true: Any) -> None:
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)

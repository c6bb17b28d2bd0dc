"""The event stream: what is stored, what happens, and a connection that is lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from headgate.cli import main
from headgate.cli.client import Timing
from headgate.cli.session import CliEnvironment
from unit.cli.fake_admin import FakeTransport, call


def event(number: int | None, **more: Any) -> dict[str, Any]:
    return {
        "id": number, "type": "applied", "when": "then", "endpoint": "digits", "revision": 7, "who": "ann", "reason": "why",
        "data": {"kind": "traffic", "weights": {}},
    } | more  # fmt: skip


def stream(*events: dict[str, Any]) -> httpx.Response:
    wire = ": open\n\n" + "".join(
        (f"id: {one['id']}\n" if one["id"] else "") + f"event: {one['type']}\ndata: {json.dumps(one)}\n\n"
        for one in events
    )
    return httpx.Response(
        200, text=wire + ': still here\n\nevent: tick\ndata: {"type": "tick"}\n\ndata: {cut off'
    )


class Gateway:
    """Answers in turn; the time between its answers is noted and not waited for. Ends the command after the last."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.slept: list[float] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if not self.answers:
            raise KeyboardInterrupt
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def follow(self, *arguments: str) -> Result:
        around = CliEnvironment(
            variables={"HEADGATE_TOKEN": "headgate_a_b", "HOME": "/nonexistent"},
            make_transport=lambda address: FakeTransport(self, str(address)),
            timing=Timing(sleep=self.slept.append),
        )
        return CliRunner().invoke(main, ["events", "--follow", *arguments], obj=around)


def lost() -> Exception:
    from headgate.cli.exits import UnreachableError

    return UnreachableError("http://127.0.0.1:8003 did not answer: connection reset")


def test_what_is_stored_is_shown_newest_so_many() -> None:
    gateway = Gateway(stream(event(2), event(3, who="\x1b[31m")))
    result = call(gateway, "events", "digits", "--limit", "2")
    assert result.exit_code == 0, result.output
    header, first, second = result.stdout.splitlines()
    assert header.split()[:3] == ["ID", "WHEN", "TYPE"]
    assert first.split() == ["2", "then", "applied", "digits", "7", "ann", "kind=traffic", "why"]
    assert r"\x1b[31m" in second
    (request,) = gateway.requests
    assert dict(request.url.params) == {"endpoint": "digits", "follow": "false", "limit": "2"}
    assert request.headers["last-event-id"] == "0"


def test_shadows_and_the_capture_are_shown() -> None:
    off = event(
        1, data={"kind": "traffic", "shadows": {"v2": "off", "v3": "10%"}, "capture": "off", "notes": []}
    )
    row = call(Gateway(stream(off)), "events").stdout.splitlines()[1]
    assert "kind=traffic shadows=v2:off,v3:10% capture=off" in row


def test_as_json_it_is_one_object() -> None:
    result = call(Gateway(stream(event(1))), "events", "--json", "--after", "0")
    assert json.loads(result.stdout) == {"events": [event(1)]}


def test_following_begins_now_and_comes_back_with_the_last_id() -> None:
    gateway = Gateway(stream(event(5), event(None, type="alarm")), lost(), stream(event(6)))
    result = gateway.follow("-o", "json")
    assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == [5, None, 6]
    assert [request.headers.get("last-event-id") for request in gateway.requests] == [None, "5", "5", "6"]
    assert "follow" not in gateway.requests[0].url.params
    assert "again in 0.5 s" in result.stderr


def test_following_waits_longer_each_time_and_never_longer_than_half_a_minute() -> None:
    gateway = Gateway(stream(event(1)), *[lost() for _ in range(9)], stream(event(2)), lost())
    gateway.follow()
    assert gateway.slept == [0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30, 0.5, 1]


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (lost, 3),
        (lambda: httpx.Response(401, json={"code": "unauthenticated", "detail": "no"}), 6),
        (lambda: httpx.Response(404, text="<html>"), 3),
    ],
)
def test_a_first_connection_that_fails_ends_the_command(answer: Callable[[], Any], code: int) -> None:
    gateway = Gateway(answer())
    assert (gateway.follow().exit_code, gateway.slept) == (code, [])


def test_a_token_that_was_revoked_ends_it_later_too() -> None:
    refused = httpx.Response(401, json={"code": "unauthenticated", "detail": "revoked"})
    gateway = Gateway(stream(event(1)), refused)
    result = gateway.follow("--after", "0")
    assert result.exit_code == 6
    assert "revoked" in result.stderr


def test_a_rollout_is_named_with_its_phase() -> None:
    data = {"kind": "rollout_pause", "rollout": {"id": "r1", "phase": "paused", "said": "x", "gates": [{}]}}
    result = call(Gateway(stream(event(2, data=data))), "events")
    assert "kind=rollout_pause rollout=r1:paused" in result.stdout

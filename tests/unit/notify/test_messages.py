"""What receivers are told: names, bodies and their bounds, and the signature by the example of Standard Webhooks."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from headgate.notify.messages import (
    MAX_BODY,
    Receiver,
    envelopes,
    message_id,
    name_of,
    receivers,
    shown,
)
from headgate.notify.posting import PostError
from headgate.notify.signing import key_of, read_reference, sign
from headgate.store import EventRecord, stamp
from unit.control_harness import START

ALL = ("step", "promote", "rollback", "pause", "abort", "drift", "load_failed", "alarm")
HOOK = Receiver("https://example.com/secret-path", None, ALL, 5_000)


def event(kind: str, type_: str = "applied", **data: Any) -> EventRecord:
    return EventRecord(type_, stamp(START), "digits", 7, "ann", "why", {"kind": kind, **data}, 41)


def rollout(phase: str) -> dict[str, Any]:
    return {"rollout": {"id": "r1", "phase": phase}}


@pytest.mark.parametrize(
    ("told", "name"),
    [
        (event("rollback"), "rollback"),
        (event("abort"), "abort"),
        (event("apply"), None),
        (event("traffic"), None),
        (event("freeze"), None),
        (event("rollout_start", **rollout("progressing")), "step"),
        (event("rollout_step", **rollout("progressing")), "step"),
        (event("rollout_step", **rollout("paused")), "pause"),
        (event("traffic", **rollout("paused")), "pause"),
        (event("rollout_promote", **rollout("promoted")), "promote"),
        (event("rollout_rollback", **rollout("rolled_back")), "rollback"),
        (event("rollback", **rollout("rolled_back")), "rollback"),
        (event("apply", **rollout("aborted")), "abort"),
        (event("apply", "failed"), "load_failed"),
        (event("rollback", "failed"), None),
        (event("rollback", "superseded"), None),
        (event("", "drift"), "drift"),
        (event("", "alarm"), "alarm"),
        (event("", "started"), None),
    ],
)
def test_names_of_events(told: EventRecord, name: str | None) -> None:
    assert name_of(told) == name


def test_a_message_has_the_event_and_a_name_of_its_own() -> None:
    (one,) = envelopes(event("rollback", message="bad"), [HOOK])
    told = json.loads(one.body)
    assert (told["type"], told["timestamp"]) == ("headgate.rollback", stamp(START))
    assert told["data"] == {
        "id": 41, "event": "applied", "endpoint": "digits", "revision": 7, "who": "ann", "reason": "why",
        "data": {"kind": "rollback", "message": "bad"},
    }  # fmt: skip
    (again,) = envelopes(event("rollback", message="bad"), [HOOK])
    assert message_id(one.body) == message_id(again.body)
    (other,) = envelopes(event("rollback", message="worse"), [HOOK])
    assert message_id(one.body) != message_id(other.body)


def test_only_who_asked_is_told() -> None:
    pauses = Receiver("${env:PAUSES}", None, ("pause",), 5_000)
    assert [one.queue.webhook for one in envelopes(event("rollback"), [HOOK, pauses])] == [HOOK.webhook]
    assert envelopes(event("apply"), [HOOK, pauses]) == []


def test_a_message_is_bounded() -> None:
    huge = event("rollout_rollback", message="m" * 5_000, rollout={"phase": "rolled_back", "gates": "g" * MAX_BODY})  # fmt: skip
    (one,) = envelopes(huge, [HOOK])
    assert len(one.body) <= MAX_BODY
    told = json.loads(one.body)["data"]["data"]
    assert told == {"kind": "rollout_rollback", "message": "m" * 1_000, "truncated": True}


def test_a_webhook_that_is_written_twice_is_one_with_the_events_of_both() -> None:
    spec = [
        {"webhook": "https://a.example/x", "events": ["pause"], "timeout": 5_000},
        {"webhook": "https://a.example/x", "events": ["rollback"], "timeout": 1_000, "secret": "${env:K}"},
    ]
    assert receivers(spec) == (Receiver("https://a.example/x", "${env:K}", ("pause", "rollback"), 1_000),)


def test_no_path_of_an_address_is_shown() -> None:
    assert shown("https://hooks.example.com:8443/services/T0/secret?key=1") == "hooks.example.com"
    assert shown("${env:HOOK_URL}") == "env:HOOK_URL"
    assert shown("${file:/run/secrets/hook}") == "file:/run/secrets/hook"


def test_the_signature_is_that_of_standard_webhooks() -> None:
    """The example of the specification's libraries: its id, time, body, secret and signature."""
    body, secret = b'{"test": 2432232314}', "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    import base64
    import hashlib
    import hmac

    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    assert key_of(secret) == key
    example = hmac.new(key, b"msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330." + body, hashlib.sha256)
    assert base64.b64encode(example.digest()) == b"g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    fields = sign(body, secret, 1_614_265_330)
    ours = hmac.new(key, f"{fields['webhook-id']}.1614265330.".encode() + body, hashlib.sha256).digest()
    assert fields["webhook-signature"] == "v1," + base64.b64encode(ours).decode()
    assert fields["webhook-timestamp"] == "1614265330"
    assert "webhook-signature" not in sign(body, None, 1)


@pytest.mark.parametrize(
    ("secret", "says"), [("short", "at least 16"), ("whsec_!!", "no base64"), ("whsec_AAAA", "at least 16")]
)
def test_a_secret_that_protects_nothing_is_refused(secret: str, says: str) -> None:
    with pytest.raises(PostError, match=says):
        sign(b"{}", secret, 1)


def test_references(tmp_path: Path) -> None:
    environment = {"HOOK": " https://example.com/x \n", "EMPTY": ""}
    assert read_reference("https://example.com/y") == "https://example.com/y"
    assert read_reference("${env:HOOK}", environment) == "https://example.com/x"
    for name in ("EMPTY", "MISSING"):
        with pytest.raises(PostError, match=name):
            read_reference(f"${{env:{name}}}", environment)
    path = tmp_path / "secret"
    path.write_text("a secret of sixteen bytes\n")
    assert read_reference(f"${{file:{path}}}") == "a secret of sixteen bytes"
    os.mkfifo(tmp_path / "pipe")
    path.write_bytes(b"")
    for name in ("pipe", "nothing", "secret"):
        with pytest.raises(PostError, match=name):
            read_reference(f"${{file:{tmp_path / name}}}")

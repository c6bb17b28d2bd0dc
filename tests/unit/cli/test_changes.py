from __future__ import annotations

import json

import pytest

from unit.cli.fake_admin import PLAN, RESULT, TRAFFIC, FakeAdmin, call, ok, problem

PATH = "/v1/endpoints/digits"


def admin(**more: object) -> FakeAdmin:
    return FakeAdmin({f"GET {PATH}/traffic": ok(TRAFFIC, 41), **more})


def test_traffic_without_weights_shows_what_is_live_and_changes_nothing() -> None:
    fake = admin()
    result = call(fake, "traffic", "digits")
    assert result.exit_code == 0, result.output
    assert "v1       champion" in result.stdout
    assert "10%" in result.stdout
    assert "a rollback goes to v1" in result.stdout
    assert [request.method for request in fake.requests] == ["GET"]


def test_traffic_sends_weights_with_the_revision_it_read_and_the_reason() -> None:
    fake = admin(**{f"PATCH {PATH}/traffic": ok(RESULT, 42)})
    result = call(fake, "traffic", "digits", "v2=5%", "--reason", "first users", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == RESULT
    assert fake.last.headers["if-match"] == '"41"'
    assert fake.last.headers["authorization"] == "Bearer headgate_kid_secret"
    assert fake.body == {"weights": {"v2": "5%"}, "reason": "first users"}


def test_traffic_can_move_the_champion_alone() -> None:
    fake = admin(**{f"PATCH {PATH}/traffic": ok(RESULT, 42)})
    assert call(fake, "traffic", "digits", "--champion", "v2").exit_code == 0
    assert fake.body == {"champion": "v2"}


@pytest.mark.parametrize(
    ("weight", "says"),
    [
        ("v2=5", "percent sign"),
        ("v2", "VERSION=SHARE%"),
        ("=5%", "VERSION=SHARE%"),
        ("v2=", "VERSION=SHARE%"),
    ],
)
def test_a_weight_that_is_not_a_share_is_wrong_usage_and_nothing_is_sent(weight: str, says: str) -> None:
    fake = admin()
    result = call(fake, "traffic", "digits", weight)
    assert result.exit_code == 2
    assert says in result.stderr
    assert fake.requests == []


def test_a_version_named_twice_is_wrong_usage() -> None:
    result = call(admin(), "traffic", "digits", "v2=5%", "v2=6%")
    assert (result.exit_code, "two weights" in result.stderr) == (2, True)


def test_traffic_shows_rules_shadows_and_the_capture() -> None:
    shown = call(admin(), "traffic", "digits").stdout
    for line in (
        'rules[0]: header.x-tester is "1": v2',
        "shadow v3: 10% of the champion's requests (off: switched off)",
        "shadow v4: 5% of the champion's requests",
        "capture: 1% of requests",
    ):
        assert line in shown.splitlines()


def test_traffic_switches_shadows_and_the_capture() -> None:
    fake = admin(**{f"PATCH {PATH}/traffic": ok(RESULT, 42)})
    result = call(fake, "traffic", "digits", "--shadow", "v3=off", "--shadow", "v4=on", "--capture", "off")
    assert result.exit_code == 0, result.output
    assert fake.body == {"shadows": {"v3": "off", "v4": "on"}, "capture": "off"}
    assert "traffic: v1, 5% to v2, shadow v3 off" in result.stdout


@pytest.mark.parametrize("written", ["v3", "v3=", "=off", "v3=aus", "v3=5%"])
def test_a_switch_that_is_neither_on_nor_off_is_wrong_usage(written: str) -> None:
    fake = admin()
    result = call(fake, "traffic", "digits", "--shadow", written)
    assert (result.exit_code, "VERSION=on or VERSION=off" in result.stderr) == (2, True)
    assert fake.requests == []


def test_a_shadow_that_is_switched_twice_is_wrong_usage() -> None:
    result = call(admin(), "traffic", "digits", "--shadow", "v3=on", "--shadow", "v3=off")
    assert (result.exit_code, "given twice" in result.stderr) == (2, True)


def test_a_dry_run_prints_the_plan() -> None:
    fake = admin(**{f"PATCH {PATH}/traffic": ok(PLAN)})
    result = call(fake, "traffic", "digits", "v2=14%", "--dry-run")
    assert result.exit_code == 0, result.output
    assert fake.last.url.params["dry_run"] == "true"
    first, note, *diff = result.stdout.splitlines()
    assert first == PLAN["text"], "the wording is the gateway's"
    assert note.endswith("kept (--take-traffic to move)")
    assert diff == ["-a", "+b"]


@pytest.mark.parametrize("verb", ["rollback", "abort", "freeze"])
def test_an_emergency_call_reads_nothing_first_and_sends_no_precondition(verb: str) -> None:
    fake = FakeAdmin({f"POST {PATH}:{verb}": ok(RESULT)})
    result = call(fake, verb, "digits", "-m", "now")
    assert result.exit_code == 0, result.output
    assert len(fake.requests) == 1
    assert "if-match" not in fake.last.headers
    assert fake.body == {"reason": "now"}


def test_block_tells_a_digest_from_a_version() -> None:
    fake = FakeAdmin({f"POST {PATH}:block": ok(RESULT)})
    assert call(fake, "block", "digits", "v2").exit_code == 0
    assert fake.body == {"version": "v2"}
    assert call(fake, "block", "digits", "sha256:ab").exit_code == 0
    assert fake.body == {"digest": "sha256:ab"}


@pytest.mark.parametrize(
    ("arguments", "body"),
    [
        (["unblock", "digits", "v2"], {"version": "v2"}),
        (["unfreeze", "digits"], {}),
        (["restore", "digits", "38"], {"revision": 38}),
    ],
)
def test_an_ordinary_change_sends_the_revision_it_read(arguments: list[str], body: dict[str, object]) -> None:
    fake = admin(**{f"POST {PATH}:{arguments[0]}": ok(RESULT, 42)})
    result = call(fake, *arguments)
    assert result.exit_code == 0, result.output
    assert fake.last.headers["if-match"] == '"41"'
    assert fake.body == body


def test_a_deleted_endpoint_is_restored_on_the_condition_that_there_is_none() -> None:
    gone = problem(404, "model_not_found", "no endpoint is named 'digits'")
    fake = FakeAdmin({f"GET {PATH}/traffic": gone, f"POST {PATH}:restore": (201, RESULT, {"etag": '"42"'})})
    assert call(fake, "restore", "digits", "38").exit_code == 0
    assert fake.last.headers["if-none-match"] == "*"


def test_a_change_that_could_not_be_stored_is_said_on_stderr_and_is_done() -> None:
    fake = FakeAdmin({f"POST {PATH}:rollback": ok({**RESULT, "durable": False})})
    result = call(fake, "rollback", "digits")
    assert result.exit_code == 0
    assert "could not be stored" in result.stderr
    assert "could not be stored" not in result.stdout


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (problem(409, "conflict", "digits is frozen"), 5),
        (problem(422, "model_load_failed", "v2 does not load"), 5),
        (problem(403, "permission_denied", "viewer may not"), 6),
        (problem(404, "model_not_found", "no endpoint is named 'digits'"), 4),
        (problem(401, "unauthenticated", "not known"), 6),
        (problem(404, "version_not_found", "no v9"), 4),
        (problem(400, "invalid_argument", "no"), 2),
        (problem(503, "storage_failed", "disk full"), 3),
        (problem(503, "draining", "about to stop"), 3),
        (problem(500, "internal", "a defect"), 3),
    ],
)
def test_the_exit_code_follows_the_error_and_its_words_go_to_stderr(
    answer: tuple[int, dict[str, str], dict[str, str]], code: int
) -> None:
    fake = FakeAdmin({f"POST {PATH}:rollback": answer})
    result = call(fake, "rollback", "digits")
    assert (result.exit_code, result.stdout) == (code, "")
    assert answer[1]["detail"] in result.stderr


def test_a_revision_that_moved_meanwhile_asks_to_look_and_try_again() -> None:
    moved = problem(
        412, "revision_conflict", "digits is at revision 42, If-Match says 41", facts={"revision": 42}
    )
    result = call(admin(**{f"PATCH {PATH}/traffic": moved}), "traffic", "digits", "v2=5%")
    assert result.exit_code == 5
    assert "If-Match says 41" in result.stderr
    assert "run the command again" in result.stderr

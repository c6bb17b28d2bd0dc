from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from headgate.cli.traffic_view import traffic_view
from unit.cli.fake_admin import TRAFFIC, FakeAdmin, call, ok, problem

SUMMARY = {
    "name": "digits",
    "revision": 41,
    "state": "ready",
    "champion": "v1",
    "weights": {"v2": "10%"},
    "frozen": True,
    "blocked": 1,
    "since": "2027-03-01T03:12:04Z",
    "notes": [],
    "alarms": ["not stored"],
}
VERSION = {
    "digest": "sha256:" + "ab" * 32,
    "kind": "artifact",
    "role": "champion",
    "state": "ready",
    "in_document": True,
    "placement": "inline",
    "placement_fixed": False,
    "placed_by": {
        "why": "a run alone takes less than 50 us",
        "runs": 812,
        "p99_us": 6.4,
        "busy": 0.25,
        "batch_rows": None,
    },
    "device": "cuda:0",
    "shedding": False,
    "batches": None,
    "run_us": {"p50": 1.9, "p99": 3.1},
    "requests": 12,
    "signature": None,
    "load_ms": 3.0,
    "memory": {"state": "cold", "bytes": 3 << 19, "pinned": True},
    "breaker": {"open": True, "trips": 2, "answered_by": "v6"},
    "runs": {"cancelled": 5, "stuck": 1},
    "probes": {"runs": 3, "failed": 0},
    "message": None,
}
ENDPOINT: dict[str, Any] = {
    "name": "digits",
    "revision": 41,
    "state": "ready",
    "document": "name: digits\n",
    "document_digest": "sha256:00",
    "source": None,
    "declared": TRAFFIC["declared"],
    "traffic": TRAFFIC,
    "versions": {
        "v1": VERSION,
        "v2": {
            **VERSION,
            "role": "challenger",
            "run_us": {"p50": None, "p99": None},
            "signature": {
                "inputs": [],
                "outputs": [],
                "optional_inputs": [{"name": f"w{at}"} for at in range(10)],
            },
        },
    },
    "blocks": [{"digest": "sha256:cd", "version": "v0", "since": "then", "who": "me", "reason": "bad"}],
    "frozen": {"since": "then", "who": "me", "reason": "audit"},
    "notes": ["a note"],
    "alarms": ["an alarm"],
    "columns": {},
    "timeout_ms": 30000,
    "baseline": None,
    "capture": {
        "share": "1%",
        "keep_ms": 604_800_000,
        "max_bytes": 2 << 30,
        "rows": 1234,
        "dropped": {"queue_full": 5, "too_large": 0},
        "errors": 0,
        "failure": None,
        "disk_files": 3,
        "disk_bytes": 3 << 20,
    },
}


def test_get_lists_endpoints_one_to_a_line_with_their_traffic() -> None:
    result = call(FakeAdmin({"GET /v1/endpoints": ok({"endpoints": [SUMMARY]})}), "get")
    assert result.exit_code == 0, result.output
    header, line = result.stdout.splitlines()
    assert header.split()[:3] == ["ENDPOINT", "REVISION", "STATE"]
    assert "v1, 10% to v2" in line
    assert "frozen; 1 blocked; not stored" in line


def test_get_shows_one_endpoint_with_alarms_blocks_and_versions() -> None:
    result = call(FakeAdmin({"GET /v1/endpoints/digits": ok(ENDPOINT, 41)}), "get", "digits")
    assert result.exit_code == 0, result.output
    for part in [
        "revision 41",
        "frozen since then by me: audit",
        "alarm: an alarm",
        "1.9/3.1 us",
        "v1 is inline: a run alone takes less than 50 us (the newest 812 runs: p99 6.4 us, 25% of the IO threads)",
        "v2 takes optional inputs: w0, w1, w2, w3, w4, w5, w6, w7 and 2 more",
        "left alone",
        "v6 answers",
        "1 run that does not end",
        "on cuda:0",
        "cold, 1.5 MiB",
        "v0 (bad)",
        "capture: 1% of requests; 1234 since the start (dropped: 5 queue_full); 3 files, 3 MiB",
    ]:
        assert part in result.stdout


def test_get_shows_what_versions_did_lately_beside_the_champion() -> None:
    def recent(requests: int, p95: float, **codes: int) -> dict[str, Any]:
        return {
            "seconds": 300, "requests": requests, "share": "50%", "errors": requests - codes["ok"], "codes": codes,
            "request_us": {"p50": 900.0, "p95": p95}, "rows": {"seen": 20, "sketched": 7},
        }  # fmt: skip

    shown = copy.deepcopy(ENDPOINT)
    shown["versions"]["v2"]["recent"] = recent(400, 201_000, ok=390, internal=8, invalid_argument=2)
    shown["versions"]["v1"]["recent"] = recent(800, 100_500, ok=800)
    shown["versions"] = dict(reversed(shown["versions"].items()))
    lines = call(FakeAdmin({"GET /v1/endpoints/digits": ok(shown, 41)}), "get", "digits").stdout.splitlines()
    at = next(place for place, line in enumerate(lines) if line.startswith("LAST 5 min"))
    assert "OF REQUESTS LATELY" in "\n".join(lines[:at])
    assert lines[at + 1].split() == ["v1", "800", "0", "900", "us/0.1", "s", "-", "20", "7"]
    assert "400       10 (2.5%): 8 internal, 2 invalid_argument" in lines[at + 2]
    assert "900 us/0.2 s  p95 2 times, errors 2.5% against 0%" in lines[at + 2]


def test_get_says_a_note_once() -> None:
    # The gateway says it of the endpoint and of its traffic.
    shown = copy.deepcopy(ENDPOINT)
    shown["traffic"]["notes"] = shown["notes"]
    result = call(FakeAdmin({"GET /v1/endpoints/digits": ok(shown, 41)}), "get", "digits")
    assert result.stdout.count("a note") == 1


def test_get_prints_the_document_byte_for_byte() -> None:
    fake = FakeAdmin({"GET /v1/endpoints/digits": ok(ENDPOINT, 41)})
    assert call(fake, "get", "digits", "--document").stdout == "name: digits\n"
    assert call(fake, "get", "--document").exit_code == 2


def test_json_is_the_answer_of_the_gateway() -> None:
    fake = FakeAdmin({"GET /v1/endpoints/digits": ok(ENDPOINT, 41)})
    assert json.loads(call(fake, "get", "digits", "--json").stdout) == ENDPOINT


def test_markup_in_data_is_printed_as_it_is() -> None:
    summary = copy.deepcopy(SUMMARY) | {"notes": ["[bold]x[/bold] :smile:"]}
    result = call(FakeAdmin({"GET /v1/endpoints": ok({"endpoints": [summary]})}), "get")
    assert "[bold]x[/bold] :smile:" in result.stdout


def test_explain_sends_a_key_or_headers() -> None:
    answer = {
        "endpoint": "digits",
        "revision": 41,
        "sticky": "x-user-id",
        "key": "u",
        "slot": 17,
        "salt": "s",
        "version": "v2",
        "by": "slot",
        "why": "slot 17 is given to v2",
        "notes": ["rules[0] is passed over: v8 is blocked"],
        "shadows": [
            {"version": "v3", "share": "10%", "chosen": None, "why": "each request is drawn for itself"}
        ],
        "capture": {"version": None, "share": "1%", "chosen": False, "why": "no"},
        "shares": {},
    }
    fake = FakeAdmin({"POST /v1/endpoints/digits:explain": ok(answer)})
    result = call(fake, "explain", "digits", "--key", "u")
    assert result.stdout.splitlines() == [
        "v2 by slot (slot 17)",
        "slot 17 is given to v2",
        "rules[0] is passed over: v8 is blocked",
        "shadow v3: perhaps, each request is drawn for itself",
        "capture: no, no",
    ]
    assert fake.body == {"key": "u"}
    assert call(fake, "explain", "digits", "--header", "X-User-Id:  u").exit_code == 0
    assert fake.body == {"headers": {"x-user-id": "u"}}
    assert call(fake, "explain", "digits", "--key", "u", "--at", "38").exit_code == 0
    assert fake.body == {"key": "u", "revision": 38}
    assert call(fake, "explain", "digits", "--key", "u", "--at", "2027-03-01T03:12:04Z").exit_code == 0
    assert fake.body == {"key": "u", "at": "2027-03-01T03:12:04Z"}
    options = [
        "--parameter",
        "tier=3",
        "--parameter",
        "name=gold",
        "--parameter",
        "on=true",
        "--version",
        "v2",
    ]
    assert call(fake, "explain", "digits", *options).exit_code == 0
    assert fake.body == {"parameters": {"tier": 3, "name": "gold", "on": True}, "version": "v2"}
    assert call(fake, "explain", "digits", "--parameter", "nothing").exit_code == 2
    assert call(fake, "explain", "digits", "--header", "nothing").exit_code == 2
    assert call(fake, "explain", "digits", "--header", "a: b", "--key", "u").exit_code == 2


def test_explain_without_a_key_says_that_each_request_draws() -> None:
    answer = {
        "version": None,
        "by": "draw",
        "slot": None,
        "why": "no key",
        "notes": [],
        "shares": {"v1": "90%", "v2": "10%"},
        "shadows": [],
        "capture": None,
    }
    fake = FakeAdmin({"POST /v1/endpoints/digits:explain": ok(answer)})
    assert "90% v1, 10% v2" in call(fake, "explain", "digits").stdout


def test_history_lists_and_shows_one() -> None:
    one = {
        "revision": 41,
        "parent": 40,
        "kind": "traffic",
        "status": "applied",
        "who": "ci",
        "when": "then",
        "reason": "why",
        "document_digest": "sha256:00",
        "champion": "v1",
        "weights": {},
        "message": "what came of it",
    }
    full = one | {"diff": "-a\n+b\n", "moves": {"v1→v2": 400}}
    base = "GET /v1/endpoints/digits/revisions"
    fake = FakeAdmin({base: ok({"revisions": [one]}), f"{base}/41": ok(full)})
    listed = call(fake, "history", "digits", "--limit", "5", "--before", "42")
    assert "why" in listed.stdout
    assert "what came of it" in listed.stdout
    assert dict(fake.last.url.params) == {"limit": "5", "before": "42"}
    assert listed.stderr == ""
    full_page = call(fake, "history", "digits", "--limit", "1")
    assert "headgate history digits --before 41" in full_page.stderr
    shown = call(fake, "history", "digits", "41").stdout
    assert "v1→v2: 4% of keys" in shown
    assert "+b" in shown


MODELS = {
    "models": [
        {
            "endpoint": "digits",
            "version": "1",
            "digest": "sha256:00",
            "pinned": "then",
            "in_use": True,
            "size": None,
        }
    ],
    "refusals": [],
}
REFUSAL = {"endpoint": "digits", "version": "2", "pinned": "sha256:00", "found": "sha256:11", "count": 1}
FOLDER = {
    "endpoint": None,
    "version": None,
    "folder": "/models/new",
    "pinned": None,
    "found": None,
    "count": 1,
}
OMITTED = {
    "versions": {"v1": {"state": "ready", "message": None}, "v2": {"state": "failed", "message": "cut off"}}
}


@pytest.mark.parametrize(
    ("refusals", "alarms", "says"),
    [
        ([], [], None),
        ([REFUSAL | {"message": "other bytes"}], [], "refused: digits 2: other bytes\n"),
        ([FOLDER | {"message": "is empty"}], [], "refused: /models/new: is empty\n"),
        ([], ["v2 is left out"], "did not load: digits v2: cut off\n"),
    ],
)
def test_models_says_what_was_refused_or_did_not_load_and_check_fails_on_it(
    refusals: list[dict[str, Any]], alarms: list[str], says: str | None
) -> None:
    fake = FakeAdmin(
        {
            "GET /v1/models": ok(MODELS | {"refusals": refusals}),
            "GET /v1/endpoints": ok({"endpoints": [SUMMARY | {"alarms": alarms}]}),
            "GET /v1/endpoints/digits": ok(OMITTED),
        }
    )
    result = call(fake, "models", "--check")
    assert (result.exit_code, result.stderr) == (0 if says is None else 1, says or "")
    assert "sha256:00" in result.stdout
    assert call(fake, "models").exit_code == 0
    in_json = json.loads(call(fake, "models", "--json").stdout)
    assert [one["version"] for one in in_json["not_loaded"]] == (["v2"] if alarms else [])


def test_models_lists_what_is_damaged_and_what_was_never_served_once_each() -> None:
    never = {"endpoint": "new", "version": None, "folder": "/models/new", "pinned": None, "found": None}
    absent = SUMMARY | {"state": "failed", "champion": "", "weights": {}}
    fake = FakeAdmin(
        {
            "GET /v1/models": ok(MODELS | {"refusals": [never | {"count": 1, "message": "is empty"}]}),
            "GET /v1/endpoints": ok(
                {
                    "endpoints": [
                        absent | {"name": "cut", "alarms": ["its state is damaged"]},
                        absent | {"name": "new", "alarms": ["new was never served: is empty"]},
                    ]
                }
            ),
            "GET /v1/endpoints/cut": problem(503, "model_not_ready", "its state is damaged"),
            "GET /v1/endpoints/new": problem(503, "model_not_ready", "new was never served: is empty"),
        }
    )
    result = call(fake, "models", "--check")
    assert (result.exit_code, result.stderr) == (
        1,
        "refused: new: is empty\ndid not load: cut: its state is damaged\n",
    )


def test_a_rollback_that_can_go_nowhere_is_said() -> None:
    live = {"endpoint": "digits", "revision": 3, "champion": "v1", "weights": {}, "share": {"keys": {}, "requests": None},
            "since": "2027-03-01T03:12:04Z", "notes": [], "rollback_to": None}  # fmt: skip
    assert traffic_view(live)[-1] == "no rollback: no version that it may go to can be loaded"


LINE = "rollout r1 of v2: promoted. No harm shown. Error ratio 0.30-8.4 (anytime 95 %)."


def test_a_rollout_stands_in_one_line_where_it_moved_something() -> None:
    summary = SUMMARY | {"rollout": "rollout r1 of v2: step 1 of 3 (weight 5%)"}
    listed = call(FakeAdmin({"GET /v1/endpoints": ok({"endpoints": [summary]})}), "get").stdout
    assert "rollout r1 of v2: step 1 of 3 (weight 5%)" in listed
    one = call(
        FakeAdmin({"GET /v1/endpoints/digits": ok(ENDPOINT | {"rollout": LINE})}), "get", "digits"
    ).stdout
    assert LINE in one.splitlines()


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("No harm shown. Error ratio 0.30-8.4 (anytime 95 %).", "rollout r1 of v2: promoted"),
        ("seen enough", LINE),
        ("", LINE),
    ],
)
def test_history_says_of_a_rollout_what_its_reason_does_not(reason: str, message: str) -> None:
    one = {
        "revision": 41, "parent": 40, "kind": "rollout_promote", "status": "applied", "who": "ci", "when": "then",
        "reason": reason, "document_digest": "sha256:00", "champion": "v2", "weights": {}, "message": None, "rollout": LINE,
    }  # fmt: skip
    base = "GET /v1/endpoints/digits/revisions"
    fake = FakeAdmin({base: ok({"revisions": [one]}), f"{base}/41": ok(one | {"diff": "", "moves": {}})})
    row = call(fake, "history", "digits").stdout.splitlines()[1]
    assert row.endswith(f"  {message}")
    assert LINE in call(fake, "history", "digits", "41").stdout.splitlines()

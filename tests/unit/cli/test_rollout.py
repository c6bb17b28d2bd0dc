"""The commands about rollouts: what they ask, what they show, and watching one."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from headgate.cli import main, rollout_watch
from headgate.cli.client import Timing
from headgate.cli.exits import UnreachableError
from headgate.cli.rollout_view import rollout_view
from headgate.cli.session import CliEnvironment
from unit.cli.fake_admin import PLAN, RESULT, FakeAdmin, FakeTransport, call, ok, problem

E = "/v1/endpoints/digits"
R = f"{E}/rollout"
DIGEST = "sha256:" + "1c9e" * 16
ARM = {"units": 0, "n": 0, "bad": 0}
ERRORS: dict[str, Any] = {
    "gate": "error_rate", "measure": None, "verdict": "undecided", "champion": {"units": 1, "n": 80_388, "bad": 161},
    "challenger": {"units": 1, "n": 812, "bad": 4}, "ratio": 2.4596, "interval": [0.3049, 8.416], "e_value": 1.4165,
    "threshold": 400.0, "need": {"ratio": 3.0, "requests": 2851}, "detectable": 6.96, "reason": None,
    "caught": [{"ratio": 2.0, "probability": 0.04}, {"ratio": 5.0, "probability": 0.43}, {"ratio": 10.0, "probability": 0.99}],
}  # fmt: skip
LATENCY: dict[str, Any] = {
    **ERRORS, "gate": "latency.p95", "measure": "run", "verdict": "error", "champion": ARM, "challenger": ARM, "ratio": None,
    "interval": None, "e_value": None, "caught": [], "detectable": None, "reason": "no thresholds yet",
}  # fmt: skip
LIMITS = [
    {"gate": "error_rate", "measure": None, "effect": "rollback", "above": 1.5, "ignore_below": None, "strict": False},
    {"gate": "latency.p95", "measure": "run", "effect": "pause", "above": 1.2, "ignore_below": 5e6, "strict": False},
    {"gate": "disagreement", "measure": None, "effect": "report", "above": None, "ignore_below": None, "strict": False},
]  # fmt: skip
SHADOWED = {
    "step": "shadow 10%", "begun": "then", "ended": "later", "served_ms": 3_600_000, "requests": 510,
    "gates": [{**ERRORS, "gate": "disagreement", "verdict": "pass"}], "by": "ann", "undecided": ["disagreement"],
}  # fmt: skip
PREVIEW = {"slots": 0, "requests": None, "time_ms": None, "smallest_ratio": None, "words": "It."}
VIEW: dict[str, Any] = {
    "endpoint": "digits", "revision": 41, "id": "r3", "attempt": 2, "attempts": 2, "challenger": "v2", "digest": DIGEST,
    "champion": "v1", "plan": "careful", "plan_digest": DIGEST, "phase": "progressing", "pause": None, "end": None,
    "step": {
        "index": 2, "of": 3, "what": "weight 5%", "begun": "then", "for_ms": 900_000, "served_ms": 180_000,
        "requests": 812, "min_requests": 1000,
    },
    "weight": 500, "shadow": 0, "gates": [ERRORS, LATENCY], "limits": LIMITS,
    "missing": ["12m with traffic", "error_rate is undecided (812 requests; 3x shows after 2 851)"],
    "left_ms": 8_400_000, "hours": "mon-thu 09:00-16:00 Europe/Berlin",
    "timeline": [
        {"index": 0, "label": "shadow 10%", **PREVIEW, "time_ms": 3_600_000, "requests": 500},
        {"index": 1, "label": "weight 5%", **PREVIEW, "time_ms": 900_000, "requests": 1000, "smallest_ratio": 10.0},
        {"index": 2, "label": "promote", **PREVIEW},
    ],
    "finished": [SHADOWED], "started": "2027-03-01T03:12:04Z", "started_by": "ann",
    "approvals": [{"step": 1, "who": "bob", "role": "approver", "digest": DIGEST, "at_ms": 0}],
    "notes": ["the plan ends without promote: a person promotes"],
}  # fmt: skip
PROMOTED = {
    **VIEW, "phase": "promoted", "step": None, "left_ms": None, "missing": [],
    "end": {"reason": "promote", "at": "2027-03-01T09:00:00Z", "who": "", "said": "No harm shown. Error ratio 0.30-8.4."},
}  # fmt: skip
TRAFFIC = {f"GET {E}/traffic": ok({}, 41)}


def shown(view: dict[str, Any]) -> str:
    result = call(FakeAdmin({f"GET {R}": ok(view, 41)}), "rollout", "show", "digits")
    assert result.exit_code == 0, result.output
    return result.stdout


# === what is asked ===

MOVES = [
    (("start", "digits", "v2"), "", {"version": "v2"}),
    (("start", "digits", "v2", "--plan", "careful", "-m", "why"), "", {"version": "v2", "plan": "careful", "reason": "why"}),
    (("start", "digits", "v2", "--retry"), ":retry", {"version": "v2"}),
    (("retry", "digits"), ":retry", {}),
    (("retry", "digits", "v2", "--plan", "default"), ":retry", {"version": "v2", "plan": "default"}),
    (("promote", "digits"), ":promote", {}),
    (("promote", "digits", "--full"), ":promote", {"full": True}),
    (("pause", "digits", "-m", "lunch"), ":pause", {"reason": "lunch"}),
    (("resume", "digits"), ":resume", {}),
    (("approve", "digits", "--digest", DIGEST), ":approve", {"digest": DIGEST}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "verb", "body"), MOVES, ids=lambda one: " ".join(one) if isinstance(one, tuple) else None
)
def test_a_move_is_one_call_on_the_revision_that_was_read(
    words: tuple[str, ...], verb: str, body: dict[str, Any]
) -> None:
    fake = FakeAdmin({**TRAFFIC, f"POST {R}{verb}": ok(RESULT, 42), f"GET {R}": ok(VIEW, 41)})
    result = call(fake, "rollout", *words)
    assert result.exit_code == 0, result.output
    # A pause holds a rollout at whichever step it has come to.
    revision = "*" if verb == ":pause" else '"41"'
    assert (fake.body, fake.last.headers["if-match"]) == (body, revision)
    assert "dry_run" not in fake.last.url.params
    assert "digits: v1, 5% to v2 (revision 42)" in result.stdout
    planned = FakeAdmin({**TRAFFIC, f"POST {R}{verb}": ok(PLAN), f"GET {R}": ok(VIEW, 41)})
    result = call(planned, "rollout", *words, "--dry-run")
    assert (result.exit_code, planned.last.url.params["dry_run"]) == (0, "true")
    assert "move from v1 to v2" in result.stdout


def test_an_abort_reads_nothing_first() -> None:
    fake = FakeAdmin({f"POST {R}:abort": ok(RESULT, 42)})
    assert call(fake, "rollout", "abort", "digits", "-m", "no").exit_code == 0
    assert (fake.body, len(fake.requests)) == ({"reason": "no"}, 1)
    assert "if-match" not in fake.last.headers


def test_an_approval_is_bound_to_the_bytes_that_are_shown() -> None:
    fake = FakeAdmin({**TRAFFIC, f"GET {R}": ok(VIEW, 41), f"POST {R}:approve": ok(RESULT, 42)})
    assert call(fake, "rollout", "approve", "digits").exit_code == 0
    assert fake.body == {"digest": DIGEST}


def test_the_dry_run_of_a_start_has_a_line_for_each_step() -> None:
    lines = ["Rollout of v2 by plan careful, against v1.", "  1. weight 5%: 500 slots move."]
    notes = ["no weight shows enough: a person decides"]
    planned = {**PLAN, "text": "Start.\n" + "\n".join(lines), "preview": lines, "notes": notes, "diff": ""}
    fake = FakeAdmin({**TRAFFIC, f"POST {R}": ok(planned)})
    result = call(fake, "rollout", "start", "digits", "v2", "--dry-run")
    assert result.stdout.splitlines() == [*lines, "Note: no weight shows enough: a person decides."]


def test_refusals_say_the_way_out() -> None:
    refused = problem(
        409, "conflict", "v2 was rolled back in r1: retry it (headgate rollout retry digits v2)"
    )
    result = call(FakeAdmin({**TRAFFIC, f"POST {R}": refused}), "rollout", "start", "digits", "v2")
    assert (result.exit_code, "headgate rollout retry digits v2" in result.stderr) == (5, True)
    none = problem(404, "not_found", "digits has had no rollout")
    result = call(FakeAdmin({f"GET {R}": none}), "rollout", "show", "digits")
    assert result.exit_code == 4


# === what is shown ===


def test_where_it_is_what_its_gates_say_and_what_is_missing() -> None:
    said = shown(VIEW)
    for line in (
        "digits  rollout r3 of v2 by plan careful, against v1: progressing",
        "started 2027-03-01T03:12:04Z by ann, attempt 2 of this digest (sha256:1c9e1c9e1c9e)",
        "step 2 of 3: weight 5%, 3 min of 15 min with traffic, 812 of 1 000 requests",
        "waits for: 12m with traffic; error_rate is undecided (812 requests; 3x shows after 2 851)",
        "time left: about 2.3 h with traffic, if nothing is undecided and no person has to act",
        "it advances within mon-thu 09:00-16:00 Europe/Berlin",
        "latency.p95 run: no thresholds yet",
        "ann promoted it past shadow 10% at later; undecided then: disagreement",
        "step 2 approved by bob (approver) for sha256:1c9e1c9e1c9e",
        "note: the plan ends without promote: a person promotes",
    ):
        assert line in said
    rows = {line.split("  ")[0]: line for line in said.splitlines()}
    assert [cell.strip() for cell in rows["error_rate"].split("  ") if cell] == [
        "error_rate", "1.5x rolls back", "undecided", "2.5", "0.30-8.4", "1.4 of 400", "161 of 80 388", "4 of 812",
        "10x in 99 %",
    ]  # fmt: skip
    assert [cell.strip() for cell in rows["latency.p95 run"].split("  ") if cell][1:4] == [
        "1.2x pauses", "error", "-",
    ]  # fmt: skip
    assert "pass (in shadow 10%)" in rows["disagreement"]
    assert "done, 60 min, 510 requests" in rows["1   "[:1]]
    assert " now " in rows["2"]


def test_feedback_has_means_and_a_difference() -> None:
    arm = {"units": 900, "n": 900, "bad": 0, "mean": 0.3}
    gate = {
        **ERRORS, "gate": "feedback.sale", "ratio": None, "difference": -0.05, "interval": [-0.08, -0.02], "caught": [],
        "detectable": 0.04, "champion": arm, "challenger": {**arm, "mean": None, "coverage": 0.412},
    }  # fmt: skip
    said = shown({**VIEW, "gates": [gate]})
    line = next(line for line in said.splitlines() if line.startswith("feedback.sale"))
    for part in (
        "-0.05",
        "-0.08 to -0.02",
        "mean 0.3 of 900 ",
        "mean - of 900 (41.2 % of answers)",
        "0.04 in 80 %",
    ):
        assert part in line


def test_a_gate_that_nothing_judged_has_no_data() -> None:
    said = shown({**VIEW, "finished": [], "gates": []})
    (row,) = [line for line in said.splitlines() if line.startswith("disagreement")]
    assert row.split()[1:5] == ["is", "reported", "no", "data"]


@pytest.mark.parametrize(
    ("reason", "verb"), [("approve", "approve"), ("undecided", "resume"), ("override", "resume")]
)
def test_a_pause_says_why_and_both_ways_on(reason: str, verb: str) -> None:
    held = {"reason": reason, "since": "then", "said": "Nobody knows.", "who": ""}
    said = shown({**VIEW, "phase": "paused", "pause": held})
    assert "paused since then: Nobody knows." in said
    assert (
        f"to go on: headgate rollout {verb} digits; to give everything back: headgate rollout abort digits"
        in said
    )


def test_an_end_says_what_was_shown() -> None:
    said = shown(PROMOTED)
    assert "ended 2027-03-01T09:00:00Z: No harm shown. Error ratio 0.30-8.4." in said
    assert "waits for" not in said
    assert "safe" not in said.lower()


def test_before_its_first_step() -> None:
    assert "before its first step: nothing has moved yet" in shown({**VIEW, "step": None, "finished": []})


def test_the_list() -> None:
    one = {
        "id": "r3", "revision": 41, "challenger": "v2", "digest": DIGEST, "plan": "careful", "phase": "rolled_back",
        "started": "then", "started_by": "ann", "said": "error_rate fails.", "attempts": 2, "step": "weight 5%",
    }  # fmt: skip
    fake = FakeAdmin({f"GET {R}s": ok({"rollouts": [one]})})
    row = call(fake, "rollout", "list", "digits").stdout.splitlines()[1]
    assert [cell.strip() for cell in row.split("  ") if cell] == [
        "r3", "v2", "2", "careful", "rolled back", "weight 5%", "then", "ann", "41", "error_rate fails.",
    ]  # fmt: skip
    assert call(fake, "rollout", "list", "digits", "-o", "name").stdout == "r3\n"


def test_what_others_wrote_cannot_steer_the_terminal() -> None:
    end = {**PROMOTED["end"], "said": "\x1b[31mred\nforged"}
    said = shown({**PROMOTED, "end": end})
    assert r"\x1b[31mred\x0aforged" in said


# === watching ===


class Gateway:
    """Answers reads of the rollout in turn, the last one again and again; the stream has the events it is given."""

    def __init__(self, *views: Any, streams: tuple[Any, ...] = ()) -> None:
        self.views = list(views)
        self.streams = list(streams)
        self.read = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/events":
            if not self.streams:
                raise KeyboardInterrupt
            stream = self.streams.pop(0)
            if isinstance(stream, Exception):
                raise stream
            return httpx.Response(200, text=stream)
        self.read += 1
        view = self.views.pop(0) if len(self.views) > 1 else self.views[0]
        if isinstance(view, Exception):
            raise view
        return httpx.Response(200, json=view)

    def watch(self, *arguments: str) -> Result:
        around = CliEnvironment(
            variables={"HEADGATE_TOKEN": "headgate_a_b", "HOME": "/nonexistent"},
            make_transport=lambda address: FakeTransport(self, str(address)),
            timing=Timing(sleep=lambda _: None),
        )
        return CliRunner().invoke(main, ["rollout", "watch", "digits", *arguments], obj=around)


TICK = 'event: tick\ndata: {"type": "tick"}\n\n'


def event(number: int) -> str:
    told = {"id": number, "type": "applied", "endpoint": "digits", "data": {}}
    return f"id: {number}\nevent: applied\ndata: {json.dumps(told)}\n\n"


def test_a_line_for_each_change_until_it_is_promoted() -> None:
    later = {**VIEW, "gates": [{**ERRORS, "verdict": "pass"}]}
    gateway = Gateway(VIEW, VIEW, VIEW, later, PROMOTED, streams=(TICK + TICK + event(7) + event(8) + TICK,))
    result = gateway.watch()
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "digits  rollout r3 of v2 by plan careful, against v1: progressing",
        "r3 progressing  step 2 of 3: weight 5%, 3 min of 15 min with traffic, 812 of 1 000 requests  "
        "error_rate undecided, latency.p95 run error",
        "r3 progressing  step 2 of 3: weight 5%, 3 min of 15 min with traffic, 812 of 1 000 requests  error_rate pass",
        "r3 promoted  No harm shown. Error ratio 0.30-8.4.",
    ]
    # The open connection, two ticks and two events: the last tick comes after the end.
    assert gateway.read == 5


def test_one_that_ended_otherwise_exits_1_and_one_that_has_ended_is_not_waited_for() -> None:
    gateway = Gateway({**PROMOTED, "phase": "rolled_back"})
    assert gateway.watch().exit_code == 1
    assert gateway.read == 1


def test_a_pause_is_told_and_watched_on() -> None:
    held = {"reason": "srm", "since": "then", "said": "Skewed.", "who": ""}
    gateway = Gateway(VIEW, {**VIEW, "phase": "paused", "pause": held}, PROMOTED, streams=(TICK + TICK,))
    result = gateway.watch()
    assert "  srm: Skewed." in result.stdout.splitlines()
    assert result.exit_code == 0


def test_it_goes_on_when_the_gateway_restarts() -> None:
    gone = UnreachableError("http://127.0.0.1:8003 did not answer")
    gateway = Gateway(VIEW, VIEW, gone, PROMOTED, streams=("", TICK, gone, TICK))
    result = gateway.watch()
    assert result.exit_code == 0, result.output
    assert "did not answer" in result.stderr


def test_a_first_connection_that_fails_ends_it() -> None:
    assert Gateway(UnreachableError("http://127.0.0.1:8003 did not answer")).watch().exit_code == 3


def test_json_is_the_whole_each_time_that_it_changes() -> None:
    gateway = Gateway(VIEW, VIEW, {**VIEW, "weight": 501}, PROMOTED, streams=(TICK + TICK + TICK,))
    result = gateway.watch("--json")
    assert [json.loads(line)["weight"] for line in result.stdout.splitlines()] == [500, 501, 500]


def test_a_screen_is_drawn_in_the_place_of_the_one_before_and_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINES", "6")
    monkeypatch.setenv("COLUMNS", "200")
    drawn: list[str] = []
    screen = rollout_watch.Screen(drawn.append)
    screen.show(VIEW)
    screen.show(PROMOTED)
    assert all(one.startswith("\x1b[H") and one.endswith("\x1b[J") for one in drawn)
    lines = [line.removesuffix("\x1b[K") for line in drawn[0].removeprefix("\x1b[H").splitlines()[:5]]
    assert lines[:4] == rollout_view(VIEW)[:4]
    assert lines[4] == f"... {len(rollout_view(VIEW)) - 4} more lines: headgate rollout show digits"

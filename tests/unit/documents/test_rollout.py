"""Kinds ``RolloutPlan`` and ``Defaults``, and the fields of an endpoint that go with them: read and checked, and refused for now."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from headgate.control.domain.rollout.plan import HARM_GATES, judged_by_trial, resolve
from headgate.documents import (
    Defaults,
    Kinds,
    RolloutPlan,
    json_schema,
    kinds,
    parse,
    parse_each,
    parse_one,
)
from headgate.documents.hours import Hours, parse_hours
from headgate.errors import PolicyInvalid
from tools import reference

CAREFUL = """\
apiVersion: headgate/v1
kind: RolloutPlan
name: careful
hours: "mon-thu 09:00-16:00 Europe/Berlin"
steps:
  - {replay: 10000}
  - {shadow: 10%, for: 1h}
  - {weight: 1%, for: 15m, min_requests: 500}
  - {weight: 25%, for: 1h}
  - {approve: {role: approver}}
  - pause
  - {weight: 50%, for: 2h}
  - promote
rollback_if: {error_rate: 1.5x, latency.p95: {above: 1.2x, ignore_below: 5ms}}
pause_if: {disagreement: 2%}
report: [output_drift]
false_rollbacks: 1%
undecided: {after: 24h, then: pause}
"""
ENDPOINT = """\
apiVersion: headgate/v1
kind: Endpoint
name: digits
versions: {v1: "file:models/digits/1"}
traffic: {champion: v1}
"""
DEFAULTS = """\
apiVersion: headgate/v1
kind: Defaults
rollout: careful
notify: [{webhook: "${env:HOOK_URL}", secret: "${env:HOOK_KEY}", events: [rollback, pause]}]
limits: {timeout: 2s, breaker: {consecutive: 3}}
"""


def plan(text: str) -> RolloutPlan:
    parsed = parse_each(text.encode(), source="x.yaml", root=Path("/"), kinds=Kinds.ALL)
    if parsed.refused is not None:
        raise parsed.refused
    (document,) = parsed.others
    assert isinstance(document.content, RolloutPlan)
    assert (document.kind, document.name) == ("RolloutPlan", document.content.name)
    return document.content


def faults(text: str, which: Kinds = Kinds.ALL) -> dict[str, str]:
    parsed = parse_each(text.encode(), source="x.yaml", root=Path("/"), kinds=which)
    assert parsed.refused is not None, "nothing is wrong with it"
    return {fault["path"]: fault["message"] for fault in parsed.refused.detail["faults"]}


def changed(**fields: str) -> str:
    """The plan with fields replaced, each in one line."""
    lines = CAREFUL.split("\n")
    head = [line for line in lines if line.partition(":")[0] not in fields and not line.startswith("  ")]
    if "steps" not in fields:
        at = head.index("steps:") + 1
        head[at:at] = [line for line in lines if line.startswith("  ")]
    return "\n".join([*head, *(f"{name}: {value}" for name, value in fields.items() if value)])


def test_gates_on_feedback_are_read_with_a_number() -> None:
    for fields in ({"pause_if": "{feedback.clicks: 0.1}"}, {"report": "[feedback.clicks]"}):
        text = changed(**fields)
        assert parse_each(text.encode(), source="x.yaml", root=Path("/"), kinds=Kinds.ALL).refused is None
    (said,) = faults(changed(pause_if="{feedback.clicks: 1.5x}")).values()
    assert said == "must be a number"


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        ("{output_drift.score: 1.5x}", "must be a number"),
        ("{output_drift: 1}", "must be a distance below 1, such as 0.1"),
        ("{output_drift: {above: 0.1, distance: psi}}", "ks"),
        ("{output_drift: {above: 0.1, strict: true}}", "is about error_rate and availability"),
        ("{output_drift: {above: 0.1, ignore_below: 1%}}", "is about latency and error_rate"),
        ("{error_rate: {above: 2x, distance: ks}}", "is about output_drift"),
    ],
)
def test_a_gate_on_outputs_has_a_distance_as_its_limit(gate: str, said: str) -> None:
    (found,) = faults(changed(rollback_if=gate, pause_if="", report="[]")).values()
    assert said in found


def test_a_gate_on_outputs_is_read_written_and_asked_about() -> None:
    text = changed(
        rollback_if="{output_drift.label: {above: 0.1, distance: total_variation}}",
        pause_if="{output_drift: 0.2}",
        report="[output_drift.score]",
    )
    found = plan(text)
    assert found.as_written()["rollback_if"] == {
        "output_drift.label": {"above": 0.1, "distance": "total_variation"}
    }
    assert plan(json.dumps(found.as_written())) == found
    resolved = resolve(found)
    assert judged_by_trial(resolved) == [
        {"gate": "output_drift.label", "above": 0.1, "distance": "total_variation"},
        {"gate": "output_drift", "above": 0.2},
        {"gate": "output_drift.score", "above": None},
    ]
    # What is not said is not in JSON, so that an earlier build reads it.
    assert [set(gate.model_dump(mode="json")) & {"distance"} for gate in resolved.gates] == [
        {"distance"},
        set(),
        set(),
    ]


def test_without_the_switch_they_are_read_and_in_the_schema() -> None:
    text = ENDPOINT + 'rollout: careful\nnotify: [{webhook: "https://example.com/x", events: [promote]}]\n'
    endpoint = parse_one(text.encode(), source="x", root=Path("/")).endpoint
    assert (endpoint.rollout, endpoint.notify[0].events) == ("careful", ("promote",))
    spec = endpoint.spec({"v1": "sha256:1"}, None)
    assert (spec["rollout"], spec["notify"][0]["webhook"]) == ("careful", "https://example.com/x")
    assert {"rollout", "notify"} <= json_schema()["properties"].keys()
    assert kinds() == ["Endpoint", "RolloutPlan", "Defaults"]
    again = parse_one(json.dumps(endpoint.as_written()).encode(), source="x", root=Path("/")).endpoint
    assert again == endpoint


def test_who_expects_endpoints_is_told_of_another_kind() -> None:
    assert faults(ENDPOINT + "---\n" + CAREFUL, Kinds.ENDPOINTS) == {
        "kind": "a document of kind Endpoint is expected here, not RolloutPlan"
    }
    with pytest.raises(PolicyInvalid):
        parse(CAREFUL.encode(), source="x", root=Path("/"))


def test_the_spec_of_an_endpoint_without_them_is_as_it_was() -> None:
    endpoint = parse_one(ENDPOINT.encode(), source="x", root=Path("/")).endpoint
    assert endpoint.spec({"v1": "sha256:1"}, None).keys() == {
        "columns", "labels", "versions", "traffic", "limits", "answers",
    }  # fmt: skip


# === plans ===


def test_a_plan_is_read_and_written_again() -> None:
    found = plan(CAREFUL)
    assert [step.kind for step in found.steps] == [
        "replay", "shadow", "weight", "weight", "approve", "pause", "weight", "promote",
    ]  # fmt: skip
    written = found.as_written()
    assert written["steps"][2] == {"weight": "1%", "for": "15m", "min_requests": 500}
    assert written["steps"][5:] == ["pause", {"weight": "50%", "for": "2h"}, "promote"]
    assert written["rollback_if"] == {
        "error_rate": "1.5x",
        "latency.p95": {"above": "1.2x", "ignore_below": "5ms"},
    }
    assert written["hours"] == "mon-thu 09:00-16:00 Europe/Berlin"
    assert plan(json.dumps(written)) == found


def test_a_plan_is_resolved_without_gaps() -> None:
    found = resolve(plan(CAREFUL))
    assert [step.label for step in found.steps] == [
        "replay 10000", "shadow 10%", "weight 1%", "weight 25%", "approve (approver)", "pause", "weight 50%", "promote",
    ]  # fmt: skip
    assert [(gate.key, gate.effect) for gate in found.gates] == [
        ("error_rate", "rollback"),
        ("latency.p95 run", "rollback"),
        ("latency.p95 reply", "rollback"),
        ("disagreement", "pause"),
        ("output_drift", "report"),
    ]
    assert (found.false_rollbacks, found.undecided_after_ms) == (0.01, 86_400_000)
    assert judged_by_trial(found) == [
        {"gate": "error_rate", "above": 1.5, "strict": False, "ignore_below": None},
        {
            "gate": "latency.p95",
            "above": 1.2,
            "strict": False,
            "ignore_below_ns": 5_000_000,
            "measure": "run",
        },
        {
            "gate": "latency.p95",
            "above": 1.2,
            "strict": False,
            "ignore_below_ns": 5_000_000,
            "measure": "reply",
        },
        {"gate": "output_drift", "above": None},
    ]


def test_absence_never_promotes_and_never_leaves_a_plan_without_gates() -> None:
    found = resolve(
        plan(changed(steps="[{weight: 5%}]", rollback_if="", pause_if="", report="[availability]"))
    )
    assert [step.kind for step in found.steps] == ["weight", "pause", "promote"]
    assert found.notes == ("the plan ends without promote: a person promotes",)
    kept = [gate for gate in found.gates if gate.effect == "rollback"]
    assert kept == [gate for gate in HARM_GATES if gate.gate != "availability"]


FAULTS: list[tuple[dict[str, str], str, str]] = [
    ({"name": "default"}, "name", "is the built-in plan"),
    ({"steps": "[promote]"}, "steps", "without evidence and without a person"),
    ({"steps": "[{weight: 5%}, {weight: 5%}, promote]"}, "steps[1].weight", "more than the weight before it, which is 5%"),
    ({"steps": "[{shadow: 10%}, {shadow: 5%}, {weight: 1%}]"}, "steps[1].shadow", "more than the shadow before it"),
    ({"steps": "[{weight: 5%}, {shadow: 10%}, promote]"}, "steps[1]", "belongs before the first one"),
    ({"steps": "[{weight: 100%}, promote]"}, "steps[0].weight", "leaves the champion nothing to be compared with"),
    ({"steps": "[{weight: 5%}, promote, pause]"}, "steps[1]", "nothing follows a promotion"),
    ({"steps": "[{weight: 5%, shadow: 5%}, promote]"}, "steps[0]", "has shadow and weight; write one of"),
    ({"steps": "[{for: 5m}, promote]"}, "steps[0]", "says nothing; write one of"),
    ({"steps": "[{weight: 1%}, {approve: {}, for: 5m}]"}, "steps[1].for", "belongs to shadow and weight, not to approve"),
    ({"steps": "[wait, {weight: 1%}]"}, "steps[0]", '"wait" is no step'),
    ({"steps": "[{weight: 1%, for: 15}]"}, "steps[0].for", "must be a duration with its unit"),
    ({"steps": "[{weight: 1%, min_requests: 0}]"}, "steps[0].min_requests", "greater than or equal to 1"),
    ({"steps": "[{weight: 1%, fro: 15m}]"}, "steps[0].fro", 'did you mean "for"?'),
    ({"rollback_if": "{}"}, "rollback_if", "leave it out for the gates of the built-in plan"),
    ({"rollback_if": "{eror_rate: 1.5x}"}, "rollback_if.eror_rate", 'did you mean "error_rate"?'),
    ({"rollback_if": "{latency.p100: 1.5x}"}, 'rollback_if["latency.p100"]', "is no quantile"),
    ({"rollback_if": "{latency.p99.90: 1.5x}"}, 'rollback_if["latency.p99.90"]', "is no quantile"),
    ({"rollback_if": "{latency.p95: {above: 2x, strict: true}}"}, 'rollback_if["latency.p95"].strict', "is about error_rate and"),
    ({"rollback_if": "{error_rate: 2%}"}, "rollback_if.error_rate", "a ratio to the champion"),
    ({"rollback_if": "{error_rate: 0.5x}"}, "rollback_if.error_rate.above", "must be 1x to 1000x"),
    ({"rollback_if": "{disagreement: 1.5x}", "pause_if": ""}, "rollback_if.disagreement", 'a share such as "2%"'),
    ({"rollback_if": "{disagreement: 3%}"}, "pause_if.disagreement", "is there twice"),
    ({"report": "[disagreement]"}, "report[0]", "is there twice"),
    ({"rollback_if": "{availability: {above: 2x, measure: run}}"}, "rollback_if.availability.measure", "about latency"),
    ({"rollback_if": "{error_rate: {above: 2x, ignore_below: 5ms}}"}, "rollback_if.error_rate.ignore_below", "0.1%"),
    ({"steps": "[{approve: {}}, promote]"}, "rollback_if.error_rate", "judged in steps with replay or shadow or weight"),
    (
        {"steps": "[{replay: 10}]", "rollback_if": "{availability: 2x}"},
        "rollback_if.availability",
        "judged in steps with weight, and the plan has none",
    ),
    ({"steps": "[{weight: 5%}]"}, "pause_if.disagreement", "judged in steps with replay or shadow"),
    ({"hours": '"mon-thu 09:00-16:00"'}, "hours", "names no time zone"),
    ({"hours": '"mon 16:00-09:00 UTC"'}, "hours", "ends before it begins"),
    ({"hours": '"mon 09:00-09:00 UTC"'}, "hours", "never opens"),
    ({"hours": '"mon 09:00-10:00 Mars/Base"'}, "hours", "is no time zone"),
    ({"hours": '"moon 09:00-10:00 UTC"'}, "hours", "is not a window of hours"),
    ({"false_rollbacks": "50%"}, "false_rollbacks", "must be 0.01% to 20%"),
    ({"undecided": "{after: 0s}"}, "undecided.after", "must be 1ms to 90d"),
    ({"undecided": "{after: 1h, then: promote}"}, "undecided.then", 'must be "pause" or "abort"'),
    ({"weights": "{v8: 5%}"}, "weights", "known here"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "path", "says"), FAULTS)
def test_faults_of_a_plan_say_where_and_what_would_be_right(
    fields: dict[str, str], path: str, says: str
) -> None:
    found = faults(changed(**fields))
    assert path in found, found
    assert says in found[path]


def test_every_fault_is_told_at_once_with_its_line() -> None:
    text = changed(steps="[{weight: 5%}, {weight: 1%}, promote]", false_rollbacks="0%", nmae="x")
    parsed = parse_each(text.encode(), source="x.yaml", root=Path("/"), kinds=Kinds.ALL)
    assert parsed.refused is not None
    lines = {fault["path"]: fault["line"] for fault in parsed.refused.detail["faults"]}
    assert lines.keys() == {"steps[1].weight", "false_rollbacks", "nmae", "pause_if.disagreement"}
    assert lines["nmae"] == text.split("\n").index("nmae: x") + 1


def test_a_name_is_described_once_in_a_file_for_each_kind() -> None:
    same = CAREFUL.replace("name: careful", "name: digits")
    both = parse_each((ENDPOINT + "---\n" + same).encode(), source="x", root=Path("/"), kinds=Kinds.ALL)
    assert both.refused is None
    assert "described twice" in faults(f"{CAREFUL}---\n{CAREFUL}")["name"]
    assert "kind Defaults is described twice" in faults(f"{DEFAULTS}---\n{DEFAULTS}")["kind"]


# === hours ===


def at(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def test_hours_follow_the_clocks_of_their_zone() -> None:
    hours = parse_hours("mon-thu 09:00-16:00, sun 23:00-24:00 Europe/Berlin")
    winter, summer = "2027-01-04", "2027-07-05"  # Mondays
    assert hours.is_open(at(f"{winter}T08:00"))
    assert not hours.is_open(at(f"{winter}T07:59"))
    assert not hours.is_open(at(f"{winter}T15:00"))
    assert hours.is_open(at(f"{summer}T07:00"))
    assert not hours.is_open(at(f"{summer}T14:00"))
    assert not hours.is_open(at("2027-01-08T10:00"))
    assert hours.is_open(at("2027-01-10T22:30"))
    assert hours.minutes_a_week() == 4 * 7 * 60 + 60


def test_days_may_go_over_the_end_of_the_week_and_be_left_out() -> None:
    assert parse_hours("fri-mon 10:00-11:00 UTC").windows[0].days == (4, 5, 6, 0)
    assert parse_hours("10:00-11:00 UTC").minutes_a_week() == 7 * 60
    assert isinstance(parse_hours("10:00-11:00 UTC"), Hours)


# === defaults ===


def test_defaults_fill_what_an_endpoint_does_not_say() -> None:
    parsed = parse_each(DEFAULTS.encode(), source="x", root=Path("/"), kinds=Kinds.ALL)
    defaults = parsed.others[0].content
    assert isinstance(defaults, Defaults)
    bare = parse_one(ENDPOINT.encode(), source="x", root=Path("/")).endpoint
    filled = defaults.filled(bare)
    assert (filled.rollout, filled.notify, filled.limits.timeout) == ("careful", defaults.notify, 2_000)
    text = ENDPOINT + "rollout: default\nnotify: []\nlimits: {timeout: 1s}\n"
    own = defaults.filled(parse_one(text.encode(), source="x", root=Path("/")).endpoint)
    assert (own.rollout, own.notify, own.limits.timeout) == ("default", (), 1_000)
    assert own.limits.breaker is not None
    assert own.limits.breaker.consecutive == 3


@pytest.mark.parametrize(
    ("hook", "says"),
    [
        ('{webhook: "http://example.com", events: [pause]}', "https://"),
        ('{webhook: "https://user@example.com/x", events: [pause]}', "https://"),
        ('{webhook: "${HOOK}", events: [pause]}', "${env:NAME}"),
        ('{webhook: "https://e.com", events: []}', "is empty"),
        ('{webhook: "https://e.com", events: [explosion]}', "must be"),
        ('{webhook: "https://e.com", secret: "plain", events: [pause]}', "${env:NAME}"),
        ('{webhook: "https://e.com", secret: "${file:secret}", events: [pause]}', "${file:/path}"),
        ('{webhook: "https://e.com", timeout: 2m, events: [pause]}', "100ms to 1m"),
    ],
)
def test_a_webhook_is_https_or_a_secret(hook: str, says: str) -> None:
    found = faults(f"{ENDPOINT}notify: [{hook}]\n")
    assert len(found) == 1 or "explosion" in hook, found
    assert any(says in message for message in found.values())


def test_a_webhook_and_its_secret_may_be_in_files() -> None:
    text = (
        ENDPOINT + 'notify: [{webhook: "${file:/run/hook}", secret: "${file:/run/key}", events: [alarm]}]\n'
    )
    (hook,) = parse_one(text.encode(), source="x", root=Path("/")).endpoint.notify
    assert (hook.webhook, hook.secret, hook.timeout) == ("${file:/run/hook}", "${file:/run/key}", 5_000)


# === the schema ===


@pytest.mark.parametrize(("kind", "text"), [("RolloutPlan", CAREFUL), ("Defaults", DEFAULTS)])
def test_the_schema_of_a_kind_has_its_fields_and_no_others(kind: str, text: str) -> None:
    parsed = parse_each(text.encode(), source="x", root=Path("/"), kinds=Kinds.ALL)
    written: dict[str, Any] = parsed.others[0].content.model_dump(mode="json", exclude_none=True)
    schema = json_schema(kind)
    assert written.keys() <= schema["properties"].keys()
    assert schema["additionalProperties"] is False
    assert [name for name, field in schema["properties"].items() if not field.get("description")] == []
    assert "Endpoint" not in schema["$defs"]


def test_the_schema_knows_short_forms_of_steps_and_gates() -> None:
    parts = json_schema("RolloutPlan")["$defs"]
    word, step = parts["RolloutStep"]["anyOf"]
    assert word == {"enum": ["pause", "promote"]}
    assert {"for", "min_requests"} <= step["properties"].keys()
    assert [one["required"] for one in step["oneOf"]] == [
        ["replay"], ["shadow"], ["weight"], ["approve"], ["pause"], ["promote"],
    ]  # fmt: skip
    assert parts["Gate"]["anyOf"][0]["type"] == ["string", "number"]


def test_the_reference_page_has_a_part_for_each_kind() -> None:
    page = "\n".join(reference.document())
    for row in ("| `rollout` |", "| `steps` | yes |", "| `rollback_if.*.above` | yes |", "| `notify` |"):
        assert row in page
    assert page.index("# The Endpoint document") < page.index("## The RolloutPlan document")

"""Judging across the boundary: the trial of a real gateway, told, judged and given thresholds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from boundary.test_trial import SALT, apply, ask, state, trial
from headgate.errors import InvalidArgument
from support import models
from support import native as plane
from support.tools import need_native

GATES = [
    {"gate": "error_rate", "above": 1.5},
    {"gate": "latency.p50", "above": 2.0, "ignore_below_ns": 60_000_000_000, "measure": "reply"},
    {"gate": "availability", "above": 1.5},
]


def question(*gates: dict[str, Any], challenger: str = "v2") -> str:
    return json.dumps({"challenger": challenger, "gates": list(gates or GATES), "false_rollbacks": 0.01})


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[tuple[Any, str]]:
    need_native()
    one = models.place(models.scale(1.0), tmp_path, "scale", "1")
    two = models.place(models.scale(2.0), tmp_path, "scale", "2")
    with plane.running() as (gateway, address):
        apply(gateway, state(one, two))
        yield gateway, address


def test_a_trial_of_a_gateway_is_judged(gateway: tuple[Any, str]) -> None:
    from headgate import _native

    native, address = gateway
    empty = json.loads(_native.judge("null", question()))
    assert {gate["verdict"] for gate in empty["gates"]} == {"undecided"}
    counts = ask(address, 120)
    told = json.dumps(trial(native, whole=True))
    missing = json.loads(_native.judge(told, question()))
    assert [gate["verdict"] for gate in missing["gates"]] == ["pass", "undecided", "pass"]
    found = json.loads(_native.latency_thresholds(told, question()))
    thresholds = found["thresholds"]
    assert thresholds["attempt"] == SALT
    assert thresholds["arms"]["v2"] == {"run_ns": 0, "reply_ns": 60_000_000_000}
    assert native.set_trial_thresholds("scale", json.dumps(thresholds).encode()) == 1
    ask(address, 120)
    answer = json.loads(_native.judge(json.dumps(trial(native, whole=True)), question()))
    assert [gate["verdict"] for gate in answer["gates"]] == ["pass"] * 3
    error_rate, latency, _ = answer["gates"]
    assert error_rate["challenger"] == {"units": counts["v2"], "n": 2 * counts["v2"], "bad": 0}
    assert error_rate["threshold"] == pytest.approx(300)
    assert (latency["challenger"]["n"], latency["challenger"]["bad"]) == (counts["v2"], 0)
    assert answer["srm"]["verdict"] == "pass"
    assert answer["srm"]["challenger"] == counts["v2"]
    assert answer["unit"] == "sticky_key"


def test_a_question_that_makes_no_sense_raises_and_evidence_that_cannot_be_read_is_a_verdict() -> None:
    need_native()
    from headgate import _native

    with pytest.raises(InvalidArgument, match=r"gates\[0\]: above"):
        _native.judge("null", question({"gate": "error_rate", "above": 0.5}))
    for evidence, reason in (("{", "cannot be read"), ('{"format": 9}', "format 9"), ("{}", "no format")):
        answer = json.loads(_native.judge(evidence, question()))
        assert {gate["verdict"] for gate in answer["gates"]} == {"error"}
        assert reason in answer["gates"][0]["reason"]
        with pytest.raises(InvalidArgument, match=reason):
            _native.latency_thresholds(evidence, question())


def test_a_plan_is_told_what_its_steps_can_show() -> None:
    need_native()
    from headgate import _native

    few = json.loads(_native.gate_power(500, 0.01, 0.002, 400.0))
    many = json.loads(_native.gate_power(50_000, 0.05, 0.002, 400.0))
    assert few["detectable"] > 5 > 2 > many["detectable"] > 1
    assert [ratio for ratio, _ in few["requests"]] == [2, 3, 5, 10]
    with pytest.raises(InvalidArgument, match="exposure"):
        _native.gate_power(500, 1.0, 0.002, 400.0)

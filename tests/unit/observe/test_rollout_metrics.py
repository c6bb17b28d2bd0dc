"""The metrics of rollouts on a control plane with a fake data plane: what is on the page while one is under way, and after its end."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headgate.control.reads.rollout_figures import RolloutFigures
from headgate.control.writes.rollout_counts import MOST_GONE, MOST_REASONS, RolloutCounts
from headgate.observe.facts import Facts
from headgate.observe.rollout_metrics import ROLLOUTS
from headgate.store import EventRecord
from unit.control.test_rollouts import ANN, answer, begun, look, on_trial, trial
from unit.control_harness import Gate, document, gateway, run

WHO = {"endpoint": "digits", "version": "v2"}


def page(figures: RolloutFigures) -> dict[str, list[tuple[dict[str, str], float]]]:
    """The samples of each family."""
    facts = Facts([], [], True, 0, {}, rollouts=figures.views, rollout_ends=figures.ends, rollout_pauses=figures.pauses)  # type: ignore[arg-type]  # fmt: skip
    return {one.name: [(dict(labels), value) for labels, value in one.samples(facts)] for one in ROLLOUTS}


async def shown(gate: Gate) -> dict[str, list[tuple[dict[str, str], float]]]:
    found = page(await gate.control.rollout_figures())
    for name, samples in found.items():
        labels = [tuple(sorted(one.items())) for one, _ in samples]
        assert len(set(labels)) == len(labels), f"{name} has a sample twice, which makes the page invalid"
    return found


def phase_of(found: dict[str, Any]) -> list[str]:
    return [labels["phase"] for labels, value in found["headgate_rollout_phase"] if value == 1]


def test_a_rollout_under_way_shows_its_step_and_its_gates(tmp_path: Path) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            await on_trial(gate)
            gate.native.running["digits"] = trial(gate, 30)
            gate.native.answer = answer("undecided", 30)
            gate.native.answer["gates"][0] |= {"interval": [0.5, None], "e_value": 1.8, "threshold": 100.0}
            await look(gate)
            found = await shown(gate)
            assert phase_of(found) == ["progressing"]
            assert len(found["headgate_rollout_phase"]) == 5
            assert found["headgate_rollout_step"] == [(WHO, 2)]
            assert found["headgate_rollout_steps"] == [(WHO, 4)]
            assert found["headgate_rollout_weight_ratio"] == [(WHO, 0.05)]
            assert found["headgate_rollout_step_planned_seconds"] == [(WHO, 60)]
            assert found["headgate_rollout_step_planned_requests"] == [(WHO, 10)]
            assert found["headgate_rollout_waiting_for"][0][1] > 0
            assert found["headgate_rollout_paused"] == []
            gated = {**WHO, "gate": "error_rate", "measure": ""}
            assert found["headgate_rollout_gate_verdict"] == [({**gated, "verdict": "undecided"}, 1)]
            assert found["headgate_rollout_gate_ratio"] == [(gated, 3)]
            assert found["headgate_rollout_gate_ratio_low"] == [(gated, 0.5)]
            assert found["headgate_rollout_gate_ratio_high"] == [(gated, math.inf)]
            assert found["headgate_rollout_gate_e_value"] == [(gated, 1.8)]
            assert found["headgate_rollout_gate_threshold"] == [(gated, 100)]
            assert found["headgate_rollout_gate_requests"] == [
                ({**gated, "arm": "champion"}, 30),
                ({**gated, "arm": "challenger"}, 30),
            ]

    run(work)


def test_a_gate_on_feedback_shows_how_many_answers_have_it(tmp_path: Path) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            await on_trial(gate)
            gate.native.running["digits"] = trial(gate, 30)
            gate.native.answer = answer("undecided", 30)
            arm = gate.native.answer["gates"][0]["champion"]
            covered = {
                "gate": "feedback.sale",
                "champion": {**arm, "coverage": 0.5},
                "challenger": {**arm, "coverage": None},
            }
            gate.native.answer["gates"].append({**gate.native.answer["gates"][0], **covered})
            await look(gate)
            found = (await shown(gate))["headgate_rollout_gate_coverage_ratio"]
            assert found == [({**WHO, "gate": "feedback.sale", "measure": "", "arm": "champion"}, 0.5)]

    run(work)


def test_ends_and_pauses_are_counted_once_by_reason(tmp_path: Path) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            assert all(samples == [] for samples in (await shown(gate)).values())
            await begun(gate)
            await gate.control.rollout_pause("digits", call=ANN)
            found = await shown(gate)
            assert found["headgate_rollout_paused"] == [({**WHO, "reason": "manual"}, 1)]
            await gate.control.rollout_resume("digits", call=ANN)
            await gate.control.rollout_pause("digits", call=ANN)
            await gate.control.rollout_resume("digits", call=ANN)
            await gate.control.rollout_promote("digits", call=ANN)
            await gate.control.rollout_promote("digits", call=ANN)
            gate.native.running["digits"] = trial(gate, 100)
            gate.native.answer = answer("fail")
            await look(gate)
            await gate.control.flush()
            found = await shown(gate)
            assert phase_of(found) == ["rolled_back"]
            pauses = [({"endpoint": "digits", "reason": "manual"}, 2)]
            ends = [({"endpoint": "digits", "phase": "rolled_back", "reason": "error_rate"}, 1)]
            assert (found["headgate_rollout_pauses_total"], found["headgate_rollouts_ended_total"]) == (pauses, ends)  # fmt: skip
            assert found["headgate_rollout_gate_verdict"][0][0]["verdict"] == "fail"
            assert found["headgate_rollout_weight_ratio"] == [(WHO, 0)]
            assert found["headgate_rollout_step"] == [(WHO, 0)]
            assert found["headgate_rollout_steps"] == []
            # Another change of the endpoint is no other end.
            await gate.control.freeze("digits", call=ANN)
            assert (await shown(gate))["headgate_rollouts_ended_total"] == ends
            await gate.control.unfreeze("digits", call=ANN)
            await gate.control.delete("digits", call=ANN, force=True)
            left = {name: samples for name, samples in (await shown(gate)).items() if samples}
            assert left == {"headgate_rollout_pauses_total": pauses, "headgate_rollouts_ended_total": ends}

    run(work)


def test_a_removal_is_an_end_that_is_counted_after_it(tmp_path: Path) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            await begun(gate)
            await gate.control.delete("digits", call=ANN, force=True)
            removed = [({"endpoint": "digits", "phase": "aborted", "reason": "remove"}, 1)]
            for _ in range(2):
                assert (await shown(gate))["headgate_rollouts_ended_total"] == removed
            await gate.apply(document())
            await gate.control.rollout_start("digits", "v2", "careful", call=ANN)
            await gate.control.rollout_abort("digits", call=ANN)
            await gate.control.flush()
            aborted = ({"endpoint": "digits", "phase": "aborted", "reason": "abort"}, 1)
            assert (await shown(gate))["headgate_rollouts_ended_total"] == [*removed, aborted]

    run(work)


def test_endpoints_that_are_gone_are_counted_as_long_as_there_are_few() -> None:
    counts = RolloutCounts()
    names = [f"e{number}" for number in range(MOST_GONE + 3)]
    for name in names:
        counts.saw(replace(event("removed", "r1", "aborted", "remove"), endpoint=name))
    counts.keep(names)
    assert len(counts.ends()) == len(names)
    # The first two are there still, and the next one went first.
    counts.keep(names[:2])
    assert {name for name, *_ in counts.ends()} == {*names[:2], *names[3:]}
    counts.keep(names)
    counts.keep([])
    assert len(counts.ends()) == MOST_GONE


def test_a_rollback_that_the_disk_does_not_take_is_counted_once(tmp_path: Path) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            await on_trial(gate)
            gate.native.running["digits"] = trial(gate, 100)
            gate.native.answer = answer("fail")
            heal = gate.full_disk()
            await look(gate)
            assert (await shown(gate))["headgate_rollouts_ended_total"][0][1] == 1
            heal()
            await gate.flush_healed()
            assert (await shown(gate))["headgate_rollouts_ended_total"][0][1] == 1

    run(work)


def test_a_change_that_failed_counts_nothing() -> None:
    counts = RolloutCounts()
    counts.saw(event("failed", "a", "aborted", "abort"))
    counts.saw(EventRecord("alarm", "", None, None, "", "", {"message": "x"}))
    counts.saw(event("applied", "a", "progressing", None))
    assert (counts.ends(), counts.pauses()) == ({}, {})


def test_counts_of_an_endpoint_that_is_gone_are_dropped_without_a_scrape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headgate.control.writes.rollout_counts.MOST_GONE", 0)

    async def work() -> None:
        async with gateway(tmp_path) as gate:
            await begun(gate)
            await gate.control.rollout_pause("digits", call=ANN)
            await gate.apply(document(name="other"))
            counts = gate.control._rollouts.counts
            await gate.control._rollouts.turn()
            assert counts.pauses() == {("digits", "manual"): 1}
            await gate.control.delete("digits", call=ANN, force=True)
            await gate.control._rollouts.turn()
            assert (counts.pauses(), counts.ends(), counts._newest) == ({}, {}, {})

    run(work)


def test_reasons_are_bounded() -> None:
    counts = RolloutCounts()
    for number in range(2 * MOST_REASONS):
        counts.saw(event("applied", str(number), "rolled_back", f"feedback.{number}"))
    ends = counts.ends()
    assert len(ends) == MOST_REASONS + 1
    assert ends["digits", "rolled_back", "other"] == MOST_REASONS
    assert sum(ends.values()) == 2 * MOST_REASONS


def event(kind: str, rollout: str, phase: str, reason: str | None) -> EventRecord:
    data = {"rollout": {"id": rollout, "phase": phase, "reason": reason}}
    return EventRecord(kind, "", "digits", 1, "ann", "", data)


def test_only_what_is_there_has_samples(tmp_path: Path) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            await begun(gate)
            await gate.apply(document(name="other"))
            found = await shown(gate)
            assert {labels["endpoint"] for labels, _ in found["headgate_rollout_phase"]} == {"digits"}

    run(work)

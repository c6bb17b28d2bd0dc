"""Gates ``output_drift``: they are asked of the judge, their answers are read, and what is said of them has a distance and no ratio."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headgate import _native
from headgate.control.domain.rollout import words
from headgate.control.domain.rollout.compared import distributions, pairs_to_judge
from headgate.control.domain.rollout.observation import judged
from headgate.control.domain.rollout.plan import PlanGate, PlanStep, judged_by_trial
from headgate.control.domain.rollout.preview import MOST_OUTPUTS, Facts, problems, timeline
from headgate.control.domain.rollout.state import GateStatus
from headgate.control.writes.rollout_facts import MOST_ROW_ELEMENTS, outputs_of
from support.models import ROOT
from support.tools import need_native
from unit.rollout_harness import DIGESTS, HOUR, Driver, needs, plan_of

GATE = PlanGate(gate="output_drift.score", effect="rollback", above=0.1)
WEIGHT = PlanStep(kind="weight", slots=2_500, for_ms=HOUR)
PLAN = plan_of(WEIGHT, gates=(GATE,))
FACTS = Facts("v7", DIGESTS, needs, requests_a_day=1_000_000.0, sticky=True, outputs=frozenset({"score"}))


def told(verdict: str = "fail", **fields: Any) -> GateStatus:
    """As the judge answers it."""
    arm = {"units": 900, "n": 900, "bad": 0}
    return GateStatus.model_validate(
        {
            "gate": "output_drift.score", "measure": None, "verdict": verdict, "reason": None, "champion": arm,
            "challenger": arm, "ratio": None, "distance": 0.31, "distance_kind": "ks", "feature": "score.risk",
            "features": 1, "left_out": 0, "interval": [0.14, 0.48], "e_value": 512.0, "threshold": 100.0, "need": None,
            "detectable": 0.22, "caught": [], "since_ms": None, **fields,
        }
    )  # fmt: skip


def test_the_judge_is_asked_about_them_and_its_answer_is_read() -> None:
    need_native()
    asked = judged_by_trial(PLAN)
    question = {"challenger": "v8", "gates": asked, "false_rollbacks": 0.01, "blocks_ms": []}
    answer = json.loads(_native.judge("null", json.dumps(question)))
    (status,) = judged(answer)["gates"]
    assert (status.key, status.verdict, status.apart) == (GATE.key, "undecided", None)


def test_a_status_outlives_json_with_its_distance() -> None:
    status = told()
    assert GateStatus.model_validate_json(status.model_dump_json()) == status
    assert (status.apart, status.differs_most, status.harmful) == (0.31, "score.risk", True)


def test_harm_is_said_with_the_distance_and_what_differs_most() -> None:
    assert words.harm([told()], [GATE]) == (
        "output_drift.score fails: distance of output_drift.score 0.31, limit 0.1, 0.14 to 0.48 (anytime 95 %); "
        "score.risk differs most; champion 900 answers, challenger 900; evidence 512, needed 100."
    )


def test_a_promotion_says_what_would_have_been_caught() -> None:
    passed = told("pass", interval=[0.0, 0.2], distance=0.04)
    assert words.promotion([passed], []) == (
        "No harm shown. Distance of output_drift.score 0 to 0.2 (anytime 95 %). "
        "A distance of 0.22 would have been caught in 80 % of such rollouts."
    )
    # One that is only shown has not looked for a limit, and an interval of everything says nothing.
    shown = told("undecided", interval=[0.0, 0.2], detectable=None)
    assert words.promotion([shown], []) == (
        "No harm shown. Distance of output_drift.score 0 to 0.2 (anytime 95 %)."
    )
    assert words.promotion([told("undecided", interval=[0.0, 1.0])], []) == "No harm shown."


@pytest.mark.parametrize(("reason", "said"), [("so few answers", "so few answers"), (None, "900 answers")])
def test_what_is_missing_is_said(reason: str | None, said: str) -> None:
    status = told("undecided", reason=reason)
    assert words.undecided(status, GATE) == f"output_drift.score is undecided ({said})"


def test_a_distance_beyond_the_limit_is_rolled_back_and_a_pass_is_needed_to_go_on() -> None:
    driver = Driver().start(PLAN)
    driver.look()
    assert driver.weight == 2_500
    driver.look(gates=(told("undecided"),))
    assert (driver.state.phase, driver.weight) == ("progressing", 2_500)
    driver.look(gates=(told("fail"),))
    assert driver.state.phase == "rolled_back"
    assert driver.state.end is not None
    assert driver.state.end.reason == "output_drift.score"


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        (None, "the endpoint has none"),
        (frozenset(), "has no output: its sample needs"),
        (frozenset({"scores"}), 'no output "score"; did you mean "scores"'),
    ],
)
def test_a_start_is_refused_without_bins_for_the_output(outputs: frozenset[str] | None, said: str) -> None:
    facts = replace(FACTS, outputs=outputs)
    (found,) = problems(PLAN, "v8", facts)
    assert (found.path, found.refuses) == ("rollback_if.output_drift.score", True)
    assert said in found.words
    # What is only reported keeps nothing from beginning, and the built-in plan reports all outputs of whoever has a baseline.
    shown = plan_of(WEIGHT, gates=(PlanGate(gate="output_drift", effect="report"),))
    assert problems(shown, "v8", facts) == ()
    assert problems(PLAN, "v8", FACTS) == ()


def test_a_start_is_refused_for_an_output_that_a_trial_does_not_count() -> None:
    facts = replace(FACTS, outputs=frozenset({"logits"}), uncounted=frozenset({"score"}), left_out=3)
    (found,) = problems(PLAN, "v8", facts)
    assert (found.path, found.refuses) == ("rollback_if.output_drift.score", True)
    assert found.words == (
        '"score" is not compared: of the baseline\'s outputs the first 16 columns are, by their names'
    )
    # A gate on all of them is about those that are counted, and says so.
    everything = plan_of(WEIGHT, gates=(PlanGate(gate="output_drift", effect="pause", above=0.1),))
    (found,) = problems(everything, "v8", facts)
    assert (found.refuses, "the first 16 columns" in found.words, "3 are left out" in found.words) == (
        False,
        True,
        True,
    )


def test_a_preview_says_which_distance_a_step_catches() -> None:
    facts = replace(FACTS, beyond=lambda slots, requests: 1_000.0 / requests if slots else 1.0)
    first = timeline(PLAN, "v8", facts)[0]
    assert first.requests is not None
    assert first.smallest_distance == pytest.approx(0.1 + 1_000.0 / first.requests, rel=1e-3)
    assert first.words.endswith("It catches outputs that are 0.2 apart.")
    without = timeline(plan_of(WEIGHT), "v8", facts)[0]
    assert (without.smallest_distance, "apart" in without.words) == (None, False)
    assert timeline(PLAN, "v8", replace(facts, beyond=lambda *_: 1.0))[0].smallest_distance is None


COPIES = plan_of(
    PlanStep(kind="shadow", slots=1_000, for_ms=HOUR, min_requests=100),
    gates=(
        GATE,
        PlanGate(gate="error_rate", effect="rollback", above=1.5),
        PlanGate(gate="output_drift", effect="report"),
    ),
)


def copies(moved: int) -> dict[str, Any]:
    """What the data plane tells of 400 pairs in three bins, of which so many moved from the first to the last one."""
    sums = {
        "information": 400.0, "sums": [-moved, 0.0, moved], "squares": [moved, 0.0, moved], "squares_below": [moved, moved],
    }  # fmt: skip
    values = {"champion": 400, "challenger": 400}
    feature = {"output": "score", "column": "0", "bins": 3, "values": values, "sums": {"challenger": sums}}
    return {
        "output_drift": {"features": [feature], "left_out": 0},
        "disagreement": {"undecided": False},
    }


@pytest.mark.parametrize(("moved", "verdict"), [(200, "fail"), (0, "pass")])
def test_a_step_with_copies_compares_the_answers_to_the_same_requests(moved: int, verdict: str) -> None:
    need_native()
    rollout = Driver().start(COPIES).until(0).state
    found = pairs_to_judge(rollout, copies(moved))
    assert found is not None
    evidence, question = found
    # Two gates are judged on requests and two on copies, whose first beginning has half of its part.
    assert question["false_rollbacks"] == pytest.approx(0.01 / 4 / 2)
    answer = json.loads(_native.judge(json.dumps(evidence), json.dumps(question)))
    stops, shown = distributions(answer, copies(moved))
    assert (stops.key, stops.verdict, stops.apart, stops.threshold) == (GATE.key, verdict, moved / 400, 800.0)
    assert (shown.key, shown.verdict, shown.differs_most) == ("output_drift", "undecided", "score[0]")
    dropped = {**copies(moved), "disagreement": {"undecided": True}}
    assert {one.verdict for one in distributions(answer, dropped)} == {"undecided"}


def test_copies_are_not_asked_about_without_bins_or_in_a_step_with_a_weight() -> None:
    rollout = Driver().start(COPIES).until(0).state
    assert pairs_to_judge(rollout, {**copies(0), "output_drift": None}) is None
    assert pairs_to_judge(rollout, None) is None
    assert pairs_to_judge(Driver().start(PLAN).until(0).state, copies(0)) is None
    # Somebody gave it a weight meanwhile: the requests are judged, and no gate twice.
    assert pairs_to_judge(rollout.changed(weight=500), copies(0)) is None
    without = plan_of(PlanStep(kind="shadow", slots=1_000, for_ms=HOUR))
    assert pairs_to_judge(Driver().start(without).until(0).state, copies(0)) is None


def test_names_of_outputs_are_those_of_the_baseline(tmp_path: Path) -> None:
    features = [
        {"tensor": "X", "column": "age", "direction": "input"},
        {"tensor": "score", "column": "risk", "direction": "output"},
        {"tensor": "label", "column": "0", "direction": "output"},
    ]
    baseline = tmp_path / "baseline.json"
    baseline.write_text(json.dumps({"features": features}))
    assert outputs_of(baseline) == ({"score", "risk", "score.risk", "label"}, frozenset(), 0)
    assert outputs_of(None) == (None, frozenset(), 0)
    features += [{"tensor": "wide", "column": str(at), "direction": "output"} for at in range(20)]
    features += [{"tensor": "z", "column": "risk", "direction": "output"}]
    empty = {"tensor": "a", "column": "0", "direction": "output", "edges": []}
    baseline.write_text(json.dumps({"features": [empty, *features]}))
    # 2 and 14 of 20 are the first 16.
    counted = {"score", "risk", "score.risk", "label", "wide"}
    assert outputs_of(baseline) == (counted, {"z", "z.risk"}, 7)


def test_outputs_that_a_trial_cannot_count_take_no_place(tmp_path: Path) -> None:
    wide = [{"tensor": "open", "column": str(at), "index": at, "direction": "output"} for at in range(16)]
    score = [
        {"tensor": "score", "column": name, "index": at, "direction": "output"}
        for at, name in enumerate("abc")
    ]
    baseline = tmp_path / "baseline.json"
    baseline.write_text(json.dumps({"features": [*wide, *score]}))
    outputs = [
        {"name": "open", "datatype": "FP32", "shape": [-1, -1]},
        {"name": "score", "datatype": "FP32", "shape": [-1, 2]},
    ]
    assert outputs_of(baseline, {"outputs": outputs}) == (
        {"score", "a", "b", "score.a", "score.b"},
        frozenset(),
        0,
    )
    for other in (
        {"datatype": "BYTES"},
        {"shape": [-1, 4097]},
        {"shape": [-1], "any_rank": True},
        {"name": "other"},
    ):
        assert outputs_of(baseline, {"outputs": [{**outputs[1], **other}]}) == (frozenset(), frozenset(), 0)
    assert "open" in (outputs_of(baseline)[0] or ())


def test_a_start_and_the_data_plane_count_the_same_number_of_outputs() -> None:
    source = (ROOT / "rust" / "core" / "src" / "trial" / "outputs.rs").read_text()
    assert f"pub const MAX_WATCHED: usize = {MOST_OUTPUTS};" in source
    sketches = (ROOT / "rust" / "sketch" / "src" / "plan.rs").read_text()
    assert f"pub const MAX_ELEMENTS: usize = {MOST_ROW_ELEMENTS};" in sketches

"""Sweeps: candidates, calibration, simulation, the shortlist, measuring in rounds, and the choice."""

from __future__ import annotations

import math

import pytest

from headgate.bench import sweep
from headgate.bench.predictors import Curve
from headgate.bench.run_settings import Choice, candidates, choice_of
from headgate.bench.sweep import Bracket, Plan, SettingRefusedError, Simulated, Sweep, Tried
from headgate.bench.sweep_simulation import (
    Calibration,
    RequestTimes,
    Wanted,
    calibration,
    fit_curve,
    simulated_rate,
)
from headgate.documents.model import Run
from headgate.errors import InvalidArgument


def test_candidates_fit_the_cores_and_documents_take_them():
    found = list(candidates(4, True, {1: 300, 4: 90}))

    assert Choice("pool", 4, 1, 64, 150) in found
    assert Choice("inline", None, 4) in found
    assert all((one.instances or 1) * one.threads <= 4 for one in found)
    assert {one.max_batch for one in found} == {1, 2, 4, 8, 16, 32, 64}
    for one in found:
        assert choice_of(Run.model_validate(one.written)) == one


def test_without_rows_nothing_is_batched():
    assert {one.max_batch for one in candidates(2, False, {1: 300})} == {1}


def test_a_curve_is_fitted_with_nothing_below_zero():
    assert fit_curve([(1, 1.1), (2, 1.2), (4, 1.4)]) == Curve(pytest.approx(1.0), pytest.approx(0.1))
    assert fit_curve([(1, 2.0)]) == Curve(2.0, 0.0)
    assert fit_curve([(1, 1.0), (2, 2.2), (4, 4.6)]).base == 0
    assert fit_curve([(1, 1.0), (2, 0.9), (4, 0.8)]).row == 0


def test_a_calibration_has_both_times_and_the_most_rows():
    found = calibration(
        [(1, RequestTimes(1.1, 0.2)), (2, RequestTimes(1.2, 0.3)), (4, RequestTimes(1.4, 0.5))]
    )

    assert found.run == Curve(pytest.approx(1.0), pytest.approx(0.1))
    assert found.around == Curve(pytest.approx(0.1), pytest.approx(0.1))
    assert found.most_rows == 4
    assert calibration([(1, RequestTimes(2.0))]).around == Curve(0.0, 0.0)


# === simulation ===


def instant(question):
    """Keeps every objective until batches are full."""
    return dict.fromkeys(("p50_ns", "p90_ns", "p95_ns", "p99_ns"), question["curve"]["base_ns"])


ONE_MS = {1: Calibration(Curve(0.001, 0.0), Curve(0.001, 0.0))}


def test_what_is_around_a_run_takes_its_part_of_the_cores():
    wanted = Wanted(0.99, 0.05, cores=2, io_threads=2)

    # Two cores: 2 ms of a core for each request, however many instances there are; a batch of 16 shares its run.
    assert simulated_rate(Choice("pool", 2), ONE_MS, wanted, instant) == pytest.approx(1000, rel=0.01)
    assert simulated_rate(Choice("inline"), ONE_MS, wanted, instant) == pytest.approx(1000, rel=0.01)
    batched = simulated_rate(Choice("pool", 1, 1, 16), ONE_MS, wanted, instant)
    assert batched == pytest.approx(2 / (0.001 + 0.001 / 16), rel=0.01)


def test_a_request_that_is_larger_than_a_batch_has_a_run_of_its_own():
    calibrations = {1: Calibration(Curve(0.001, 0.0001), Curve(0.0, 0.0))}
    wanted = Wanted(0.99, 0.05, rows=((4, 1.0),), cores=1, io_threads=1)

    assert simulated_rate(Choice("pool", 1), calibrations, wanted, instant) == pytest.approx(
        1 / 0.0014, rel=0.01
    )


def test_an_objective_that_no_rate_keeps_is_a_rate_of_zero():
    def never(_):
        return dict.fromkeys(("p50_ns", "p99_ns"))

    assert simulated_rate(Choice("pool", 1), ONE_MS, Wanted(0.99, 0.01), never) == 0


# === which ones are measured ===


def test_settings_that_differ_in_batches_only_and_hold_the_same_are_measured_once():
    found = [
        Simulated(Choice("pool", 1, 1, 64, 100), 1000.0),
        Simulated(Choice("pool", 1, 1, 16), 995.0),
        Simulated(Choice("pool", 1, 1, 8), 985.0),
        Simulated(Choice("pool", 1, 1, 4), 900.0),
        Simulated(Choice("inline"), 890.0),
        Simulated(Choice(), 880.0),
    ]

    assert sweep.shortlist(found, Choice(), 3) == [
        Choice("pool", 1, 1, 8),
        Choice("pool", 1, 1, 4),
        Choice("inline"),
    ]
    assert Choice() not in sweep.shortlist(found, Choice(), 10)


def tried(choice, *brackets):
    return Tried(choice, [Bracket(*one) for one in brackets])


def test_the_highest_lower_bound_wins_and_on_overlap_the_simpler():
    present, batched, wide = Choice(), Choice("pool", 2, 1, 16), Choice("pool", 2, 1, 64, 100)
    now = tried(present, (500, 525), (490, 515))

    clear, _ = sweep.choose(
        [now, tried(batched, (900, 945), (880, 924)), tried(wide, (910, 955), (870, 915))], present
    )
    equal, reason = sweep.choose([now, tried(batched, (510, 536), (505, 530))], present)
    none, _ = sweep.choose([tried(present, (None, 10)), tried(batched, (None, 10))], present)

    assert clear == batched
    assert equal == present
    assert "the present setting holds 490/s" in reason
    assert none == present


def test_a_setting_of_which_nothing_is_known_is_never_chosen():
    present, batched, unknown = Choice(), Choice("pool", 2, 1, 16), Choice("inline")
    now = tried(present, (500, 525))

    chosen, _ = sweep.choose([now, tried(batched, (900, 945)), tried(unknown, (None, None))], present)
    stays, reason = sweep.choose([tried(present, (None, None)), tried(batched, (900, 945))], present)

    assert chosen == batched
    assert stays == present
    assert "may hold as much" in reason


def test_a_setting_that_was_refused_is_left_out():
    present, batched = Choice(), Choice("pool", 2, 1, 16)
    refused = Tried(batched, [Bracket(900, 945)], refused="no")

    assert sweep.choose([tried(present, (500, 525)), refused], present)[0] == present


# === the whole ===


class Bench:
    """A server whose runs take 1 ms and 0.1 ms a row, and that holds most with batches."""

    def __init__(self, told=True, most_rows=16, refuses=(), undecided=(), fails=True):
        self.told, self.most_rows, self.refuses, self.undecided = told, most_rows, refuses, undecided
        self.fails, self.tested = fails, []
        self.finds, self.said = [], []

    def request_times(self, threads, rows):
        return RequestTimes(0.001 + 0.0001 * rows) if self.told and rows <= self.most_rows else None

    def rows(self):
        return ((1, 1.0),)

    def find(self, choice, number):
        self.finds.append((choice, number))
        if choice.max_batch in self.refuses:
            raise SettingRefusedError("the model takes one row")
        held = 100.0 * choice.max_batch
        return Bracket(held, None if choice.max_batch in self.undecided else held * 1.05)

    def fails_at(self, choice, rate):
        self.tested.append((choice, rate))
        return self.fails

    def say(self, sentence):
        self.said.append(sentence)


def run(bench, plan=None):
    found = Sweep(Choice(), Wanted(0.99, 0.015, cores=2), bench, instant, plan or Plan())
    found.run()
    return found


def test_the_best_three_and_the_present_one_are_measured_in_turn_and_back():
    bench = Bench()

    found = run(bench)

    order = [choice for choice, _ in bench.finds]
    assert order[:4] == order[4:][::-1]
    assert order[0] == Choice()
    assert [number for _, number in bench.finds] == [0] * 4 + [1] * 4
    assert found.choose()[0].max_batch == max(choice.max_batch for choice in order)
    assert found.calibrations[1].run == Curve(pytest.approx(0.001), pytest.approx(0.0001))
    assert [one["present"] for one in found.as_json()["measured"]] == [True, False, False, False]


@pytest.mark.parametrize("fails", [True, False])
def test_the_present_setting_is_tested_at_the_best_rate_if_it_has_no_upper_end(fails):
    bench = Bench(undecided=[1], fails=fails)

    found = run(bench)

    best = max(one.low for one in found.tried)
    assert bench.tested == [(Choice(), best)]
    chosen, reason = found.choose()
    assert (chosen != Choice()) == fails
    assert reason.startswith("it holds " if fails else "the present setting holds 100/s")
    assert found.as_json()["measured"][0]["fail"] == (best if fails else None)


def test_nothing_more_is_tested_if_the_rounds_decide():
    bench = Bench()

    run(bench)

    assert bench.tested == []


def test_fewer_settings_and_rounds_on_wish():
    bench = Bench()

    run(bench, Plan(measured=1, rounds=1))

    assert len(bench.finds) == 2


def test_a_model_of_one_row_gets_no_batches():
    bench = Bench(most_rows=1)

    found = run(bench)

    assert {one.choice.max_batch for one in found.simulated} == {1}


def test_a_setting_that_is_not_served_is_told_and_not_tried_again():
    bench = Bench(refuses=range(2, 65))

    found = run(bench)

    refused = [one for one in found.tried if one.refused]
    assert refused
    assert len(bench.finds) == len(found.tried) + len(found.tried) - len(refused)
    assert found.choose()[0].max_batch == 1
    assert all(math.isinf(one.high) for one in refused)


def test_a_server_that_tells_no_run_times_cannot_be_swept():
    with pytest.raises(InvalidArgument, match="no run times"):
        run(Bench(told=False))

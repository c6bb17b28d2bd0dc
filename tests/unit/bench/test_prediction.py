"""A model is held to what it predicted of rates that it did not see."""

import dataclasses
import math
import random

import pytest

from headgate.bench import prediction, queueing
from headgate.bench.prediction import Estimate, HeldOut, Measured
from headgate.bench.predictors import OwnQueues, SharedQueue, queues
from headgate.bench.queueing import RunTimes
from headgate.errors import InvalidArgument

TIMES = RunTimes.of([0.002, 0.007], [0.9, 0.1])
RATES = [200, 500, 800, 1000, 1200, 1350]


def measured(model, rates=RATES, noise=0.02, seed=1):
    drawn = random.Random(seed)
    return [Measured(rate, model.quantile(rate, 0.99) * math.exp(drawn.gauss(0, noise))) for rate in rates]


@pytest.mark.parametrize(
    ("share", "degrees", "value"),
    [(0.975, 1, 12.7062), (0.975, 2, 4.3027), (0.975, 5, 2.5706), (0.95, 4, 2.1318), (0.975, 30, 2.0423)],
)
def test_student(share, degrees, value):
    assert prediction.student_quantile(share, degrees) == pytest.approx(value, abs=1e-4)


@pytest.mark.parametrize(
    "truth", [SharedQueue(TIMES, 4, 0.0003), OwnQueues(TIMES, 3, 0.0003), SharedQueue(TIMES, 1, 0.0003)]
)
def test_the_kind_of_queue_and_the_number_of_instances_are_found(truth):
    rates = [rate * truth.servers / 4 for rate in RATES]

    found = prediction.fit(measured(truth, rates, noise=0.002), queues(TIMES, 0.0003, 8), 0.99)

    assert found.holds, found.refusals
    assert found.model == truth


def test_intervals_hold_new_measurements_as_often_as_they_say():
    truth = SharedQueue(TIMES, 4)
    held = [
        check.inside
        for seed in range(300)
        for check in prediction.fit(measured(truth, noise=0.03, seed=seed), [truth], 0.99).held_out
    ]

    assert 0.92 <= sum(held) / len(held) <= 0.98


def test_a_server_that_slows_down_under_load_is_refused_by_its_rate():
    """Runs that take longer the more there are: no queue of constant runs is like that."""

    def slowing(rate: float) -> float:
        slower = RunTimes(tuple(s * (1 + (rate / 900) ** 4) for s in TIMES.seconds), TIMES.weights)
        return queueing.response_quantile(slower, rate, 16, 0.99)

    points = [Measured(rate, slowing(rate)) for rate in RATES]

    found = prediction.fit(points, [SharedQueue(TIMES, 4)], 0.99)

    assert not found.holds
    assert "at 1350/s, which was held out" in " ".join(found.refusals)


def test_a_model_that_is_off_by_a_factor_is_refused():
    truth = SharedQueue(TIMES, 4)
    points = [dataclasses.replace(point, seconds=2 * point.seconds) for point in measured(truth)]

    found = prediction.fit(points, [truth], 0.99)

    assert "2.0" in found.refusals[0]
    assert "times what the model says" in found.refusals[0]


def test_an_overloaded_prediction_is_refused_and_has_no_end():
    model = SharedQueue(TIMES, 3)  # keeps up with 1200/s
    points = [Measured(rate, model.quantile(rate, 0.99)) for rate in (200, 400, 600, 800)]

    found = prediction.fit([*points, Measured(1300, 0.02)], [model], 0.99)

    assert "does not keep up" in found.refusals[-1]
    assert found.at(1300).high == math.inf


def test_too_few_rates_and_no_model_are_refused():
    with pytest.raises(InvalidArgument, match="5 steady rates with a known p99 are needed, there are 4"):
        prediction.fit([Measured(rate, 0.01) for rate in (1, 2, 3, 4)], [SharedQueue(TIMES, 1)], 0.99)
    with pytest.raises(InvalidArgument, match="keeps up"):
        prediction.fit(
            [Measured(rate, 0.01) for rate in (1e6, 2e6, 3e6, 4e6, 5e6)], [SharedQueue(TIMES, 1)], 0.99
        )


@pytest.mark.parametrize(
    ("log_error", "inside"), [(0.0, False), (0.02, False), (0.5, True), (math.inf, True)]
)
def test_a_measurement_with_an_error_of_its_own_refuses_less(log_error, inside):
    check = HeldOut(Measured(100, 0.013, log_error), Estimate(0.010, 0.009, 0.0111))

    assert check.inside is inside

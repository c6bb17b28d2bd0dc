"""Plans from results: by a model that held-out rates confirm, else by the measured capacity, and never beyond what was measured."""

import dataclasses
import math

import pytest

from headgate.bench import plan, plan_facts
from headgate.bench.plan import Objective, PlanRequest, make_plan
from headgate.bench.predictors import Batches, BatchSetting, Curve
from headgate.bench.replicas import Demand
from headgate.bench.results import Capacity, SloFacts
from headgate.errors import InvalidArgument
from support import bench_results
from support.bench_results import easy

DEMAND = Demand(6000, headroom=0.2, spare=1)


@pytest.fixture(scope="module")
def measured():
    return easy()


def test_a_measured_server_gets_the_replicas_that_its_queue_needs(measured):
    found = make_plan(measured, PlanRequest(DEMAND, price=0.40, growth=0.03))

    assert found.basis == "model", found.reasons
    assert found.replicas == 7
    assert found.fewest <= 7 <= found.most
    assert found.fit.model.servers == 4
    assert all(check.inside and abs(check.error) < 0.2 for check in found.fit.held_out)
    assert found.share_rate == pytest.approx(1200)
    assert found.cost_per_thousand == pytest.approx(7 * 0.40 / 3600 / 6, rel=1e-9)
    assert found.months_until_full == pytest.approx(math.log(found.holds * 6 / 6000) / math.log(1.03))


def test_the_answer_comes_first_and_names_its_interval(measured):
    lines = list(plan.words(make_plan(measured, PlanRequest(DEMAND, price=0.40, growth=0.03))))

    assert lines[0] == "7 replicas for 6000/s with 20 % headroom and 1 spare, p99 within 15 ms"
    text = "\n".join(lines)
    assert "0.00013 per 1 000 predictions, at 0.4 an hour each" in text
    assert "months at 3 % growth a month" in text
    assert text.count("held out") == 2
    assert "M/G/4" in text


def test_a_replica_is_never_asked_for_more_than_passed(measured):
    found = make_plan(measured, PlanRequest(Demand(100_000)))

    assert found.share_rate <= measured.capacity.passed
    assert found.replicas == math.ceil(100_000 / measured.capacity.passed)
    assert "the highest rate that was measured" in found.reasons[0]


def test_another_objective_than_the_measured_one_is_planned_by_the_model(measured):
    found = make_plan(measured, PlanRequest(DEMAND, Objective(0.99, 0.010)))

    # 1160.7/s is what four instances hold within 10 ms.
    assert found.basis == "model"
    assert found.holds == pytest.approx(1160.7, rel=0.15)
    assert found.replicas >= 8 - 1
    assert found.request.demand.planned / (found.replicas - 1) <= found.holds


def test_a_server_that_no_queue_describes_is_planned_by_what_was_measured(measured):
    def slowed(probe):
        times = 1.0 if probe.rate < 1100 else 2.5
        quantiles = tuple(
            one.model_copy(update={"value_ns": round(one.value_ns * times)})
            for one in probe.answer.response.quantiles
        )
        response = probe.answer.response.model_copy(update={"quantiles": quantiles})
        return probe.model_copy(update={"answer": probe.answer.model_copy(update={"response": response})})

    slower = measured.model_copy(update={"probes": tuple(map(slowed, measured.probes))})

    found = make_plan(slower, PlanRequest(DEMAND))

    assert found.basis == "measured"
    assert found.replicas == math.ceil(7200 / measured.capacity.passed) + 1
    assert found.expected is None
    assert "the model does not hold" in found.reasons[0]
    assert found.as_json()["model"]["holds"] is False
    assert "planned by the measured capacity of 1300/s alone" in "\n".join(plan.words(found))


def test_few_rates_are_enough_for_the_measured_capacity(measured):
    found = make_plan(measured.model_copy(update={"probes": measured.probes[:3]}), PlanRequest(DEMAND))

    assert found.basis == "measured"
    assert "5 steady rates with a known p99 are needed, there are 3" in found.reasons[0]


def test_without_model_and_capacity_there_is_no_plan(measured):
    with pytest.raises(InvalidArgument, match="nothing says what one replica holds .* another objective"):
        make_plan(
            measured.model_copy(update={"probes": measured.probes[:3]}),
            PlanRequest(DEMAND, Objective(0.99, 0.02)),
        )
    with pytest.raises(InvalidArgument, match="no rate passed"):
        make_plan(bench_results.no_capacity(), PlanRequest(DEMAND))
    with pytest.raises(InvalidArgument, match="has no objective"):
        make_plan(bench_results.overloaded_run(), PlanRequest(DEMAND))


def test_a_measurement_that_the_client_limited_is_no_ground_for_a_plan():
    with pytest.raises(InvalidArgument, match=r"the client was the limit .* sent 92.1 %"):
        make_plan(bench_results.client_limited(), PlanRequest(DEMAND, Objective(0.99, 0.015)))


def test_an_objective_that_no_run_meets_has_no_plan(measured):
    with pytest.raises(InvalidArgument, match="not p99 within 5 ms at any rate"):
        make_plan(measured, PlanRequest(DEMAND, Objective(0.99, 0.005)))


def test_unknown_is_null_and_durations_are_whole_nanoseconds(measured):
    found = make_plan(measured, PlanRequest(DEMAND)).as_json()

    assert found["cost_per_thousand"] is None
    assert found["months_until_full"] is None
    assert found["slo"] == {"p99": 15_000_000}
    assert isinstance(found["expected"]["value_ns"], int)
    assert make_plan(measured, PlanRequest(DEMAND, growth=0.0)).as_json()["months_until_full"] is None


def test_run_times_are_those_of_a_low_rate_without_what_is_around_them(measured):
    times, around = plan_facts.run_times(plan_facts.read(measured))

    assert times.mean == pytest.approx(0.0025, rel=0.03)
    assert times.squared_variation == pytest.approx(0.36, abs=0.08)
    assert around == pytest.approx(0.0003, rel=0.1)


def test_a_server_that_tells_no_phases_counts_all_of_its_service_as_run(measured):
    silent = tuple(
        one.model_copy(update={"answer": one.answer.model_copy(update={"phases": bench_results.Phases()})})
        for one in measured.probes
    )

    times, around = plan_facts.run_times(plan_facts.read(measured.model_copy(update={"probes": silent})))

    assert around == 0
    assert times.mean == pytest.approx(0.0028, rel=0.05)


def test_repeated_rates_count_once(measured):
    twice = measured.model_copy(update={"probes": measured.probes + measured.probes})

    once = plan_facts.read(measured).measured(0.99)
    again = plan_facts.read(twice).measured(0.99)

    assert [point.rate for point in again] == [point.rate for point in once]
    assert [point.seconds for point in again] == pytest.approx([point.seconds for point in once])


def test_rows_of_the_mix_are_weighed_by_shares():
    scenario = {"mix": [
        {"endpoint": "a", "share": "80%", "rows": {"1": "90%", "16": "10%"}},
        {"endpoint": "b", "share": "20%"},
    ]}  # fmt: skip

    rows = plan_facts.read(bench_results.result(scenario=scenario)).rows

    assert rows == ((1, pytest.approx(0.92)), (16, pytest.approx(0.08)))


def batching_server(curve, setting):
    """An analytic stand-in for the simulation of batches: responses grow with the settled batch."""

    def simulate(question):
        base, row = question["curve"]["base_ns"], question["curve"]["row_ns"]
        rate, instances = question["rate"] / 1e9, question["setting"]["instances"]
        busy = rate / instances * row
        rows = max(1.0, min(rate / instances * base / max(1 - busy, 1e-3), question["setting"]["max_batch"]))
        run = base + row * rows
        return {
            "p50_ns": round(1.4 * run),
            "p90_ns": round(1.9 * run),
            "p95_ns": round(2 * run),
            "p99_ns": round(2.4 * run),
        }

    return Batches(simulate, setting, curve, around=0.0003)


def test_a_server_that_makes_batches_is_planned_by_the_simulation_of_its_policy(measured):
    """Its measured times are those of its own policy with an unknown curve, which is found among the candidates."""
    truth = batching_server(Curve(0.00225, 0.00025), setting := BatchSetting(instances=1, max_batch=32))

    def batched(probe):
        value = round(truth.quantile(probe.answer.offered_per_second, 0.99) * 1e9)
        quantiles = tuple(
            one.model_copy(update={"value_ns": value}) if one.quantile == 0.99 else one
            for one in probe.answer.response.quantiles
        )
        response = probe.answer.response.model_copy(update={"quantiles": quantiles})
        return probe.model_copy(update={"answer": probe.answer.model_copy(update={"response": response})})

    batching = measured.model_copy(
        update={
            "probes": tuple(map(batched, measured.probes)),
            "capacity": Capacity(
                passed=1300,
                failed=None,
                alpha=0.05,
                at_least=True,
                slo=SloFacts(quantiles={"p99": 15_000_000}),
            ),
        }
    )

    found = make_plan(batching, PlanRequest(DEMAND), setting, truth.simulate)

    assert found.basis == "model", found.reasons
    assert isinstance(found.fit.model, Batches)
    assert found.fit.model.curve.row == pytest.approx(0.00025, rel=0.15)
    assert "batches of at most 32 rows in 1 instance" in found.fit.model.name


def test_a_batch_model_that_does_not_keep_up_is_infinite():
    model = batching_server(Curve(0.001, 0.001), BatchSetting(instances=1, max_batch=4))

    assert model.quantile(900, 0.99) == math.inf
    assert dataclasses.replace(model, rows=((2, 1.0),)).quantile(450, 0.99) == math.inf

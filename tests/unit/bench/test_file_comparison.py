"""Two result files: what makes them comparable, blocks, and the interval of their ratio."""

import math
import random

import pytest

from headgate.bench.comparison import unpaired
from headgate.bench.file_comparison import block_medians, compare_files, differences
from headgate.bench.results import Answer, Machine, Result, ServedModel, Slice, TargetFacts, WarmUp, Window
from headgate.errors import InvalidArgument
from support.exact_tests import EnumeratedStatistics

EXACT = EnumeratedStatistics()
A = [10.1, 10.35, 9.9, 10.2, 10.0, 10.3]
B = [10.5, 10.6, 10.25, 10.9, 10.4, 10.7]


def result(p50_ms, *, digest="sha256:aa", cpu="one", rate="500/s", warm_seconds=2):
    slices = tuple(
        Slice(
            from_ns=at * 10**9,
            due=500,
            p50_ns=None if ms is None else round(ms * 1e6),
            p99_ns=round((ms or 0) * 3e6),
        )
        for at, ms in enumerate([99.0] * warm_seconds + list(p50_ms) + [99.0])
    )
    answer = Answer(slices=slices, warmup=WarmUp(from_ns=warm_seconds * 10**9))
    return Result(
        command="run",
        started_at="2026-01-01T00:00:00Z",
        seed=1,
        scenario={
            "mix": [{"endpoint": "digits"}],
            "load": {"stages": [{"rate": rate, "for": "30s"}]},
            "slo": {"p99": "5ms"},
        },
        target=TargetFacts(url="http://127.0.0.1:1", models=(ServedModel(endpoint="digits", digest=digest),)),
        machine=Machine(cpu=cpu, cpus=2),
        windows=(Window(answer=answer),),
    )


def noisy(scale, seed, seconds=30):
    drawn = random.Random(seed)
    return [3.0 * scale * math.exp(drawn.gauss(0, 0.02)) for _ in range(seconds)]


def test_known_values_give_the_known_p():
    found = unpaired(A, B, "p50", 0.01, EXACT)

    assert found.p == pytest.approx(0.008658, abs=1e-6)
    assert found.interval.low > 1
    assert found.ratio == pytest.approx(1.0398, abs=1e-3)


def test_an_interval_of_four_and_four_covers_as_often_as_it_says():
    truth = 1.2
    drawn = random.Random(5)
    covered = 0
    for _ in range(400):
        a = [math.exp(drawn.gauss(0, 0.1)) for _ in range(6)]
        b = [truth * math.exp(drawn.gauss(0, 0.1)) for _ in range(6)]
        found = unpaired(a, b, "p50", 0.01, EXACT)
        covered += found.interval.low <= truth <= found.interval.high

    assert covered / 400 >= 0.93


def test_too_few_values_bound_nothing():
    found = unpaired([1.0, 1.1], [1.2, 1.3], "p50", 0.01, EXACT)

    assert found.finding == "undecided"
    assert found.as_json()["interval"] == [0.0, None]


def test_a_slower_file_is_found_and_an_equal_one_is_not():
    base = result(noisy(1, 1))

    assert compare_files(base, result(noisy(1, 2)), "p50", 0.03, EXACT).exit_code == 0
    assert compare_files(base, result(noisy(1.1, 3)), "p50", 0.03, EXACT).exit_code == 1
    assert compare_files(base, result(noisy(1.1, 3)), "p99", 0.03, EXACT).exit_code == 1
    assert compare_files(base, result(noisy(1.03, 4)), "p50", 0.03, EXACT).exit_code == 3


def test_the_warm_up_and_the_cut_off_second_do_not_count():
    assert max(block_medians(result([1.0] * 10).windows[0], "p50", "A")) == 1e-3


def test_long_results_are_compared_in_twenty_blocks():
    assert len(block_medians(result([1.0] * 59).windows[0], "p50", "A")) == 29
    assert len(block_medians(result([1.0] * 61).windows[0], "p50", "A")) == 20


def test_a_second_whose_median_got_no_answer_is_slower_than_any():
    medians = block_medians(result([1.0, None, 1.0, 1.0, 1.0, 1.0]).windows[0], "p50", "A")

    assert medians[1] == 3600


def test_too_few_seconds_are_refused():
    with pytest.raises(InvalidArgument, match="A has 4 whole seconds after its warm-up, and at least 5"):
        compare_files(result([1.0] * 4), result([1.0] * 9), "p50", 0.03, EXACT)
    with pytest.raises(InvalidArgument, match="B has no window"):
        compare_files(result([1.0] * 9), result([]).model_copy(update={"windows": ()}), "p50", 0.03, EXACT)


def test_a_metric_that_seconds_do_not_have_is_refused():
    with pytest.raises(InvalidArgument, match="p50 or p99"):
        compare_files(result([1.0] * 9), result([1.0] * 9), "p95", 0.03, EXACT)


@pytest.mark.parametrize(
    ("other", "what"),
    [
        ({"digest": "sha256:bb"}, "the model of digits is sha256:aa in A and sha256:bb in B"),
        ({"cpu": "two"}, "the machine's cpu is one in A and two in B"),
        ({"rate": "600/s"}, "the scenario's load"),
    ],
)
def test_files_of_different_things_are_refused_unless_forced(other, what):
    a, b = result(noisy(1, 1)), result(noisy(1, 2), **other)

    with pytest.raises(InvalidArgument, match="--force") as refused:
        compare_files(a, b, "p50", 0.03, EXACT)
    assert what in refused.value.message
    forced = compare_files(a, b, "p50", 0.03, EXACT, force=True)
    assert forced.exit_code == 0
    assert what in forced.reasons[0]


def test_an_objective_is_no_difference():
    a, b = result([1.0]), result([1.0])
    changed = b.model_copy(update={"scenario": {**b.scenario, "slo": {"p99": "7ms"}}})

    assert list(differences(a, changed)) == []

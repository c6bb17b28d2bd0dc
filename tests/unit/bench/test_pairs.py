"""Two servers in turn: the order, the looks, and how often the answer is wrong."""

import math
import random

import pytest

from headgate.bench.pairs import PairedComparison, PairRules
from headgate.errors import InvalidArgument
from support.exact_tests import EnumeratedStatistics

RATIOS = [1.031, 1.018, 1.044, 0.996, 1.027, 1.039, 1.012, 1.025]
EXACT = EnumeratedStatistics()


def compared(rules, ratio, noise, seed, drift=0.0):
    """A whole comparison of servers of which b takes ``ratio`` times as long; each run is off by ``noise``, and by ``drift`` more."""
    drawn = random.Random(seed)
    state = PairedComparison(rules, "p50", EXACT)
    runs = ""
    while side := state.next_run():
        value = 0.01 * (ratio if side == "b" else 1) * math.exp(drawn.gauss(0, noise) + drift * len(runs))
        runs += side
        state.record(value)
    return state.result(), runs


def test_a_is_measured_against_itself_then_both_in_the_order_abba():
    found, runs = compared(PairRules(max_pairs=8, noise_pairs=2, margin=0.5), 1.5, 0.001, 1)

    assert runs[:4] == "aaaa"
    assert runs[4:] == "abbaabbaabbaabba"
    assert found.finding == "undecided"
    assert len(found.values[0]) == len(found.values[1]) == 8


def test_a_drift_of_the_machine_is_no_difference():
    found, _ = compared(PairRules(margin=0.03), 1.0, 0.001, 1, drift=0.001)

    assert found.finding == "not_slower"
    assert found.ratio == pytest.approx(1, abs=1e-3)


def test_looks_have_equal_parts_of_the_error_rate_and_none_is_in_vain():
    assert PairRules(max_pairs=6).looks == (6,)
    assert PairRules(max_pairs=12).looks == (8, 10, 12)
    assert PairRules(max_pairs=9).looks == (8, 9)
    for pairs in range(6, 21):
        looks = PairRules(max_pairs=pairs).looks
        assert looks[-1] == pairs
        assert all(2 / 2**n <= 0.05 / len(looks) for n in looks)


def test_known_ratios_give_the_known_interval():
    state = PairedComparison(PairRules(margin=0.005, max_pairs=8, alpha=0.05), "p50", EXACT)
    for _ in range(12):
        state.record(1.0)
    for pair, ratio in enumerate(RATIOS):
        for side in ("ab", "ba")[pair % 2]:
            assert state.next_run() == side
            state.record(ratio if side == "b" else 1.0)

    found = state.result()

    assert found.ratio == pytest.approx(1.02390, abs=5e-6)
    # One look only has all of the error rate; the looks of 8 pairs at most are 6 and 8, of which 6 could show nothing at 2.5 %.
    assert state.rules.looks == (8,)
    assert (found.interval.low, found.interval.high) == pytest.approx((1.0109, 1.0366), abs=5e-5)
    assert found.finding == "slower"
    assert found.exit_code == 1


def test_equal_servers_are_called_slower_in_five_of_a_hundred_at_most():
    """At the margin itself, which is the worst case: b is slower by exactly what is allowed."""
    rules = PairRules(margin=0.03)

    equal = [compared(rules, 1.0, 0.012, seed)[0].finding for seed in range(200)]
    at_margin = [compared(rules, 1.03, 0.012, seed)[0].finding for seed in range(200)]

    assert equal.count("slower") == 0
    assert at_margin.count("slower") <= 10
    assert equal.count("not_slower") >= 180


def test_five_percent_slower_is_found_within_twelve_pairs():
    found = [compared(PairRules(margin=0.02), 1.05, 0.01, seed)[0] for seed in range(200)]

    assert [one.finding for one in found].count("slower") >= 180
    assert all(len(one.values[0]) <= 12 for one in found)


def test_a_margin_below_the_noise_is_refused_before_b_is_measured():
    found, runs = compared(PairRules(margin=0.01), 1.0, 0.1, 3)

    assert found.finding == "too_noisy"
    assert found.exit_code == 3
    assert set(runs) == {"a"}
    assert found.noise > 0.01
    assert f"{found.noise * 100:.2g} %" in found.reasons[0]


def test_what_is_not_decided_after_all_pairs_says_so():
    found, runs = compared(PairRules(margin=0.02, max_pairs=6), 1.02, 0.008, 1)

    assert found.finding == "undecided"
    assert found.exit_code == 3
    assert runs.count("b") == 6


def test_a_comparison_that_is_cut_off_keeps_what_it_has():
    state = PairedComparison(PairRules(), "p50", EXACT)
    assert state.result().ratio is None
    for value in [1.0] * 12 + [1.0, 1.1]:
        state.record(value)

    found = state.result()

    assert found.finding == "undecided"
    assert found.ratio == pytest.approx(1.1)
    assert found.as_json()["interval"] == [None, None] or found.as_json()["interval"] == [0.0, None]
    assert state.next_run() == "b"


def test_nothing_is_recorded_after_the_end():
    state = PairedComparison(PairRules(margin=0.5, max_pairs=6), "p50", EXACT)
    while state.next_run():
        state.record(1.0)

    with pytest.raises(InvalidArgument, match="ended"):
        state.record(1.0)


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_a_run_without_a_time_is_refused(value):
    with pytest.raises(InvalidArgument, match="finite"):
        PairedComparison(PairRules(), "p50", EXACT).record(value)


@pytest.mark.parametrize(
    "rules",
    [
        {"margin": 0},
        {"margin": math.nan},
        {"max_pairs": 5},
        {"max_pairs": 21},
        {"noise_pairs": 1},
        {"alpha": 0.001, "max_pairs": 8},
    ],
)
def test_rules_that_are_out_of_range_are_refused(rules):
    with pytest.raises(InvalidArgument):
        PairRules(**rules)

"""The statistics of measurements as Python calls them, against known values."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from headgate.errors import InvalidArgument
from support.tools import need_native


def statistic(function: str, **arguments: object) -> dict[str, Any]:
    """The answer of a statistic."""
    need_native()
    from headgate import _native

    answer: dict[str, Any] = json.loads(_native.bench_statistics(function, json.dumps(arguments)))
    return answer


RATIOS = [1.031, 1.018, 1.044, 0.996, 1.027, 1.039, 1.012, 1.025]


@pytest.mark.parametrize(
    ("function", "arguments", "wanted"),
    [
        ("quantile_ranks", {"n": 1000, "quantile": 0.99, "alpha": 0.05}, {"low": 983, "high": 997}),
        ("quantile_ranks", {"n": 367, "quantile": 0.99, "alpha": 0.05}, {"low": 359, "high": None}),
        ("least_requests", {"quantile": 0.999, "alpha": 0.05}, {"requests": 3688}),
        (
            "mlperf",
            {"slower": 10, "quantile": 0.99, "confidence": 0.99},
            {"requests": 2010, "fixed": 262742, "fixed_rounded": 270336},
        ),
        (
            "evidence",
            {"slower": 0, "faster": 600, "quantile": 0.99},
            {"pass": 93.35294582624381, "fail": 0.141630901},
        ),
        (
            "mser",
            {"values": [14.26, 10.68, 10.06, 9.98, 10.02, 10.06, 10, 10]},
            {"dropped": 3, "settled": True},
        ),
        ("mser5", {"values": [*[9.0] * 5, *[1.0, 1.1] * 20]}, {"dropped": 1, "settled": True}),
        ("mann_kendall", {"values": [4, 5, 7, 6, 9, 8, 11, 12, 14, 13]}, {"s": 39, "z": 3.3988233257996803}),
        ("overload", {"in_flight": list(range(10, 30))}, {"overload": True}),
        ("little_gap", {"integral": 1, "durations": 0}, {"gap": None}),
        (
            "mann_whitney",
            {"first": [10.1, 10.35, 9.9, 10.2, 10, 10.3], "second": [10.5, 10.6, 10.25, 10.9, 10.4, 10.7]},
            {"u": 2.0, "p": 0.008658008658008658, "exact": True},
        ),
        (
            "sign_flip",
            {"differences": [math.log(ratio) for ratio in RATIOS], "alpha": 0.05},
            {
                "mean": math.log(1.0238989112053036),
                "p": 4 / 256,
                "low": math.log(1.0109303586335117),
                "high": math.log(1.0366420702984198),
            },
        ),
        (
            "sign_flip",
            {"differences": [1.0] * 5, "alpha": 0.05},
            {"mean": 1.0, "p": 2 / 32, "low": None, "high": None},
        ),
    ],
)
def test_statistics_give_their_known_values(
    function: str, arguments: dict[str, Any], wanted: dict[str, Any]
) -> None:
    answer = statistic(function, **arguments)
    assert answer.keys() == wanted.keys()
    for key, value in wanted.items():
        assert answer[key] == (pytest.approx(value, rel=1e-6) if isinstance(value, float) else value), key


@pytest.mark.parametrize(
    ("function", "arguments", "said"),
    [
        ("median", {}, r"no statistic is named \"median\"; there are evidence, least_requests"),
        (
            "sign_flip",
            {"differences": [], "alpha": 0.05},
            "sign_flip: differences: 0 of them, between 1 and 22",
        ),
        ("sign_flip", {"differences": [1.0], "alpha": 1}, "alpha: 1 is not between 0 and 1"),
        ("mser", {"values": [1.0] * 3}, "mser: 3 means, at least 4 are needed"),
        ("mann_kendall", {"values": [0.0] * 10_001}, "values: 10001 of them, at most 10000"),
        ("mann_whitney", {"first": [], "second": [1.0]}, "both samples need a value"),
        ("evidence", {"slower": -1, "faster": 1, "quantile": 0.9}, "slower: -1 is no count"),
        ("quantile_ranks", {"n": 10, "quantile": 0.9}, "arguments: missing field `alpha`"),
        ("overload", {"in_flight": [], "more": 1}, "unknown field `more`"),
    ],
)
def test_wrong_arguments_are_refused_in_words(function: str, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        statistic(function, **arguments)


QUESTION: dict[str, Any] = {
    "seed": 1,
    "rate": 2000,
    "requests": 20_000,
    "arrivals": {"kind": "poisson"},
    "rows": [[1, 0.9], [16, 0.1]],
    "setting": {"instances": 2, "max_batch": 32, "max_delay_ns": 500_000, "max_queue": 1000},
    "curve": {"base_ns": 1_000_000, "row_ns": 50_000},
    "run_ns": None,
}


def simulated(**changes: object) -> dict[str, Any]:
    """The answer of a simulation that differs from ``QUESTION`` in these fields."""
    need_native()
    from headgate import _native

    answer: dict[str, Any] = json.loads(_native.simulate_batches(json.dumps(QUESTION | changes)))
    return answer


def test_a_simulation_is_repeatable_and_counts_all_requests() -> None:
    answer = simulated()
    assert answer == simulated() != simulated(seed=2)
    assert (answer["requests"], answer["rejected"]) == (20_000, 0)
    assert 1_050_000 <= answer["p50_ns"] < answer["p90_ns"] < answer["p95_ns"] < answer["p99_ns"]
    assert 1 < answer["mean_batch_rows"] <= 32
    assert 0 < answer["busy_share"] < 1


def test_a_quantile_among_rejected_requests_is_unknown() -> None:
    answer = simulated(
        run_ns=[[4_000_000, 1]],
        setting={"instances": 1, "max_batch": 1, "max_delay_ns": 0, "max_queue": 4},
    )
    assert answer["rejected"] > 15_000
    assert answer["p50_ns"] is None
    assert answer["mean_ns"] > 4_000_000


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rate": 0}, "simulation: rate: from 0.001"),
        ({"arrivals": {"kind": "uniform"}}, "unknown variant `uniform`"),
        ({"more": 1}, "unknown field `more`"),
        ({"setting": {"instances": 1}}, "missing field `max_batch`"),
    ],
)
def test_a_wrong_simulation_is_refused_in_words(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        simulated(**changes)

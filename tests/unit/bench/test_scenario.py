"""Scenarios are read as they are written, and what is wrong is said with its place and what would be right."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.bench import rates, slo
from headgate.bench.loads import check_enough, open_load
from headgate.bench.scenario import Scenario, parse_scenario, scenario_from
from headgate.errors import InvalidArgument, PolicyInvalid

WHOLE = """\
apiVersion: headgate/v1
kind: Scenario
name: evening
mix:
  - {endpoint: fraud, share: 80%, data: "file:day.jsonl", rows: {1: 90%, 16: 10%}}
  - {endpoint: digits, share: 20%, data: synthetic, version: "2", headers: {x-user: me}}
load: {arrivals: gamma, cv: 2.5, stages: [{rate: 200/s, for: 30s}, {ramp: 800/s, for: 60s}]}
slo: {p99: 15ms, p99.9: 40ms, errors: 0.1%}
check: {replies: 2%, timing: 5%}
search: {precision: 3%, budget: 5m, start: 90/min, highest: 5000/s}
plan: {target: 6000/s, headroom: 30%, spare: 2, price_per_hour: 0.40, growth: 3%}
timeout: 2s
max_in_flight: 500
seed: 7
"""


def scenario(text: str) -> Scenario:
    return parse_scenario(text.encode(), "evening.yaml")


def faults(text: str) -> list[tuple[str, int | None, str]]:
    with pytest.raises(PolicyInvalid) as refused:
        scenario(text)
    return [(one["path"], one["line"], one["message"]) for one in refused.value.detail["faults"]]


def test_units_become_numbers() -> None:
    read = scenario(WHOLE)
    assert read.mix[0].rows == {1: 9000, 16: 1000}
    assert read.mix[0].share == 8000
    assert read.slo is not None
    assert read.slo.quantiles == ((0.99, 15_000_000), (0.999, 40_000_000))
    assert read.slo.errors == pytest.approx(0.001)
    assert read.search.start == 1.5
    assert read.search.budget == 300 * 10**9
    assert read.timeout == 2 * 10**9
    assert read.plan is not None
    assert read.plan.growth == pytest.approx(0.03)
    assert open_load(read.load.stages or ()).stages == ((200, 200, 30 * 10**9), (200, 800, 60 * 10**9))


def test_what_is_kept_reads_back_as_the_same() -> None:
    read = scenario(WHOLE)
    assert scenario_from(read.as_written()) == read


def test_json_is_read_as_well() -> None:
    assert scenario(
        '{"apiVersion": "headgate/v1", "kind": "Scenario", "name": "a", "mix": [{"endpoint": "d"}]}'
    )


@pytest.mark.parametrize(
    ("old", "new", "path", "part"),
    [
        ("share: 80%", "share: 80", "mix[0].share", 'needs a percent sign: write "80%"'),
        ("share: 80%", "share: 70%", "mix", "add up to 90%; they must make 100%"),
        ("share: 80%, ", "", "mix[0].share", "is required when several endpoints are asked"),
        ("16: 10%", "16: 20%", "mix[0].rows", "add up to 110%"),
        ("16: 10%", "many: 10%", "mix[0].rows", '"many" is no number of rows'),
        ("data: synthetic", "dat: synthetic", "mix[1].dat", 'did you mean "data"?'),
        ("data: synthetic", "data: postgres", "mix[1].data", "write synthetic, file:PATH"),
        ("day.jsonl", "day.csv", "mix[0].data", "it must end in .json, .jsonl"),
        ("rate: 200/s", "rate: 0/s", "load.stages[0].rate", "write 0.001/s to 10 000 000/s"),
        ("rate: 200/s", "rate: -5/s", "load.stages[0].rate", "is negative"),
        ("rate: 200/s", "rate: .nan", "load.stages[0].rate", "is no rate"),
        ("rate: 200/s", "rate: 200", "load.stages[0].rate", 'needs a unit, such as "200/s"'),
        ("rate: 200/s", "rate: 200/s, ramp: 1/s", "load.stages[0]", "either a rate that is held or a ramp"),
        ("for: 30s", "for: 30", "load.stages[0].for", 'such as "30ms" or "30s"'),
        ("cv: 2.5, ", "", "load.cv", "is required for arrivals: gamma"),
        ("arrivals: gamma, cv: 2.5", "clients: 3", "load.stages", "is about an open loop"),
        ("p99: 15ms", "p99: 15", "slo", 'p99: "15" needs a unit'),
        ("p99: 15ms", "p100: 15ms", "slo.p100", "write p1 to p99.999"),
        ("errors: 0.1%", "erors: 0.1%", "slo.erors", 'did you mean "errors"?'),
        ("errors: 0.1%", "errors: 100%", "slo", "write 0.001% to less than 100%"),
        ("kind: Scenario", "kind: Endpoint", "kind", "a scenario has kind Scenario"),
        ("name: evening", "name: evening\nbudget: 5m", "budget", '"budget" belongs under search'),
        ("timeout: 2s", "timeout: 0s", "timeout", "more than 0"),
        ("seed: 7", "seed: -1", "seed", "greater than or equal to 0"),
        ("timeout: 2s", "timeout: 2s\nprotocol: grpc\ntensors: json", "tensors", "gRPC carries tensors raw"),
    ],
)
def test_a_fault_has_its_place_and_what_would_be_right(old: str, new: str, path: str, part: str) -> None:
    assert old in WHOLE
    found = faults(WHOLE.replace(old, new, 1))
    assert any(one[0] == path and part in one[2] for one in found), found
    assert all(one[1] is not None for one in found)


def test_too_few_requests_for_a_quantile_are_counted() -> None:
    read = scenario(WHOLE)
    with pytest.raises(
        InvalidArgument, match=r"p99\.9: it needs 3 688, and this load gives 900; make it longer"
    ):
        check_enough(read, 900)
    check_enough(read, 3688)


@pytest.mark.parametrize(("quantile", "needed"), [("p99", 368), ("p99.9", 3688), ("p50", 6)])
def test_the_fewest_requests_are_those_whose_interval_has_an_end(quantile: str, needed: int) -> None:
    assert slo.parse_values({quantile: "1s"}).requests_needed()[1] == needed


def test_errors_are_an_objective_of_a_quantile() -> None:
    found = slo.parse_values({"p99": "15ms", "errors": "0.1%"}).objectives(0.05)
    assert [(one["quantile"], one["limit_ns"], one["alpha"]) for one in found] == [
        (0.99, 15_000_000, 0.025),
        (pytest.approx(0.999), 3_600_000_000_000, 0.025),
    ]


def test_words_of_the_command_line_are_the_same_objective() -> None:
    found = slo.split_words(["p99=15ms,errors=0.1%", "p99.9=1s"])
    assert slo.parse_values(found).written() == {"p99": "15ms", "p99.9": "1s", "errors": "0.1%"}
    for wrong in ("p99", "=5ms", "p99=", "p99=1ms,p99=2ms", ""):
        with pytest.raises(ValueError):
            slo.split_words([wrong])


def test_p999_is_how_many_write_it() -> None:
    assert rates.parse_quantile("p999") == rates.parse_quantile("p99.9") == 0.999
    assert rates.parse_quantile("p9999") == 0.9999


@given(st.integers(1, rates.MAX_NS))
def test_durations_read_back(nanoseconds: int) -> None:
    assert rates.parse_ns(rates.format_ns(nanoseconds)) == nanoseconds


@given(st.floats(rates.MIN_RATE, rates.MAX_RATE))
def test_rates_read_back(rate: float) -> None:
    assert rates.parse_rate(rates.format_rate(rate)) == pytest.approx(rate, rel=1e-6)


@pytest.mark.parametrize("text", ["1/s", "60/min", "3600/h"])
def test_rates_have_three_units(text: str) -> None:
    assert rates.parse_rate(text) == pytest.approx(1.0)

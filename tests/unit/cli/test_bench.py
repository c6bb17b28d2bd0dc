"""The measuring commands against a generator in virtual time: what they say, what they keep, and how they exit."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from headgate.bench import plan_facts
from headgate.bench.plan import PlanRequest, make_plan
from headgate.bench.replicas import Demand
from headgate.bench.results import read_result
from headgate.bench.scenario import read_scenario
from headgate.cli import main
from headgate.cli.session import CliEnvironment
from support.oip_server import DIGITS, OipServer, serving
from support.virtual_load import VirtualGenerator, VirtualServer


@pytest.fixture
def server() -> Iterator[OipServer]:
    with serving(OipServer()) as found:
        yield found


@pytest.fixture
def generator() -> VirtualGenerator:
    return VirtualGenerator()


@pytest.fixture
def bench(server: OipServer, generator: VirtualGenerator, tmp_path: Path) -> Any:
    """Runs ``headgate bench`` against the server, in a home without a gateway."""
    variables = {"HEADGATE_STATE": str(tmp_path / "state"), "HOME": str(tmp_path)}
    environment = CliEnvironment(variables, make_generator=lambda: generator)

    def invoke(*words: str, url: bool = True) -> Result:
        where = ["--url", server.url] if url else []
        return CliRunner().invoke(main, ["bench", *words, *where], obj=environment)

    return invoke


# === run ===


def test_a_run_sends_one_load_and_shows_its_numbers(
    bench: Any, generator: VirtualGenerator, server: OipServer
) -> None:
    done = bench("run", "digits", "--rate", "400/s", "--for", "10s", "--seed", "7")
    assert done.exit_code == 0, done.output
    (plan,) = generator.plans
    assert plan["load"]["open"] == {
        "arrivals": {"kind": "poisson"},
        "stages": [{"from": 400.0, "to": 400.0, "for_ns": 10 * 10**9}],
    }
    assert plan["seed"] == 7
    assert plan["targets"][0]["address"] == server.address
    assert {one["path"] for one in plan["requests"]} == {"/v2/models/digits/versions/1/infer"}
    assert sum(one["weight"] for one in plan["requests"]) == pytest.approx(1.0)
    assert generator.selftests[0]["rate"] == 500.0
    lines = done.stdout.splitlines()
    assert lines[0].startswith("Measured: ")
    assert "p99" in lines[0]
    blame = [line.split() for line in lines if line.split()[:1] in (["queue"], ["wire"], ["client"])]
    assert [line[0] for line in blame] == ["client", "wire", "queue"]
    assert "p50" in done.stderr


def test_the_result_of_json_is_the_one_that_is_kept(bench: Any, tmp_path: Path) -> None:
    done = bench(
        "run", "digits", "--rate", "400/s", "--slo", "p99=50ms", "--json", "--out", str(tmp_path / "out")
    )
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    assert printed["schema"] == "headgate.bench/1"
    kept = read_result(tmp_path / "out")
    assert kept.as_json() == printed
    assert kept.verdict == "pass"
    assert kept.target.models[0].version == "1"
    again = read_scenario(tmp_path / "out" / "scenario.yaml")
    assert again.as_written() == kept.scenario
    assert (tmp_path / "out" / "windows.csv").read_text().count("\n") == 2
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"result.json", "scenario.yaml", "windows.csv", "probes.csv"} <= names


def test_a_missed_objective_is_exit_code_1(bench: Any) -> None:
    done = bench("run", "digits", "--rate", "990/s", "--slo", "p99=5ms")
    assert done.exit_code == 1
    assert done.stdout.startswith("The objective is missed")


def test_an_objective_that_stays_undecided_is_exit_code_3_with_the_time_that_would_do(bench: Any) -> None:
    # M/M/1 at 600/s: the p99 is 11.5 ms.
    done = bench("run", "digits", "--rate", "600/s", "--for", "4s", "--slo", "p99=11.6ms")
    assert done.exit_code == 3
    assert "about 30s would do" in done.stdout


def test_too_few_requests_for_a_quantile_are_refused_before_anything_is_sent(
    bench: Any, server: OipServer
) -> None:
    done = bench("run", "digits", "--rate", "30/s", "--for", "30s", "--slo", "p99.9=15ms")
    assert done.exit_code == 2
    assert "p99.9: it needs 3 688, and this load gives 900" in done.stderr
    assert server.asked == []


def test_a_client_that_is_the_limit_is_named_and_the_numbers_are_printed(
    bench: Any, generator: VirtualGenerator
) -> None:
    generator.server = VirtualServer(client_limit=300.0)
    done = bench("run", "digits", "--rate", "400/s")
    assert done.exit_code == 3
    assert done.stdout.startswith("The client was the limit: ")
    assert "note: the self-test at 500/s fell behind: lateness p99 is 9 ms" in done.stdout


@pytest.mark.parametrize(
    "words", [("--rate", "400/s"), ("--clients", "4"), ("--rate", "50/s", "--slo", "p99=5ms")]
)
def test_a_load_of_which_nothing_was_answered_says_so_however_late_the_client_was(
    bench: Any, generator: VirtualGenerator, tmp_path: Path, words: tuple[str, ...]
) -> None:
    generator.server = VirtualServer(failing_share=1.0, client_limit=1.0)
    done = bench("run", "digits", *words, "--out", str(tmp_path / "out"))
    missed = "--slo" in words
    assert done.exit_code == (1 if missed else 3), done.output
    due = read_result(tmp_path / "out").windows[0].answer.counts.due
    said = f"othing was answered well: {due} requests, first error: 500 internal."
    first = done.stdout.splitlines()[0]
    assert first == (f"The objective is missed: n{said}" if missed else f"N{said}")
    assert "the client was the limit in the run" in done.stdout
    assert said[:-1] in (tmp_path / "out" / "report.html").read_text()


def test_failed_requests_are_shown_and_count_as_slower_than_any(
    bench: Any, generator: VirtualGenerator
) -> None:
    generator.server = VirtualServer(failing_share=0.05)
    done = bench("run", "digits", "--rate", "400/s", "--slo", "p99=50ms")
    assert done.exit_code == 1
    assert "p99 ≥ 5 s" in done.stdout
    assert "500 internal" in done.stdout
    assert "\\x1b[31m" in done.stdout
    assert "\x1b[31m" not in done.stdout


def test_a_server_that_never_answers_is_told_before_a_client_that_is_late(
    bench: Any, generator: VirtualGenerator, tmp_path: Path
) -> None:
    generator.server = VirtualServer(failing_share=1.0, client_limit=300.0)
    done = bench("run", "digits", "--rate", "400/s", "--for", "5s", "--out", str(tmp_path / "out"))
    assert done.exit_code == 3
    assert done.stdout.startswith("Nothing was answered well: ")
    assert "nothing was answered well: " in (tmp_path / "out" / "report.html").read_text()
    assert "the client was the limit" in done.stdout


def test_a_closed_loop_and_grpc(bench: Any, generator: VirtualGenerator) -> None:
    done = bench("run", "digits", "--clients", "4", "--for", "3s", "--protocol", "grpc")
    assert done.exit_code == 0, done.output
    (plan,) = generator.plans
    assert plan["load"] == {"closed": {"clients": 4, "for_ns": 3 * 10**9, "requests": None}}
    assert {one["path"] for one in plan["requests"]} == {"/inference.GRPCInferenceService/ModelInfer"}
    assert plan["targets"][0]["protocol"] == "grpc"


@pytest.mark.parametrize("protocol", ["grpc", "grpc_stream"])
def test_an_open_loop_over_grpc_has_a_self_test_over_grpc(
    bench: Any, generator: VirtualGenerator, protocol: str
) -> None:
    done = bench("run", "digits", "--rate", "400/s", "--for", "5s", "--protocol", protocol)
    assert done.exit_code == 0, done.output
    assert [one["protocol"] for one in generator.selftests] == [protocol]
    assert generator.plans[0]["timing_share"] == 0.02
    assert bench("selftest", "--protocol", protocol, url=False).exit_code == 0
    assert generator.selftests[-1]["protocol"] == protocol


def test_grpc_against_a_server_whose_http_takes_json_alone(bench: Any, server: OipServer) -> None:
    server.takes_binary = False
    done = bench("run", "digits", "--clients", "4", "--for", "3s", "--protocol", "grpc")
    assert done.exit_code == 0, done.output
    assert bench("run", "digits", "--clients", "4", "--for", "3s", "--tensors", "binary").exit_code == 2


def test_ctrl_c_drains_keeps_what_was_measured_and_exits_130(
    bench: Any, generator: VirtualGenerator, tmp_path: Path
) -> None:
    def interrupt(elapsed_ns: int) -> None:
        if elapsed_ns == 2 * 10**9:
            os.kill(os.getpid(), signal.SIGINT)

    generator.on_wait = interrupt
    done = bench("run", "digits", "--rate", "400/s", "--out", str(tmp_path / "out"))
    assert done.exit_code == 130, done.output
    assert done.stdout.startswith("Interrupted: ")
    kept = read_result(tmp_path / "out")
    assert kept.verdict == "interrupted"
    assert 0 < kept.windows[0].answer.counts.good < 1000


def test_a_server_that_goes_away_ends_the_run_with_exit_code_3(
    bench: Any, generator: VirtualGenerator, server: OipServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headgate.bench.target import Server

    generator.server = VirtualServer(gone_after_ns=5 * 10**9)
    monkeypatch.setattr(Server, "is_there", lambda _: False)
    done = bench("run", "digits", "--rate", "400/s")
    assert done.exit_code == 3, done.output
    assert done.stdout.startswith("The server is gone")
    assert f"the server at {server.url} stopped answering" in done.stdout


def test_a_second_ctrl_c_ends_at_once(bench: Any, generator: VirtualGenerator) -> None:
    def interrupt(elapsed_ns: int) -> None:
        if elapsed_ns >= 2 * 10**9:
            os.kill(os.getpid(), signal.SIGINT)

    generator.on_wait = interrupt
    done = bench("run", "digits", "--rate", "400/s")
    assert done.exit_code == 130, done.output
    assert done.stdout == ""


# === find ===


def test_find_answers_in_a_sentence(bench: Any, generator: VirtualGenerator, tmp_path: Path) -> None:
    done = bench("find", "digits", "--slo", "p99=15ms", "--budget", "20m", "--out", str(tmp_path / "out"))
    assert done.exit_code == 0, done.output
    sentence = done.stdout.splitlines()[0]
    assert sentence.startswith("digits holds ")
    assert "within p99 <= 15 ms" in sentence
    assert "confirmed at" in sentence
    kept = read_result(tmp_path / "out")
    assert kept.capacity is not None
    assert kept.capacity.passed is not None
    assert kept.capacity.failed is not None
    assert kept.capacity.passed <= 693 * 1.05
    assert kept.capacity.failed >= 693 * 0.95
    assert kept.probes[-1].confirming
    assert kept.windows[0].name == "calibration"


def test_a_rate_that_fails_at_once_is_below_the_lowest(bench: Any, generator: VirtualGenerator) -> None:
    done = bench("find", "digits", "--slo", "p99=150us", "--start", "5/s", "--budget", "60m")
    assert done.exit_code == 1
    assert "digits holds less than 1.25/s" in done.stdout
    # Lower rates have too few requests in what is left of an hour.
    assert "note: 0.625/s was not tried: the 1000 requests that a verdict needs take " in done.stdout


def test_the_highest_rate_passes_and_no_limit_is_invented(bench: Any) -> None:
    done = bench("find", "digits", "--slo", "p99=50ms", "--start", "100/s", "--highest", "200/s")
    assert done.exit_code == 0, done.output
    assert "digits holds at least 200/s within p99 <= 50 ms; no higher rate was tried." in done.stdout


def test_a_budget_without_room_is_undecided(bench: Any) -> None:
    done = bench("find", "digits", "--slo", "p99=15ms", "--start", "690/s", "--budget", "3s")
    assert done.exit_code == 3


@pytest.mark.parametrize("start", ["100/s", "20000/s"])
def test_above_a_limited_client_the_highest_rate_that_both_hold_is_the_answer(
    bench: Any, generator: VirtualGenerator, tmp_path: Path, start: str
) -> None:
    generator.server = VirtualServer(client_limit=200.0)
    done = bench(
        "find",
        "digits",
        "--slo",
        "p99=50ms",
        "--start",
        start,
        "--budget",
        "4m",
        "--out",
        str(tmp_path / "o"),
    )
    assert done.exit_code == 0, done.output
    assert "digits holds at least " in done.stdout
    assert "above that, the client was the limit." in done.stdout
    assert "fell behind" in done.stdout
    kept = read_result(tmp_path / "o")
    assert kept.verdict == "pass"
    assert kept.capacity is not None
    assert kept.capacity.passed is not None
    # A client that is late passes all the same up to 908/s: only what fails is laid to it.
    assert 908 / 1.5 <= kept.capacity.passed <= 908 * 1.05
    assert kept.capacity.failed is None
    assert kept.capacity.confirmed
    late = [one for one in kept.probes if one.why == "the client was the limit"]
    assert late
    assert all(one.answer.elapsed_ns <= 13e9 for one in late if one.rate > 1000), "they end early"


def test_a_confirming_run_at_which_the_client_was_the_limit_names_it(
    bench: Any, generator: VirtualGenerator
) -> None:
    def fall_behind(_elapsed_ns: int) -> None:
        if generator.plans:
            generator.server.client_limit = 50.0
            generator.server.capacity = 50.0

    generator.on_wait = fall_behind
    done = bench("find", "digits", "--slo", "p99=50ms", "--start", "100/s", "--highest", "100/s")
    assert done.exit_code == 3, done.output
    assert "the confirming run at 95/s did not pass" in done.stdout
    assert "the client was the limit in the confirming run at 95/s" in done.stdout


def test_a_rate_with_too_few_requests_for_a_verdict_is_not_tried(
    bench: Any, generator: VirtualGenerator
) -> None:
    words = ("find", "digits", "--slo", "p99=15ms", "--start", "5/s", "--budget")
    done = bench(*words, "3m")
    assert done.exit_code == 3, done.output
    said = "5/s was not tried: the 1000 requests that a verdict needs take 4m of it; --budget "
    assert said in done.stdout
    assert generator.plans == []
    would_do = done.stdout.partition(said)[2].split()[0]
    again = bench(*words, would_do, "--highest", "5/s")
    assert again.exit_code == 0, again.output


def test_a_slow_drift_of_fast_answers_leaves_no_objective_undecided_that_is_met_by_far(
    bench: Any, generator: VirtualGenerator, tmp_path: Path
) -> None:
    generator.server = VirtualServer(capacity=1_000_000.0, drift=2.0)
    words = ("--slo", "p90=2s", "--start", "400/s", "--highest", "400/s", "--budget", "3m")
    done = bench("find", "digits", *words, "--out", str(tmp_path / "out"))
    assert done.exit_code == 0, done.output
    assert "digits holds at least 400/s within p90 <= 2 s" in done.stdout
    (objective,) = read_result(tmp_path / "out").probes[-1].answer.objectives
    assert (objective.slower, objective.inflation) == (0, 2.0), "by what the body shows, V is hundreds"


def test_steady_rates_are_measured_below_the_answer_for_a_plan(
    bench: Any, generator: VirtualGenerator, tmp_path: Path
) -> None:
    words = ["--slo", "p99=15ms", "--steady-rates", "--precision", "20%", "--out", str(tmp_path / "out")]
    done = bench("find", "digits", *words)

    assert done.exit_code == 0, done.output
    kept = read_result(tmp_path / "out")
    assert kept.capacity is not None
    assert kept.capacity.passed is not None
    steady = [one for one in kept.windows if one.rate is not None]
    assert sorted(one.rate for one in steady if one.rate) == pytest.approx(
        [share * kept.capacity.passed for share in (0.3, 0.5, 0.7, 0.85)]
    )
    for one in steady:
        p99 = one.answer.response.quantile(0.99)
        assert p99 is not None
        assert p99.value_ns is not None
        # M/M/1 with 1 000 runs a second, and 0.1 ms around each.
        assert p99.value_ns == pytest.approx(4.605e9 / (1000 - (one.rate or 0)) + 1e5, rel=0.15)
    assert "steady 30 %" in done.stdout
    again = read_scenario(tmp_path / "out" / "scenario.yaml")
    assert again.search.steady_rates
    # What a plan needs is there: five steady rates within three times the objective, and a model that they confirm.
    facts = plan_facts.read(kept)
    assert len(facts.informative(0.99, 0.015)) >= 5
    plan = make_plan(kept, PlanRequest(Demand(6000.0, 0.2, 1)))
    assert plan.basis == "model", plan.reasons
    assert plan.fit is not None
    assert "M/G/1" in plan.fit.model.name
    # 693/s hold the objective, and a replica is asked for no more than was measured.
    assert 12 <= plan.replicas <= 1 + math.ceil(7200 / kept.capacity.passed)


@pytest.mark.parametrize(
    ("behaviour", "code", "part"),
    [
        (VirtualServer(failing_share=0.5), 1, "no steady rates were measured: no rate holds the objective"),
        (VirtualServer(client_limit=250.0), 0, "which no model is fitted to"),
    ],
)
def test_steady_rates_need_a_capacity_and_a_client_that_keeps_up(
    bench: Any, generator: VirtualGenerator, behaviour: VirtualServer, code: int, part: str
) -> None:
    generator.server = behaviour
    done = bench(
        "find", "digits", "--slo", "p99=15ms", "--steady-rates", "--highest", "400/s", "--budget", "3m"
    )

    assert done.exit_code == code, done.output
    assert part in done.stdout


def test_ctrl_c_between_steady_rates_keeps_the_capacity(
    bench: Any, generator: VirtualGenerator, tmp_path: Path
) -> None:
    interrupted: list[int] = []

    def interrupt(elapsed_ns: int) -> None:
        rate = generator.plans[-1]["load"].get("open", {}).get("stages", [{}])[0].get("from", 1e9)
        if rate < 90 and elapsed_ns > 10**8 and not interrupted:
            interrupted.append(elapsed_ns)
            os.kill(os.getpid(), signal.SIGINT)

    generator.on_wait = interrupt
    words = [
        "--slo",
        "p99=50ms",
        "--start",
        "100/s",
        "--highest",
        "200/s",
        "--steady-rates",
        "--budget",
        "2m",
    ]
    done = bench("find", "digits", *words, "--out", str(tmp_path / "out"))

    assert done.exit_code == 130, done.output
    kept = read_result(tmp_path / "out")
    assert kept.capacity is not None
    assert kept.capacity.passed == 200
    assert [one.name for one in kept.windows if one.rate] == ["steady 50 %", "steady 85 %", "steady 30 %"]


def test_a_search_of_which_nothing_was_answered_says_so(bench: Any, generator: VirtualGenerator) -> None:
    generator.server = VirtualServer(failing_share=1.0)
    done = bench("find", "digits", "--slo", "p99=15ms")
    assert done.exit_code == 3
    assert done.stdout.startswith("The server is gone: nothing was answered well: ")
    assert len(generator.plans) == 1


def test_find_needs_an_objective(bench: Any) -> None:
    done = bench("find", "digits")
    assert done.exit_code == 2
    assert "--slo p99=15ms" in done.stderr


# === the server and the data ===


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        (("--url", "https://127.0.0.1:1"), 2, "https is not built yet"),
        (("--url", "http://192.0.2.1:8000"), 2, "--yes-load-remote"),
        (("--url", "ftp://127.0.0.1"), 2, "write http://HOST:PORT"),
        (("--url", "http://127.0.0.1:1"), 3, "Connection refused"),
        (("--spawn", "x.yaml", "--url", "http://127.0.0.1:1"), 2, "without --url"),
        (("--spawn", "no-such.yaml"), 2, "is not there"),
    ],
)
def test_an_address_that_cannot_be_measured(bench: Any, words: tuple[str, ...], code: int, part: str) -> None:
    done = bench("run", "digits", "--rate", "10/s", *words, url=False)
    assert done.exit_code == code, done.output
    assert part in done.stderr


def test_an_unknown_endpoint_gets_a_near_name(bench: Any) -> None:
    done = bench("run", "digit", "--rate", "10/s")
    assert done.exit_code == 4
    assert 'did you mean "digits"?' in done.stderr


@pytest.mark.parametrize(
    ("change", "code", "part"),
    [
        ({"ready_status": 503}, 3, "is not ready"),
        ({"infer_status": 400}, 2, "refuses a first request: 400 the model refuses"),
        ({"infer_status": 503}, 3, "does not take a first request"),
    ],
)
def test_a_server_that_does_not_serve(
    bench: Any, server: OipServer, change: dict[str, Any], code: int, part: str
) -> None:
    for name, value in change.items():
        setattr(server, name, value)
    done = bench("run", "digits", "--rate", "10/s")
    assert done.exit_code == code, done.output
    assert part in done.stderr


def test_data_that_does_not_fit_sends_nothing(bench: Any, server: OipServer, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("[1, 2, 3, 4]\n[1, 2]\n")
    done = bench("run", "digits", "--rate", "10/s", "--data", f"file:{tmp_path / 'rows.jsonl'}")
    assert done.exit_code == 2
    assert 'a row of input "X" must be FP32 [4], got [2]' in done.stderr
    assert not any(method == "POST" for method, _ in server.asked)


def test_a_server_of_others_is_asked_without_a_version_and_without_phases(
    bench: Any, server: OipServer, generator: VirtualGenerator
) -> None:
    server.name = None
    done = bench("run", "digits", "--rate", "400/s", "--json")
    assert done.exit_code == 0, done.output
    assert {one["path"] for one in generator.plans[0]["requests"]} == {"/v2/models/digits/infer"}
    assert generator.plans[0]["timing_share"] == 0.0
    found = json.loads(done.stdout)
    assert found["target"]["server_phases"] is False
    assert any("do not tell where their time went" in one for one in found["reasons"])


def test_the_version_that_answered_first_is_named_if_there_are_several(
    bench: Any, server: OipServer, generator: VirtualGenerator
) -> None:
    server.models["digits"] = {**DIGITS, "versions": ["1", "2"]}
    server.version = "2"
    done = bench("run", "digits", "--rate", "400/s")
    assert {one["path"] for one in generator.plans[0]["requests"]} == {"/v2/models/digits/versions/2/infer"}
    assert "version 2 answered a first request and is measured" in done.stdout


def test_as_traffic_needs_the_admin_api(bench: Any) -> None:
    done = bench("run", "digits", "--rate", "10/s", "--as-traffic")
    assert done.exit_code == 6
    assert "needs the admin API" in done.stderr


def test_a_mix_of_a_scenario_has_its_shares(
    bench: Any, server: OipServer, generator: VirtualGenerator, tmp_path: Path
) -> None:
    server.models["other"] = {**DIGITS, "name": "other"}
    path = tmp_path / "mix.yaml"
    path.write_text(
        "apiVersion: headgate/v1\nkind: Scenario\nname: evening\n"
        "mix: [{endpoint: digits, share: 75%}, {endpoint: other, share: 25%, rows: {2: 100%}}]\n"
        "load: {stages: [{ramp: 100/s, for: 5s}, {rate: 100/s, for: 5s}]}\n"
    )
    done = bench("run", "--scenario", str(path))
    assert done.exit_code == 0, done.output
    (plan,) = generator.plans
    shares: dict[str, float] = {}
    for one in plan["requests"]:
        shares[one["group"]] = shares.get(one["group"], 0.0) + one["weight"]
    assert shares == {"digits": pytest.approx(0.75), "other": pytest.approx(0.25)}
    assert {one["rows"] for one in plan["requests"] if one["group"] == "other"} == {2}
    assert plan["load"]["open"]["stages"][0] == {"from": 1.0, "to": 100.0, "for_ns": 5 * 10**9}
    assert "ENDPOINT" in done.stdout


def test_a_scenario_with_faults_is_exit_code_2_with_each_of_them(bench: Any, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(
        "apiVersion: headgate/v1\nkind: Scenario\nname: a\nmix: [{endpoint: d, share: 80}]\nlod: {}\n"
    )
    done = bench("run", "--scenario", str(path))
    assert done.exit_code == 2
    assert 'line 4: mix[0].share: "80" needs a percent sign' in done.stderr
    assert 'line 5: lod: is not known here; did you mean "load"?' in done.stderr


def test_a_full_disk_costs_no_measurement(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    done = bench("run", "digits", "--rate", "400/s", "--out", str(tmp_path / "out"))
    assert done.exit_code == 3
    assert done.stdout.startswith("Measured: ")
    assert f"the result could not be kept in {tmp_path / 'out'}: No space left on device" in done.stderr


@pytest.mark.parametrize("words", [(), ("--rate", "1/s", "--clients", "2"), ("--for", "3s")])
def test_a_run_needs_one_load(bench: Any, words: tuple[str, ...]) -> None:
    done = bench("run", "digits", *words)
    assert done.exit_code == 2, done.output


def test_a_replay_needs_captured_requests(bench: Any, tmp_path: Path) -> None:
    done = bench("replay", "digits")
    assert done.exit_code == 2
    assert str(tmp_path / "state" / "captures" / "digits") in done.stderr
    assert bench("replay", "digits", "--data", "synthetic").exit_code == 2


def test_the_selftest_says_whether_this_machine_can(bench: Any, generator: VirtualGenerator) -> None:
    assert bench("selftest", "--rate", "1000/s", url=False).exit_code == 0
    generator.server = VirtualServer(client_limit=100.0)
    done = bench("selftest", "--rate", "1000/s", url=False)
    assert done.exit_code == 3
    assert done.stdout.startswith("This machine cannot send 1000/s")

"""``headgate bench compare``: two servers in virtual time, two result files, and what cannot be compared."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from headgate.bench import results
from headgate.bench.comparison import NativeStatistics
from headgate.bench.results import (
    Answer,
    Latency,
    Lateness,
    QuantileEstimate,
    ServedModel,
    Slice,
    WarmUp,
    Window,
)
from headgate.bench.target import Server
from headgate.cli import main
from headgate.cli.session import CliEnvironment
from support import bench_results
from support.oip_server import OipServer, serving
from support.tools import need_native
from support.virtual_load import VirtualGenerator, VirtualRun, VirtualServer

RATE = ("--rate", "200/s", "--for", "60s")


@pytest.fixture(autouse=True)
def native() -> None:
    # The exact tests are the data plane's.
    need_native()


@dataclass
class Bench:
    """Two servers at addresses of their own, and the generator that loads them."""

    a: OipServer
    b: OipServer
    home: Path
    generator: VirtualGenerator = field(default_factory=VirtualGenerator)

    def run(self, *words: str) -> Result:
        environment = CliEnvironment(
            {"HEADGATE_STATE": str(self.home / "state"), "HOME": str(self.home)},
            make_generator=lambda: self.generator,
        )
        return CliRunner().invoke(main, ["bench", "compare", *words], obj=environment)

    def servers(self, *words: str) -> Result:
        return self.run("digits", "--url-a", self.a.url, "--url-b", self.b.url, *words)

    def behave(self, a: VirtualServer, b: VirtualServer) -> None:
        self.generator.servers = {self.a.address: a, self.b.address: b}

    @property
    def order(self) -> str:
        """Which of both was loaded, run after run."""
        names = {self.a.address: "a", self.b.address: "b"}
        return "".join(names[plan["targets"][0]["address"]] for plan in self.generator.plans)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with ExitStack() as stack:
        a, b = (stack.enter_context(serving(OipServer())) for _ in range(2))
        yield Bench(a, b, tmp_path)


# === two servers ===


def test_a_slower_server_is_exit_code_1(bench: Bench) -> None:
    bench.behave(VirtualServer(1000), VirtualServer(600))
    done = bench.servers(*RATE, "--margin", "20%")
    assert done.exit_code == 1, done.output
    lines = done.stdout.splitlines()
    assert lines[0].startswith("p50: B is slower than A by more than the margin of 20 %: +")
    assert [line.split()[:2] for line in lines[3:5]] == [["A", "8"], ["B", "8"]]
    assert "the smallest margin that is decided beside the noise of A" in done.stdout
    assert bench.order == "a" * 12 + "abba" * 4


def test_servers_that_are_alike_are_exit_code_0(bench: Bench) -> None:
    done = bench.servers(*RATE, "--margin", "20%", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["finding"] == "not_slower"
    assert found["interval"][0] < 1 < found["interval"][1] < 1.2
    assert len(found["a_seconds"]) == len(found["b_seconds"])
    assert found["noise"] < 0.2


def test_both_of_a_pair_get_the_same_arrivals_and_each_pair_others(bench: Bench) -> None:
    bench.servers(*RATE, "--margin", "50%", "--seed", "40", "--arrivals", "constant")
    seeds = [plan["seed"] for plan in bench.generator.plans]
    assert seeds[0] == 40
    assert seeds == [40 + at // 2 for at in range(len(seeds))]
    assert {plan["load"]["open"]["arrivals"]["kind"] for plan in bench.generator.plans} == {"constant"}


def test_a_margin_below_the_noise_of_the_same_server_is_refused(bench: Bench) -> None:
    done = bench.servers(*RATE, "--margin", "0.01%")
    assert done.exit_code == 3
    assert "the same server differs from itself so much" in done.stdout
    assert bench.order == "a" * 12


def test_two_versions_of_one_server(bench: Bench) -> None:
    bench.a.models["digits"] = {**bench.a.models["digits"], "versions": ["1", "2"]}
    words = ("--url-a", bench.a.url, "--url-b", bench.a.url, "--version-a", "1", "--version-b", "2")
    done = bench.run("digits", *words, *RATE, "--margin", "30%", "--noise-pairs", "2", "--max-pairs", "6")
    assert done.exit_code in (0, 3), done.output
    paths = [plan["requests"][0]["path"].split("/")[5] for plan in bench.generator.plans]
    assert paths[:8] == ["1"] * 4 + ["1", "2", "2", "1"]


def test_the_rate_and_the_length_may_be_those_of_a_scenario(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "steady.yaml"
    path.write_text(
        "apiVersion: headgate/v1\nkind: Scenario\nname: steady\nmix: [{endpoint: digits}]\n"
        "load: {stages: [{rate: 150/s, for: 40s}]}\n"
    )
    words = ("--scenario", str(path), "--url-a", bench.a.url, "--url-b", bench.b.url, "--margin", "50%")
    assert bench.run(*words).exit_code == 0
    (stage,) = bench.generator.plans[0]["load"]["open"]["stages"]
    assert stage == {"from": 150.0, "to": 150.0, "for_ns": 40 * 10**9}


def test_b_that_does_not_hold_the_rate_is_slower(bench: Bench) -> None:
    bench.behave(VirtualServer(), VirtualServer(failing_share=0.7))
    done = bench.servers(*RATE, "--margin", "50%", "--timeout", "2s")
    assert done.exit_code == 1, done.output
    assert "requests no good answer at 200/s, so that its p50 is not known" in done.stdout


def test_a_that_does_not_hold_the_rate_is_no_measure(bench: Bench) -> None:
    bench.behave(VirtualServer(failing_share=0.7), VirtualServer())
    done = bench.servers(*RATE)
    assert done.exit_code == 2
    assert "compare at a rate that A holds" in done.stderr


def test_a_client_that_stays_the_limit_decides_nothing(bench: Bench) -> None:
    bench.behave(VirtualServer(), VirtualServer(client_limit=100.0))
    done = bench.servers(*RATE, "--margin", "50%", "--quantile", "p99")
    assert done.exit_code == 3, done.output
    assert (
        "the client was the limit while B was measured: requests were sent late by 9 ms at p99" in done.stdout
    )
    # The run of B is made again five times.
    assert bench.order == "a" * 13 + "b" * 6


def test_a_client_that_is_late_with_a_few_requests_decides_the_median(bench: Bench) -> None:
    bench.generator.server = VirtualServer(client_limit=100.0)
    done = bench.servers(*RATE, "--margin", "50%")
    assert done.exit_code == 0, done.output
    assert "note: the self-test at 250/s fell behind" in done.stdout


def test_a_run_that_the_client_limited_once_is_made_again(bench: Bench) -> None:
    class OnceLate(VirtualGenerator):
        def load_run(self, plan: str, bodies: Any) -> VirtualRun:
            run = super().load_run(plan, bodies)
            run.limited = len(self.plans) == 14
            return run

    bench.generator = OnceLate()
    done = bench.servers(*RATE, "--margin", "50%", "--quantile", "p90")
    assert done.exit_code == 0, done.output
    seeds = [plan["seed"] for plan in bench.generator.plans[12:16]]
    assert seeds == [seeds[0]] * 3 + [seeds[0] + 1]


def test_ctrl_c_is_130_with_what_was_measured(bench: Bench) -> None:
    def interrupt(elapsed_ns: int) -> None:
        # Once: a second one ends at once.
        if len(bench.generator.plans) == 18 and elapsed_ns == 2 * 10**9:
            os.kill(os.getpid(), signal.SIGINT)

    bench.generator.on_wait = interrupt
    done = bench.servers(*RATE, "--margin", "50%", "--json")
    assert done.exit_code == 130, done.output
    found = json.loads(done.stdout)
    assert found["finding"] == "undecided"
    assert len(found["a_seconds"]) == 3
    assert found["reasons"][0] == "interrupted; what was measured is kept"


def test_a_server_that_goes_away_is_named(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.behave(VirtualServer(), VirtualServer(gone_after_ns=5 * 10**9))
    monkeypatch.setattr(Server, "is_there", lambda _: False)
    done = bench.servers(*RATE)
    assert done.exit_code == 3, done.output
    assert f"B: the server at {bench.b.url} stopped answering" in done.stdout


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        (("--rate", "200"), 2, '--rate: "200" needs a unit, such as "200/s"'),
        (("--rate", "0/s"), 2, "--rate: "),
        (("--rate", "nan"), 2, "write 0.001/s to 10 000 000/s"),
        ((), 2, "two servers are compared at one rate: --rate 200/s"),
        (("--rate", "200/s", "--for", "2s"), 2, "its first 2 s are the warm-up; write 3s or more"),
        (("--rate", "200/s", "--for", "10"), 2, "--for: "),
        (("--rate", "20/s", "--quantile", "p99"), 2, "p99: it needs 368 after the warm-up"),
        (("--rate", "200/s", "--quantile", "p75"), 2, "p75 is not compared; write one of p50, p90, p95"),
        (("--rate", "200/s", "--quantile", "p100"), 2, "--quantile: "),
        (("--rate", "200/s", "--margin", "5"), 2, '--margin: "5" needs a percent sign'),
        (("--rate", "200/s", "--margin", "0%"), 2, "the margin 0.000% is not in range"),
        (("--rate", "200/s", "--max-pairs", "5"), 2, "5 pairs are not in range: write 6 to 20"),
        (("--rate", "200/s", "--noise-pairs", "1"), 2, "1 pairs for the noise are not in range"),
        (("--rate", "200/s", "--force"), 2, "--force is about two results"),
        (("--rate", "200/s", "--data", "file:rows.txt"), 2, "is no file of requests"),
        (("--rate", "90000/s", "--for", "60m"), 2, "a load has at most"),
    ],
)
def test_bad_input_sends_nothing(bench: Bench, words: tuple[str, ...], code: int, part: str) -> None:
    done = bench.servers(*words)
    assert done.exit_code == code, done.output
    assert part in done.stderr
    assert bench.generator.plans == []


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        (("digits",), 2, "A and B are the same"),
        (("digits", "--url-a", "https://127.0.0.1:1", "--url-b", "{b}"), 2, "https is not built yet"),
        (("digits", "--url-a", "{a}", "--url-b", "http://192.0.2.1:8000"), 2, "--yes-load-remote"),
        (("digits", "--url-a", "{a}", "--url-b", "http://127.0.0.1:1"), 3, "Connection refused"),
        (("digits", "--url-a", "{a}", "--spawn-b", "no-such.yaml"), 2, "is not there"),
        (("digit", "--url-a", "{a}", "--url-b", "{b}"), 4, 'did you mean "digits"?'),
        (("--url-a", "{a}", "--url-b", "{b}"), 2, "name the endpoint that is measured"),
        (("one", "two", "three"), 2, "two results are compared, or two servers"),
    ],
)
def test_servers_that_cannot_be_compared(bench: Bench, words: tuple[str, ...], code: int, part: str) -> None:
    done = bench.run(*(word.format(a=bench.a.url, b=bench.b.url) for word in words), "--rate", "200/s")
    assert done.exit_code == code, done.output
    assert part in done.stderr
    assert bench.generator.plans == []


def test_data_that_fits_no_input_of_b_sends_nothing(bench: Bench, tmp_path: Path) -> None:
    digits = bench.b.models["digits"]
    bench.b.models["digits"] = {**digits, "inputs": [{"name": "X", "datatype": "FP32", "shape": [-1, 5]}]}
    (tmp_path / "rows.jsonl").write_text("[1, 2, 3, 4]\n")
    done = bench.servers(*RATE, "--data", f"file:{tmp_path / 'rows.jsonl'}")
    assert done.exit_code == 2
    assert 'a row of input "X" must be FP32 [5], got [4]' in done.stderr
    assert bench.generator.plans == []


def test_a_server_that_is_not_ready_is_exit_code_3(bench: Bench) -> None:
    bench.b.ready_status = 503
    done = bench.servers(*RATE)
    assert done.exit_code == 3
    assert "is not ready" in done.stderr


# === two results ===


def ran(factor: float = 1.0, **changes: Any) -> results.Result:
    """A run of 30 s whose seconds wander by some percent around 3 ms, ``factor`` times."""
    wander = (1.0, 1.02, 0.97, 1.01, 0.99, 1.03, 0.98)
    slices = tuple(
        Slice(
            from_ns=at * 10**9,
            due=500,
            p50_ns=round(3e6 * factor * wander[at % 7]),
            p99_ns=round(9e6 * factor * wander[at % 7]),
        )
        for at in range(33)
    )
    answer = Answer(slices=slices, warmup=WarmUp(from_ns=2 * 10**9))
    made = bench_results.result(
        command="run", windows=(Window(name="run", rate=500.0, answer=answer),), verdict="measured"
    )
    return made.model_copy(update=changes)


@pytest.fixture
def files(bench: Bench, tmp_path: Path) -> Any:
    """Compares two results that are written to files."""

    def compared(a: results.Result, b: results.Result, *words: str) -> Result:
        for name, result in (("a", a), ("b", b)):
            (tmp_path / f"{name}.json").write_text(json.dumps(result.as_json()))
        return bench.run(str(tmp_path / "a.json"), str(tmp_path / "b.json"), *words)

    return compared


@pytest.mark.parametrize(
    ("factor", "words", "code", "said"),
    [
        (1.0, (), 0, "p50: B is not slower than A by more than the margin of 3 %: +0.0 %"),
        (1.2, (), 1, "p50: B is slower than A by more than the margin of 3 %: +2"),
        (1.2, ("--margin", "50%"), 0, "p50: B is not slower than A by more than the margin of 50 %"),
        (1.03, (), 3, "p50: it is not decided whether B is slower"),
        (1.2, ("--quantile", "p99"), 1, "p99: B is slower"),
    ],
)
def test_two_results_are_compared(
    files: Any, factor: float, words: tuple[str, ...], code: int, said: str
) -> None:
    done = files(ran(), ran(factor), *words)
    assert done.exit_code == code, done.output
    assert done.stdout.startswith(said)
    assert "p-value of their being equal" in done.stdout


def test_results_of_other_things_are_refused_unless_forced(files: Any) -> None:
    model = ServedModel(endpoint="digits", version="v2", digest="sha256:other")
    a = ran()
    others = [
        ran(target=a.target.model_copy(update={"models": (model,)})),
        ran(machine=a.machine.model_copy(update={"cpu": "another"})),
        ran(scenario={**a.scenario, "mix": [{"endpoint": "other"}]}),
    ]
    for other, what in zip(
        others, ("the model of digits", "the machine's cpu", "the scenario's mix"), strict=True
    ):
        refused = files(a, other)
        assert refused.exit_code == 2, refused.output
        assert what in refused.stderr
        assert "--force compares anyway" in refused.stderr
        forced = files(a, other, "--force")
        assert forced.exit_code == 0, forced.output
        assert f"note: {what}" in forced.stdout


def test_a_result_whose_client_was_late_decides_nothing(files: Any) -> None:
    late = ran(1.2)
    answer = late.windows[0].answer.model_copy(
        update={
            "lateness": Lateness(p50_ns=10_000, p99_ns=2_000_000),
            "response": Latency(
                quantiles=(
                    QuantileEstimate(quantile=0.5, value_ns=3_600_000),
                    QuantileEstimate(quantile=0.99, value_ns=10_800_000),
                )
            ),
        }
    )
    late = late.model_copy(update={"windows": (late.windows[0].model_copy(update={"answer": answer}),)})
    done = files(ran(), late, "--quantile", "p99")
    assert done.exit_code == 3, done.output
    assert "the client was the limit in B" in done.stdout
    assert "requests were sent late by 2 ms at p99, more than 10% of the p99 of 10.8 ms" in done.stdout
    assert done.stdout.splitlines()[0].endswith("]")
    assert files(ran(), late, "--quantile", "p99", "--force").exit_code == 1
    assert files(ran(), late).exit_code == 1


def test_a_result_that_ended_early_decides_nothing(files: Any) -> None:
    done = files(ran(verdict="interrupted", reasons=("interrupted; what was sent is awaited",)), ran())
    assert done.exit_code == 3
    assert "A ended early: interrupted; what was sent is awaited" in done.stdout


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--quantile", "p95"), "p95 is not in the seconds of a result; write p50 or p99"),
        (("--rate", "200/s"), "--rate is about servers"),
        (("--url-b", "http://127.0.0.1:1"), "--url-b is about servers"),
        (("--margin", "-3%"), "--margin: "),
    ],
)
def test_bad_input_of_two_results(files: Any, words: tuple[str, ...], part: str) -> None:
    done = files(ran(), ran(), *words)
    assert done.exit_code == 2, done.output
    assert part in done.stderr


def test_searches_and_short_runs_are_not_compared(files: Any, bench: Bench, tmp_path: Path) -> None:
    searched = files(ran(), ran(command="find", probes=(bench_results.probe(500, 0),)))
    assert searched.exit_code == 2
    assert "B is a search" in searched.stderr
    window = ran().windows[0]
    answer = window.answer.model_copy(update={"slices": window.answer.slices[:6]})
    short = files(ran(windows=(window.model_copy(update={"answer": answer}),)), ran())
    assert short.exit_code == 2
    assert "A has 3 whole seconds after its warm-up" in short.stderr
    missing = bench.run(str(tmp_path / "a.json"), str(tmp_path / "none.json"))
    assert missing.exit_code == 2
    assert "none.json cannot be read" in missing.stderr
    one = bench.run(str(tmp_path / "a.json"))
    assert one.exit_code == 2
    assert "is a file: two results are compared" in one.stderr


def test_the_exact_tests_of_the_data_plane_are_used() -> None:
    a, b = [10.1, 10.35, 9.9, 10.2, 10.0, 10.3], [10.5, 10.6, 10.25, 10.9, 10.4, 10.7]
    assert NativeStatistics().mann_whitney(a, b) == pytest.approx(0.008658, abs=1e-6)

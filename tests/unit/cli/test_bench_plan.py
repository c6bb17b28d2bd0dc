"""``headgate bench plan`` and ``report`` with result files of a simulated queue: words, files, exit codes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from headgate.bench import results
from headgate.bench.report.merge import merged_answer
from headgate.bench.results import ServedModel, TargetFacts, Window, read_result
from headgate.cli import main
from headgate.cli.session import CliEnvironment
from support import bench_results
from support.oip_server import OipServer, serving
from support.virtual_load import VirtualGenerator

Bench = Callable[..., Result]
PLAN = {"target": "6000/s", "headroom": "20%", "spare": 1, "price_per_hour": 0.4, "growth": "3%"}


def bench(*words: str) -> Result:
    return CliRunner().invoke(main, ["bench", *words], obj=CliEnvironment({}))


@pytest.fixture(scope="session")
def measured() -> results.Result:
    return bench_results.easy()


@pytest.fixture
def file(tmp_path: Path) -> Callable[[results.Result], str]:
    """Writes a result, and gives its path."""

    def written(result: results.Result, name: str = "result.json") -> str:
        path = tmp_path / name
        path.write_text(json.dumps(result.as_json()))
        return str(path)

    return written


# === plan ===


def test_a_plan_says_how_many_replicas_first(measured: results.Result, file: Any) -> None:
    done = bench("plan", file(measured), "--target", "6000/s", "--price-per-hour", "0.40", "--growth", "3%")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == "7 replicas for 6000/s with 20 % headroom and 1 spare, p99 within 15 ms"
    assert "0.00013 per 1 000 predictions" in done.stdout
    assert "months at 3 % growth a month" in done.stdout
    assert done.stdout.count("held out") == 2


def test_the_plan_of_the_scenario_is_read_and_options_go_before_it(
    measured: results.Result, file: Any
) -> None:
    planned = file(measured.model_copy(update={"scenario": {**measured.scenario, "plan": PLAN}}))
    assert bench("plan", planned, "-o", "name").stdout == "7\n"
    found = json.loads(bench("plan", planned, "--spare", "3", "--headroom", "0%", "--json").stdout)
    assert found["spare"] == 3
    assert found["replicas"] == 5 + 3
    assert found["price_per_hour"] == 0.4
    assert found["growth_per_month"] == pytest.approx(0.03)
    assert [check["inside"] for check in found["model"]["holdout"]] == [True, True]


def test_a_plan_is_kept_with_the_result_and_shown_on_its_page(
    measured: results.Result, file: Any, tmp_path: Path
) -> None:
    done = bench("plan", file(measured), "--target", "6000/s", "--out", str(tmp_path / "out"))
    assert done.exit_code == 0, done.output
    kept = read_result(tmp_path / "out")
    assert kept.plan is not None
    assert kept.plan["replicas"] == 7
    assert kept.model == kept.plan["model"]
    assert kept.probes == measured.probes
    assert "6000/s need 7 replicas, 1 of them spare." in (tmp_path / "out" / "report.html").read_text()


def test_a_model_that_does_not_hold_is_refused_aloud(measured: results.Result, file: Any) -> None:
    few = measured.model_copy(update={"probes": measured.probes[:3]})
    done = bench("plan", file(few), "--target", "6000/s")
    assert done.exit_code == 0, done.output
    assert "note: no model: " in done.stdout
    assert "5 steady rates with a known p99 are needed, there are 3" in done.stdout
    assert "planned by the measured capacity of 1300/s alone" in done.stdout


def test_a_rate_that_passed_is_planned_with_if_the_client_was_the_limit_above_it(
    measured: results.Result, file: Any
) -> None:
    client = measured.client.model_copy(update={"limited": True, "reasons": ("lateness p99 is 9 ms",)})
    few = measured.model_copy(update={"probes": measured.probes[:3], "client": client})
    done = bench("plan", file(few), "--target", "6000/s")
    assert done.exit_code == 0, done.output
    assert "the client was the limit above 1300/s: a replica may hold more than is planned" in done.stdout


@pytest.mark.parametrize("rates", [3, 8])
def test_a_capacity_that_no_longer_run_confirmed_is_said_to_be(
    rates: int, measured: results.Result, file: Any
) -> None:
    assert measured.capacity is not None
    capacity = measured.capacity.model_copy(update={"confirmed": False, "confirmed_rate": None})
    doubtful = measured.model_copy(update={"probes": measured.probes[:rates], "capacity": capacity})
    for result, said in ((doubtful, True), (measured, False)):
        done = bench("plan", file(result), "--target", "6000/s")
        assert done.exit_code == 0, done.output
        assert ("note: no longer run confirmed that a replica holds 1300/s" in done.stdout) is said


@pytest.mark.parametrize(
    ("make", "code", "part"),
    [
        (bench_results.no_capacity, 1, "no rate passed in it"),
        (bench_results.client_limited, 3, "the client was the limit of this measurement"),
        (bench_results.overloaded_run, 3, "the result has no capacity; `headgate bench find` measures one"),
    ],
)
def test_a_result_that_says_nothing_of_a_replica_has_no_plan(
    make: Callable[[], results.Result], code: int, part: str, file: Any
) -> None:
    done = bench("plan", file(make()), "--target", "60/s", "--slo", "p99=15ms")
    assert done.exit_code == code, done.output
    assert part in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ((), "--target 6000/s"),
        (("--target", "6000"), 'target: "6000" needs a unit'),
        (("--target", "0/s"), 'target: "0/s" is not in range: write 0.001/s to 10 000 000/s'),
        (("--target", "-5/s"), 'target: "-5/s" is negative: write 0.001/s to 10 000 000/s'),
        (("--target", "nan"), 'target: "nan" is no rate: write 0.001/s to 10 000 000/s'),
        (("--target", "6/s", "--headroom", "20"), 'headroom: "20" needs a percent sign'),
        (("--target", "6/s", "--headroom", "1001%"), 'headroom: "1001%" is not in range: write 0% to 1000%'),
        (("--target", "6/s", "--headroom", "-5%"), 'headroom: "-5%" is not a share such as "20%"'),
        (("--target", "6/s", "--headroom", "nan%"), 'headroom: "nan%" is not a share such as "20%"'),
        (("--target", "6/s", "--growth", "3"), 'growth: "3" needs a percent sign'),
        (("--target", "6/s", "--spare", "-1"), "spare: "),
        (("--target", "6/s", "--price-per-hour", "nan"), "price_per_hour: "),
        (("--target", "6/s", "--price-per-hour", "-1"), "price_per_hour: "),
        (("--target", "6/s", "--slo", "p100=3ms"), '--slo: "p100" is not in range: write p1 to p99.999'),
        (("--target", "6/s", "--slo", "p99=3ms,p50=1ms"), "--slo: a plan is for one quantile"),
        (("--target", "6/s", "--slo", "errors=1%"), "--slo: a plan is for one quantile"),
        (("--target", "6/s", "--run", "max_batch=x"), '--run: max_batch: "x" is no number of at least 1'),
        (("--target", "6/s", "--run", "max_batsh=2"), '--run: "max_batsh=2" is not known: write max_batch='),
        (("--target", "6/s", "--run", "max_batch=2,max_delay=1"), "--run: "),
    ],
)
def test_bad_input_of_a_plan_is_exit_code_2_with_what_would_be_right(
    words: tuple[str, ...], part: str, measured: results.Result, file: Any
) -> None:
    done = bench("plan", file(measured), *words)
    assert done.exit_code == 2, done.output
    assert part in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("command", ["plan", "report"])
@pytest.mark.parametrize(
    ("content", "part"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"\xff\xfe", "is not JSON; a result of `headgate bench --out` is expected"),
        (b"[1]", "its schema is not headgate.bench/1"),
        (b'{"schema": "headgate.bench/2"}', "its schema is not headgate.bench/1"),
        (b'{"schema": "headgate.bench/1", "seed": 1}', "is damaged: command: "),
    ],
)
def test_a_file_that_is_no_result_is_exit_code_2(
    command: str, content: bytes | None, part: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.json"
    if content is not None:
        path.write_bytes(content)
    done = bench(command, str(path))
    assert done.exit_code == 2, done.output
    assert part in done.stderr


# === batches ===


def test_batches_are_those_of_the_settings_that_the_result_has() -> None:
    from headgate.bench.planning import batch_setting, parse_run
    from headgate.bench.predictors import BatchSetting

    def of(run: dict[str, Any] | None, **changes: Any) -> Any:
        model = ServedModel(endpoint="digits", version="1", run=run)
        target = TargetFacts(url="http://127.0.0.1:1", cpus=(0, 1, 2), models=(model,), **changes)
        return batch_setting(bench_results.result(target=target))

    assert of({"max_batch": 8, "max_delay": "500us"}) == BatchSetting(3, 8, 0.0005)
    assert of({"max_batch": 8, "instances": 2}) == BatchSetting(2, 8, 0.0)
    assert of({"max_batch": 8, "placement": "inline"}) is None
    assert of({}) is None
    assert of(None) is None
    known = bench_results.result()
    assert batch_setting(known, parse_run("max_batch=4, instances=1,max_delay=1ms")) == BatchSetting(
        1, 4, 1e-3
    )
    two = known.target.model_copy(update={"models": known.target.models * 2})
    assert batch_setting(known.model_copy(update={"target": two})) is None


# === find with a plan ===


@pytest.fixture
def find(tmp_path: Path) -> Any:
    """Runs ``headgate bench find`` of a scenario with a plan against the virtual queue."""

    def invoke(slo: str, *words: str) -> Result:
        path = tmp_path / "evening.yaml"
        path.write_text(
            "apiVersion: headgate/v1\nkind: Scenario\nname: evening\nmix: [{endpoint: digits}]\n"
            f"slo: {{p99: {slo}}}\nplan: {{target: 2000/s, headroom: 10%, spare: 1}}\n"
        )
        variables = {"HEADGATE_STATE": str(tmp_path / "state"), "HOME": str(tmp_path)}
        environment = CliEnvironment(variables, make_generator=VirtualGenerator)
        with serving(OipServer()) as server:
            asked = ["bench", "find", "--scenario", str(path), "--url", server.url, *words]
            return CliRunner().invoke(main, asked, obj=environment)

    return invoke


def test_find_plans_if_its_scenario_asks_for_it(find: Any, tmp_path: Path) -> None:
    done = find("15ms", "--start", "550/s", "--highest", "600/s", "--out", str(tmp_path / "out"))
    assert done.exit_code == 0, done.output
    kept = read_result(tmp_path / "out")
    assert kept.plan is not None
    assert kept.capacity is not None
    assert kept.capacity.passed is not None
    # Four replicas of 600/s for 2200/s, and a spare one.
    assert kept.plan["replicas"] == 5
    assert "5 replicas for 2000/s with 10 % headroom and 1 spare, p99 within 15 ms" in done.stdout


def test_a_search_that_allows_no_plan_says_why(find: Any) -> None:
    done = find("150us", "--start", "5/s", "--budget", "60m", "--json")
    assert done.exit_code == 1, done.output
    found = json.loads(done.stdout)
    assert found["plan"] is None
    assert any(one.startswith("no plan: nothing says what one replica holds") for one in found["reasons"])


# === report ===


def test_a_report_shows_the_result_and_writes_its_files(
    measured: results.Result, file: Any, tmp_path: Path
) -> None:
    done = bench("report", file(measured), "--out", str(tmp_path / "all"))
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("evening holds 1300/s within p99 <= 15 ms")
    names = {path.name for path in (tmp_path / "all").iterdir()}
    assert names == {
        "result.json", "scenario.yaml", "report.html", "windows.csv", "probes.csv", "latency.hlog"
    }  # fmt: skip
    assert read_result(tmp_path / "all") == measured
    again = bench("report", str(tmp_path / "all"), "--json")
    assert json.loads(again.stdout) == measured.as_json()


@pytest.mark.parametrize(("option", "left"), [("--html", "report.html"), ("--csv", "windows.csv")])
def test_page_or_tables_alone(
    option: str, left: str, measured: results.Result, file: Any, tmp_path: Path
) -> None:
    done = bench("report", file(measured), option, "--out", str(tmp_path / "out"))
    assert done.exit_code == 0, done.output
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"report.html", "windows.csv"} & names == {left}


def parts() -> tuple[results.Result, results.Result]:
    """A load that two hosts sent a half of each."""
    windows = [
        Window(name="run", rate=400, for_ns=20 * 10**9, answer=bench_results.answer(400, seed=seed))
        for seed in (3, 4)
    ]
    first, second = (
        bench_results.result(command="run", windows=(window,), verdict="measured") for window in windows
    )
    return first, second


def test_merged_parts_have_the_quantiles_of_all_requests(file: Any, tmp_path: Path) -> None:
    first, second = parts()
    names = [file(first, "one.json"), file(second, "two.json")]
    done = bench("report", *names, "--merge", "--out", str(tmp_path / "out"), "--json")
    assert done.exit_code == 0, done.output
    kept = read_result(tmp_path / "out")
    assert kept.as_json() == json.loads(done.stdout)
    whole = merged_answer([first.windows[0].answer, second.windows[0].answer])
    assert kept.windows[0].answer == whole
    assert whole.counts.due == first.windows[0].answer.counts.due + second.windows[0].answer.counts.due


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("{one}", "{two}"), "--merge puts the parts of one load together"),
        (("{one}", "--merge"), "at least two load hosts"),
        (("{one}", "{other}", "--merge"), "another seed"),
        (("{find}", "{find}", "--merge"), "a search decides its rates from one host's data"),
        (("{one}", "--html"), "--html needs --out"),
        (("{one}", "--html", "--csv", "--out", "x"), "exclude each other"),
        ((), "RESULT"),
    ],
)
def test_bad_input_of_a_report(
    words: tuple[str, ...], part: str, measured: results.Result, file: Any
) -> None:
    first, second = parts()
    files = {
        "one": file(first, "one.json"),
        "two": file(second, "two.json"),
        "other": file(second.model_copy(update={"seed": 7}), "other.json"),
        "find": file(measured, "find.json"),
    }
    done = bench("report", *(word.format(**files) for word in words))
    assert done.exit_code == 2, done.output
    assert part in done.stderr


@pytest.mark.parametrize("command", ["plan", "report"])
def test_a_full_disk_costs_no_answer(
    command: str, measured: results.Result, file: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> int:
        raise OSError(28, "No space left on device")

    path = file(measured)
    monkeypatch.setattr(os, "fsync", full)
    more = ("--target", "6000/s") if command == "plan" else ()
    done = bench(command, path, *more, "--out", str(tmp_path / "out"))
    assert done.exit_code == 3
    assert done.stdout.startswith(("7 replicas", "evening holds"))
    assert "No space left on device" in done.stderr

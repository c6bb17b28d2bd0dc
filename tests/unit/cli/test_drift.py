from __future__ import annotations

from typing import Any

import pytest

from unit.cli.fake_admin import FakeAdmin, call, ok


def feature(column: str, verdict: str, **more: Any) -> dict[str, Any]:
    return {
        "version": "v1", "direction": "input", "tensor": "X", "column": column, "offered": 1000, "observed": 900,
        "effective": 740.4, "reference": {"n": 5}, "verdict": verdict,
    } | more  # fmt: skip


def decided(column: str, verdict: str, psi: float, stat: float, critical: float) -> dict[str, Any]:
    test = {"tolerated_psi": 0.1, "alpha": 1e-4, "stat": stat, "critical": critical, "p": 0.0, "dof": 9}
    bounds = {"lower": 0.1, "upper": 0.2}
    return feature(column, verdict, psi=psi, js_distance_nats=0.1, ks=bounds, wasserstein=bounds, test=test)


REPORT = {
    "endpoint": "digits",
    "window": {"seconds": 3600, "from": 0, "to": 3600},
    "baseline": "sha256:00",
    "features": [
        decided("calm", "pass", 0.01, 3.0, 90.0),
        *[feature(f"X[{at}]", "undecided", effective=12.0) for at in range(150)],
        feature("unknown", "undecided", reference=None),
        decided("moved", "fail", 0.3, 100.0, 90.0),
        decided("broken", "fail", 0.9, 900.0, 90.0),
    ],
}


def run(*arguments: str) -> Any:
    return call(FakeAdmin({"GET /v1/endpoints/digits/drift": ok(REPORT)}), "drift", "digits", *arguments)


def test_what_matters_most_comes_first_and_what_is_undecided_is_folded() -> None:
    result = run()
    assert result.exit_code == 0, result.output
    head, columns, *rows = result.stdout.splitlines()
    assert head == "digits  last 3600 s  baseline sha256:00  2 fail, 1 pass, 151 undecided"
    assert columns.split()[:6] == ["VERDICT", "VERSION", "SIDE", "FEATURE", "PSI", "TEST"]
    assert [row.split()[3] for row in rows[:3]] == ["X.broken", "X.moved", "X.calm"]
    assert rows[3:] == [
        "150 undecided: too few rows (--all shows them)",
        "1 undecided: no baseline has them (--all shows them)",
    ]


def test_psi_stands_beside_the_statistic_that_decided() -> None:
    broken = run().stdout.splitlines()[2]
    assert "0.9000 (tolerated 0.1)  900 > 90 " in broken
    assert "3 <= 90" in run().stdout
    assert broken.split()[-3:] == ["1000", "900", "740"]


def test_all_rows_or_those_of_one_verdict_are_shown_when_asked() -> None:
    everything = run("--all").stdout
    assert len(everything.splitlines()) == 2 + len(REPORT["features"])
    assert " X[3] " in everything
    only = run("--only", "fail").stdout.splitlines()
    assert [row.split()[3] for row in only[2:]] == ["X.broken", "X.moved"]
    assert run("--only", "undecided", "-o", "name").stdout.count("X[") == 150
    assert run("--only", "fail", "--all").exit_code == 2


@pytest.mark.parametrize("more", [[], ["--only", "pass"], ["--json"]])
def test_check_fails_on_any_feature_whatever_is_shown(more: list[str]) -> None:
    assert run("--check", *more).exit_code == 1


def test_the_window_is_sent_only_when_it_is_given() -> None:
    fake = FakeAdmin({"GET /v1/endpoints/digits/drift": ok(REPORT | {"features": []})})
    assert "nothing was sketched" in call(fake, "drift", "digits", "--check").stdout
    assert "window" not in fake.last.url.params
    call(fake, "drift", "digits", "--window", "1h")
    assert fake.last.url.params["window"] == "1h"


def test_a_report_without_its_baseline_says_why() -> None:
    fault = "drift is not measured: its baseline has other bytes than were kept"
    report = {**REPORT, "baseline": None, "features": [], "fault": fault}
    shown = call(FakeAdmin({"GET /v1/endpoints/digits/drift": ok(report)}), "drift", "digits").stdout
    assert shown.splitlines()[1] == fault

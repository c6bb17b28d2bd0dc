"""Drift reports: parsing the data plane's JSON, and the table for people."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headgate.drift import Bracket, parse_report
from headgate.errors import Internal


def feature(column: str, verdict: str, psi: float | None, **more: Any) -> dict[str, Any]:
    out = {
        "version": "v1",
        "direction": "input",
        "tensor": "X",
        "column": column,
        "offered": 1000,
        "observed": 1000,
        "reference": {"n": 5000},
        "live": {
            "n": 990, "mean": 1.5, "std": 0.5, "min": 0.0, "max": 9.0,
            "missing": 4, "nan": 6, "below": 1, "above": 2, "quantiles": {"0.5": 1.25},
        },
        "psi": psi,
        "js_distance_nats": 0.1,
        "js_distance_bits": 0.12,
        "chi2": {"stat": 10.0, "p": 0.01, "dof": 3},
        "ks": {"lower": 0.1, "upper": 0.1},
        "wasserstein": {"lower": 0.25, "upper": 0.5},
        "verdict": verdict,
    }  # fmt: skip
    return out | more


def report(*features: dict[str, Any], baseline: str | None = "sha256:" + "a" * 64) -> bytes:
    window = {"seconds": 86_400, "from": 1_700_000_000, "to": 1_700_086_400}
    return json.dumps(
        {"endpoint": "digits", "window": window, "baseline": baseline, "features": list(features)}
    ).encode()


def test_every_field_is_kept() -> None:
    parsed = parse_report(report(feature("a", "pass", 0.02)))
    assert (parsed.endpoint, parsed.seconds, parsed.end) == ("digits", 86_400, 1_700_086_400.0)
    [one] = parsed.features
    assert (one.psi, one.reference_n, one.live.quantiles) == (0.02, 5000, {"0.5": 1.25})
    assert one.wasserstein == Bracket(0.25, 0.5)
    assert one.chi2 is not None
    assert one.chi2.dof == 3


def test_without_a_baseline_there_are_no_distances() -> None:
    bare = {
        "version": "v1", "direction": "output", "tensor": "y", "column": "0", "offered": 10, "observed": 5,
        "live": {"n": 5, "missing": 0}, "verdict": "undecided",
    }  # fmt: skip
    parsed = parse_report(report(bare, baseline=None))
    [one] = parsed.features
    assert (one.psi, one.ks, one.reference_n, one.live.mean) == (None, None, None, None)
    assert parsed.verdict == "undecided"
    line = parsed.to_text().splitlines()[-1]
    assert line.split() == ["v1", "y.0", "5/10", "-", "-", "-", "-", "0", "0", "undecided"]


@pytest.mark.parametrize(
    ("verdicts", "together"),
    [
        ([], "undecided"),
        (["pass"], "pass"),
        (["pass", "undecided"], "undecided"),
        (["pass", "undecided", "fail"], "fail"),
    ],
)
def test_no_data_is_undecided(verdicts: list[str], together: str) -> None:
    parsed = parse_report(report(*(feature(str(i), v, 0.1) for i, v in enumerate(verdicts))))
    assert parsed.verdict == together


def test_the_table_shows_the_worst_first() -> None:
    parsed = parse_report(
        report(
            feature("calm", "pass", 0.001),
            feature("wild", "fail", 0.4),
            feature("wilder", "fail", 1.234567),
            feature("quiet", "undecided", None),
        )
    )
    lines = parsed.to_text().splitlines()
    assert lines[0] == (
        "digits: fail, 2023-11-14 22:13 to 2023-11-15 22:13 UTC, baseline sha256:aaaaaaaaaaaa…"
    )
    assert [line.split()[1] for line in lines[2:]] == ["X.wilder", "X.wild", "X.quiet", "X.calm"]
    assert "0.25..0.5" in lines[2]
    assert "1.235" in lines[2]
    assert len({line.index(" X.") if " X." in line else -1 for line in lines[2:]}) == 1
    short = parsed.to_text(limit=1).splitlines()
    assert short[-1] == "and 3 more; --json shows all"
    assert "no rows were seen" in parse_report(report()).to_text()


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", report(feature("a", "maybe", 0.1)), report({"version": "v1"})]
)
def test_what_is_no_report_is_a_defect(data: bytes) -> None:
    with pytest.raises(Internal, match="cannot be read"):
        parse_report(data)

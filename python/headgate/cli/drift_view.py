"""How a drift report is drawn: what failed first and strongest first, what is undecided folded into a line for each reason.

What the columns mean is in docs/guides/drift.md. Next: output.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from headgate.cli.output import Lines, Table

VERDICTS = ("fail", "pass", "undecided")
_ORDER = {"fail": 0, "warn": 1, "pass": 3, "undecided": 4}
_UNKNOWN = 2
"""A verdict of a newer gateway matters more than a pass."""
_ROWS_NEEDED = 100
"""Effective rows below which the data plane gives no verdict (rust/sketch/src/distance.rs)."""

Feature = Mapping[str, Any]


def drift_view(report: Mapping[str, Any], *, everything: bool) -> Lines:
    """The report; with ``everything`` each feature has a row."""
    features = sorted(report["features"], key=_rank)
    shown = [one for one in features if everything or one["verdict"] != "undecided"]
    folded = Counter(
        _undecided_reason(one) for one in features if not everything and one["verdict"] == "undecided"
    )
    baseline = report["baseline"] or "none: live sketches only, every verdict is undecided"
    counts = Counter(one["verdict"] for one in features)
    said = (
        ", ".join(f"{counts[verdict]} {verdict}" for verdict in sorted(counts, key=_place))
        or "nothing was sketched"
    )
    lines = [f"{report['endpoint']}  last {report['window']['seconds']} s  baseline {baseline}  {said}"]
    lines += [report["fault"]] if report.get("fault") else []
    lines += _table(shown) if shown else []
    return lines + [
        f"{count} undecided: {reason} (--all shows them)" for reason, count in folded.most_common()
    ]


def feature_name(feature: Feature) -> str:
    """``X.age`` for a named column, ``X[3]`` for one without a name, which the data plane names so itself."""
    tensor, column = feature["tensor"], feature.get("column")
    if column is None:
        return str(tensor)
    return str(column) if column.startswith(f"{tensor}[") else f"{tensor}.{column}"


def _table(features: list[Feature]) -> Lines:
    made = Table(
        "VERDICT",
        "VERSION",
        "SIDE",
        "FEATURE",
        "PSI",
        "TEST",
        "JS nats",
        "KS",
        "WASSERSTEIN",
        "SEEN",
        "SKETCHED",
        "EFFECTIVE",
    )
    for one in features:
        made.row(
            one["verdict"],
            one["version"],
            one["direction"],
            feature_name(one),
            _psi(one),
            _test(one.get("test")),
            _number(one.get("js_distance_nats")),
            _bracket(one.get("ks")),
            _bracket(one.get("wasserstein")),
            one["offered"],
            one["observed"],
            round(one["effective"]),
        )
    return made.lines()


def _place(verdict: str) -> int:
    return _ORDER.get(verdict, _UNKNOWN)


def _rank(feature: Feature) -> tuple[int, float, float]:
    """What matters most first: by verdict, then by how far the statistic is beyond what passes, then by PSI."""
    test = feature.get("test") or {}
    beyond = test["stat"] / test["critical"] if test.get("critical") else 0.0
    return _place(feature["verdict"]), -beyond, -(feature.get("psi") or 0.0)


def _undecided_reason(feature: Feature) -> str:
    if feature.get("reference") is None:
        return "no baseline has them"
    return "too few rows" if feature["effective"] < _ROWS_NEEDED else "no values to compare"


def _psi(feature: Feature) -> str | None:
    """The PSI beside what is tolerated of it."""
    psi, test = feature.get("psi"), feature.get("test")
    if psi is None:
        return None
    return f"{psi:.4f}" if test is None else f"{psi:.4f} (tolerated {test['tolerated_psi']:g})"


def _test(test: Mapping[str, Any] | None) -> str | None:
    """The statistic that decided, beside the largest one that passes."""
    if test is None:
        return None
    sign = ">" if test["stat"] > test["critical"] else "<="
    return f"{test['stat']:.4g} {sign} {test['critical']:.4g}"


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"


def _bracket(value: Mapping[str, float] | None) -> str | None:
    return None if value is None else f"{value['lower']:.4f}..{value['upper']:.4f}"

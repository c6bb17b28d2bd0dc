"""Drift reports: the data plane's JSON as typed values, and a table for people. Pure.

Distances: PSI and Jensen-Shannon are exact on the baseline's bins; Kolmogorov-Smirnov and Wasserstein come as
a bracket that surely holds the raw value.
"""

from __future__ import annotations

import datetime
import json
from dataclasses import dataclass
from typing import Any, Literal

from headgate.errors import Internal

Verdict = Literal["pass", "fail", "undecided"]
_VERDICTS: dict[str, Verdict] = {"pass": "pass", "fail": "fail", "undecided": "undecided"}
_NOTHING = "-"


@dataclass(frozen=True, slots=True)
class Bracket:
    """A value known to lie between ``lower`` and ``upper``, both included."""

    lower: float
    upper: float


@dataclass(frozen=True, slots=True)
class ChiSquare:
    """Pearson's test on the bins: statistic, p-value, degrees of freedom."""

    stat: float
    p: float
    dof: int


@dataclass(frozen=True, slots=True)
class Live:
    """What was seen in the window; moments and quantiles are None while there is nothing to take them of."""

    n: int
    mean: float | None
    std: float | None
    min: float | None
    max: float | None
    missing: int
    nan: int
    below: int
    above: int
    quantiles: dict[str, float]


@dataclass(frozen=True, slots=True)
class Feature:
    """One input or output column of one version; distances are None without a baseline.

    ``offered`` rows passed by, ``observed`` were counted. ``wasserstein`` is in the column's own unit.
    """

    version: str
    direction: str
    tensor: str
    column: str
    offered: int
    observed: int
    reference_n: int | None
    live: Live
    psi: float | None
    js_distance_nats: float | None
    js_distance_bits: float | None
    chi2: ChiSquare | None
    ks: Bracket | None
    wasserstein: Bracket | None
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Report:
    """The drift of one endpoint over a window; times in seconds since 1970."""

    endpoint: str
    seconds: int
    start: float
    end: float
    baseline: str | None
    features: list[Feature]

    @property
    def verdict(self) -> Verdict:
        """fail when any feature fails, pass when all pass, else undecided; nothing seen is undecided."""
        verdicts = {feature.verdict for feature in self.features}
        if "fail" in verdicts:
            return "fail"
        return "pass" if verdicts == {"pass"} else "undecided"

    def worst(self) -> list[Feature]:
        """The features, failing ones first, then by PSI from high to low, then by name."""
        order = {"fail": 0, "undecided": 1, "pass": 2}
        return sorted(
            self.features,
            key=lambda f: (
                order[f.verdict],
                -(f.psi if f.psi is not None else -1.0),
                f.version,
                f.tensor,
                f.column,
            ),
        )

    def to_text(self, limit: int | None = 40) -> str:
        """A table for a terminal, worst first, at most ``limit`` features (None: all)."""
        start, end = (datetime.datetime.fromtimestamp(t, datetime.UTC) for t in (self.start, self.end))
        lines = [
            f"{self.endpoint}: {self.verdict}, {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC, "
            f"baseline {self.baseline[:19] + '…' if self.baseline else 'none'}"
        ]
        shown = self.worst()[:limit]
        if not shown:
            lines.append("no rows were seen in this window")
            return "\n".join(lines)
        head = (
            "version",
            "column",
            "rows",
            "psi",
            "js",
            "ks",
            "wasserstein",
            "missing",
            "outside",
            "verdict",
        )
        lines += _aligned([head, *(_row(feature) for feature in shown)])
        if len(shown) < len(self.features):
            lines.append(f"and {len(self.features) - len(shown)} more; --json shows all")
        return "\n".join(lines)


def parse_report(data: bytes) -> Report:
    """The report in the data plane's JSON; ``Internal`` when it is not one, for then the two halves differ."""
    try:
        plain = json.loads(data)
        window = plain["window"]
        return Report(
            endpoint=plain["endpoint"],
            seconds=int(window["seconds"]),
            start=float(window["from"]),
            end=float(window["to"]),
            baseline=plain.get("baseline"),
            features=[_feature(feature) for feature in plain["features"]],
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Internal(f"the data plane gave a drift report that cannot be read: {error!r}") from error


def _feature(plain: dict[str, Any]) -> Feature:
    chi2 = plain.get("chi2")
    reference = plain.get("reference")
    return Feature(
        version=plain["version"],
        direction=plain["direction"],
        tensor=plain["tensor"],
        column=plain["column"],
        offered=int(plain["offered"]),
        observed=int(plain["observed"]),
        reference_n=int(reference["n"]) if reference else None,
        live=_live(plain["live"]),
        psi=plain.get("psi"),
        js_distance_nats=plain.get("js_distance_nats"),
        js_distance_bits=plain.get("js_distance_bits"),
        chi2=ChiSquare(chi2["stat"], chi2["p"], int(chi2["dof"])) if chi2 else None,
        ks=_bracket(plain.get("ks")),
        wasserstein=_bracket(plain.get("wasserstein")),
        verdict=_VERDICTS[plain["verdict"]],
    )


def _live(plain: dict[str, Any]) -> Live:
    return Live(
        n=int(plain["n"]),
        mean=plain.get("mean"),
        std=plain.get("std"),
        min=plain.get("min"),
        max=plain.get("max"),
        missing=int(plain.get("missing", 0)),
        nan=int(plain.get("nan", 0)),
        below=int(plain.get("below", 0)),
        above=int(plain.get("above", 0)),
        quantiles={str(q): value for q, value in plain.get("quantiles", {}).items() if value is not None},
    )


def _bracket(plain: dict[str, Any] | None) -> Bracket | None:
    return Bracket(plain["lower"], plain["upper"]) if plain else None


def _row(feature: Feature) -> tuple[str, ...]:
    live = feature.live
    return (
        feature.version,
        f"{feature.tensor}.{feature.column}",
        str(feature.observed)
        if feature.observed == feature.offered
        else f"{feature.observed}/{feature.offered}",
        _short(feature.psi),
        _short(feature.js_distance_nats),
        _span(feature.ks),
        _span(feature.wasserstein),
        str(live.missing + live.nan),
        str(live.below + live.above),
        feature.verdict,
    )


def _short(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.4g}"


def _span(bracket: Bracket | None) -> str:
    if bracket is None:
        return _NOTHING
    low, high = _short(bracket.lower), _short(bracket.upper)
    return low if low == high else f"{low}..{high}"


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    """Columns of equal width: names to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    left = {0, 1, len(widths) - 1}
    return [
        "  ".join(
            c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]

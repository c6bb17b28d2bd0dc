"""What is known of an endpoint before a rollout begins: its plan without gaps, its traffic, what its steps would show.

Not here: problems and words (``domain.rollout.preview``). Next: ``rollouts``.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from headgate.control.domain.revision import Revision
from headgate.control.domain.rollout.built_in import BUILT_IN_THRESHOLD, Needs, built_in
from headgate.control.domain.rollout.plan import ResolvedPlan, resolve
from headgate.control.domain.rollout.preview import MOST_OUTPUTS, Facts
from headgate.control.domain.rollout.promise import threshold as threshold_of
from headgate.control.writes.data_plane import DataPlane
from headgate.control.writes.stored_plans import StoredPlans
from headgate.documents.rollout import BUILT_IN
from headgate.documents.traffic import MAX_SHADOWS
from headgate.documents.values import SLOTS
from headgate.errors import InvalidArgument

_DAY_SECONDS = 86_400
_BASE = 0.002
"""The champion's rate of errors that is reckoned with at least: with none, no number of requests would show a ratio."""
_MOST_BASE = 0.5
_ASKED = 1_000
"""Requests that power is asked for; the medians do not depend on them."""

MOST_ROW_ELEMENTS = 4096
"""Elements of an output's row beyond which none is counted: as the sketches have it."""

Figures = Mapping[str, Mapping[str, Any]]
"""What each version did in the last minutes (``reads.recent.Recent.of``)."""


def requests_a_day(figures: Figures) -> float:
    """At the rate of the last minutes; 0 without a request."""
    seconds = max((one["seconds"] for one in figures.values()), default=0)
    return sum(one["requests"] for one in figures.values()) / seconds * _DAY_SECONDS if seconds else 0.0


def needs_of(plane: DataPlane, plan: ResolvedPlan | None, base: float) -> Needs:
    """Expected requests until a ratio is caught, between the medians of ``gate_power`` on a logarithmic scale. Infinite below the least
    ratio that has one; beyond the greatest ratio, the requests of that one.
    """
    threshold = BUILT_IN_THRESHOLD if plan is None else threshold_of(plan)
    rate = min(max(base, _BASE), _MOST_BASE)
    known: dict[int, list[tuple[float, float]]] = {}

    def needs(slots: int, ratio: float) -> float:
        if not 0 < slots < SLOTS:
            return math.inf
        if slots not in known:
            told = json.loads(plane.gate_power(_ASKED, slots / SLOTS, rate, threshold))
            known[slots] = [(float(at), float(of)) for at, of in told["requests"] if of is not None]
        return _between(known[slots], ratio)

    return needs


def beyond_of(plane: DataPlane, plan: ResolvedPlan) -> Callable[[int, float], float]:
    """How far beyond its limit a distance of outputs must be to be caught in most rollouts; infinite if no distance is."""
    threshold = threshold_of(plan)

    def beyond(slots: int, requests: float) -> float:
        if not 0 < slots < SLOTS:
            return math.inf
        told = json.loads(plane.gate_power(round(requests), slots / SLOTS, _BASE, threshold))
        found = told["distance_beyond"]
        return math.inf if found is None else float(found)

    return beyond


def outputs_of(
    baseline: Path | None, signature: Mapping[str, Any] | None = None
) -> tuple[frozenset[str] | None, frozenset[str], int]:
    """The names of outputs and of their columns in a baseline's file, alone and together: those that a trial counts (None without a
    baseline), and those that it has no room for, with the number of their columns. Blocks.

    A trial counts outputs of the champion's ``signature``. If that is not known, all are taken for such.
    """
    if baseline is None:
        return None, frozenset(), 0
    features = json.loads(baseline.read_bytes())["features"]
    rows = None if signature is None else {one["name"]: _row_size(one) for one in signature["outputs"]}
    # The file has them in the order in which the data plane takes them. A reference without a finite value has no bins.
    columns = [
        (one["tensor"], one["column"])
        for one in features
        if one["direction"] == "output"
        and one.get("edges", True)
        and (rows is None or one.get("index", 0) < rows.get(one["tensor"], 0))
    ]
    counted, rest = _names(columns[:MOST_OUTPUTS]), columns[MOST_OUTPUTS:]
    return counted, _names(rest) - counted, len(rest)


def _row_size(output: Mapping[str, Any]) -> int:
    """The elements of an output's row that a trial may count; 0 for strings, and for rows that are too large or of no fixed size."""
    row = output["shape"][1:]
    if output["datatype"] == "BYTES" or output.get("any_rank") or any(size < 0 for size in row):
        return 0
    size = math.prod(row)
    return size if size <= MOST_ROW_ELEMENTS else 0


def _names(columns: Sequence[tuple[str, str]]) -> frozenset[str]:
    named = {(output, column) for output, column in columns if not column.isdigit()}
    pairs = {f"{output}.{column}" for output, column in named}
    return frozenset({output for output, _ in columns} | {column for _, column in named} | pairs)


def _between(points: list[tuple[float, float]], ratio: float) -> float:
    if not points or ratio < points[0][0]:
        return math.inf
    for (low, more), (high, less) in itertools.pairwise(points):
        if ratio <= high:
            share = math.log(ratio / low) / math.log(high / low)
            return math.exp(math.log(more) + share * (math.log(less) - math.log(more)))
    return points[-1][1]


def plan_of(
    name: str | None, current: Revision, plans: StoredPlans, figures: Figures, plane: DataPlane
) -> ResolvedPlan:
    """The plan of a rollout: the one asked for, else that of the document (or the defaults), else the built-in one."""
    wanted = name or current.spec.rollout or BUILT_IN
    if wanted != BUILT_IN:
        return resolve(plans.find(wanted))
    needs = needs_of(plane, None, error_rate(figures, current.traffic.champion))
    return built_in(requests_a_day(figures), needs, captures=current.spec.capture is not None)


def error_rate(figures: Figures, version: str) -> float:
    """The share of a version's requests that it failed on in the last minutes."""
    one = figures.get(version)
    if one is None or not one["requests"]:
        return 0.0
    failed = sum(one["codes"].get(code, 0) for code in ("backend_failed", "deadline_exceeded", "internal"))
    return float(failed / one["requests"])


def facts_of(current: Revision, plan: ResolvedPlan, figures: Figures, plane: DataPlane) -> Facts:
    """What a preview is made of."""
    champion = current.traffic.champion
    return Facts(
        champion=champion,
        digests=current.spec.digests(),
        needs=needs_of(plane, plan, error_rate(figures, champion)),
        requests_a_day=requests_a_day(figures) or None,
        sticky=current.spec.traffic.sticky is not None,
        captures=current.spec.capture is not None,
        feedback=frozenset(current.spec.feedback),
        beyond=beyond_of(plane, plan),
    )


def check_supported(current: Revision, plan: ResolvedPlan, challenger: str) -> None:
    """:class:`InvalidArgument` for what no look can judge, and for copies that the data plane has no room for."""
    measures: set[str | None] = set()
    for gate in plan.gates:
        stops = gate.effect != "report"
        if stops and gate.family == "latency":
            if gate.measure in measures:
                raise InvalidArgument(
                    f"plan {plan.name}: two gates compare the {gate.measure} latency; one quantile for each measure is judged"
                )
            measures.add(gate.measure)
    shadows = set(current.spec.shadows) | {challenger}
    if len(shadows) > MAX_SHADOWS and any(step.kind == "shadow" for step in plan.steps):
        raise InvalidArgument(
            f"{current.endpoint} has {MAX_SHADOWS} shadows already, and plan {plan.name} gives copies to {challenger}: remove one"
        )

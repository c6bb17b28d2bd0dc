"""What a shadow counted in the present step of a rollout. Pure.

Counters of a shadow outlive rollouts: a document that shadows the challenger too keeps them over a rollback and a retry. So what they had
when the step was first seen is taken off, and what they had in the step is kept if they begin anew meanwhile. All counts are sums.

Not here: what a step makes of them (``compared``). Next: ``compared``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

from headgate.control.domain.rollout.observation import Copies
from headgate.control.domain.stamp import ms_of

Report = Mapping[str, Any]
Counts = Mapping[str, tuple[float, ...]]
"""Sums by what they are about. Those of outputs have one entry for each feature, as many as the report has."""
MOST_DROPPED = 0.05
"""Beyond this share of drops nothing is decided, as the data plane has it (``rust/server/src/shadow/tally_report.rs``)."""
_Z = NormalDist().inv_cdf(0.975)
"""Of intervals at 95 %."""


@dataclass(frozen=True)
class StepCopies:
    """``since`` names the counters, ``before`` is what they had before the step, ``ended`` what earlier counters had in it, and ``counts``
    what was counted in the step at the last look.
    """

    since: str | None = None
    before: Counts = field(default_factory=dict)
    ended: Counts = field(default_factory=dict)
    counts: Counts = field(default_factory=dict)

    @property
    def copies(self) -> Copies:
        """What a step counts. What a version would have made of inputs that were lost is not known, and counts for it."""
        pairs, _, errors, timeouts, answered, both = map(int, _of(self.counts, "copies", 6))
        return Copies(pairs=pairs, errors=errors, timeouts=timeouts, answered=answered, both=both)


def seen_in_step(known: StepCopies | None, report: Report, begun_ms: int) -> StepCopies:
    """After another look at ``report``; ``known`` is None at the first one of the step, which began at ``begun_ms``."""
    now, since = _counts(report), report.get("since")
    if known is None:
        # Counters that began with the step, or after it, hold nothing else.
        is_fresh = since is None or ms_of(since) >= begun_ms
        known = StepCopies(since, before={} if is_fresh else now)
    elif since != known.since:
        known = StepCopies(since, ended=known.counts)
    counts = {
        name: tuple(
            a + b - c
            for a, b, c in zip(
                sums, _of(known.ended, name, len(sums)), _of(known.before, name, len(sums)), strict=True
            )
        )
        for name, sums in now.items()
    }
    return StepCopies(since, known.before, known.ended, counts)


def report_of(step: StepCopies, report: Report) -> dict[str, Any]:
    """What ``report`` would say if its counters had begun with the step, as far as gates are judged on it."""
    pairs, differing, *_ = map(int, _of(step.counts, "copies", 6))
    floor = [int(count) for count in _of(step.counts, "noise_floor", 2)]
    (dropped,) = _of(step.counts, "dropped", 1)
    champion, shadow, both = map(int, _of(step.counts, "nan", 3))
    drop_share = dropped / (pairs + dropped) if dropped else 0.0
    known, excess = pairs > 0, pairs > 0 and floor[0] > 0
    return {
        "compared": {"pairs": pairs, "differing": differing},
        "noise_floor": {"pairs": floor[0], "differing": floor[1]},
        "nan": {"champion": champion, "shadow": shadow, "both": both},
        "disagreement": {
            "share": differing / pairs if known else None,
            "interval": list(share_interval(differing, pairs)) if known else None,
            "undecided": drop_share > MOST_DROPPED,
        },
        "excess": {
            "share": differing / pairs - floor[1] / floor[0] if excess else None,
            "interval": list(difference_interval((differing, pairs), (floor[1], floor[0])))
            if excess
            else None,
        },
        "output_drift": _outputs(step.counts, report),
    }


def share_interval(events: int, total: int) -> tuple[float, float]:
    """The score interval of Wilson (1927) for ``events`` of ``total`` at 95 %."""
    share, shrink = events / total, 1 + _Z * _Z / total
    centre = (share + _Z * _Z / (2 * total)) / shrink
    half = _Z / shrink * math.sqrt(share * (1 - share) / total + _Z * _Z / (4 * total * total))
    return (0.0 if events == 0 else centre - half, 1.0 if events == total else centre + half)


def difference_interval(left: tuple[int, int], right: tuple[int, int]) -> tuple[float, float]:
    """Of the share ``left`` less the share ``right`` at 95 %: the hybrid score interval of Newcombe (1998, method 10)."""
    (low, high), (lower, upper) = share_interval(*left), share_interval(*right)
    first, second = left[0] / left[1], right[0] / right[1]
    return (
        first - second - math.hypot(first - low, upper - second),
        first - second + math.hypot(high - first, second - lower),
    )


def _of(counts: Counts, name: str, length: int) -> tuple[float, ...]:
    """Zeros for what was not counted, or in other bins."""
    found = counts.get(name, ())
    return found if len(found) == length else (0,) * length


def _counts(report: Report) -> Counts:
    failed, compared, floor, nan = (
        report[name] for name in ("champion_failed", "compared", "noise_floor", "nan")
    )
    found: dict[str, tuple[float, ...]] = {
        "copies": (
            report["pairs"],
            compared["differing"],
            sum(report["errors"].values()),
            report["timeouts"],
            failed["shadow_answered"] + failed["inputs_lost"],
            failed["shadow_failed"],
        ),
        "noise_floor": (floor["pairs"], floor["differing"]),
        "nan": (nan["champion"], nan["shadow"], nan["both"]),
        "dropped": (sum(report["dropped"].values()),),
    }
    for feature in (report.get("output_drift") or {"features": []})["features"]:
        sums = feature["sums"]["challenger"]
        found[_name(feature)] = (
            feature["values"]["challenger"],
            sums["information"],
            *sums["sums"],
            *sums["squares"],
            *sums["squares_below"],
        )
    return found


def _name(feature: Report) -> str:
    return f"output {feature['output']}/{feature['column']}"


def _outputs(counts: Counts, report: Report) -> dict[str, Any] | None:
    told = report.get("output_drift")
    if told is None:
        return None
    features = []
    for feature in told["features"]:
        bins = len(feature["sums"]["challenger"]["sums"])
        below = len(feature["sums"]["challenger"]["squares_below"])
        pairs, information, *sums = _of(counts, _name(feature), 2 + 2 * bins + below)
        values = {"champion": int(pairs), "challenger": int(pairs)}
        of_step = {
            "information": information,
            "sums": sums[:bins],
            "squares": sums[bins : 2 * bins],
            "squares_below": sums[2 * bins :],
        }
        features.append({**feature, "values": values, "sums": {"challenger": of_step}})
    return {**told, "features": features}

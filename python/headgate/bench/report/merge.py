"""Results of several load hosts (``--part 1/3``) put together: counts and histograms are added, quantiles are read from the sum.

Quantiles are never averaged. Intervals and verdicts are those of a test on all requests in their order, which the parts do not have:
they are left out. Not here: what a part is (``loads``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from headgate.bench import hdr
from headgate.bench.results import (
    Answer,
    ClientLoad,
    Counts,
    ErrorKind,
    Histograms,
    Latency,
    Lateness,
    Phases,
    PhaseTimes,
    QuantileEstimate,
    Replies,
    Result,
    Slice,
    Steadiness,
    WarmUp,
    Window,
)
from headgate.errors import InvalidArgument

_NOTE = "put together from {} load hosts: intervals and verdicts of the whole are not known, only quantiles of all requests"
_DESCRIBES_THE_LOAD = ("seed", "scenario", "command")


def merge(parts: Sequence[Result]) -> Result:
    """One result of runs that sent a part of the same scenario each; :class:`InvalidArgument` for results of different loads."""
    if len(parts) < 2:
        raise InvalidArgument("merging needs the results of at least two load hosts")
    first = parts[0]
    for at, other in enumerate(parts[1:], 2):
        _check_same(first, other, at)
    windows = tuple(_merged_window([part.windows[at] for part in parts]) for at in range(len(first.windows)))
    limited = any(part.client.limited for part in parts)
    reasons = tuple(dict.fromkeys(reason for part in parts for reason in part.client.reasons))
    return first.model_copy(
        update={
            "windows": windows,
            "probes": (),
            "capacity": None,
            "steadiness": None,
            "client": first.client.model_copy(
                update={
                    "threads": sum(part.client.threads for part in parts),
                    "cpus": None,
                    "limited": limited,
                    "reasons": reasons,
                }
            ),
            "verdict": "client_limited" if limited else "measured",
            "reasons": (_NOTE.format(len(parts)), *reasons),
        }
    )


def _check_same(first: Result, other: Result, at: int) -> None:
    for name in _DESCRIBES_THE_LOAD:
        if getattr(first, name) != getattr(other, name):
            raise InvalidArgument(
                f"result {at} has another {name} than the first: parts of one load have the same seed, scenario and command"
            )
    if first.probes or other.probes or first.command not in ("run", "replay"):
        raise InvalidArgument(
            "parts of `headgate bench run` and `replay` are merged; a search decides its rates from one host's data"
        )
    if len(first.windows) != len(other.windows) or not first.windows:
        raise InvalidArgument(
            f"result {at} has {len(other.windows)} windows, and the first {len(first.windows)}; both need the same"
        )


def _merged_window(parts: Sequence[Window]) -> Window:
    answers = [part.answer for part in parts]
    return parts[0].model_copy(update={"answer": merged_answer(answers)})


def merged_answer(parts: Sequence[Answer]) -> Answer:
    """The answer of all parts together; what cannot be said of the whole is left out."""
    histograms = {kind: _added(parts, kind) for kind in ("response", "service", "lateness")}
    counts = _counts(parts)
    # Histograms hold what came after the warm-up; the share without a good answer is that of the whole.
    asked = sorted({one.quantile for part in parts for one in part.response.quantiles})
    good = max(counts.due - counts.in_flight - counts.not_good, 1)
    slower = round(histograms["response"].total * counts.not_good / good)
    late = histograms["lateness"]
    return Answer(
        elapsed_ns=max(part.elapsed_ns for part in parts),
        finished=all(part.finished for part in parts),
        interrupted=next((part.interrupted for part in parts if part.interrupted), None),
        counts=counts,
        offered_per_second=_sum(part.offered_per_second for part in parts),
        good_per_second=_sum(part.good_per_second for part in parts),
        warmup=WarmUp(
            from_ns=max((part.warmup.from_ns or 0 for part in parts), default=0),
            settled=_all(part.warmup.settled for part in parts),
            requests=sum(part.warmup.requests for part in parts),
        ),
        response=_latency(parts, histograms["response"], asked, slower, lambda part: part.response),
        service=_latency(parts, histograms["service"], asked, slower, lambda part: part.service),
        lateness=Lateness(
            p50_ns=late.quantile(0.5),
            p99_ns=late.quantile(0.99),
            max_ns=_max(part.lateness.max_ns for part in parts),
        ),
        phases=_phases(parts),
        steadiness=Steadiness(overload=any(part.steadiness.overload for part in parts)),
        client=ClientLoad(
            limited=any(part.client.limited for part in parts),
            reasons=tuple(dict.fromkeys(reason for part in parts for reason in part.client.reasons)),
        ),
        errors=_errors(parts),
        replies=Replies(
            compared=sum(part.replies.compared for part in parts),
            differing=sum(part.replies.differing for part in parts),
            example=next((part.replies.example for part in parts if part.replies.example), None),
        ),
        slices=_slices(parts),
        hdr_v2=Histograms(**{kind: hdr.encode(found) for kind, found in histograms.items()}),
    )


def _added(parts: Sequence[Answer], kind: str) -> hdr.Histogram:
    found = []
    for at, part in enumerate(parts, 1):
        encoded = getattr(part.hdr_v2, kind) if part.hdr_v2 is not None else None
        if not encoded:
            raise InvalidArgument(
                f"result {at} has no histogram of its {kind} times, without which it cannot be added"
            )
        found.append(hdr.decode(encoded))
    whole = found[0]
    for one in found[1:]:
        whole = whole.merged(one)
    return whole


def _counts(parts: Sequence[Answer]) -> Counts:
    return Counts(**{name: sum(getattr(part.counts, name) for part in parts) for name in Counts.model_fields})


def _latency(
    parts: Sequence[Answer],
    whole: hdr.Histogram,
    asked: Sequence[float],
    slower: int,
    of: Callable[[Answer], Latency],
) -> Latency:
    estimates = []
    for quantile in asked:
        value = whole.quantile(quantile, slower)
        if value is None:
            # It lies among requests without a good answer: what the parts say of theirs bounds it from below.
            bounds = (of(part).quantile(quantile) for part in parts)
            value = _max(one.value_ns for one in bounds if one is not None)
            estimates.append(QuantileEstimate(quantile=quantile, value_ns=value, censored=True))
        else:
            estimates.append(QuantileEstimate(quantile=quantile, value_ns=value))
    return Latency(
        mean_ns=whole.mean, max_ns=_max(of(part).max_ns for part in parts), quantiles=tuple(estimates)
    )


def _phases(parts: Sequence[Answer]) -> Phases:
    """Means by the number of sampled requests; quantiles of the whole are not known."""
    sampled = sum(part.phases.sampled for part in parts)
    if not sampled:
        return Phases()

    def mean(name: str) -> PhaseTimes:
        told = [(getattr(part.phases, name).mean_ns, part.phases.sampled) for part in parts]
        known = [(value, weight) for value, weight in told if value is not None and weight]
        weights = sum(weight for _, weight in known)
        return PhaseTimes(
            mean_ns=sum(value * weight for value, weight in known) / weights if weights else None
        )

    names = ("decode", "queue", "run", "reply", "total", "outside")
    return Phases.model_validate({"sampled": sampled, **{name: mean(name) for name in names}})


def _errors(parts: Sequence[Answer]) -> tuple[ErrorKind, ...]:
    counts: dict[str, int] = {}
    examples: dict[str, str | None] = {}
    for error in (error for part in parts for error in part.errors):
        counts[error.what] = counts.get(error.what, 0) + error.count
        examples[error.what] = examples.get(error.what) or error.example
    ordered = sorted(counts.items(), key=lambda pair: -pair[1])
    return tuple(ErrorKind(what=what, count=count, example=examples[what]) for what, count in ordered)


def _slices(parts: Sequence[Answer]) -> tuple[Slice, ...]:
    """Counts of each second; its quantiles are not known, since a second has no histogram."""
    seconds: dict[int, dict[str, int]] = {}
    for one in (one for part in parts for one in part.slices):
        second = seconds.setdefault(one.from_ns, {})
        for name in ("due", "sent", "good", "shed", "failed", "unsent", "in_flight"):
            second[name] = second.get(name, 0) + (getattr(one, name) or 0)
    return tuple(Slice.model_validate({"from_ns": at, **found}) for at, found in sorted(seconds.items()))


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _max(values: Iterable[Any]) -> Any:
    return max((value for value in values if value is not None), default=None)


def _all(values: Iterable[bool | None]) -> bool | None:
    known = list(values)
    return None if None in known else all(known)

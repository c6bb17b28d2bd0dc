"""The evidence of a trial as reads tell it: names, times and microseconds in place of the data plane's numbers.

Not here: what is counted and what it means (``docs/design/evidence.md``). Next: ``queries``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, cast

from typing_extensions import TypedDict

from headgate.store import seconds, stamp

_MINUTE_MS = 60_000


class TimesView(TypedDict):
    """Durations of answers: how many, and quantiles in microseconds, each less than 2 % too high."""

    count: int
    p50: float | None
    p95: float | None
    p99: float | None


class ExceedancesView(TypedDict):
    """First requests of units that were compared with the thresholds of the present window, and those that were slower or failed.
    ``running_slower_reply`` are in progress and slower already; ``unwatched`` are such that only their end would tell.
    """

    compared: int
    slower_run: int
    slower_reply: int
    running_slower_reply: int
    unwatched: int


class TrialArmView(TypedDict):
    """A version in a trial: ``routed`` is ``ran + shed + not_ready + fell_back + cancelled + lost`` and what is ``in_flight``.
    ``slots`` is null when it has none now. What is counted ``apart`` is in none of the others.
    """

    version: str
    digest: str
    side: Literal["champion", "challenger"]
    slots: int | None
    routed: int
    in_flight: int
    ran: int
    shed: int
    not_ready: int
    fell_back: int
    cancelled: int
    lost: int
    errors: int
    codes: dict[str, int]
    passed_on: int
    unwritable: int
    unsettled: int
    first_requests: int
    units: int
    first_errors: int
    first_errors_after: int
    unplaced_errors: int
    answers: int
    nan_answers: int
    infinite_answers: int
    unseen_answers: int
    nan_by_output: dict[str, int]
    apart: dict[str, int]
    run_us: TimesView
    reply_us: TimesView
    exceedances: ExceedancesView


class GapView(TypedDict):
    """A restart: nothing is known of the time between."""

    since: str
    until: str


class WindowView(TypedDict):
    """The thresholds of each version in nanoseconds, 0 for none, and since when they are compared with."""

    number: int
    since: str
    thresholds: dict[str, dict[str, int]]


class SplitView(TypedDict):
    """A division of the slots, and what was counted of each version while it was served."""

    slots: dict[str, int]
    arms: dict[str, dict[str, Any]]


class MinuteView(TypedDict):
    """What ended in one minute, of each version: for one split, and for one window (0: none)."""

    minute: str
    split: int
    window: int
    arms: dict[str, dict[str, int]]


class FirstErrorView(TypedDict):
    """An error that is the first of its unit; ``after_split`` is the split at which the unit erred on the champion before."""

    when: str
    split: int
    version: str
    code: str
    after_split: int | None


class FeedbackArmView(TypedDict):
    """What was given on a version's answers: how many values count, their mean, and how many do not, because their unit had given it."""

    n: int
    mean: float | None
    repeated: int


class FeedbackView(TypedDict):
    """A feedback of a trial, by version. ``dropped`` are values of hours that fell out."""

    name: str
    range: list[float]
    good: Literal["high", "low"]
    arms: dict[str, FeedbackArmView]
    dropped: int


class OutputView(TypedDict):
    """An output, or an element of it, whose values are compared: how many of each version count."""

    output: str
    column: str
    values: dict[str, int]


class TrialView(TypedDict):
    """A trial: one attempt, one champion, one sticky key. What fell out of a list is counted in ``dropped``; totals keep all of it."""

    attempt: str
    champion: str
    sticky: str | None
    unit: Literal["sticky_key", "request"]
    begun: str
    ended: str | None
    as_of: str
    arms: list[TrialArmView]
    window: WindowView | None
    gaps: list[GapView]
    dropped: dict[str, int]
    unit_bytes: int
    feedback: list[FeedbackView]
    outputs: list[OutputView]
    splits: list[SplitView]
    minutes: list[MinuteView]
    first_errors: list[FirstErrorView]


class TrialsView(TypedDict):
    """The newest trial of an endpoint, null if it had none, and in short those before it that are in memory, the newest first."""

    endpoint: str
    trial: TrialView | None
    earlier: list[TrialView]


def trials(endpoint: str, told: bytes) -> TrialsView:
    """The view of what the data plane tells (``_native.Gateway.trial``)."""
    found = json.loads(told)
    newest = found["trial"]
    return TrialsView(
        endpoint=endpoint,
        trial=None if newest is None else _trial(newest),
        earlier=[_trial(one) for one in found["earlier"]],
    )


def running(told: bytes) -> TrialView | None:
    """The trial that is on, if there is one."""
    newest = json.loads(told)["trial"]
    return None if newest is None or newest["ended_ms"] is not None else _trial(newest)


def _feedback(told: Mapping[str, Any]) -> FeedbackView:
    def arm(sums: Mapping[str, Any]) -> FeedbackArmView:
        mean = sums["sum"] / sums["n"] if sums["n"] else None
        return FeedbackArmView(n=sums["n"], mean=mean, repeated=sums["repeated"])

    return FeedbackView(
        name=told["name"],
        range=told["range"],
        good=told["good"],
        arms={version: arm(sums) for version, sums in told["arms"].items()},
        dropped=told["dropped"],
    )


def _trial(told: Mapping[str, Any]) -> TrialView:
    window, ended = told["window"], told["ended_ms"]
    return TrialView(
        attempt=told["attempt"],
        champion=told["champion"],
        sticky=told["sticky"],
        unit=told["unit"],
        begun=_time(told["begun_ms"]),
        ended=None if ended is None else _time(ended),
        as_of=_time(told["as_of_ms"]),
        arms=[_arm(arm) for arm in told["arms"]],
        window=None
        if window is None
        else WindowView(
            number=window["number"], since=_time(window["opened_ms"]), thresholds=window["thresholds"]
        ),
        gaps=[GapView(since=_time(gap["from_ms"]), until=_time(gap["to_ms"])) for gap in told["gaps"]],
        dropped={
            "minutes": told["minutes_dropped"],
            "first_errors": told["first_errors_dropped"],
            "gaps": told["gaps_dropped"],
        },
        unit_bytes=told["unit_bytes"],
        feedback=[_feedback(one) for one in told.get("feedback", [])],
        outputs=[
            OutputView(output=one["output"], column=one["column"], values=one["values"])
            for one in (told.get("outputs") or {"features": []})["features"]
        ],
        splits=[_split(split) for split in told.get("splits", [])],
        minutes=[
            MinuteView(
                minute=_time(minute["minute"] * _MINUTE_MS),
                split=minute["split"],
                window=minute["window"],
                arms=minute["arms"],
            )
            for minute in told.get("minutes", [])
        ],
        first_errors=[_first_error(error) for error in told.get("first_errors", [])],
    )


def _arm(told: Mapping[str, Any]) -> TrialArmView:
    rest = {name: value for name, value in told.items() if name not in ("run", "reply")}
    return cast(TrialArmView, {**rest, "run_us": _times(told["run"]), "reply_us": _times(told["reply"])})


def _split(told: Mapping[str, Any]) -> SplitView:
    arms = {version: dict(_arm(arm)) for version, arm in told["arms"].items()}
    return SplitView(slots=told["slots"], arms=arms)


def _first_error(told: Mapping[str, Any]) -> FirstErrorView:
    return FirstErrorView(
        when=_time(told["at_ms"]),
        split=told["split"],
        version=told["version"],
        code=told["code"],
        after_split=told["after_split"],
    )


def _times(told: Mapping[str, Any]) -> TimesView:
    p50, p95, p99 = (
        None if told[name] is None else round(told[name] / 1e3, 1) for name in ("p50_ns", "p95_ns", "p99_ns")
    )
    return TimesView(count=told["count"], p50=p50, p95=p95, p99=p99)


def _time(milliseconds: int) -> str:
    return seconds(stamp(datetime.fromtimestamp(milliseconds / 1e3, UTC)))

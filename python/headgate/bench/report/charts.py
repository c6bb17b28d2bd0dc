"""The charts of a report: latency against rate, phases, the spectrum, the seconds. Each is empty text if the result has too little for it.

Times come in ns and are drawn in ms. Not here: how a line is written (``svg``). Next: page.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from headgate.bench import hdr
from headgate.bench.rates import format_quantile, shown_rate
from headgate.bench.report import reading, svg
from headgate.bench.report.reading import Load
from headgate.bench.report.svg import Frame
from headgate.bench.results import QuantileEstimate, Result

_SHAPES = {"pass": "dot", "fail": "cross", "undecided": "ring", "": "dot"}
_MOST_LINES = 3
_NINES = (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999)


def rate_latency(result: Result) -> str:
    """The quantile of the objective, with its interval, and the median against the rate."""
    found = [load for load in reading.charted(result) if load.rate > 0]
    if len({load.rate for load in found}) < 2:
        return ""
    limits = reading.objectives(result)
    quantile, limit = limits[-1] if limits else (0.99, None)
    points = [
        (load, load.answer.response.quantile(quantile), load.answer.response.quantile(0.5)) for load in found
    ]
    shown = [value for _, upper, middle in points for value in (*_known(upper), *_known(middle))]
    if not shown:
        return ""
    span = _span([*shown, *([limit] if limit else [])])
    rates = [load.rate for load in found]
    frame = Frame.of(_padded(min(rates), max(rates)), span, 340)
    name = format_quantile(quantile)
    parts = [svg.axes(frame, "requests per second", "response, ms", _rate_ticks(frame), _ms_ticks(frame))]
    if limit is not None:
        parts += _limit_line(frame, limit, f"{name} objective {reading.time(limit)}")
    parts.append(svg.path([_place(frame, load, middle) for load, _, middle in points], "line-p50"))
    parts.append(svg.path([_place(frame, load, upper) for load, upper, _ in points], "line-main"))
    for load, upper, middle in points:
        parts += _interval(frame, load, upper, name)
        place = _place(frame, load, middle)
        if place is not None:
            parts.append(
                svg.mark(
                    *place,
                    "dot",
                    "mark-p50",
                    f"{shown_rate(load.rate)}: p50 {reading.estimate_words(middle)}",
                )
            )
    legend = [
        ("line", "line-p50", "p50"),
        ("dot", "mark-main", f"{name} passed"),
        ("cross", "mark-fail", "failed"),
    ]
    if any(load.verdict == "undecided" for load, _, _ in points):
        legend.append(("ring", "mark-main", "undecided"))
    parts.append(svg.legend(legend))
    described = "; ".join(
        f"{shown_rate(load.rate)}: {name} {reading.estimate_words(upper)}" for load, upper, _ in points
    )
    return svg.chart(
        "rate-latency", f"Response time ({name} and p50) against the rate", described, 340, parts
    )


def _known(estimate: QuantileEstimate | None) -> list[int]:
    if estimate is None or estimate.value_ns is None or estimate.censored:
        return []
    return [value for value in (estimate.value_ns, estimate.low_ns, estimate.high_ns) if value]


def _place(frame: Frame, load: Load, estimate: QuantileEstimate | None) -> tuple[float, float] | None:
    if estimate is None or estimate.value_ns is None or estimate.censored:
        return None
    return frame.x(load.rate), frame.y(estimate.value_ns / 1e6)


def _interval(frame: Frame, load: Load, estimate: QuantileEstimate | None, name: str) -> list[str]:
    """The mark with its whisker; without an upper end it goes to the top, and without an answer an arrow points there."""
    hint = f"{shown_rate(load.rate)}: {name} {reading.estimate_words(estimate)} {load.verdict}"
    kind = "mark-fail" if load.verdict == "fail" else "mark-main"
    x = frame.x(load.rate)
    place = _place(frame, load, estimate)
    if place is None or estimate is None:
        return (
            [svg.mark(x, svg.TOP, "up", "mark-fail", hint)]
            if estimate is not None and estimate.censored
            else []
        )
    parts = []
    if estimate.low_ns is not None:
        top = svg.TOP if estimate.high_ns is None else frame.y(estimate.high_ns / 1e6)
        bottom = frame.y(estimate.low_ns / 1e6)
        parts = [svg.line(x, top, x, bottom, "whisker"), svg.line(x - 5, bottom, x + 5, bottom, "whisker")]
        if estimate.high_ns is not None:
            parts.append(svg.line(x - 5, top, x + 5, top, "whisker"))
    return [*parts, svg.mark(*place, _SHAPES[load.verdict], kind, hint)]


def phases(result: Result) -> str:
    """The mean response of each rate as a bar of its phases."""
    rows = [(load, reading.phase_means(load.answer)) for load in reading.charted(result)]
    rows = [(load, means) for load, means in rows if sum(means.values()) > 0]
    if not rows:
        return ""
    height = 64 + 30 * len(rows) + svg.BOTTOM
    longest = max(sum(means.values()) for _, means in rows) / 1e6
    scale = svg.Scale(0, longest, 96, svg.WIDTH - 90)
    bottom = height - svg.BOTTOM
    parts = [svg.line(scale(at), 44, scale(at), bottom, "grid") for at in scale.ticks()]
    parts += [svg.text(scale(at), bottom + 18, f"{at:g}", "tick", "middle") for at in scale.ticks()]
    for row, (load, means) in enumerate(rows):
        y, begin = 54 + 30 * row, 0.0
        parts.append(svg.text(88, y + 15, shown_rate(load.rate), "tick", "end"))
        total = sum(means.values())
        for phase, mean in means.items():
            x, end = scale(begin), scale(begin + mean / 1e6)
            hint = f"{phase}: {reading.time(mean)}, {mean / total * 100:.0f} %"
            parts.append(svg.rect(x, y, end - x, 22, f"phase-{phase}", hint))
            begin += mean / 1e6
        parts.append(svg.text(scale(begin) + 6, y + 15, reading.time(total), "tick"))
    parts.append(svg.text((96 + svg.WIDTH - 90) / 2, height - 6, "mean, ms", "name", "middle"))
    parts.append(svg.legend([("box", f"phase-{name}", name) for name in reading.PHASES]))
    described = "; ".join(
        f"{shown_rate(load.rate)}: "
        + ", ".join(f"{phase} {reading.time(mean)}" for phase, mean in means.items())
        for load, means in rows
    )
    return svg.chart("phases", "Where the mean response goes", described, height, parts)


def spectrum(result: Result) -> str:
    """Response times at every share of requests, for the load that matters and its neighbours; requests without a good answer are
    slower than any, so that a line ends where they begin.
    """
    lines = [(load, _spectrum_of(load)) for load in _spectrum_loads(result)]
    lines = [(load, points) for load, points in lines if len(points) > 1]
    if not lines:
        return ""
    deepest = max(points[-1][0] for _, points in lines)
    limits = reading.objectives(result)
    span = _span(
        [round(value) for _, points in lines for _, value in points] + [limit for _, limit in limits]
    )
    frame = Frame.of((1.0, max(deepest, 100.0)), span, 340, log_x=True)
    ticks = [
        (1 / (1 - share), format_quantile(share) if share else "p0")
        for share in _NINES
        if 1 / (1 - share) <= frame.x.high
    ]
    parts = [svg.axes(frame, "share of requests", "response, ms", ticks, _ms_ticks(frame))]
    for quantile, limit in limits:
        parts += _limit_line(frame, limit, f"{format_quantile(quantile)} objective {reading.time(limit)}")
        x = frame.x(1 / (1 - quantile))
        parts.append(svg.line(x, svg.TOP, x, frame.height - svg.BOTTOM, "limit"))
    names = []
    for at, (load, points) in enumerate(lines):
        parts.append(
            svg.path([(frame.x(depth), frame.y(value / 1e6)) for depth, value in points], f"spectrum-{at}")
        )
        names.append(("line", f"spectrum-{at}", f"{shown_rate(load.rate)} {load.verdict}".strip()))
        bad = load.answer.counts.not_good
        if bad:
            depth, value = points[-1]
            parts.append(
                svg.mark(
                    frame.x(depth),
                    frame.y(value / 1e6),
                    "cross",
                    "mark-fail",
                    f"{bad} requests without a good answer",
                )
            )
    parts.append(svg.legend(names))
    described = "; ".join(
        f"{shown_rate(load.rate)}: "
        + ", ".join(
            f"{format_quantile(one.quantile)} {reading.estimate_words(one)}"
            for one in load.answer.response.quantiles
        )
        for load, _ in lines
    )
    return svg.chart("spectrum", "Response times by share of requests", described, 340, parts)


def _spectrum_loads(result: Result) -> list[Load]:
    main = reading.main_load(result)
    if main is None:
        return []
    above = [load for load in reading.charted(result) if load.verdict == "fail" and load.rate > main.rate][:1]
    lowest = [load for load in reading.charted(result)[:1] if load.rate < main.rate]
    return [*lowest, main, *above][:_MOST_LINES]


def _spectrum_of(load: Load) -> list[tuple[float, float]]:
    """Points of 1 / (1 - share) and ns, from the histogram and the number of requests without a good answer."""
    encoded = load.answer.hdr_v2.response if load.answer.hdr_v2 is not None else None
    if not encoded:
        return []
    histogram = hdr.decode(encoded)
    counts = load.answer.counts
    answered = max(counts.due - counts.in_flight, 1)
    # The histogram may leave the warm-up out; the share of bad answers is that of the whole.
    bad = histogram.total * counts.not_good / max(answered - counts.not_good, 1)
    total = histogram.total + bad
    found: list[tuple[float, float]] = []
    seen = 0
    for value, count in histogram.steps():
        depth = total / max(total - seen, 1.0)
        if not found or depth >= found[-1][0] * 1.01:
            found.append((depth, float(value)))
        seen += count
    return found


def timeline(result: Result) -> str:
    """Both quantiles of each second of the load that matters, the warm-up shaded."""
    load = reading.main_load(result)
    slices = load.answer.slices if load is not None else ()
    values = [value for one in slices for value in (one.p50_ns, one.p99_ns) if value]
    if load is None or len(slices) < 2 or not values:
        return ""
    frame = Frame.of((0, len(slices)), _span(values), 260)
    parts = [
        svg.axes(
            frame, "seconds", "response, ms", [(at, f"{at:g}") for at in frame.x.ticks()], _ms_ticks(frame)
        )
    ]
    warm = (load.answer.warmup.from_ns or 0) / 1e9
    if warm > 0:
        parts.append(
            svg.rect(
                svg.LEFT,
                svg.TOP,
                frame.x(warm) - svg.LEFT,
                frame.height - svg.TOP - svg.BOTTOM,
                "warm-up",
                "warm-up",
            )
        )
        parts.append(svg.text(svg.LEFT + 4, frame.height - svg.BOTTOM - 6, "warm-up", "tick"))
    for name, kind in (("p50_ns", "line-p50"), ("p99_ns", "line-main")):
        places = [(frame.x(at + 0.5), getattr(one, name)) for at, one in enumerate(slices)]
        parts.append(
            svg.path([None if value is None else (x, frame.y(value / 1e6)) for x, value in places], kind)
        )
    for at, one in enumerate(slices):
        bad = one.shed + one.failed + one.unsent
        if bad:
            x = frame.x(at + 0.5)
            parts.append(
                svg.mark(
                    x,
                    svg.TOP + 4,
                    "cross",
                    "mark-fail",
                    f"second {at}: {bad} of {one.due} without a good answer",
                )
            )
    legend = [("line", "line-p50", "p50"), ("line", "line-main", "p99")]
    if any(one.shed + one.failed + one.unsent for one in slices):
        legend.append(("cross", "mark-fail", "requests without a good answer"))
    parts.append(svg.legend(legend))
    described = f"{len(slices)} seconds at {shown_rate(load.rate)}; p99 of a second at most {reading.time(max(values))}"
    return svg.chart("timeline", f"Each second at {shown_rate(load.rate)}", described, 260, parts)


def _limit_line(frame: Frame, limit: int, said: str) -> list[str]:
    y = frame.y(limit / 1e6)
    return [
        svg.line(svg.LEFT, y, svg.WIDTH - svg.RIGHT, y, "limit"),
        svg.text(svg.LEFT + 6, y - 6, said, "limit-name"),
    ]


def _span(values_ns: Sequence[int]) -> tuple[float, float]:
    """Ends in ms with room, at least a factor of four apart."""
    low, high = min(values_ns) / 1e6, max(values_ns) / 1e6
    low = max(low, 1e-6)
    middle = math.sqrt(low * high)
    return min(low / 1.3, middle / 2), max(high * 1.3, middle * 2)


def _padded(low: float, high: float) -> tuple[float, float]:
    room = (high - low) * 0.06
    return max(low - room, 0.0), high + room


def _rate_ticks(frame: Frame) -> list[tuple[float, str]]:
    return [(at, f"{at:,.0f}".replace(",", " ") if at >= 10 else f"{at:g}") for at in frame.x.ticks()]


def _ms_ticks(frame: Frame) -> list[tuple[float, str]]:
    """Round ticks that are far enough apart to be read."""
    ticks = frame.y.ticks()
    if len(ticks) > 1 and any(abs(frame.y(a) - frame.y(b)) < 14 for a, b in pairwise(ticks)):
        ticks = ticks[::2]
    return [(at, f"{at:g}") for at in ticks]

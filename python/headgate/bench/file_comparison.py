"""Two result files compared: what makes them comparable, and the values of each. Next: comparison.py."""

from __future__ import annotations

import statistics as plain_statistics
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from headgate.bench.comparison import Comparison, Statistics, checked_margin, client_lateness, unpaired
from headgate.bench.rates import parse_quantile
from headgate.bench.results import Result, Slice, Window
from headgate.errors import InvalidArgument

METRICS = ("p50", "p99")
"""What a result has for each second."""

FEWEST_BLOCKS, MOST_BLOCKS = 5, 20
_SLOWER_THAN_ANY_NS = 3_600_000_000_000
_DESCRIBES_THE_MACHINE = ("cpu", "cpus", "memory_bytes", "kernel", "governor")
_SAYS_NOTHING_OF_THE_LOAD = frozenset({"name", "plan", "slo", "search"})


def compare_files(
    a: Result, b: Result, metric: str, margin: float, statistics: Statistics, *, force: bool = False
) -> Comparison:
    """The first window of each, by medians of blocks of seconds. :class:`InvalidArgument` if they measured different things, unless
    ``force``, and if there are too few seconds. Where the client was the limit, nothing is decided, unless ``force``.
    """
    checked_margin(margin)
    reasons = tuple(differences(a, b))
    if reasons and not force:
        raise InvalidArgument(
            "these results measured different things, so that their ratio says nothing of either; --force compares anyway: "
            + "; ".join(reasons)
        )
    quantile = parse_quantile(metric)
    limits = tuple(_limits(a, "A", quantile)) + tuple(_limits(b, "B", quantile))
    values = [block_medians(_window(result, name), metric, name) for result, name in ((a, "A"), (b, "B"))]
    found = unpaired(values[0], values[1], metric, margin, statistics)
    if limits and not force:
        found = replace(found, finding="undecided")
    return replace(found, reasons=(*limits, *reasons))


def _limits(result: Result, name: str, quantile: float) -> Iterator[str]:
    """Why the numbers of a result say less of its server than they seem to."""
    if result.windows and (why := client_lateness(result.windows[0].answer, quantile)):
        yield f"the client was the limit in {name}, so that its times are not the server's (--force decides all the same): {why}"
    if result.verdict in ("interrupted", "unreachable"):
        yield f"{name} ended early: {'; '.join(result.reasons) or result.verdict}"


def differences(a: Result, b: Result) -> Iterator[str]:
    """One sentence for each thing that both did not measure alike."""
    for name in _DESCRIBES_THE_MACHINE:
        one, other = getattr(a.machine, name), getattr(b.machine, name)
        if one != other:
            yield f"the machine's {name.removesuffix('_bytes')} is {_said(one)} in A and {_said(other)} in B"
    one_digests = {model.endpoint: model.digest for model in a.target.models}
    other_digests = {model.endpoint: model.digest for model in b.target.models}
    for endpoint in sorted(one_digests.keys() & other_digests.keys()):
        if one_digests[endpoint] != other_digests[endpoint]:
            yield (
                f"the model of {endpoint} is {_said(one_digests[endpoint])} in A and {_said(other_digests[endpoint])} in B"
            )
    if a.target.protocol != b.target.protocol:
        yield f"the protocol is {a.target.protocol} in A and {b.target.protocol} in B"
    for key in sorted(a.scenario.keys() | b.scenario.keys()):
        if key in _SAYS_NOTHING_OF_THE_LOAD:
            continue
        if a.scenario.get(key) != b.scenario.get(key):
            yield f"the scenario's {key} is {_said(a.scenario.get(key))} in A and {_said(b.scenario.get(key))} in B"


def _said(value: Any) -> str:
    if value is None:
        return "not told"
    text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _window(result: Result, name: str) -> Window:
    if result.probes or result.command == "find":
        raise InvalidArgument(
            f"{name} is a search, whose loads follow each other at rates of their own; compare results of `headgate bench run` at one rate"
        )
    if not result.windows:
        raise InvalidArgument(
            f"{name} has no window to compare: results of `headgate bench run` and `replay` have one"
        )
    return result.windows[0]


def block_medians(window: Window, metric: str, name: str) -> list[float]:
    """The metric in seconds for each of 5 to 20 blocks after the warm-up, each the median of its whole seconds.

    Neighbouring seconds depend on each other; blocks of them do so less. A second whose quantile lies among requests without a
    good answer counts as an hour.
    """
    if metric not in METRICS:
        raise InvalidArgument(f"{metric} is not in the seconds of a result; write {' or '.join(METRICS)}")
    start = window.answer.warmup.from_ns or 0
    # The last second is cut off wherever the load ended.
    whole = [one for one in window.answer.slices if one.from_ns >= start and one.due][:-1]
    size = max(1, len(whole) // MOST_BLOCKS)
    blocks = [whole[at : at + size] for at in range(0, len(whole) - size + 1, size)]
    if len(blocks) < FEWEST_BLOCKS:
        raise InvalidArgument(
            f"{name} has {len(whole)} whole seconds after its warm-up, and at least {FEWEST_BLOCKS} are compared; measure longer"
        )
    return [plain_statistics.median(_ns(one, metric) for one in block) / 1e9 for block in blocks]


def _ns(one: Slice, metric: str) -> int:
    value = one.p50_ns if metric == "p50" else one.p99_ns
    return _SLOWER_THAN_ANY_NS if value is None else max(value, 1)

"""From a scenario and its requests to the plan that the generator reads, and how many requests that will be.

Not here: where the requests come from (``data``), when a load is stopped early (``measuring``). Next: ``measuring``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from headgate.bench.rates import format_quantile
from headgate.bench.scenario import Load, Scenario, Stage
from headgate.bench.target import ServerAddress
from headgate.documents.values import SLOTS
from headgate.errors import InvalidArgument

MAX_RECORDS = 20_000_000
"""Requests of one load: ten bytes are kept of each."""

LONGEST_NS = (2**32 - 1) * 1000
"""The longest load: the generator keeps due times as microseconds in 32 bits."""

_RAMP_BEGIN = 0.01
"""A ramp from nothing begins at this share of its end: a rate of 0 has no first request."""


@dataclass(frozen=True)
class GeneratorSettings:
    """How the generator runs here; it changes no request."""

    threads: int = 1
    cpus: tuple[int, ...] | None = None
    wait: Literal["auto", "spin", "sleep"] = "auto"
    part: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class SentRequest:
    """One request of the mix as the generator draws it."""

    group: str
    weight: float
    path: str
    headers: tuple[tuple[str, str], ...]
    rows: int


@dataclass(frozen=True)
class Prepared:
    """All that is sent: ``bodies[i]`` is the body of ``requests[i]``."""

    address: ServerAddress
    requests: tuple[SentRequest, ...]
    bodies: tuple[bytes, ...]
    due_ns: tuple[int, ...] | None = None
    """The times of captured requests, one for each of ``requests``, in their order."""
    asks_for_phases: bool = True
    """Not of a server that does not tell them: it may refuse a parameter that it does not know."""

    @property
    def mean_body(self) -> int:
        """Bytes of a body on average, by weight."""
        total = sum(one.weight for one in self.requests)
        parts = zip(self.requests, self.bodies, strict=True)
        return round(sum(one.weight * len(body) for one, body in parts) / total)


@dataclass(frozen=True)
class OpenLoad:
    """Stages of a rate: pairs of the rate at the begin and at the end with a length in ns."""

    stages: tuple[tuple[float, float, int], ...]

    @property
    def for_ns(self) -> int:
        """The length of all stages."""
        return sum(length for _, _, length in self.stages)

    @property
    def requests(self) -> float:
        """How many requests are expected."""
        return sum((begin + end) / 2 * length / 1e9 for begin, end, length in self.stages)

    @property
    def highest(self) -> float:
        """The highest rate."""
        return max(max(begin, end) for begin, end, _ in self.stages)


def open_load(stages: Sequence[Stage]) -> OpenLoad:
    """The stages of a scenario; a ramp begins where the stage before ends."""
    found: list[tuple[float, float, int]] = []
    at = 0.0
    for stage in stages:
        if stage.rate is not None:
            begin = end = stage.rate
        else:
            end = stage.ramp or 0.0
            begin = at or end * _RAMP_BEGIN
        found.append((begin, end, stage.for_ns))
        at = end
    return OpenLoad(tuple(found))


def plan_json(
    scenario: Scenario, prepared: Prepared, settings: GeneratorSettings, load: dict[str, Any]
) -> str:
    """The plan of one load. ``load`` is ``{"open": ...}`` or ``{"closed": ...}``."""
    protocol = scenario.protocol
    target = {
        "address": prepared.address.socket_address,
        "authority": prepared.address.authority,
        "protocol": protocol,
        "connections": None,
    }
    requests = [
        {
            "target": 0,
            "group": one.group,
            "weight": one.weight,
            "path": one.path,
            "headers": [list(field) for field in one.headers],
            "body": at,
            "rows": one.rows,
        }
        for at, one in enumerate(prepared.requests)
    ]
    plan = {
        "seed": scenario.seed,
        "threads": settings.threads,
        "cpus": None if settings.cpus is None else list(settings.cpus),
        "wait": settings.wait,
        "timeout_ns": scenario.timeout,
        "max_in_flight": scenario.max_in_flight,
        "max_records": _records_of(load),
        "part": list(settings.part),
        "load": load,
        "targets": [target],
        "requests": requests,
        "timing_share": scenario.check.timing if prepared.asks_for_phases else 0.0,
        "check_share": scenario.check.replies,
    }
    return json.dumps(plan)


def open_json(load: OpenLoad, arrivals: Load) -> dict[str, Any]:
    """An open loop as the plan has it; :class:`InvalidArgument` if it is too long or has too many requests."""
    check_size(load.for_ns, load.requests)
    kind: dict[str, Any] = {"kind": arrivals.arrivals}
    if arrivals.arrivals == "gamma":
        kind["cv"] = arrivals.cv
    stages = [{"from": begin, "to": end, "for_ns": length} for begin, end, length in load.stages]
    return {"open": {"arrivals": kind, "stages": stages}}


def closed_json(clients: int, for_ns: int) -> dict[str, Any]:
    """A closed loop as the plan has it."""
    check_size(for_ns, 0)
    return {"closed": {"clients": clients, "for_ns": for_ns, "requests": None}}


def trace_json(due_ns: Sequence[int], speed: float) -> dict[str, Any]:
    """Captured times, ``speed`` times as fast; request i is sent at time i."""
    due = [round(at / speed) for at in due_ns]
    check_size(max(due) - min(due) + 1, len(due))
    return {
        "open": {
            "arrivals": {"kind": "trace", "due_ns": due, "requests": list(range(len(due)))},
            "stages": [],
        }
    }


def check_size(for_ns: int, requests: float) -> None:
    """:class:`InvalidArgument` for a load that is longer or larger than the generator keeps."""
    if for_ns > LONGEST_NS:
        raise InvalidArgument(
            f"a load lasts at most {LONGEST_NS // 10**9} s, and this one {for_ns // 10**9} s"
        )
    if requests > MAX_RECORDS:
        raise InvalidArgument(
            f"a load has at most {MAX_RECORDS} requests, and this one about {requests:.0f}; make it shorter, or divide it (--part)"
        )


def check_enough(scenario: Scenario, requests: float) -> None:
    """:class:`InvalidArgument` if an objective's quantile cannot be bounded by that many requests."""
    if scenario.slo is None:
        return
    quantile, needed = scenario.slo.requests_needed()
    if requests < needed:
        raise InvalidArgument(
            f"too few requests for {format_quantile(quantile)}: it needs {_spaced(needed)}, and this load gives {_spaced(int(requests))}; "
            "make it longer"
        )


def _spaced(count: int) -> str:
    return f"{count:,}".replace(",", " ")


def _records_of(load: dict[str, Any]) -> int:
    """Room for the requests of a load; of Poisson arrivals there may be more than expected."""
    found = load.get("open")
    if found is None:
        return MAX_RECORDS // 2
    due = found["arrivals"].get("due_ns")
    if due is not None:
        return len(due)
    stages = found["stages"]
    expected = sum((one["from"] + one["to"]) / 2 * one["for_ns"] / 1e9 for one in stages)
    return min(MAX_RECORDS, int(expected + 10 * expected**0.5) + 1000)


def weights(share: int, weight: float, total: float) -> float:
    """A request's part of all requests: its endpoint's share in slots, and its weight among the endpoint's."""
    return share / SLOTS * weight / total

"""Loads of the generator of ``headgate bench``, for the other benches: what is sent, and what came of it. Read next: ``rust/load``."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from headgate.bench import hdr

if TYPE_CHECKING:
    from headgate._native import LoadRun

SECOND = 1_000_000_000
MOST_RECORDS = 12_000_000
QUANTILES = (0.5, 0.9, 0.95, 0.99, 0.999)


@dataclass(frozen=True)
class Request:
    """What is sent, over and over."""

    path: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = (("content-type", "application/json"),)
    weight: float = 1.0
    """Its share, beside others, relative to their weights."""


@dataclass(frozen=True)
class Outcome:
    """What came of a load that has ended."""

    loaded: LoadRun = field(repr=False)

    def asked(self, **question: Any) -> dict[str, Any]:
        """The generator's answer to a question; the window is all of the load unless ``from_ns`` says otherwise."""
        text = self.loaded.result(json.dumps({"quantiles": QUANTILES, "from_ns": 0} | question))
        found: dict[str, Any] = json.loads(text)
        return found

    @cached_property
    def answer(self) -> dict[str, Any]:
        """The answer about the whole load."""
        return self.asked()

    @property
    def good(self) -> int:
        """Good answers."""
        count: int = self.answer["counts"]["good"]
        return count

    @property
    def statuses(self) -> dict[str, int]:
        """Requests by what became of them: ``good``, or what went wrong."""
        counts = self.answer["counts"]
        wrong = {one["what"]: one["count"] for one in self.answer["errors"]}
        return {"good": self.good, **wrong} | ({"unsent": counts["unsent"]} if counts["unsent"] else {})

    def response(self, share: float) -> float:
        """Seconds from the due time that the share of the good answers did not exceed; 0 without any."""
        return (hdr.decode(self.answer["hdr_v2"]["response"]).quantile(share) or 0) / SECOND

    def service(self, share: float) -> float:
        """As ``response``, from sending."""
        return (hdr.decode(self.answer["hdr_v2"]["service"]).quantile(share) or 0) / SECOND

    def later_than(self, seconds: float, since: float = 0.0) -> int:
        """Requests due ``since`` that had no good answer within so many seconds."""
        objective = {"quantile": 0.5, "limit_ns": round(seconds * SECOND), "alpha": 0.05}
        found = self.asked(from_ns=round(since * SECOND), objectives=[objective])
        return found["objectives"][0]["slower"] or 0

    def all_good(self, name: str) -> Outcome:
        """Itself; ends the bench if a request had no good answer."""
        counts = self.answer["counts"]
        if not counts["due"] or counts["good"] != counts["due"]:
            raise SystemExit(f"{name}: {counts}, {self.answer['errors'][:3]}")
        return self


@dataclass(frozen=True)
class Sending:
    """A load that runs, on a thread of its own without Python."""

    loaded: LoadRun

    def wait(self, seconds: float) -> bool:
        """Waits for its end, so long at most; whether it has ended."""
        return self.loaded.wait(round(seconds * SECOND))

    def outcome(self) -> Outcome:
        """Waits for the end."""
        while not self.wait(1.0):
            pass
        return Outcome(self.loaded)


@dataclass(frozen=True)
class Generator:
    """Sends one request to one server, or a mix of several."""

    address: str
    request: Request
    core: int | None = None
    """The core of the thread that sends; None for any."""
    wait: str = "auto"
    timing_share: float = 0.0
    seed: int = 42
    protocol: str = "http"
    connections: int | None = None
    """At most; None for as many as the load needs."""
    others: tuple[Request, ...] = ()
    """What is sent beside ``request``, drawn by weight."""

    def start(self, load: dict[str, Any]) -> Sending:
        """Begins a load."""
        # Here, because some benches' parts are of use without the data plane.
        from headgate._native import LoadRun

        sent = (self.request, *self.others)
        bodies = list(dict.fromkeys(one.body for one in sent))
        places = {body: place for place, body in enumerate(bodies)}
        plan = {
            "seed": self.seed,
            "threads": 1,
            "cpus": None if self.core is None else [self.core],
            "wait": self.wait,
            "timeout_ns": 20 * SECOND,
            "max_in_flight": 8_000,
            "max_records": MOST_RECORDS,
            "load": load,
            "targets": [
                {
                    "address": self.address,
                    "authority": self.address,
                    "protocol": self.protocol,
                    "connections": self.connections,
                }
            ],
            "requests": [
                {
                    "target": 0,
                    "group": "all",
                    "weight": one.weight,
                    "path": one.path,
                    "headers": one.headers,
                    "body": places[one.body],
                }
                for one in sent
            ],
            "timing_share": self.timing_share,
            "check_share": 0.0,
        }
        loaded = LoadRun(json.dumps(plan), bodies)
        loaded.start()
        return Sending(loaded)

    def run(self, load: dict[str, Any]) -> Outcome:
        """A load to its end."""
        return self.start(load).outcome()


def closed(clients: int, seconds: float, requests: int | None = None) -> dict[str, Any]:
    """A load of so many clients that each wait for their answers."""
    return {"closed": {"clients": clients, "for_ns": round(seconds * SECOND), "requests": requests}}


def at_rate(per_second: float, seconds: float, kind: str = "poisson") -> dict[str, Any]:
    """A load at one rate, whatever the answers take."""
    stage = {"from": per_second, "to": per_second, "for_ns": round(seconds * SECOND)}
    return {"open": {"arrivals": {"kind": kind}, "stages": [stage]}}

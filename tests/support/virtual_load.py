"""A generator in virtual time: a load against a queue that is computed, for tests of what measures.

It has the form of the data plane's (``headgate.bench.native``). Waiting costs no time. The server is one queue with exponential run
times; further behaviours (errors, a server that goes away) are switches. Next: ``evidence``, the test that it decides with.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from headgate.bench import hdr
from support import evidence

Array = np.ndarray[Any, Any]


@dataclass
class VirtualServer:
    """``capacity`` runs a second at most; 0 answers at once after ``least_ns``."""

    capacity: float = 1000.0
    least_ns: int = 100_000
    gone_after_ns: int | None = None
    """From then on no request is answered."""
    failing_share: float = 0.0
    client_limit: float | None = None
    """The rate above which the client falls behind."""
    drift: float = 1.0
    """How many times as long a request takes at the end of a load as at its begin, on a machine that others use more and more."""


@dataclass
class VirtualGenerator:
    """What ``make_generator`` of the command line takes."""

    server: VirtualServer = field(default_factory=VirtualServer)
    plans: list[dict[str, Any]] = field(default_factory=list)
    on_wait: Callable[[int], None] = lambda _elapsed: None
    selftests: list[dict[str, Any]] = field(default_factory=list)
    servers: dict[str, VirtualServer] = field(default_factory=dict)
    """Those at certain addresses, if there are several."""

    def load_run(self, plan: str, bodies: Sequence[bytes]) -> VirtualRun:
        """A load of that plan."""
        read = json.loads(plan)
        assert len(bodies) == len({one["body"] for one in read["requests"]})
        self.plans.append(read)
        server = self.servers.get(read["targets"][0]["address"], self.server)
        return VirtualRun(read, server, len(self.plans), self.on_wait)

    def encode_grpc(self, envelope: str, raw_inputs: Sequence[bytes]) -> bytes:
        """Something that tells the envelope and the data apart."""
        return envelope.encode() + b"".join(raw_inputs)

    def selftest(self, question: str) -> str:
        """A client that keeps up to its limit."""
        asked = json.loads(question)
        self.selftests.append(asked)
        limit = self.server.client_limit
        limited = limit is not None and asked["rate"] > limit
        reasons = [f"lateness p99 is 9 ms at {asked['rate']:.0f}/s"] if limited else []
        return json.dumps(
            {
                "elapsed_ns": int(asked["seconds"] * 1e9),
                "finished": True,
                "good_per_second": asked["rate"],
                "client": {"limited": limited, "reasons": reasons},
            }
        )


class VirtualRun:
    """One load."""

    def __init__(
        self, plan: dict[str, Any], server: VirtualServer, number: int, on_wait: Callable[[int], None]
    ) -> None:
        self.server = server
        self.now_ns = 0
        self.stopped_ns: int | None = None
        self.timeout_ns = plan["timeout_ns"]
        self._on_wait = on_wait
        random = np.random.default_rng((plan["seed"], number))
        self.groups = sorted({one["group"] for one in plan["requests"]})
        self.due_ns, self.end_ns = _due(plan["load"], server, random)
        self.response_ns, self.run_ns = _responses(
            self.due_ns, server, random, closed="closed" in plan["load"]
        )
        self.response_ns = (self.response_ns * np.linspace(1, server.drift, len(self.due_ns))).astype(
            np.int64
        )
        self.good = random.random(len(self.due_ns)) >= server.failing_share
        if server.gone_after_ns is not None:
            self.good &= self.due_ns + self.response_ns < server.gone_after_ns
        self.good &= self.response_ns <= self.timeout_ns
        self.rate = len(self.due_ns) / max(1e-9, self.end_ns / 1e9)
        self.limited = server.client_limit is not None and self.rate > server.client_limit

    def start(self) -> None:
        """Nothing runs by itself."""

    def wait(self, timeout_ns: int) -> bool:
        """Time passes; True at the end."""
        self._on_wait(self.now_ns)
        self.now_ns += timeout_ns
        return self._finished()

    def stop(self) -> None:
        """Sends nothing more."""
        self.stopped_ns = self.now_ns

    def look(self, question: str) -> str:
        """What there is so far."""
        return json.dumps(self._answer(json.loads(question)))

    def result(self, question: str) -> str:
        """The same, with a slice."""
        assert self._finished()
        answer = self._answer(json.loads(question))
        counts = {
            name: answer["counts"][name] for name in ("due", "sent", "good", "shed", "failed", "unsent")
        }
        answer["slices"] = [{"from_ns": 0, **counts, "p50_ns": None, "p99_ns": None, "in_flight": 0}]
        taken = [int(value) for value in self.response_ns[: answer["counts"]["due"]][:_HISTOGRAM]]
        answer["hdr_v2"] = dict.fromkeys(
            ("response", "service"), hdr.encode(hdr.of_values(taken or [1_000_000]))
        )
        answer["hdr_v2"]["lateness"] = hdr.encode(hdr.of_values([11_000]))
        return json.dumps(answer)

    def _last_due(self) -> int:
        return self.end_ns if self.stopped_ns is None else min(self.end_ns, self.stopped_ns)

    def _finished(self) -> bool:
        return self.now_ns >= self._last_due()

    def _answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        until = min(self.now_ns, self._last_due())
        due = int(np.searchsorted(self.due_ns, until, side="right"))
        good = self.good[:due]
        response = np.where(good, self.response_ns[:due], 10**13)
        window = response[int(due * 0.02) :]
        latency = _latency(window, asked["quantiles"])
        return {
            "elapsed_ns": until,
            "finished": self._finished(),
            "counts": _counts(good),
            "offered_per_second": due / max(1e-9, until / 1e9),
            "good_per_second": float(good.sum()) / max(1e-9, until / 1e9),
            "warmup": {"from_ns": int(until * 0.02), "settled": True, "requests": due - len(window)},
            "response": latency,
            "service": latency,
            "lateness": {"p50_ns": 2000, "p99_ns": 9_000_000 if self.limited else 11_000, "max_ns": 50_000},
            "phases": _phases(self.response_ns[:due], self.run_ns[:due], self.server.least_ns),
            "objectives": [
                evidence.verdict(window, one["quantile"], one["limit_ns"], one["alpha"])
                for one in asked["objectives"]
            ],
            "steadiness": {"steady": True, "latency_z": 0.1, "in_flight_z": 0.1, "overload": False},
            "need_ns": 30 * 10**9,
            "client": {"limited": self.limited, "reasons": ["lateness p99 is 9 ms"] if self.limited else []},
            "errors": _errors(good),
            "groups": [{"group": name, "counts": _counts(good), "quantiles": []} for name in self.groups],
            "replies": {"compared": 10, "differing": 0},
        }


_HISTOGRAM = 20_000
"""Values of a histogram: enough for its shape."""


def _phases(response: Array, run: Array, least_ns: int) -> dict[str, Any]:
    """Where the time went: what is neither queue nor run is the least time of an answer, for decoding and replying."""
    around = _phase(np.full(min(len(response), 1), least_ns / 2))
    return {
        "sampled": len(response),
        "decode": around,
        "queue": _phase(np.maximum(response - run - least_ns, 0)),
        "run": _phase(run),
        "reply": around,
        "total": _phase(response),
        "outside": dict.fromkeys(around, 0),
    }


def _phase(values: Array) -> dict[str, Any]:
    if not len(values):
        return {}
    ordered = np.sort(values)
    return {
        "mean_ns": float(values.mean()),
        "p50_ns": int(_quantile(ordered, 0.5)),
        "p99_ns": int(_quantile(ordered, 0.99)),
    }


def _quantile(ordered: Array, share: float) -> float:
    """The quantile of sorted values, between two of them by a line: numpy sorts them anew for each share."""
    at = share * (len(ordered) - 1)
    below = int(at)
    above = min(below + 1, len(ordered) - 1)
    return float(ordered[below] + (at - below) * (ordered[above] - ordered[below]))


def _counts(good: Array) -> dict[str, int]:
    answered, failed = int(good.sum()), int((~good).sum())
    return {"due": len(good), "sent": len(good), "good": answered, "shed": 0, "failed": failed, "unsent": 0}


def _errors(good: Array) -> list[dict[str, Any]]:
    failed = int((~good).sum())
    return (
        [{"what": "500 internal", "count": failed, "example": "the model failed\x1b[31m"}] if failed else []
    )


def _latency(window: Array, quantiles: Sequence[float]) -> dict[str, Any]:
    if not len(window):
        return {"quantiles": [{"quantile": one} for one in quantiles]}
    found = []
    ordered = np.sort(window)
    for one in quantiles:
        value = int(_quantile(ordered, one))
        censored = value >= 10**12
        # The normal approximation of ranks, as if a quarter of the requests were independent.
        half = 2 * float(np.sqrt(4 * one * (1 - one) / len(window)))
        low = int(_quantile(ordered, max(one - half, 0.0)))
        high = None if censored or one + half >= 1 else int(_quantile(ordered, one + half))
        known = 5 * 10**9 if censored else value
        found.append(
            {"quantile": one, "value_ns": known, "low_ns": low, "high_ns": high, "censored": censored}
        )
    return {"mean_ns": float(np.minimum(window, 5e9).mean()), "max_ns": int(window.max()), "quantiles": found}


def _due(load: dict[str, Any], server: VirtualServer, random: np.random.Generator) -> tuple[Array, int]:
    """Due times and the end of the load."""
    if "closed" in load:
        end = load["closed"]["for_ns"]
        count = int(server.capacity * end / 1e9)
        return np.linspace(0, end, count, endpoint=False).astype(np.int64), end
    opened = load["open"]
    if opened["arrivals"]["kind"] == "trace":
        due = np.sort(np.asarray(opened["arrivals"]["due_ns"], dtype=np.int64))
        return due, int(due[-1]) + 1
    parts: list[Array] = []
    at = 0
    for stage in opened["stages"]:
        rate = (stage["from"] + stage["to"]) / 2
        count = int(rate * stage["for_ns"] / 1e9)
        gaps = random.exponential(1e9 / rate, count + 1)
        times = np.cumsum(gaps).astype(np.int64)
        parts.append(at + times[times < stage["for_ns"]])
        at += stage["for_ns"]
    return np.concatenate(parts), at


def _responses(
    due_ns: Array, server: VirtualServer, random: np.random.Generator, *, closed: bool
) -> tuple[Array, Array]:
    """What requests take in one queue with exponential run times (Lindley), or with a run time alone if clients wait; and the runs."""
    runs = random.exponential(1e9 / server.capacity, len(due_ns))
    waits = 0 if closed or len(due_ns) < 2 else queue_ns(due_ns, runs)
    return (waits + runs + server.least_ns).astype(np.int64), runs


def queue_ns(due_ns: Array, runs_ns: Array) -> Array:
    """How long each request waits for those before it."""
    steps = np.concatenate([[0.0], runs_ns[:-1] - np.diff(due_ns)])
    walk = np.cumsum(steps)
    waits: Array = walk - np.minimum.accumulate(walk)
    return waits

"""Sends the same request with wrk from one core and reads what it cost: requests/s, CPU time, latencies.

Read next: ``report``, which makes tables of the measurements.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benches.servers import REQUEST, Server

SCRIPT = Path(__file__).resolve().parent / "peers" / "post.lua"


@dataclass(frozen=True)
class Measurement:
    """One server under one number of connections in one round."""

    server: str
    connections: int
    round: int
    requests_per_second: float
    cpu_us_per_request: float
    """CPU time of the server's process, user and system, in microseconds."""
    p50_us: float
    p99_us: float

    def as_json(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


@dataclass(frozen=True)
class Effort:
    """How much is measured: the connections, rounds and the seconds of each single run, on which client core."""

    connections: Sequence[int]
    rounds: int
    seconds: int
    core: int


def measure(server: Server, connections: int, number: int, effort: Effort) -> Measurement:
    """One run of wrk against one server. Ends the bench when any request failed."""
    command = ["taskset", "--cpu-list", str(effort.core), "wrk", "--threads", "1"]
    command += ["--connections", str(connections), "--duration", f"{effort.seconds}s", "--timeout", "10s"]
    command += ["--script", str(SCRIPT), server.url, "--", str(REQUEST)]
    before = server.cpu_seconds()
    done = subprocess.run(command, capture_output=True, text=True, timeout=effort.seconds + 30, check=True)
    spent = server.cpu_seconds() - before
    outcome = json.loads(done.stdout.splitlines()[-1])
    if outcome["failed"] or not outcome["requests"]:
        raise SystemExit(f"{server.name}: {outcome['failed']} of {outcome['requests']} requests failed")
    return Measurement(
        server=server.name,
        connections=connections,
        round=number,
        requests_per_second=outcome["requests"] / (outcome["microseconds"] / 1e6),
        cpu_us_per_request=spent * 1e6 / outcome["requests"],
        p50_us=outcome["p50_us"],
        p99_us=outcome["p99_us"],
    )


def interleaved(servers: Sequence[Server], effort: Effort) -> Iterator[Measurement]:
    """All rounds: in each, every server in turn, beginning with another one, so that drift of the machine hits all."""
    for server in servers:  # caches, branch predictors and lazily made state, before anything counts
        measure(server, 8, 0, Effort(effort.connections, 1, 1, effort.core))
    for number in range(1, effort.rounds + 1):
        for connections in effort.connections:
            for place in range(len(servers)):
                yield measure(servers[(place + number) % len(servers)], connections, number, effort)

"""Sends the same request to every server in turn and notes what it cost: requests/s, CPU time, latencies.

Read next: ``report``, which makes tables of the measurements.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benches import clients
from benches.clients import Ask, Client
from benches.servers import PATH, REQUEST, Server

WRK, AWAKE = "wrk", "awake"
CLIENTS: Mapping[str, Client] = {WRK: clients.wrk, AWAKE: clients.awake}


@dataclass(frozen=True)
class Measurement:
    """One server under one number of connections of one client in one round."""

    server: str
    client: str
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


def measure(server: Server, client: str, ask: Ask, number: int) -> Measurement:
    """One run of a client against one server. Ends the bench when any request failed."""
    outcome = CLIENTS[client](server, ask)
    return Measurement(
        server=server.name,
        client=client,
        connections=ask.connections,
        round=number,
        requests_per_second=outcome.per_second,
        cpu_us_per_request=outcome.cpu_us,
        p50_us=outcome.p50_us,
        p99_us=outcome.p99_us,
    )


def interleaved(servers: Sequence[Server], effort: Effort) -> Iterator[Measurement]:
    """All rounds: in each, every server in turn, beginning with another one, so that drift of the machine hits all."""
    for server in servers:  # caches, branch predictors and lazily made state, before anything counts
        measure(server, WRK, Ask(PATH, REQUEST, 8, 1, effort.core), 0)
    for number in range(1, effort.rounds + 1):
        for connections in effort.connections:
            ask = Ask(PATH, REQUEST, connections, effort.seconds, effort.core)
            for client in CLIENTS:
                for place in range(len(servers)):
                    yield measure(servers[(place + number) % len(servers)], client, ask, number)

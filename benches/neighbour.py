"""``make bench-neighbour``: CPU time of a request beside a process that keeps the last-level cache full of its own memory, and without it.

Machines in clouds share that cache with others. The neighbour reads and writes a buffer of twice the cache's size, over and over, on a
core of its own; with two cores on that of the client, at a low priority, so that it has the time in which the client sleeps. Each round
measures every server with and without it, one right after the other. What is compared is the CPU time of Headgate with that of nginx and
of a bare loop. Writes ``results/<date>-neighbour.md``. Needs nginx and wrk. About two minutes.
Not here: the servers (``servers``), the clients (``clients``).
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from benches.clients import Ask, Client, awake, need, wrk
from benches.report import BARE, BARE_RUN, CONSTANT, NGINX, ON, RESULTS, machine
from benches.servers import BARE_LOOP, PATH, REQUEST, ROOT, Launcher, Server, start_all

SHOWN = (NGINX, BARE, BARE_RUN, CONSTANT, ON)
CONNECTIONS = 8
UNKNOWN_CACHE = 32 << 20
MOST_BYTES = 1 << 30
"""The largest buffer of the neighbour."""
LOW_PRIORITY = 10
PARTS = 64
"""The neighbour looks between two of so many parts whether it is to end."""
LONGEST_SECONDS = 60.0
"""A neighbour that is not ended ends by itself."""


@dataclass(frozen=True)
class Cores:
    """Which core is whose."""

    server: int
    client: int
    neighbour: int

    @property
    def client_shares(self) -> bool:
        """Whether the client must leave time to the neighbour."""
        return self.client == self.neighbour


@dataclass(frozen=True)
class Cost:
    """CPU time of a request in microseconds, without the neighbour and beside it, and how many GB/s that walked."""

    server: str
    alone_us: float
    beside_us: float
    walked: float


def last_level_bytes(cpu: int) -> int:
    """The size of the last-level cache of a core, in bytes, as the system tells it."""
    folder = Path(f"/sys/devices/system/cpu/cpu{cpu}/cache")
    sizes = [path.read_text().strip() for path in sorted(folder.glob("index*/size"))]
    units = {"K": 10, "M": 20, "G": 30}
    found = [int(size[:-1]) << units[size[-1]] for size in sizes if size[-1:] in units]
    return max(found, default=UNKNOWN_CACHE)


def walk(buffer_bytes: int, seconds: float) -> None:
    """Reads and writes a buffer, each time from a ``+`` on standard input to the next byte, or for so long; then prints the GB/s.

    Ends with standard input.
    """
    parts = np.array_split(np.ones(buffer_bytes // 8, np.int64), PARTS)
    stdin = sys.stdin.fileno()
    print("ready", flush=True)
    while os.read(stdin, 1) == b"+":
        begun, walked = time.monotonic(), 0
        for part in itertools.cycle(parts):
            if time.monotonic() - begun > seconds or select.select([stdin], [], [], 0)[0]:
                break
            np.add(part, 1, out=part)
            walked += part.nbytes
        spent = time.monotonic() - begun
        if not os.read(stdin, 1):
            return
        print(walked / 1e9 / spent, flush=True)


class Neighbour:
    """The process that walks. It is started once, because to fill its buffer takes seconds."""

    def __init__(self, core: int, buffer_bytes: int) -> None:
        command = ["taskset", "--cpu-list", str(core), "nice", "-n", str(LOW_PRIORITY)]
        command += [sys.executable, "-m", "benches.neighbour", "--walk", str(buffer_bytes)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
        self.speed = 0.0
        """What it walked last, in GB/s."""
        self._told()

    def _told(self) -> bytes:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the neighbour has ended")
        return line

    def _tell(self, command: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(command)
        self._process.stdin.flush()

    @contextlib.contextmanager
    def walking(self) -> Iterator[None]:
        """Has it walk for the time of the block."""
        self._tell(b"+")
        try:
            yield
        finally:
            self._tell(b"-")
            self.speed = float(self._told())

    def stop(self) -> None:
        """Ends it."""
        try:
            self._process.communicate(timeout=LONGEST_SECONDS)
        finally:
            self._process.kill()


def measured(servers: list[Server], rounds: int, ask: Ask, cores: Cores) -> Iterator[Cost]:
    """All rounds: in each, every server alone and beside the neighbour, in an order that alternates."""
    neighbour = Neighbour(cores.neighbour, min(2 * last_level_bytes(cores.server), MOST_BYTES))
    try:
        yield from measured_beside(neighbour, servers, rounds, ask, cores)
    finally:
        neighbour.stop()


def measured_beside(
    neighbour: Neighbour, servers: list[Server], rounds: int, ask: Ask, cores: Cores
) -> Iterator[Cost]:
    """As :func:`measured`, with a neighbour that is ready."""
    # A client that never sleeps would leave the neighbour nothing.
    client: Client = wrk if cores.client_shares else awake
    for server in servers:
        client(server, ask)
    for number in range(rounds):
        for place in range(len(servers)):
            server = servers[(place + number) % len(servers)]
            before = None if number % 2 else client(server, ask)
            with neighbour.walking():
                crowded = client(server, ask)
            alone = before or client(server, ask)
            yield Cost(server.name, alone.cpu_us, crowded.cpu_us, neighbour.speed)


def table(costs: list[Cost]) -> list[str]:
    """The medians of each server, and Headgate's CPU time by nginx's."""
    lines = [
        "| server | alone, us | beside, us | beside / alone | of nginx alone | of nginx beside | GB/s walked |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]

    def middle(name: str, field: str) -> float:
        values: list[float] = [getattr(cost, field) for cost in costs if cost.server == name]
        return statistics.median(values)

    for name in SHOWN:
        alone, crowded = middle(name, "alone_us"), middle(name, "beside_us")
        grown = statistics.median(cost.beside_us / cost.alone_us for cost in costs if cost.server == name)
        of_nginx = (middle(NGINX, "alone_us") / alone, middle(NGINX, "beside_us") / crowded)
        cells = [f"{alone:.2f}", f"{crowded:.2f}", f"{grown:.2f}", *(f"{share:.2f}" for share in of_nginx)]
        lines.append(f"| {name} | {' | '.join(cells)} | {middle(name, 'walked'):.1f} |")
    return lines


def write(costs: list[Cost], facts: dict[str, object]) -> str:
    """Writes the result; returns the text."""
    now = datetime.now(UTC)
    about = machine() | {key: str(value) for key, value in facts.items()}
    lines = [
        f"# neighbour, {now:%Y-%m-%d %H:%M} UTC",
        "",
        "CPU time of the same request (64 numbers in JSON), user and system, beside a process that reads and writes twice the last-level "
        "cache over and over, and without it. Medians of interleaved rounds.",
        "",
        *table(costs),
        "",
        *[f"- {key}: {value}" for key, value in about.items()],
        "",
    ]
    RESULTS.mkdir(exist_ok=True)
    text = "\n".join(lines)
    (RESULTS / f"{now:%Y-%m-%d}-neighbour.md").write_text(text)
    return text


def main() -> None:
    """Measures and writes; with ``--walk`` it is the neighbour."""
    parser = argparse.ArgumentParser(description="Measures requests beside a process that fills the cache.")
    parser.add_argument("--seconds", type=int, default=2, help="of each single run (default 2)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, each with every server (default 3)")
    parser.add_argument("--walk", type=int, metavar="BYTES", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.walk is not None:
        return walk(arguments.walk, LONGEST_SECONDS)
    need("nginx", "wrk", "taskset", "nice", peers=[BARE_LOOP])
    all_cores = sorted(os.sched_getaffinity(0))
    if len(all_cores) < 2:
        raise SystemExit("the bench needs two cores: one for the server, one for its client")
    cores = Cores(all_cores[0], all_cores[-1], all_cores[1])
    ask = Ask(PATH, REQUEST, CONNECTIONS, arguments.seconds, cores.client)
    costs: list[Cost] = []
    with tempfile.TemporaryDirectory(prefix="headgate-neighbour-") as folder:
        servers = start_all(Launcher(cores.server, Path(folder)), lambda name: name in SHOWN)
        try:
            shown = [server for server in servers if server.name in SHOWN]
            for cost in measured(shown, arguments.rounds, ask, cores):
                print(cost, file=sys.stderr, flush=True)
                costs.append(cost)
        finally:
            for server in servers:
                server.stop()
    facts = {
        "last-level cache": f"{last_level_bytes(cores.server) >> 20} MiB",
        "client": "wrk, on the core of the neighbour" if cores.client_shares else "one that never sleeps",
        "connections": CONNECTIONS,
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
    }
    print(write(costs, facts))
    return None


if __name__ == "__main__":
    main()

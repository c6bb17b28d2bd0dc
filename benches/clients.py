"""Two clients that ask the same over and over: wrk, and the generator of ``headgate bench`` that never sleeps.

``awake`` is for what a request costs a server. A client that waits in the kernel is woken in the server's time, where both share
a machine, and that happens to a server that is slower than its client and not to a faster one. wrk is for requests/s.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benches.generator import Generator, Request, closed
from benches.servers import Server

SCRIPTS = Path(__file__).resolve().parent / "peers"


@dataclass(frozen=True)
class Ask:
    """What is asked, how often at a time, for how long, and by which core."""

    path: str
    body: Path
    connections: int
    seconds: int
    core: int | None = None
    """The core that the client is pinned to; None for any."""
    headers: tuple[str, ...] = ()
    """``Name: value``."""
    script: str = "post.lua"
    """How wrk asks."""


@dataclass(frozen=True)
class Outcome:
    """CPU time of a request, the server's user and system time, and requests a second; latencies in microseconds."""

    cpu_us: float
    per_second: float
    p50_us: float
    p99_us: float


Client = Callable[[Server, Ask], Outcome]


def wrk(server: Server, ask: Ask) -> Outcome:
    """One run of wrk; every request must be answered well."""
    command = ["wrk", "--threads", "1", "--timeout", "20s"]
    command += ["--connections", str(ask.connections), "--duration", f"{ask.seconds}s"]
    for header in ask.headers:
        command += ["--header", header]
    command += ["--script", str(SCRIPTS / ask.script)]
    return run(server, ask, [*command, f"http://{server.address}{ask.path}", "--", str(ask.body)])


def awake(server: Server, ask: Ask) -> Outcome:
    """One run of a client that never sleeps: between two requests it polls its sockets. Every request must be answered well."""
    fields = tuple((name, value.strip()) for name, _, value in (line.partition(":") for line in ask.headers))
    request = Request(ask.path, ask.body.read_bytes(), fields)
    generator = Generator(server.address, request, ask.core, wait="spin")
    before = server.cpu_seconds()
    found = generator.run(closed(ask.connections, ask.seconds)).all_good(server.name)
    spent = server.cpu_seconds() - before
    rate = found.good * 1e9 / found.answer["elapsed_ns"]
    return Outcome(spent * 1e6 / found.good, rate, found.service(0.5) * 1e6, found.service(0.99) * 1e6)


def run(server: Server, ask: Ask, command: list[str]) -> Outcome:
    """Runs a program, and reads what the server spent meanwhile."""
    pinned = [] if ask.core is None else ["taskset", "--cpu-list", str(ask.core)]
    before = server.cpu_seconds()
    done = subprocess.run(
        [*pinned, *command], capture_output=True, text=True, timeout=ask.seconds + 60, check=True
    )
    spent = server.cpu_seconds() - before
    told = json.loads(done.stdout.splitlines()[-1])
    if told["failed"] or not told["requests"]:
        raise SystemExit(f"{server.name}: {told['failed']} of {told['requests']} requests failed")
    rate = told["requests"] / (told["microseconds"] / 1e6)
    return Outcome(spent * 1e6 / told["requests"], rate, told["p50_us"], told["p99_us"])


def need(*programs: str, peers: Sequence[Path] = ()) -> None:
    """Ends with a sentence when the machine lacks what a bench stands on."""
    for program in programs:
        if shutil.which(program) is None:
            raise SystemExit(
                f"the bench needs {program}; on Debian: apt-get install nginx wrk util-linux valgrind"
            )
    for peer in peers:
        if not peer.exists():
            raise SystemExit(f"the bench needs {peer}: the bench's make command builds it")

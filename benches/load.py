"""``make bench-load``: the load generator against wrk and h2load, a server whose delay is known, and its own promises.

The server on one core, the generator on another; rounds are interleaved. Read next: ``rust/load``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benches import clients
from benches.clients import Ask
from benches.generator import Generator, Request, at_rate, closed
from benches.report import RESULTS, machine
from benches.servers import PATH, PEERS, REQUEST, Launcher, Server, answer_of

DELAY_SERVER = PEERS / "delay_server"
DIGITS = Request(PATH, REQUEST.read_bytes())


@dataclass(frozen=True)
class Effort:
    """How much is measured, and on which cores."""

    rounds: int
    seconds: int
    server_core: int
    client_core: int


def against_wrk(nginx: Server, effort: Effort) -> list[str]:
    """Requests a second of closed loops with 64 connections."""
    ask = Ask(PATH, REQUEST, 64, effort.seconds, effort.client_core)
    generator = Generator(nginx.address, DIGITS, effort.client_core)
    ours, theirs = [], []
    for number in range(effort.rounds):
        both: list[Callable[[], None]] = [
            lambda: ours.append(
                generator.run(closed(64, effort.seconds)).all_good("nginx").good / effort.seconds
            ),
            lambda: theirs.append(clients.wrk(nginx, ask).per_second),
        ]
        for one in both if number % 2 else reversed(both):
            one()
    ratio = statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True))
    return [
        "## Closed loop, 64 connections, nginx with a fixed body",
        "",
        "| generator | requests/s (median of rounds) |",
        "|---|---:|",
        f"| headgate bench | {statistics.median(ours):,.0f} |",
        f"| wrk, one thread | {statistics.median(theirs):,.0f} |",
        "",
        f"Ratio within a round, median: {ratio:.2f}",
        "",
    ]


def open_loop(nginx: Server, effort: Effort, rates: Sequence[int]) -> list[str]:
    """Lateness at some rates, waiting by polling and by sleeping."""
    lines = [
        "## Open loop, Poisson, nginx with a fixed body",
        "",
        "| wait | rate/s | sent of due | good/s | lateness p50 us | p99 us | max us |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for wait in ("spin", "sleep"):
        for rate in rates:
            generator = Generator(nginx.address, DIGITS, effort.client_core, wait)
            found = generator.run(at_rate(rate, effort.seconds)).all_good("nginx").answer
            counts, late = found["counts"], found["lateness"]
            lines.append(
                f"| {wait} | {rate:,} | {counts['sent'] / counts['due']:.4f} | {counts['good'] / effort.seconds:,.0f} "
                f"| {late['p50_ns'] / 1e3:.1f} | {late['p99_ns'] / 1e3:.1f} | {late['max_ns'] / 1e3:.0f} |"
            )
    return [*lines, ""]


def known_delays(launcher: Launcher, effort: Effort) -> list[str]:
    """What is measured of servers whose delay is known; oha beside it if it is installed."""
    lines = [
        "## Servers of a known delay, 200 requests/s",
        "",
        "| delay ms | p50 ms | p99 ms | oha p50 ms | oha p99 ms |",
        "|---:|---:|---:|---:|---:|",
    ]
    for delay_ms in (1, 5, 50):
        process = launcher.run([str(DELAY_SERVER), str(delay_ms * 1000)], f"delay-{delay_ms}")
        assert process.stdout is not None
        server = Server(f"{delay_ms} ms", process, process.stdout.readline().strip())
        try:
            generator = Generator(server.address, DIGITS, effort.client_core, "sleep")
            found = generator.run(at_rate(200, 2 * effort.seconds, "constant")).all_good(server.name)
            ours = {share: found.response(share) * 1e3 for share in (0.5, 0.99)}
            theirs = oha(server, effort)
        finally:
            server.stop()
        lines.append(f"| {delay_ms} | {ours[0.5]:.3f} | {ours[0.99]:.3f} | {theirs[0]} | {theirs[1]} |")
    return [*lines, ""]


def oha(server: Server, effort: Effort) -> tuple[str, str]:
    """p50 and p99 in milliseconds by oha with its correction for late sends; dashes without it."""
    if shutil.which("oha") is None:
        return "-", "-"
    command = ["taskset", "--cpu-list", str(effort.client_core), "oha", "--no-tui", "--output-format", "json"]
    command += ["-q", "200", "--latency-correction", "-z", f"{2 * effort.seconds}s", "-c", "64", server.url]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    found = json.loads(done.stdout)["latencyPercentiles"]
    return f"{found['p50'] * 1e3:.3f}", f"{found['p99'] * 1e3:.3f}"


def sampling(headgate: Server, effort: Effort) -> list[str]:
    """What asking for timing headers costs the server: CPU time of a request."""

    def cost(share: float) -> float:
        generator = Generator(headgate.address, DIGITS, effort.client_core, timing_share=share)
        before = headgate.cpu_seconds()
        good = generator.run(closed(8, effort.seconds)).all_good(headgate.name).good
        return (headgate.cpu_seconds() - before) / good * 1e6

    cost(0.0)
    pairs = []
    for number in range(2 * effort.rounds):
        order = (0.0, 0.02) if number % 2 else (0.02, 0.0)
        found = {share: cost(share) for share in order}
        pairs.append((found[0.0], found[0.02]))
    ratio = statistics.median(asked / plain for plain, asked in pairs)
    return [
        "## Timing headers on 2 % of requests, digits version 1",
        "",
        f"CPU of the server: {statistics.median(plain for plain, _ in pairs):.2f} us a request without, ratio {ratio:.4f} with "
        f"(median of {len(pairs)} interleaved pairs).",
        "",
    ]


def memory(nginx: Server, effort: Effort, requests: int) -> list[str]:
    """The memory of a run of so many requests, in a process of its own."""
    arguments = ["--child", nginx.address, str(effort.client_core), str(requests)]
    done = subprocess.run(
        [sys.executable, "-m", "benches.load", *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    told = json.loads(done.stdout)
    return [
        "## Memory",
        "",
        f"{told['requests']:,} requests: {told['peak_mib'] - told['begin_mib']:.0f} MiB more than before the run.",
        "",
    ]


def child(address: str, core: int, requests: int) -> None:
    """A closed loop of so many requests; prints the memory of this process before and at most."""
    begin = resident("VmRSS")
    found = Generator(address, DIGITS, core).run(closed(64, 300, requests)).all_good("nginx")
    peak = resident("VmHWM")
    print(json.dumps({"begin_mib": begin, "peak_mib": peak, "requests": found.good}))


def resident(name: str) -> float:
    """A line of this process's status, in MiB."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[name].split()[0]) / 1024


def measured(effort: Effort, requests: int) -> list[str]:
    """All parts."""
    with tempfile.TemporaryDirectory(prefix="headgate-load-") as name:
        launcher = Launcher(effort.server_core, Path(name))
        teacher = launcher.starlette()
        body = teacher.ask().decode()
        teacher.stop()
        servers = [launcher.nginx(body)]
        try:
            values = answer_of(body.encode())
            lines = against_wrk(servers[0], effort) + open_loop(servers[0], effort, (5_000, 20_000, 50_000))
            lines += known_delays(launcher, effort)
            servers.append(launcher.headgate("Headgate", constant="0%", sketches="on", answer=values))
            lines += sampling(servers[1], effort)
            if requests:
                lines += memory(servers[0], effort, requests)
        finally:
            for server in servers:
                server.stop()
    return lines


def main() -> None:
    """The command line; about four minutes, and two more with ``--requests``."""
    parser = argparse.ArgumentParser(description="Measures the load generator.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="of each single run (default 4)")
    parser.add_argument(
        "--requests", type=int, default=0, help="of the run whose memory is measured; 0 for none"
    )
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        address, core, requests = arguments.child
        child(address, int(core), int(requests))
        return
    clients.need("nginx", "wrk", "taskset", peers=[DELAY_SERVER])
    server_core, *_, client_core = sorted(os.sched_getaffinity(0))
    effort = Effort(arguments.rounds, arguments.seconds, server_core, client_core)
    lines = measured(effort, arguments.requests)
    facts = machine() | {"rounds": effort.rounds, "seconds": effort.seconds}
    title = [f"# load, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC", ""]
    text = "\n".join([*title, *lines, *(f"- {key}: {value}" for key, value in facts.items()), ""])
    (RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-load.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

"""``make bench-load``: the load generator against wrk and h2load, a server whose delay is known, and its own promises.

The server on one core, the generator on another; rounds are interleaved. Read next: ``rust/load``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from benches import clients, wire_times
from benches.claims import Claim, table
from benches.clients import Ask
from benches.generator import Generator, Request, at_rate, closed
from benches.report import RESULTS, machine
from benches.servers import PATH, PEERS, REQUEST, Launcher, Server, answer_of
from headgate._native import encode_grpc_infer

DELAY_SERVER = PEERS / "delay_server"
DIGITS = Request(PATH, REQUEST.read_bytes())
NGINX_CONNECTIONS = 1_000
"""It closes those beyond its `worker_connections`, which a busy machine reaches."""
Part = tuple[list[str], list[Claim]]
"""Lines of the report, and what they promise."""
BY_TESTS = (
    "Decided by tests, on any machine: gaps of Poisson arrivals pass Kolmogorov and Smirnov's test (`rust/load/src/schedule`), the "
    "vectors, 100 searches in virtual time (`tests/unit/bench/test_search.py`). By simulation: coverage of intervals, errors of "
    "comparisons (`make bench-capacity`). Plans: `make bench-plans`."
)


@dataclass(frozen=True)
class Effort:
    """How much is measured, and on which cores."""

    rounds: int
    seconds: int
    server_core: int
    client_core: int


def rounds_of(
    effort: Effort, ours: Callable[[], float], theirs: Callable[[], float]
) -> tuple[float, float, float]:
    """Medians of two figures that are measured in turns, and of their ratio within a round."""
    pairs = []
    for number in range(effort.rounds):
        if number % 2:
            pairs.append((ours(), theirs()))
        else:
            second = theirs()
            pairs.append((ours(), second))
    middle = statistics.median
    return (
        middle(one for one, _ in pairs),
        middle(two for _, two in pairs),
        middle(one / two for one, two in pairs),
    )


def against_wrk(nginx: Server, effort: Effort) -> Part:
    """Requests a second of closed loops with 64 connections."""
    ask = Ask(PATH, REQUEST, 64, effort.seconds, effort.client_core)
    generator = Generator(nginx.address, DIGITS, effort.client_core)
    ours, theirs, ratio = rounds_of(
        effort,
        lambda: generator.run(closed(64, effort.seconds)).all_good("nginx").good / effort.seconds,
        lambda: clients.wrk(nginx, ask).per_second,
    )
    claim = Claim("closed loop, 64 connections, against wrk", "at least 0.80", f"{ratio:.2f}", ratio >= 0.8)
    return [
        "## Closed loop, 64 connections, nginx with a fixed body",
        "",
        f"{ours:,.0f} requests/s; wrk with one thread {theirs:,.0f}; ratio within a round {ratio:.2f}. Medians of {effort.rounds} rounds.",
        "",
    ], [claim]


def against_h2load(headgate: Server, effort: Effort) -> Part:
    """Unary gRPC calls, 64 in flight on four connections, of the constant version."""
    title = ["## Closed loop over gRPC, 64 in flight on 4 connections, a constant version", ""]
    if shutil.which("h2load") is None:
        return [*title, "h2load is not installed (nghttp2-client).", ""], []
    message = grpc_request()
    generator = Generator(headgate.grpc, message, effort.client_core, protocol="grpc", connections=4)
    ours, theirs, ratio = rounds_of(
        effort,
        lambda: generator.run(closed(64, effort.seconds)).all_good(headgate.name).good / effort.seconds,
        lambda: h2load(headgate.grpc, message, effort),
    )
    return [
        *title,
        f"{ours:,.0f} requests/s; h2load {theirs:,.0f}; ratio within a round {ratio:.2f}. One core for the server, which may be the limit.",
        "",
    ], []


def grpc_request() -> Request:
    """The digits request as a message, to the constant version."""
    tensor = json.loads(REQUEST.read_bytes())["inputs"][0]
    data = tensor.pop("data")
    envelope = {"model_name": "digits", "model_version": "constant", "inputs": [tensor]}
    raw = np.asarray(data, dtype=np.float32).tobytes()
    body = encode_grpc_infer(json.dumps(envelope), [raw])
    return Request("/inference.GRPCInferenceService/ModelInfer", body, ())


def h2load(address: str, message: Request, effort: Effort) -> float:
    """Requests a second by h2load, with the same number in flight."""
    with tempfile.NamedTemporaryFile(suffix=".grpc") as framed:
        framed.write(b"\0" + len(message.body).to_bytes(4, "big") + message.body)
        framed.flush()
        command = [
            "taskset",
            "--cpu-list",
            str(effort.client_core),
            "h2load",
            "-c",
            "4",
            "-m",
            "16",
            "-t",
            "1",
        ]
        command += ["-D", str(effort.seconds), "-d", framed.name]
        command += ["-H", "content-type: application/grpc", "-H", "te: trailers"]
        done = subprocess.run(
            [*command, f"http://{address}{message.path}"],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
    counts = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", done.stdout)
    if counts is None or counts[1] == "0" or counts[2] != "0" or counts[3] != "0":
        raise SystemExit(f"h2load at {address}:\n{done.stdout}")
    return int(counts[1]) / effort.seconds


def open_loop(nginx: Server, effort: Effort, rates: Sequence[int]) -> Part:
    """Lateness at some rates, waiting by polling and by sleeping."""
    lines = [
        "## Open loop, Poisson, nginx with a fixed body",
        "",
        "| wait | rate/s | sent of due | good/s | lateness p50 us | p99 us | max us |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    claims = []
    for wait, most_us in (("spin", 20), ("sleep", 150)):
        for rate in rates:
            generator = Generator(
                nginx.address, DIGITS, effort.client_core, wait, connections=NGINX_CONNECTIONS
            )
            # A machine that is too slow for the rate is told in the table.
            found = generator.run(at_rate(rate, effort.seconds)).answer
            counts, late = found["counts"], found["lateness"]
            sent, p99_us = counts["sent"] / counts["due"], late["p99_ns"] / 1e3
            lines.append(
                f"| {wait} | {rate:,} | {sent:.4f} | {counts['good'] / effort.seconds:,.0f} "
                f"| {late['p50_ns'] / 1e3:.1f} | {p99_us:.1f} | {late['max_ns'] / 1e3:.0f} |"
            )
        claims.append(
            Claim(
                f"open loop at {rates[-1]:,}/s, {wait}: sent, and lateness p99",
                f"all, at most {most_us} us",
                f"{sent:.2%}, {p99_us:.1f} us",
                sent == 1.0 and p99_us <= most_us,
            )
        )
    note = "The generator has a core of its own here; the kernel's work for both sides of the loopback interface is on it as well."
    return [*lines, "", note, ""], claims


def known_delays(launcher: Launcher, effort: Effort) -> Part:
    """What is measured of servers whose delay is known; oha beside it if it is installed."""
    lines = [
        "## Servers of a known delay, 200 requests/s",
        "",
        "| delay ms | p50 ms | p99 ms | oha p50 ms | oha p99 ms |",
        "|---:|---:|---:|---:|---:|",
    ]
    claims = []
    for delay_ms in (1, 5, 50):
        with delay_server(launcher, delay_ms * 1000) as server:
            generator = Generator(server.address, DIGITS, effort.client_core, "sleep")
            found = generator.run(at_rate(200, 2 * effort.seconds, "constant")).all_good(server.name)
            p50, p99 = (found.response(share) * 1e3 for share in (0.5, 0.99))
            theirs = oha(server, effort)
        shown = " | ".join("-" if one is None else f"{one:.3f}" for one in theirs or (None, None))
        lines.append(f"| {delay_ms} | {p50:.3f} | {p99:.3f} | {shown} |")
        most = delay_ms * 1.01 + 0.1
        claims.append(
            Claim(
                f"a delay of {delay_ms} ms: p50 and p99",
                f"{delay_ms} to {most:.2f} ms",
                f"{p50:.3f}, {p99:.3f} ms",
                delay_ms <= p50 and p99 <= most,
            )
        )
        if theirs is not None:
            apart = max(abs(p50 / theirs[0] - 1), abs(p99 / theirs[1] - 1))
            claims.append(
                Claim(
                    f"a delay of {delay_ms} ms: apart from oha", "at most 5 %", f"{apart:.1%}", apart <= 0.05
                )
            )
    if shutil.which("oha") is None:
        lines += ["", "oha is not on the path: `cargo install oha` has its columns measured."]
    return [*lines, ""], claims


def stall(launcher: Launcher, effort: Effort) -> Part:
    """100 requests a second to one queue of 1 ms each that stands still in the sixth second of ten."""
    wanted = {0.95: 551.0, 0.99: 911.0, 0.999: 992.0}
    # A millisecond early, so that the request that is due with the stall is in it for certain.
    with delay_server(launcher, 1000, 4999, 5999) as server:
        generator = Generator(server.address, DIGITS, effort.client_core, "sleep")
        found = generator.run(at_rate(100, 10, "constant")).all_good("a stall")
    measured = {share: found.response(share) * 1e3 for share in wanted}
    apart = max(abs(measured[share] / ms - 1) for share, ms in wanted.items())
    told = ", ".join(f"p{share * 100:g} {measured[share]:.1f} ms ({ms:.0f})" for share, ms in wanted.items())
    claim = Claim("a stall of a second: p95, p99, p99.9", "within 2 %", f"{apart:.1%}", apart <= 0.02)
    return ["## A stall of a second", "", f"{told}; expected in brackets.", ""], [claim]


@contextmanager
def delay_server(launcher: Launcher, *numbers: int) -> Iterator[Server]:
    """A server whose delay is known, while the block runs."""
    words = [str(number) for number in numbers]
    process = launcher.run([str(DELAY_SERVER), *words], f"delay-{'-'.join(words)}")
    assert process.stdout is not None
    server = Server(f"{numbers[0] / 1000:g} ms", process, process.stdout.readline().strip())
    try:
        yield server
    finally:
        server.stop()


def oha(server: Server, effort: Effort) -> tuple[float, float] | None:
    """p50 and p99 in milliseconds by oha with its correction for late sends; None without it."""
    if shutil.which("oha") is None:
        return None
    command = ["taskset", "--cpu-list", str(effort.client_core), "oha", "--no-tui", "--output-format", "json"]
    command += ["-q", "200", "--latency-correction", "-z", f"{2 * effort.seconds}s", "-c", "64", server.url]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    found = json.loads(done.stdout)["latencyPercentiles"]
    return found["p50"] * 1e3, found["p99"] * 1e3


def sampling(headgate: Server, effort: Effort) -> Part:
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
    ], [
        Claim("timing headers on 2 %: CPU of the server", "at most 1.01 times", f"{ratio:.4f}", ratio <= 1.01)
    ]


def memory(nginx: Server, effort: Effort, requests: int) -> Part:
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
    more = told["peak_mib"] - told["begin_mib"]
    claim = Claim(
        f"memory for {told['requests']:,} requests", "at most 150 MiB", f"{more:.0f} MiB", more <= 150
    )
    return [
        "## Memory",
        "",
        f"{told['requests']:,} requests: {more:.0f} MiB more than before the run.",
        "",
    ], [claim]


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


def told(part: Part) -> Part:
    """The part, which is printed as well: the minutes that it took are not lost if a later one ends the bench."""
    print("\n".join(part[0]), file=sys.stderr, flush=True)
    return part


def measured(effort: Effort, requests: int) -> list[str]:
    """All parts, the table of what was promised before them."""
    with tempfile.TemporaryDirectory(prefix="headgate-load-") as name, ExitStack() as stack:
        launcher = Launcher(effort.server_core, Path(name))
        teacher = launcher.starlette()
        body = teacher.ask().decode()
        teacher.stop()
        nginx = launcher.nginx(body)
        stack.callback(nginx.stop)
        parts = [told(against_wrk(nginx, effort)), told(open_loop(nginx, effort, (5_000, 20_000, 50_000)))]
        parts += [told(known_delays(launcher, effort)), told(stall(launcher, effort))]
        headgate = launcher.headgate(
            "Headgate", constant="0%", sketches="on", answer=answer_of(body.encode())
        )
        stack.callback(headgate.stop)
        parts += [told(sampling(headgate, effort)), told(against_h2load(headgate, effort))]
        if requests:
            parts.append(told(memory(nginx, effort, requests)))
        parts.append(told((wire_times.lines(launcher, effort.seconds, effort.client_core), [])))
    claims = [claim for _, found in parts for claim in found]
    return [*table(claims), BY_TESTS, "", *(line for lines, _ in parts for line in lines)]


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

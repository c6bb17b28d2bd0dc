"""``make bench-scaling``: CPU time of a request with one and with two IO threads, and latencies at about half load.

The digits example in JSON. Servers run on all cores they are given, wrk beside them, so only CPU time is compared between
them; latencies are those of one IO thread on a core of its own. Read next: ``clients``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from benches.clients import Ask, Outcome, need, wrk
from benches.report import machine
from benches.servers import DIGITS, PATH, REQUEST, ROOT, Server

DOCUMENT = """
apiVersion: headgate/v1
kind: Endpoint
name: digits
versions: {"1": "file:models/digits/1"}
traffic: {champion: "1"}
"""


def measure(server: Server, script: str, seconds: int) -> Outcome:
    """One run of wrk on whatever core there is."""
    return wrk(server, Ask(PATH, REQUEST, 64, seconds, script=script))


def start(folder: Path, threads: int, cores: set[int]) -> Server:
    """Headgate with so many IO threads."""
    (folder / "scaling.yaml").write_text(DOCUMENT)
    command = [sys.executable, "-m", "headgate", "serve", str(folder / "scaling.yaml"), "--root", str(DIGITS)]
    command += ["--io-threads", str(threads), "--state", str(folder / f"state-{threads}-{len(cores)}")]
    for port in ("http", "grpc", "observe", "admin"):
        command += [f"--{port}", "127.0.0.1:0"]
    with (folder / f"scaling-{threads}.log").open("a") as log:
        process = subprocess.Popen(
            ["taskset", "--cpu-list", ",".join(map(str, sorted(cores))), *command],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=os.environ | {"ORT_DISABLE_TELEMETRY": "1"},
            cwd=ROOT,
        )
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"Headgate did not start; see {folder}")
    return Server(f"{threads} IO threads", process, json.loads(line)["http"])


def main() -> None:
    """The command line; about a minute."""
    parser = argparse.ArgumentParser(description="Measures IO threads and latencies at half load.")
    parser.add_argument("--seconds", type=int, default=3, help="of each single run (default 3)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default 5)")
    arguments = parser.parse_args()
    need("wrk", "taskset")
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="headgate-scaling-") as name:
        folder = Path(name)
        servers = [start(folder, 1, set(cores)), start(folder, 2, set(cores)), start(folder, 1, {cores[0]})]
        one, two, alone = servers
        pairs, half = [], []
        try:
            for server in servers:
                measure(server, "post.lua", 1)
            for number in range(arguments.rounds):
                order = [one, two] if number % 2 else [two, one]
                found = {server.name: measure(server, "post.lua", arguments.seconds) for server in order}
                pairs.append((found[one.name], found[two.name]))
                half.append(measure(alone, "paced.lua", arguments.seconds))
        finally:
            for server in servers:
                server.stop()
    ratio = statistics.median(many.cpu_us / single.cpu_us for single, many in pairs)
    single, many = (statistics.median(pair[side].cpu_us for pair in pairs) for side in (0, 1))
    lines = [
        f"# scaling, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "",
        "Digits MLP in JSON, sketches on, 64 connections.",
        "",
    ]
    lines += [
        f"- CPU time of a request: {single:.2f} us with one IO thread, {many:.2f} us with two, {ratio:.2f} times (within a round)."
    ]
    p50, p99, rate = (
        statistics.median(getattr(run, field) for run in half) for field in ("p50_us", "p99_us", "per_second")
    )
    lines += [
        f"- At {rate:,.0f} requests/s on one core, 2 ms between answer and request: p50 {p50:,.0f} us, p99 {p99:,.0f} us."
    ]
    facts = machine() | {"rounds": arguments.rounds, "seconds": arguments.seconds}
    text = "\n".join([*lines, "", *(f"- {key}: {value}" for key, value in facts.items()), ""])
    (ROOT / "benches" / "results" / f"{datetime.now(UTC):%Y-%m-%d}-scaling.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

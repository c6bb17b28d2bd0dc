"""``make bench``: Headgate against nginx and a hand-written server, on one machine in one go.

The server is pinned to one core and its client to another; rounds are interleaved. A run takes ten minutes and ends by
itself, and so do all processes that it started.
Read next: ``servers`` (what is compared), ``clients`` and ``measure`` (how), ``report`` (what is written).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from benches import clients, report
from benches.measure import Effort, interleaved
from benches.servers import BARE_LOOP, DIGITS, Launcher, start_all


def need() -> None:
    """Ends with a sentence when the machine lacks what the bench stands on."""
    clients.need("nginx", "wrk", "taskset", peers=[BARE_LOOP])
    if not (DIGITS / "models").exists():
        raise SystemExit("the digits example is not prepared: python examples/digits/prepare.py")
    if len(os.sched_getaffinity(0)) < 2:
        raise SystemExit("the bench needs two cores: one for the server, one for its client")


def main() -> None:
    """The command line; without options about twelve minutes."""
    parser = argparse.ArgumentParser(description="Measures Headgate against nginx and a hand-written server.")
    parser.add_argument("--seconds", type=int, default=3, help="of each single run (default 3)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, each with every server (default 5)")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--peers-only", action="store_true", help="without Headgate: what the machine allows")
    arguments = parser.parse_args()
    need()
    server_core, *_, client_core = sorted(os.sched_getaffinity(0))
    effort = Effort(arguments.connections, arguments.rounds, arguments.seconds, client_core)
    with tempfile.TemporaryDirectory(prefix="headgate-bench-") as folder:
        servers = start_all(Launcher(server_core, Path(folder)), lambda _: not arguments.peers_only)
        runs = []
        try:
            for run in interleaved(servers, effort):
                print(
                    f"round {run.round}  {run.server:<24} {run.connections:>3} connections of {run.client:<5}  "
                    f"{run.requests_per_second:>10,.0f}/s  {run.cpu_us_per_request:>8.2f} us CPU",
                    file=sys.stderr,
                    flush=True,
                )
                runs.append(run)
        finally:
            for server in servers:
                server.stop()
    facts = {
        "server core": server_core,
        "client core": client_core,
        "rounds": effort.rounds,
        "seconds": effort.seconds,
    }
    print(report.write("peers" if arguments.peers_only else "macro", runs, facts))


if __name__ == "__main__":
    main()

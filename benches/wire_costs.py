"""``make bench-wire-costs``: CPU time of a request, user and system apart, by wire, by its numbers and by connections, of two builds.

Both builds of the extension are served beside each other on one core, each by a gateway with constant versions, and are measured in turn
within each round. What is compared is one build with the other within a round. Not here: instructions (``profile``), other servers
(``macro``, ``wires``). Needs h2load, and taskset. With two builds about three minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from benches.clients import need
from benches.generator import Generator, Request, closed
from benches.profile import with_symbols
from benches.report import RESULTS, machine
from benches.servers import Launcher, Server
from benches.wires import DOCUMENT, PATH, grpc_body, model, rest_head

NUMBERS = (1, 64, 4096)
CONNECTIONS = (1, 8, 64)
PREFIX = 5
"""A flag and the length of a message of gRPC."""
JSON_TYPE = ("content-type", "application/json")
COUNTERS = Path("/sys/bus/event_source/devices/cpu")
"""Is there if the machine lets its counters of cache misses be read."""
RUN = 'import runpy\n\nrunpy.run_module("headgate", run_name="__main__", alter_sys=True)\n'


@dataclass(frozen=True)
class Build:
    """A build of the extension: its name in the tables, and the library."""

    name: str
    library: Path


@dataclass(frozen=True)
class Cpu:
    """CPU time of a process and all its threads."""

    whole: float
    """Seconds, as the scheduler counts them: to the nanosecond."""
    user_ticks: int
    system_ticks: int

    @classmethod
    def of(cls, server: Server) -> Cpu:
        """What a server has used. Its threads are those that it had from its start."""
        folder = Path(f"/proc/{server.process.pid}")
        whole = sum(int(path.read_text().split()[0]) for path in folder.glob("task/*/schedstat"))
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        return cls(whole / 1e9, int(fields[11]), int(fields[12]))

    def until(self, later: Cpu) -> tuple[float, float]:
        """User and system seconds up to ``later``. How they are shared is told by ticks of 10 ms, and what they sum to is exact."""
        whole, user = later.whole - self.whole, later.user_ticks - self.user_ticks
        share = user / max(1, user + later.system_ticks - self.system_ticks)
        return whole * share, whole * (1 - share)


@dataclass(frozen=True)
class Case:
    """What is asked: a wire, the numbers of a request, and who asks."""

    wire: str
    numbers: int
    connections: int


@dataclass(frozen=True)
class Cost:
    """CPU microseconds of a request in one round."""

    case: Case
    build: str
    round: int
    user_us: float
    system_us: float

    @property
    def whole_us(self) -> float:
        """User and system."""
        return self.user_us + self.system_us


Ask = Callable[[Server, Case, float, int], int]
"""Asks a server for so many seconds from a core; how many answers came."""


# === the wires ===


def values_of(case: Case) -> np.ndarray:
    """The numbers of a request, FP32 of shape [1, numbers]; the same each time."""
    return np.random.default_rng(7).normal(size=(1, case.numbers)).astype(np.float32)


def endpoint_of(case: Case) -> str:
    """The endpoint that takes so many numbers."""
    return f"n{case.numbers}"


def json_request(case: Case) -> Request:
    """Numbers in JSON, in their shortest form."""
    texts = ",".join(np.format_float_positional(value, unique=True) for value in values_of(case).ravel())
    head = json.dumps({"inputs": [rest_head(values_of(case)) | {"data": []}]})
    body = head.replace("[]}]}", f"[{texts}]}}]}}").encode()
    return Request(f"/v2/models/{endpoint_of(case)}/infer", body, (JSON_TYPE,))


def binary_request(case: Case) -> Request:
    """Numbers behind the JSON."""
    values = values_of(case)
    head = json.dumps({"inputs": [rest_head(values) | {"parameters": {"binary_data_size": values.nbytes}}]})
    fields = (
        ("content-type", "application/octet-stream"),
        ("inference-header-content-length", str(len(head))),
    )
    return Request(f"/v2/models/{endpoint_of(case)}/infer", head.encode() + values.tobytes(), fields)


def predict_request(case: Case) -> Request:
    """Numbers as one instance."""
    texts = ",".join(np.format_float_positional(value, unique=True) for value in values_of(case).ravel())
    return Request(
        f"/v1/models/{endpoint_of(case)}:predict", f'{{"instances":[[{texts}]]}}'.encode(), (JSON_TYPE,)
    )


def generated(request: Callable[[Case], Request], protocol: str = "http") -> Ask:
    """Asks with the generator, which never sleeps."""

    def ask(server: Server, case: Case, seconds: float, core: int) -> int:
        address = server.address if protocol == "http" else server.grpc
        generator = Generator(address, request(case), core, wait="spin", protocol=protocol)
        return generator.run(closed(case.connections, seconds)).all_good(server.name).good

    return ask


def grpc_request(case: Case) -> Request:
    """Numbers as the raw contents of a message; the generator puts its prefix in front."""
    return Request(PATH, grpc_body(endpoint_of(case), values_of(case))[PREFIX:], ())


def h2load(server: Server, case: Case, seconds: float, core: int) -> int:
    """Asks with h2load, one call at a time on each connection."""
    with tempfile.NamedTemporaryFile(suffix=".body") as body:
        body.write(grpc_body(endpoint_of(case), values_of(case)))
        body.flush()
        command = ["taskset", "--cpu-list", str(core), "h2load", "--clients", str(case.connections)]
        command += [
            "--max-concurrent-streams",
            "1",
            "--threads",
            "1",
            "--duration",
            str(max(1, round(seconds))),
        ]
        command += ["--data", body.name, "--header", "content-type: application/grpc"]
        command += ["--header", "te: trailers", f"http://{server.grpc}{PATH}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=True)
    found = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", done.stdout)
    if found is None or int(found[2]) or int(found[3]) or not int(found[1]):
        raise SystemExit(f"h2load: {done.stdout}")
    return int(found[1])


WIRES: dict[str, Ask] = {
    "JSON": generated(json_request),
    "binary REST": generated(binary_request),
    ":predict": generated(predict_request),
    "gRPC": h2load,
    "gRPC, calls of one connection": generated(grpc_request, "grpc"),
}


# === measuring ===


def started(build: Build, folder: Path, core: int) -> Server:
    """A gateway of a build, with an endpoint for each number of numbers."""
    own = folder / build.name
    own.mkdir()
    package = with_symbols(own, build.library)
    script = package / "serve.py"
    script.write_text(RUN)
    for numbers in NUMBERS:
        model(own, f"n{numbers}", [numbers])
    document = own / "costs.yaml"
    document.write_text("".join(DOCUMENT.format(name=f"n{numbers}") for numbers in NUMBERS))
    launcher = Launcher(core, own, (str(script),))
    process, addresses = launcher.serve_all(document, "headgate", "--root", str(own), "--sketches", "off")
    return Server(build.name, process, addresses["http"], addresses["grpc"])


def measured(
    servers: list[Server], cases: list[Case], effort: tuple[int, float], core: int
) -> Iterator[Cost]:
    """All rounds: in each, every case by each build, in an order that alternates."""
    rounds, seconds = effort
    for server in servers:
        for case in cases:
            WIRES[case.wire](server, case, 0.1, core)
    for number in range(rounds):
        for case in cases:
            for server in servers if number % 2 else reversed(servers):
                before = Cpu.of(server)
                answers = WIRES[case.wire](server, case, seconds, core)
                user, system = before.until(Cpu.of(server))
                yield Cost(case, server.name, number, user * 1e6 / answers, system * 1e6 / answers)


def table(costs: list[Cost], builds: list[Build]) -> list[str]:
    """A row for each case: the medians of each build, and the last one by the first one within a round."""
    heads = ["wire", "numbers", "connections"]
    heads += [f"{build.name}, {part}" for build in builds for part in ("user", "system")]
    heads += [f"{builds[-1].name} / {builds[0].name}: {part}" for part in ("user", "user and system")]
    lines = [f"| {' | '.join(heads)} |", f"|---|{'---:|' * (len(heads) - 1)}"]
    for case in dict.fromkeys(cost.case for cost in costs):
        own = [cost for cost in costs if cost.case == case]
        cells = [case.wire, f"{case.numbers:,}", str(case.connections)]
        by_build = {build.name: [cost for cost in own if cost.build == build.name] for build in builds}
        for of_build in by_build.values():
            cells.append(f"{statistics.median(cost.user_us for cost in of_build):.2f}")
            cells.append(f"{statistics.median(cost.system_us for cost in of_build):.2f}")
        pairs = list(zip(by_build[builds[0].name], by_build[builds[-1].name], strict=True))
        cells.append(f"{statistics.median(last.user_us / first.user_us for first, last in pairs):.2f}")
        cells.append(f"{statistics.median(last.whole_us / first.whole_us for first, last in pairs):.2f}")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def report(costs: list[Cost], builds: list[Build], facts: dict[str, object]) -> str:
    """The text of the result."""
    about = machine() | {key: str(value) for key, value in facts.items()}
    about |= {f"build {build.name}": str(build.library) for build in builds}
    about["cache misses"] = (
        "could be counted" if COUNTERS.exists() else "not counted: the machine shows no counters"
    )
    return "\n".join(
        [
            f"# wire costs, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            "",
            "CPU microseconds of a request to a constant version, sketches off, one IO thread. Medians of interleaved rounds; ratios are "
            "taken within a round. For gRPC a connection has one call at a time and its client sleeps; the last wire has all its calls "
            "on one connection. The other clients never sleep.",
            "",
            *table(costs, builds),
            "",
            *[f"- {key}: {value}" for key, value in about.items()],
            "",
        ]
    )


def build_of(text: str) -> Build:
    """``NAME=LIBRARY`` of the command line."""
    name, _, library = text.partition("=")
    if not name or not library:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=LIBRARY, such as before=/tmp/lib_native.so")
    return Build(name, Path(library))


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(
        description="Measures the CPU time of requests by wire, of one build or two."
    )
    parser.add_argument("builds", nargs="+", type=build_of, metavar="NAME=LIBRARY", help="what cargo built")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each single run (default 1)")
    parser.add_argument("--rounds", type=int, default=2, help="rounds, each with every case (default 2)")
    parser.add_argument("--only", default="", help="wires whose name has this in it; writes no file")
    options = parser.parse_args()
    builds: list[Build] = options.builds
    need("h2load", "taskset", peers=[build.library for build in builds])
    cores = sorted(os.sched_getaffinity(0))
    wires = [wire for wire in WIRES if options.only in wire]
    cases = [Case(wire, numbers, count) for wire in wires for numbers in NUMBERS for count in CONNECTIONS]
    costs: list[Cost] = []
    servers: list[Server] = []
    with tempfile.TemporaryDirectory(prefix="headgate-costs-") as name:
        try:
            for build in builds:
                servers.append(started(build, Path(name), cores[0]))
            for cost in measured(servers, cases, (options.rounds, options.seconds), cores[-1]):
                print(cost, file=sys.stderr, flush=True)
                costs.append(cost)
        finally:
            for server in servers:
                server.stop()
    facts: dict[str, object] = {
        "rounds": options.rounds,
        "seconds": options.seconds,
        "server core": cores[0],
        "client core": cores[-1],
    }
    text = report(costs, builds, facts)
    if not options.only:
        (RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-wire-costs.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

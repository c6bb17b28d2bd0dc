"""Makes the table and the ratios of a bench, and writes them with the machine and the versions they come from.

Every ratio is taken within one round and the median of the rounds is shown, so a slow minute of the machine cancels.
"""

from __future__ import annotations

import importlib.metadata
import json
import operator
import os
import platform
import statistics
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import headgate
from benches.measure import AWAKE, WRK, Measurement

RESULTS = Path(__file__).resolve().parent / "results"
NGINX = "nginx, fixed body"
STARLETTE = "uvicorn + Starlette"
ON, OFF = "Headgate, sketches on", "Headgate, sketches off"
CONSTANT = "Headgate, constant"
BARE, BARE_RUN = "bare epoll", "bare epoll + C API"


def machine() -> dict[str, str]:
    """What the numbers were taken on."""
    cpu = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    peers = ("onnxruntime", "uvicorn", "starlette", "uvloop")
    versions = {name: importlib.metadata.version(name) for name in peers}
    return {
        "cpu": cpu,
        "cores": str(len(os.sched_getaffinity(0))),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "nginx": first_line("nginx", "-v").rpartition("/")[2],
        "wrk": first_line("wrk", "-v").split("[")[0].strip(),
        "headgate": headgate.__version__,
        **versions,
    }


def first_line(*command: str) -> str:
    """The first line that a program prints about itself."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    return (done.stdout + done.stderr).strip().splitlines()[0]


@dataclass(frozen=True)
class Runs:
    """The runs of one client with one number of connections."""

    runs: Sequence[Measurement]

    def by_round(self, server: str, field: str) -> dict[int, float]:
        """A server's values."""
        return {run.round: getattr(run, field) for run in self.runs if run.server == server}

    def middle(self, server: str, field: str) -> float:
        """The median over the rounds."""
        return statistics.median(self.by_round(server, field).values())

    def common(
        self, one: str, other: str, field: str, combine: Callable[[float, float], float]
    ) -> float | None:
        """The median of what two servers' values give within each round; None where one is missing."""
        first, second = self.by_round(one, field), self.by_round(other, field)
        both = [combine(first[number], second[number]) for number in first if second.get(number)]
        return statistics.median(both) if both else None

    def ratio(self, above: str, below: str, field: str) -> float | None:
        """One server's value by another's."""
        return self.common(above, below, field, operator.truediv)

    def servers(self) -> list[str]:
        """Their names, in order."""
        return sorted({run.server for run in self.runs})


def of(runs: Sequence[Measurement], client: str) -> dict[int, Runs]:
    """The runs of one client by the number of connections."""
    own = [run for run in runs if run.client == client]
    return {
        count: Runs([run for run in own if run.connections == count])
        for count in sorted({run.connections for run in own})
    }


def table(runs: Sequence[Measurement], client: str) -> list[str]:
    """One row for each server and number of connections."""
    lines = [
        "| server | connections | requests/s | CPU us/request | p50 us | p99 us | of nginx | x Starlette |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for connections, own in of(runs, client).items():
        for name in own.servers():
            against = [own.ratio(name, peer, "requests_per_second") for peer in (NGINX, STARLETTE)]
            cells = [f"{own.middle(name, 'requests_per_second'):,.0f}"]
            cells += [f"{own.middle(name, 'cpu_us_per_request'):.2f}"]
            cells += [f"{own.middle(name, field):.0f}" for field in ("p50_us", "p99_us")]
            cells += ["-" if value is None else f"{value:.2f}" for value in against]
            lines.append(f"| {name} | {connections} | {' | '.join(cells)} |")
    return lines


def sketch_cost(runs: Sequence[Measurement]) -> list[str]:
    """What the sketches cost: by CPU time per request and by requests/s."""
    lines = []
    for connections, own in of(runs, AWAKE).items():
        cpu = own.ratio(ON, OFF, "cpu_us_per_request")
        rate = own.ratio(ON, OFF, "requests_per_second")
        if cpu is not None and rate is not None:
            lines.append(
                f"- sketches on against off, {connections} connections: {100 * (cpu - 1):+.1f} % CPU per request, "
                f"{100 * (rate - 1):+.1f} % requests/s"
            )
    return lines


def added_cost(runs: Sequence[Measurement]) -> list[str]:
    """What Headgate adds to a bare loop that does the same reads, runs and writes: CPU time per request."""
    lines = []
    for connections, own in of(runs, AWAKE).items():
        for name, bare in ((CONSTANT, BARE), (OFF, BARE_RUN), (ON, BARE_RUN)):
            added = own.common(name, bare, "cpu_us_per_request", operator.sub)
            if added is not None:
                lines.append(
                    f"- {name} over {bare}, {connections} connections: {added:+.2f} us CPU per request"
                )
    return lines


def write(what: str, runs: Sequence[Measurement], facts: dict[str, Any]) -> str:
    """Writes ``results/<date>-<what>.md`` and ``.json``; returns the text."""
    now = datetime.now(UTC)
    about = machine() | {key: str(value) for key, value in facts.items()}
    text = "\n".join(
        [
            f"# {what}, {now:%Y-%m-%d %H:%M} UTC",
            "",
            "The same request (64 numbers in JSON) to every server; server on one core, client on another.",
            "Medians over interleaved rounds; ratios and differences are taken within a round.",
            "",
            "## wrk",
            *table(runs, WRK),
            "",
            "## A client that never sleeps, so that no server spends time on waking it",
            *table(runs, AWAKE),
            "",
            *sketch_cost(runs),
            *added_cost(runs),
            "",
            *[f"- {key}: {value}" for key, value in about.items()],
            "",
        ]
    )
    RESULTS.mkdir(exist_ok=True)
    stem = RESULTS / f"{now:%Y-%m-%d}-{what}"
    stem.with_suffix(".md").write_text(text)
    content = {"at": now.isoformat(), "machine": about, "runs": [run.as_json() for run in runs]}
    stem.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n")
    return text

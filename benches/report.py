"""Makes the table and the ratios of a bench, and writes them with the machine and the versions they come from.

Every ratio is taken within one round and the median of the rounds is shown, so a slow minute of the machine cancels.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import headgate
from benches.measure import Measurement

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


def median(values: Sequence[float]) -> float:
    """The median; of an even count, the mean of the middle two."""
    return statistics.median(values)


def pairs(
    runs: Sequence[Measurement], one: str, other: str, connections: int, field: str
) -> list[tuple[float, float]]:
    """The values of two servers in the same rounds."""

    def by_round(name: str) -> dict[int, float]:
        return {
            run.round: getattr(run, field)
            for run in runs
            if run.server == name and run.connections == connections
        }

    first, second = by_round(one), by_round(other)
    return [(first[number], second[number]) for number in first if second.get(number)]


def ratio(runs: Sequence[Measurement], above: str, below: str, connections: int, field: str) -> float | None:
    """The median over the rounds of one server's value by another's in the same round; None where one is missing."""
    common = [upper / lower for upper, lower in pairs(runs, above, below, connections, field)]
    return median(common) if common else None


def difference(runs: Sequence[Measurement], more: str, less: str, connections: int) -> float | None:
    """The median over the rounds of what one server's requests cost beyond another's, in microseconds of CPU time."""
    common = [upper - lower for upper, lower in pairs(runs, more, less, connections, "cpu_us_per_request")]
    return median(common) if common else None


def table(runs: Sequence[Measurement]) -> list[str]:
    """One row for each server and number of connections."""
    lines = [
        "| server | connections | requests/s | CPU us/request | p50 us | p99 us | of nginx | x Starlette |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for connections in sorted({run.connections for run in runs}):
        for name in dict.fromkeys(run.server for run in sorted(runs, key=lambda run: run.server)):
            own = [run for run in runs if run.server == name and run.connections == connections]
            against = [
                ratio(runs, name, peer, connections, "requests_per_second") for peer in (NGINX, STARLETTE)
            ]
            cells = [f"{median([run.requests_per_second for run in own]):,.0f}"]
            cells += [f"{median([run.cpu_us_per_request for run in own]):.2f}"]
            cells += [
                f"{median([run.p50_us for run in own]):.0f}",
                f"{median([run.p99_us for run in own]):.0f}",
            ]
            cells += ["-" if value is None else f"{value:.2f}" for value in against]
            lines.append(f"| {name} | {connections} | {' | '.join(cells)} |")
    return lines


def sketch_cost(runs: Sequence[Measurement]) -> list[str]:
    """What the sketches cost: by CPU time per request and by requests/s."""
    lines = []
    for connections in sorted({run.connections for run in runs}):
        cpu = ratio(runs, ON, OFF, connections, "cpu_us_per_request")
        rate = ratio(runs, ON, OFF, connections, "requests_per_second")
        if cpu is not None and rate is not None:
            lines.append(
                f"- sketches on against off, {connections} connections: {100 * (cpu - 1):+.1f} % CPU per request, "
                f"{100 * (rate - 1):+.1f} % requests/s"
            )
    return lines


def added_cost(runs: Sequence[Measurement]) -> list[str]:
    """What Headgate adds to a bare loop that does the same reads, runs and writes: CPU time per request."""
    lines = []
    for connections in sorted({run.connections for run in runs}):
        for name, bare in ((CONSTANT, BARE), (OFF, BARE_RUN), (ON, BARE_RUN)):
            added = difference(runs, name, bare, connections)
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
            "The same request (64 numbers in JSON) to every server; server on one core, wrk on another.",
            "Medians over interleaved rounds; ratios are taken within a round.",
            "",
            *table(runs),
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

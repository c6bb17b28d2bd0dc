"""``make bench-lifecycle``: models coming and going under load, a thousand at once, ten thousand one after the other.

The data plane runs in this process (so its memory is this process's), on one core that nothing else uses and then on that
core and the one of wrk: where loading shares its only core with requests, it costs them that core's time and its caches.
Swaps load another model for every one of them and drop the one before. Read next: ``host``.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import onnx

from benches.host import Host, Latencies, Watcher, hammer, tiny
from benches.report import machine
from benches.servers import ROOT

MIB = 1 << 20
PACE = 0.05
"""Seconds between changes."""


def quantile(values: Sequence[float], q: float) -> float:
    """The value below which that share lies."""
    ordered = sorted(values)
    return ordered[min(int(q * len(ordered)), len(ordered) - 1)]


@dataclass(frozen=True)
class Cores:
    """Where the data plane is, and where wrk is."""

    server: int
    client: int

    def use(self, *cores: int) -> None:
        """Puts every thread of this process on these cores."""
        for thread in Path("/proc/self/task").iterdir():
            # One that has just ended needs no core.
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread.name), cores)


def side_by_side(
    host: Host, rounds: int, seconds: int, change: Callable[[int], None], client: int
) -> list[tuple[Latencies, Latencies]]:
    """Latencies of "load" with nothing else going on and while ``change`` is called over and over, in turn."""
    pairs = []
    for number in range(rounds):
        calm = hammer(host.address, "load", seconds, client).wait()
        run = hammer(host.address, "load", seconds, client)
        step = 0
        while run.is_running():
            change(number * 1_000_000 + step)
            step += 1
        pairs.append((calm, run.wait()))
    return pairs


def compared(
    host: Host, rounds: int, seconds: int, change: Callable[[int], None], cores: Cores, what: str
) -> list[str]:
    """``side_by_side`` on one core and on two."""
    alone = shown(side_by_side(host, rounds, seconds, change, cores.client), f"{what}, on a core of its own")
    cores.use(cores.server, cores.client)
    try:
        beside = side_by_side(host, rounds, seconds, change, cores.client)
    finally:
        cores.use(cores.server)
    return [*alone, *shown(beside, f"{what}, on that core and the one of wrk")]


def shown(pairs: Sequence[tuple[Latencies, Latencies]], what: str) -> list[str]:
    """Medians of both, and of the ratios within each round."""
    calm, busy = ([pair[side].p99_us for pair in pairs] for side in (0, 1))
    ratio = statistics.median(after / before for before, after in zip(calm, busy, strict=True))
    failed = sum(one.failed for pair in pairs for one in pair)
    requests = sum(one.requests for pair in pairs for one in pair)
    return [
        f"- {what}: {requests:,} requests, {failed} failed; p99 {statistics.median(calm):,.0f} us without, "
        f"{statistics.median(busy):,.0f} us with, {ratio:.2f} times."
    ]


def swaps(folder: Path, rounds: int, seconds: int, cores: Cores) -> list[str]:
    """Another model under the same name, again and again, while it is asked."""
    host = Host({"sketches": False})
    models = [tiny(folder / f"{factor}.onnx", factor) for factor in (2.0, 3.0)]
    count = 0

    def swap(_: int) -> None:
        nonlocal count
        count += 1
        host.apply("load", [(f"v{count % 2 + 2}", f"swap-{count}", models[count % 2])])
        time.sleep(PACE)

    try:
        swap(0)
        watcher = Watcher(host.address, "load", {"v2": 2.0, "v3": 3.0})
        for _ in range(100):
            swap(0)
        before, begun = host.settled_rss(), count
        latencies = compared(host, rounds, seconds, swap, cores, "swaps")
        after = host.settled_rss()
        seen = watcher.stop()
    finally:
        host.stop()
    lines = [
        "## Swaps under load",
        "",
        f"{count - begun:,} swaps, each to a model that was not loaded before.",
        "",
    ]
    lines += latencies
    lines += [
        f"- {seen.answers:,} answers compared with the version that they name: {seen.mixed} mixed, {seen.failed} failed."
    ]
    lines += [
        f"- RSS {before / MIB:.1f} MiB before, {after / MIB:.1f} MiB after, {100 * (after / before - 1):+.1f} %."
    ]
    return [*lines, ""]


def thousand(folder: Path, seconds: int, cores: Cores) -> list[str]:
    """A thousand models at once."""
    host = Host({"sketches": False})
    paths = [tiny(folder / f"t{index}.onnx", 1.0 + index) for index in range(1000)]
    try:
        host.apply("load", [("v1", "load", paths[0])])
        base, took = host.settled_rss(), []
        for index, path in enumerate(paths):
            begun = time.perf_counter()
            host.apply(f"m{index}", [("v1", f"m{index}", path)])
            took.append(time.perf_counter() - begun)
        for index in range(len(paths)):
            host.ask(f"m{index}")
        full = host.settled_rss()

        def change(step: int) -> None:
            host.apply("guest", [("v1", f"guest-{step}", paths[step % 1000])])
            host.remove("guest")
            time.sleep(PACE)

        latencies = compared(host, 4, seconds, change, cores, "another one coming and going")
    finally:
        host.stop()
    lines = [
        "## A thousand models",
        "",
        f"- {(full - base) / MIB:.0f} MiB above base, each asked once, sketches off.",
    ]
    lines += [
        f"- From the order until it is served: p50 {quantile(took, 0.5) * 1e3:.2f} ms, p99 {quantile(took, 0.99) * 1e3:.2f} ms."
    ]
    return [*lines, *latencies, ""]


def cold(folder: Path) -> list[str]:
    """Models of which a tenth fits into memory, asked in turn: each request brings its model back."""
    paths = [tiny(folder / f"c{index}.onnx", 1.0 + index) for index in range(200)]
    host = Host({"sketches": False, "memory_budget_bytes": 20 * 120 * 1024})
    try:
        for index, path in enumerate(paths):
            host.apply(f"m{index}", [("v1", f"m{index}", path)])
        took = []
        for _ in range(5):
            for index in range(len(paths)):
                begun = time.perf_counter()
                host.ask(f"m{index}")
                took.append(time.perf_counter() - begun)
        loads, evictions = (host.metric(f"headgate_model_{what}_total") for what in ("loads", "evictions"))
    finally:
        host.stop()
    lines = [
        "## Requests for models out of memory",
        "",
        f"{len(took):,} requests, {loads - len(paths):,} loads, {evictions:,} evictions.",
    ]
    return [
        *lines,
        f"- p50 {quantile(took, 0.5) * 1e3:.2f} ms, p99 {quantile(took, 0.99) * 1e3:.2f} ms, with the way there and back.",
        "",
    ]


def soak(folder: Path, cycles: int) -> list[str]:
    """One endpoint after the other, each loaded, asked and removed."""
    path = tiny(folder / "soak.onnx", 2.0)
    host = Host({"sketches": False})
    readings = []
    try:
        for cycle in range(cycles):
            host.apply("guest", [("v1", f"guest-{cycle}", path)])
            host.ask("guest")
            host.remove("guest")
            if cycle % (cycles // 10) == cycles // 10 - 1:
                readings.append(host.settled_rss())
    finally:
        host.stop()
    # The first tenth fills what is kept.
    slope = (readings[-1] - readings[1]) / (0.8 * cycles)
    values = ", ".join(f"{one / MIB:.1f}" for one in readings)
    return [
        "## Loading and unloading",
        "",
        f"- {cycles:,} cycles; RSS after each tenth {values} MiB: {slope:+.1f} bytes a cycle from the second on.",
        "",
    ]


def main() -> None:
    """The command line; about five minutes."""
    parser = argparse.ArgumentParser(description="Measures models that come and go.")
    parser.add_argument("--seconds", type=int, default=5, help="of each single run (default 5)")
    parser.add_argument(
        "--rounds",
        type=int,
        default=6,
        help="pairs of runs with and without swaps, on each set of cores (default 6)",
    )
    parser.add_argument("--cycles", type=int, default=10_000, help="loads and unloads (default 10000)")
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("the bench needs wrk; on Debian: apt-get install wrk")
    allowed = sorted(os.sched_getaffinity(0))
    cores = Cores(allowed[0], allowed[-1])
    cores.use(cores.server)
    with tempfile.TemporaryDirectory(prefix="headgate-lifecycle-") as name:
        folder = Path(name)
        lines = [f"# lifecycle, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC", ""]
        sections = [
            lambda: swaps(folder, arguments.rounds, arguments.seconds, cores),
            lambda: thousand(folder, arguments.seconds, cores),
            lambda: cold(folder),
            lambda: soak(folder, arguments.cycles),
        ]
        for section in sections:
            # A thread of its own for each, which gives way once its host runs.
            with ThreadPoolExecutor(1) as executor:
                lines += executor.submit(section).result()
    cores.use(*allowed)
    facts = machine() | {"onnx": onnx.__version__, "server core": cores.server, "client core": cores.client}
    text = "\n".join([*lines, *(f"- {key}: {value}" for key, value in facts.items()), ""])
    (ROOT / "benches" / "results" / f"{datetime.now(UTC):%Y-%m-%d}-lifecycle.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

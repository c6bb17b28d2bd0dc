"""``make bench-lifecycle``: models coming and going under load, a thousand at once, ten thousand one after the other.

The data plane runs in this process (so its memory is this process's) on one core, wrk on another. Swaps load another model for
every one of them and drop the one before. Read next: ``host``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import onnx

from benches.host import Host, Latencies, Watcher, hammer, tiny
from benches.report import machine
from benches.servers import ROOT

MIB = 1 << 20
PACE = 0.05
"""Seconds between changes. On one core each of them costs requests the time that loading takes from it."""


def quantile(values: Sequence[float], q: float) -> float:
    """The value below which that share lies."""
    ordered = sorted(values)
    return ordered[min(int(q * len(ordered)), len(ordered) - 1)]


def side_by_side(
    host: Host, rounds: int, seconds: int, change: Callable[[int], None], core: int
) -> list[tuple[Latencies, Latencies]]:
    """Latencies of "load" with nothing else going on and while ``change`` is called over and over, in turn."""
    pairs = []
    for number in range(rounds):
        calm = hammer(host.address, "load", seconds, core).wait()
        run = hammer(host.address, "load", seconds, core)
        step = 0
        while run.is_running():
            change(number * 1_000_000 + step)
            step += 1
        pairs.append((calm, run.wait()))
    return pairs


def shown(pairs: Sequence[tuple[Latencies, Latencies]], what: str) -> list[str]:
    """Medians of both, and of the ratios within each round."""
    calm, busy = ([pair[side].p99_us for pair in pairs] for side in (0, 1))
    ratio = statistics.median(after / before for before, after in zip(calm, busy, strict=True))
    failed = sum(one.failed for pair in pairs for one in pair)
    requests = sum(one.requests for pair in pairs for one in pair)
    return [
        f"- {requests:,} requests, {failed} failed; p99 {statistics.median(calm):,.0f} us without {what}, "
        f"{statistics.median(busy):,.0f} us with, {ratio:.2f} times."
    ]


def swaps(folder: Path, rounds: int, seconds: int, core: int) -> list[str]:
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
        pairs = side_by_side(host, rounds, seconds, swap, core)
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
    lines += shown(pairs, "swaps")
    lines += [
        f"- {seen.answers:,} answers compared with the version that they name: {seen.mixed} mixed, {seen.failed} failed."
    ]
    lines += [
        f"- RSS {before / MIB:.1f} MiB before, {after / MIB:.1f} MiB after, {100 * (after / before - 1):+.1f} %."
    ]
    return [*lines, ""]


def thousand(folder: Path, seconds: int, core: int) -> list[str]:
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

        pairs = side_by_side(host, 4, seconds, change, core)
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
    return [*lines, *shown(pairs, "another one coming and going"), ""]


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
        "--rounds", type=int, default=12, help="pairs of runs with and without swaps (default 12)"
    )
    parser.add_argument("--cycles", type=int, default=10_000, help="loads and unloads (default 10000)")
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("the bench needs wrk; on Debian: apt-get install wrk")
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[0]})
    with tempfile.TemporaryDirectory(prefix="headgate-lifecycle-") as name:
        folder = Path(name)
        lines = [f"# lifecycle, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC", ""]
        sections = [
            lambda: swaps(folder, arguments.rounds, arguments.seconds, cores[-1]),
            lambda: thousand(folder, arguments.seconds, cores[-1]),
            lambda: cold(folder),
            lambda: soak(folder, arguments.cycles),
        ]
        for section in sections:
            # A thread of its own for each, which gives way once its host runs.
            with ThreadPoolExecutor(1) as executor:
                lines += executor.submit(section).result()
    os.sched_setaffinity(0, set(cores))
    facts = machine() | {"onnx": onnx.__version__, "server core": cores[0], "client core": cores[-1]}
    text = "\n".join([*lines, *(f"- {key}: {value}" for key, value in facts.items()), ""])
    (ROOT / "benches" / "results" / f"{datetime.now(UTC):%Y-%m-%d}-lifecycle.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

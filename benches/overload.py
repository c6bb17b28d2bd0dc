"""``make bench-overload``: more requests than the model can run, sent whether answers come or not.

A model of some milliseconds on one pool thread, an endpoint's time-out of 200 ms, Poisson arrivals at 0.5 to 10 times what
was measured to be possible. Goodput is answers within the time-out; then the load drops to half, and it is seen how long the
burst is felt. At last two classes, the lower one alone at three times what is possible. Read next: ``openloop``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import onnx
import uvloop

from benches.batches import mlp
from benches.openloop import Outcome, Pool, Stream
from benches.report import machine
from benches.servers import ROOT, Launcher, Server

TIMEOUT = 0.2
TIMES = (0.5, 0.9, 1.5, 3.0, 10.0)
WIDTH = 4608
DOCUMENT = """
apiVersion: headgate/v1
kind: Endpoint
name: heavy
versions: {{v1: {{model: "file:models/heavy/1", run: {{placement: pool, instances: 1}}}}}}
traffic: {{champion: v1}}
limits: {{timeout: {timeout}ms, priority: {{by: header.x-class, classes: [gold, batch]}}}}
"""


@dataclass(frozen=True)
class Level:
    """What one load gave."""

    times: float
    offered: float
    goodput: float
    p50: float
    p99: float
    statuses: dict[int, int]


def request(host: str, priority: str) -> bytes:
    """One row in JSON."""
    body = json.dumps(
        {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 64], "data": [0.5] * 64}]}
    ).encode()
    head = f"POST /v2/models/heavy/infer HTTP/1.1\r\nhost: {host}\r\nx-class: {priority}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def quantile(values: Sequence[float], q: float) -> float:
    """The value below which that share lies; 0 without any."""
    ordered = sorted(values)
    return ordered[min(int(q * len(ordered)), len(ordered) - 1)] if ordered else 0.0


def level(times: float, offered: float, outcomes: Sequence[Outcome], seconds: float) -> Level:
    """The figures of some outcomes."""
    good = [one.latency for one in outcomes if one.status == 200]
    in_time = sum(latency <= TIMEOUT for latency in good)
    statuses = dict(Counter(one.status for one in outcomes))
    return Level(times, offered, in_time / seconds, quantile(good, 0.5), quantile(good, 0.99), statuses)


async def capacity(host: str, port: int, stream: Stream, seconds: float) -> float:
    """Requests a second that a few clients get answered who wait for each answer."""
    pool = Pool(host, port)
    begun = asyncio.get_running_loop().time()

    async def one() -> int:
        count = 0
        wire = await pool.open()
        while asyncio.get_running_loop().time() - begun < seconds:
            before = len(pool.outcomes)
            wire.send(stream, 0.0)
            while wire.waiting is not None:
                await asyncio.sleep(0)
            count += len(pool.outcomes) > before
        return count

    counts = await asyncio.gather(*(one() for _ in range(2)))
    return sum(counts) / seconds


async def recovery(pool: Pool, stream: Stream, possible: float, calm: float) -> float:
    """Seconds from the end of a burst until nothing of it is felt for the rest of two seconds."""
    burst = Stream(stream.name, stream.request, 10 * possible)
    half = Stream(stream.name, stream.request, 0.5 * possible)
    bursting = asyncio.ensure_future(pool.play([burst], 3.0, 21))
    await asyncio.sleep(3.0)
    after = Pool(pool.host, pool.port)
    for _ in range(40):
        after.idle.append(await after.open())
    outcomes = await after.play([half], 3.0, 22)
    await bursting
    felt = [one.due for one in outcomes if one.status != 200 or one.latency > 3 * calm]
    # A single slow answer in calm times is the machine's; the burst's come together.
    late = [due for due in felt if sum(abs(other - due) < 0.1 for other in felt) >= 3]
    return max(late, default=0.0)


async def run(address: str, seconds: float) -> list[str]:
    """Everything, as lines of a report."""
    host, _, port = address.rpartition(":")
    pool = Pool(host, int(port))
    gold, batch = (Stream(name, request(address, name), 0.0) for name in ("gold", "batch"))
    await capacity(host, int(port), gold, 0.5)
    possible = await capacity(host, int(port), gold, 3.0)
    levels = []
    for number, times in enumerate(TIMES):
        offered = times * possible
        outcomes = await pool.play([Stream("gold", gold.request, offered)], seconds, number)
        levels.append(level(times, offered, outcomes, seconds))
        await asyncio.sleep(0.5)
    felt = await recovery(pool, gold, possible, levels[0].p99)
    await asyncio.sleep(0.5)
    streams = [Stream("gold", gold.request, 0.5 * possible), Stream("batch", batch.request, 3 * possible)]
    both = await pool.play(streams, seconds, 31)
    return report(possible, levels, felt, [one for one in both if one.stream == "gold"], seconds)


def report(
    possible: float, levels: list[Level], felt: float, gold: list[Outcome], seconds: float
) -> list[str]:
    """Tables and what follows from them."""
    best = max(one.goodput for one in levels)
    lines = [
        f"Possible in a closed loop of two clients: {possible:,.0f}/s. The time-out is {TIMEOUT * 1e3:.0f} ms.",
        "",
    ]
    lines += ["| times | offered/s | goodput/s | of the best | p50 ms | p99 ms of the answered | statuses |"]
    lines += ["|---:|---:|---:|---:|---:|---:|---|"]
    for one in levels:
        statuses = ", ".join(f"{status}: {count}" for status, count in sorted(one.statuses.items()))
        lines.append(
            f"| {one.times} | {one.offered:,.0f} | {one.goodput:,.0f} | {one.goodput / best:.2f} | {one.p50 * 1e3:.1f} "
            f"| {one.p99 * 1e3:.1f} | {statuses} |"
        )
    beside = level(0.5, 0.5 * possible, gold, seconds)
    lines += ["", f"After 3 s at 10 times the load drops to 0.5: the burst is felt for {felt:.2f} s.", ""]
    lines += [
        f"Gold at 0.5 alone: p50 {levels[0].p50 * 1e3:.1f} ms, p99 {levels[0].p99 * 1e3:.1f} ms. With batch at 3 times beside it: "
        f"p50 {beside.p50 * 1e3:.1f} ms, p99 {beside.p99 * 1e3:.1f} ms, statuses {beside.statuses}."
    ]
    return [*lines, ""]


def main() -> None:
    """The command line; about a minute."""
    parser = argparse.ArgumentParser(description="Measures what overload does.")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each load (default 6)")
    arguments = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="headgate-overload-") as name:
        folder = Path(name)
        model = folder / "models" / "heavy" / "1" / "model.onnx"
        model.parent.mkdir(parents=True)
        onnx.save(mlp(WIDTH).model, model)
        document = folder / "overload.yaml"
        document.write_text(DOCUMENT.format(timeout=round(TIMEOUT * 1e3)))
        server = Server("Headgate", *Launcher(cores[0], folder).serve(document, "headgate"))
        os.sched_setaffinity(0, {cores[-1]})
        try:
            lines = uvloop.run(run(server.address, arguments.seconds))
        finally:
            server.stop()
            os.sched_setaffinity(0, set(cores))
    facts = machine() | {"server core": cores[0], "client core": cores[-1], "seconds": arguments.seconds}
    title = [f"# overload, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC", ""]
    text = "\n".join([*title, *lines, *(f"- {key}: {value}" for key, value in facts.items()), ""])
    (ROOT / "benches" / "results" / f"{datetime.now(UTC):%Y-%m-%d}-overload.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

"""``make bench-overload``: more requests than the model can run, sent whether answers come or not.

A model of some milliseconds on one pool thread, an endpoint's time-out of 200 ms, Poisson arrivals at 0.5 to 10 times what
was measured to be possible. Goodput is answers within the time-out; then the load drops to half, and it is seen how long the
burst is felt. At last two classes, the lower one alone at three times what is possible. Read next: ``generator``.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import onnx

from benches.batches import mlp
from benches.generator import Generator, Outcome, Request, at_rate, closed
from benches.report import machine
from benches.servers import ROOT, Launcher, Server

TIMEOUT = 0.2
TIMES = (0.5, 0.9, 1.5, 3.0, 10.0)
BURST_SECONDS = 3.0
STEP_SECONDS = 0.01
"""How finely it is told until when a burst is felt."""
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
    statuses: dict[str, int]


def request(priority: str) -> Request:
    """One row in JSON."""
    row = {"name": "X", "datatype": "FP32", "shape": [1, 64], "data": [0.5] * 64}
    body = json.dumps({"inputs": [row]}).encode()
    return Request("/v2/models/heavy/infer", body, (("x-class", priority),))


def level(times: float, offered: float, outcome: Outcome, seconds: float) -> Level:
    """The figures of a load."""
    in_time = outcome.answer["counts"]["due"] - outcome.later_than(TIMEOUT)
    p50, p99 = (outcome.response(share) for share in (0.5, 0.99))
    return Level(times, offered, in_time / seconds, p50, p99, outcome.statuses)


def recovery(gold: Generator, possible: float, calm: float) -> float:
    """Seconds from the end of a burst until nothing of it is felt for the rest of three seconds."""
    burst = gold.start(at_rate(10 * possible, BURST_SECONDS))
    burst.wait(BURST_SECONDS)
    after = replace(gold, seed=22).run(at_rate(0.5 * possible, BURST_SECONDS))
    burst.outcome()
    steps = round(BURST_SECONDS / STEP_SECONDS)
    felt_since = [after.later_than(3 * calm, since=step * STEP_SECONDS) for step in range(steps)] + [0]
    felt = [here - later for here, later in pairwise(felt_since)]
    # A single slow answer in calm times is the machine's; the burst's come together.
    near = round(0.1 / STEP_SECONDS)
    late = [at for at, count in enumerate(felt) if count and sum(felt[max(at - near, 0) : at + near]) >= 3]
    return STEP_SECONDS * (late[-1] + 1) if late else 0.0


def run(address: str, core: int, seconds: float) -> list[str]:
    """Everything, as lines of a report."""
    gold, batch = (Generator(address, request(name), core, wait="sleep") for name in ("gold", "batch"))
    gold.run(closed(2, 0.5))
    possible = gold.run(closed(2, 3.0)).all_good("two clients").good / 3.0
    levels = []
    for number, times in enumerate(TIMES):
        outcome = replace(gold, seed=number).run(at_rate(times * possible, seconds))
        levels.append(level(times, times * possible, outcome, seconds))
        time.sleep(0.5)
    felt = recovery(gold, possible, levels[0].p99)
    time.sleep(0.5)
    beside = replace(batch, seed=31).start(at_rate(3 * possible, seconds))
    both = level(0.5, 0.5 * possible, replace(gold, seed=32).run(at_rate(0.5 * possible, seconds)), seconds)
    beside.outcome()
    return report(possible, levels, felt, both)


def report(possible: float, levels: list[Level], felt: float, beside: Level) -> list[str]:
    """Tables and what follows from them."""
    best = max(one.goodput for one in levels)
    lines = [
        f"Possible in a closed loop of two clients: {possible:,.0f}/s. The time-out is {TIMEOUT * 1e3:.0f} ms.",
        "",
    ]
    lines += ["| times | offered/s | goodput/s | of the best | p50 ms | p99 ms of the answered | statuses |"]
    lines += ["|---:|---:|---:|---:|---:|---:|---|"]
    for one in levels:
        statuses = ", ".join(f"{status}: {count}" for status, count in one.statuses.items())
        lines.append(
            f"| {one.times} | {one.offered:,.0f} | {one.goodput:,.0f} | {one.goodput / best:.2f} | {one.p50 * 1e3:.1f} "
            f"| {one.p99 * 1e3:.1f} | {statuses} |"
        )
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
        try:
            lines = run(server.address, cores[-1], arguments.seconds)
        finally:
            server.stop()
    facts = machine() | {"server core": cores[0], "client core": cores[-1], "seconds": arguments.seconds}
    title = [f"# overload, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC", ""]
    text = "\n".join([*title, *lines, *(f"- {key}: {value}" for key, value in facts.items()), ""])
    (ROOT / "benches" / "results" / f"{datetime.now(UTC):%Y-%m-%d}-overload.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

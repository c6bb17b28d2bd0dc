"""``make bench-plans``: what ``headgate bench plan`` says of three models, against what is then measured at other rates.

A model that runs inline, one in the pool and one in batches, each served on one core. Its capacity is searched, six rates are what the plan
is made from, and four others are measured that it has not seen. Read next: ``python/headgate/bench/plan.py``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import onnx

from benches.batches import mlp
from benches.claims import Claim, table
from benches.report import RESULTS, machine
from benches.servers import Launcher
from headgate.bench.plan import Plan, PlanRequest
from headgate.bench.planning import plan_of
from headgate.bench.prediction import Fit
from headgate.bench.replicas import Demand
from headgate.bench.results import Result, read_result

FITTED = (0.2, 0.35, 0.5, 0.65, 0.8, 0.9)
HELD_OUT = (0.3, 0.45, 0.6, 0.75)
"""Shares of the measured capacity."""
DOCUMENT = """
apiVersion: headgate/v1
kind: Endpoint
name: {name}
versions: {{v1: {{model: "file:models/{name}/1", run: {run}}}}}
traffic: {{champion: v1}}
"""


@dataclass(frozen=True)
class Case:
    """A model, how it runs, and the limit of its p99."""

    name: str
    width: int
    run: str
    limit_ms: int


CASES = (
    Case("inline", 1024, "{placement: inline}", 10),
    Case("pool", 4608, "{placement: pool, instances: 1}", 40),
    Case("batched", 2048, "{placement: pool, instances: 1, max_batch: 32}", 40),
)


@dataclass(frozen=True)
class Effort:
    """How long each rate and each search may take, and where."""

    seconds: int
    budget: int
    server_core: int
    client_core: int


@dataclass(frozen=True)
class Checked:
    """A rate that the plan has not seen: measured and predicted p99 in seconds."""

    rate: float
    measured: float
    predicted: float
    low: float
    high: float

    @property
    def error(self) -> float:
        """Predicted over measured, less 1."""
        return self.predicted / self.measured - 1

    @property
    def inside(self) -> bool:
        """Whether the interval holds what was measured."""
        return self.low <= self.measured <= self.high


def bench(case: Case, address: str, out: Path, words: Sequence[str], core: int) -> Result:
    """The result of a command of ``headgate bench``; ends this bench without one."""
    command = [
        "taskset",
        "--cpu-list",
        str(core),
        sys.executable,
        "-m",
        "headgate",
        "bench",
        words[0],
        case.name,
    ]
    command += [*words[1:], "--url", f"http://{address}", "--out", str(out), "--no-live"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600, check=False)
    if not (out / "result.json").exists():
        raise SystemExit(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")
    return read_result(out)


def measured(case: Case, launcher: Launcher, effort: Effort) -> tuple[Result, list[Result]]:
    """The search with the rates that the plan is made from as its windows, and the results at the other rates."""
    folder = launcher.folder
    model = folder / "models" / case.name / "1" / "model.onnx"
    model.parent.mkdir(parents=True)
    onnx.save(mlp(case.width).model, model)
    document = folder / f"{case.name}.yaml"
    document.write_text(DOCUMENT.format(name=case.name, run=case.run))
    process, address = launcher.serve(document, case.name, "--root", str(folder))
    try:
        words = ["find", "--slo", f"p99={case.limit_ms}ms", "--budget", f"{effort.budget}s"]
        found = bench(case, address, folder / f"{case.name}-find", words, effort.client_core)
        if found.capacity is None or found.capacity.passed is None:
            raise SystemExit(f"{case.name}: no rate passed: {found.reasons}")
        capacity = found.capacity.passed

        def at(share: float) -> Result:
            words = ["run", "--rate", f"{share * capacity:.4g}/s", "--for", f"{effort.seconds}s"]
            return bench(case, address, folder / f"{case.name}-{share}", words, effort.client_core)

        # In turns, so that a drift of the machine is in both.
        results = {share: at(share) for share in sorted((*FITTED, *HELD_OUT))}
    finally:
        process.terminate()
        process.wait(30)
    windows = tuple(results[share].windows[0] for share in FITTED)
    return found.model_copy(update={"windows": windows, "probes": ()}), [results[share] for share in HELD_OUT]


def capacity_of(fit: Fit, limit: float, most: float) -> float:
    """The highest rate at which the prediction is within the limit."""
    low, high = 0.0, most
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if fit.at(middle).seconds <= limit else (low, middle)
    return low


def checked(fit: Fit, result: Result) -> Checked:
    """What was measured at a rate beside what is predicted for it."""
    answer = result.windows[0].answer
    p99 = answer.response.quantile(0.99)
    rate = answer.offered_per_second
    if p99 is None or p99.value_ns is None or rate is None:
        raise SystemExit(f"no p99 at {result.windows[0].rate}/s: {result.reasons}")
    said = fit.at(rate)
    return Checked(rate, p99.value_ns / 1e9, said.seconds, said.low, said.high)


def compared(
    case: Case, result: Result, others: Sequence[Result]
) -> tuple[list[str], list[Claim], list[Checked]]:
    """A case as lines, what it promises, and the rates that its plan has not seen."""
    capacity = result.capacity
    assert capacity is not None
    assert capacity.passed is not None
    plan: Plan = plan_of(result, PlanRequest(Demand(capacity.passed, 0.2, 1)))
    lines = [f"## {case.name}: {case.run}, p99 within {case.limit_ms} ms", ""]
    if plan.fit is None:
        return [*lines, *plan.reasons, ""], [Claim(f"{case.name}: a model", "one", "none", holds=False)], []
    fit = plan.fit
    said = capacity_of(fit, case.limit_ms / 1e3, 2 * capacity.passed)
    border = "" if capacity.failed is None else f" to {capacity.failed:,.0f}"
    # Within the bracket, what was measured decides nothing.
    nearest = min(max(said, capacity.passed), capacity.failed or said)
    apart = abs(said / nearest - 1)
    rows = [checked(fit, one) for one in others]
    worst = max(abs(one.error) for one in rows)
    lines += [
        f"Model: {fit.model.name}{'' if fit.holds else ', refused'}. Capacity {said:,.0f}/s; measured {capacity.passed:,.0f}{border}/s.",
        *(f"Note: {reason}." for reason in plan.reasons),
        "",
        "| rate/s | p99 ms | predicted ms | interval | error |",
        "|---:|---:|---:|---|---:|",
    ]
    lines += [
        f"| {one.rate:,.0f} | {one.measured * 1e3:.2f} | {one.predicted * 1e3:.2f} "
        f"| {one.low * 1e3:.2f} to {one.high * 1e3:.2f} | {one.error:+.0%} |"
        for one in rows
    ]
    claims = [
        Claim(f"{case.name}: capacity by the model", "within 15 %", f"{apart:.0%} off", apart <= 0.15),
        Claim(f"{case.name}: p99 at rates not seen", "within 20 %", f"{worst:.0%} off", worst <= 0.2),
    ]
    return [*lines, ""], claims, rows


def main() -> None:
    """The command line; about twenty minutes."""
    parser = argparse.ArgumentParser(description="Measures what plans are worth.")
    parser.add_argument("--seconds", type=int, default=30, help="of each rate (default 30)")
    parser.add_argument("--budget", type=int, default=180, help="seconds of each search (default 180)")
    parser.add_argument("--only", choices=[case.name for case in CASES], help="one case")
    arguments = parser.parse_args()
    server_core, *_, client_core = sorted(os.sched_getaffinity(0))
    effort = Effort(arguments.seconds, arguments.budget, server_core, client_core)
    lines, claims, rows = [], [], []
    with tempfile.TemporaryDirectory(prefix="headgate-plans-") as name:
        launcher = Launcher(effort.server_core, Path(name))
        for case in CASES:
            if arguments.only in (None, case.name):
                found = compared(case, *measured(case, launcher, effort))
                lines += found[0]
                claims += found[1]
                rows += found[2]
                print("\n".join(found[0]), file=sys.stderr, flush=True)
    inside = sum(one.inside for one in rows)
    share = f"{inside} of {len(rows)}"
    claims.append(
        Claim("intervals at rates not seen", "9 of 10 hold", share, bool(rows) and inside >= 0.9 * len(rows))
    )
    facts = machine() | {"seconds": effort.seconds, "budget": effort.budget}
    title = [f"# plans, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC", ""]
    text = "\n".join(
        [*title, *table(claims), *lines, *(f"- {key}: {value}" for key, value in facts.items()), ""]
    )
    (RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-plans.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

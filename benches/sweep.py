"""``make bench-sweep``: what ``headgate bench sweep`` finds for models of which it is known what helps, and how near its simulations are.

A model of which rows are cheap together, a short one that gains nothing, and the first one with good settings already. Server and
generator have a core each if there are two. Read next: ``python/headgate/bench/sweep.py``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import onnx

from benches.batches import mlp
from benches.report import RESULTS, machine

NEAR = 0.25
"""How far a simulated rate may be from the measured bracket; the search decides at 5 %."""
DOCUMENT = """
apiVersion: headgate/v1
kind: Endpoint
name: {name}
versions:
  v1: {{model: "file:models/{name}/1", run: {run}}}
traffic: {{champion: v1}}
"""


@dataclass(frozen=True)
class Case:
    """A model of a width, its settings, and whether others hold more."""

    name: str
    width: int
    run: str
    limit: str
    gains: bool


CASES = (
    # 16 MiB of weights are read for each run: a batch of 16 rows reads them once.
    Case("heavy", 2048, "{placement: pool}", "p99=50ms", gains=True),
    Case("short", 32, "{}", "p99=10ms", gains=False),
    Case("batched", 2048, "{placement: pool, max_batch: 64}", "p99=50ms", gains=False),
)


def swept(case: Case, folder: Path, budget: str) -> dict[str, Any]:
    """The result of a sweep; ends the bench if there is none."""
    model = folder / "models" / case.name / "1"
    model.mkdir(parents=True)
    onnx.save(mlp(case.width).model, model / "model.onnx")
    document = folder / f"{case.name}.yaml"
    document.write_text(DOCUMENT.format(name=case.name, run=case.run))
    command = [sys.executable, "-m", "headgate", "bench", "sweep", case.name, "--spawn", str(document)]
    command += ["--slo", case.limit, "--budget", budget, "--tensors", "binary", "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if not done.stdout:
        raise SystemExit(f"{case.name}: the sweep ended with {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def distance(simulated: float, passed: float | None, failed: float | None) -> float | None:
    """How far a simulated rate is from the measured bracket, as a share of its nearer end; None if the bracket is open there."""
    if passed is not None and simulated < passed:
        return simulated / passed - 1
    if failed is not None and simulated > failed:
        return simulated / failed - 1
    return 0.0 if passed is not None and failed is not None else None


def lines_of(case: Case, found: dict[str, Any]) -> Iterator[str]:
    """A case as a table, and whether it is as it should be."""
    sweep = found["sweep"]
    yield f"## {case.name}: {case.limit}, {found['verdict']}"
    yield ""
    yield "| settings | simulated/s | holds/s | too much/s | simulation off by |"
    yield "|---|---:|---:|---:|---:|"
    off = []
    for one in sweep["measured"]:
        run = ", ".join(f"{name} {value}" for name, value in one["run"].items()) or "nothing written"
        apart = distance(one["simulated"], one["pass"], one["fail"])
        off += [] if apart is None else [abs(apart)]
        chosen = " (present)" if one["present"] else " (chosen)" if one["run"] == sweep["chosen"] else ""
        yield (
            f"| {run}{chosen} | {one['simulated']:,.0f} | {shown(one['pass'])} | {shown(one['fail'])} "
            f"| {'-' if apart is None else f'{apart:+.0%}'} |"
        )
    yield ""
    for one in sweep["calibrations"]:
        yield (
            f"A run with {one['threads']} thread takes {one['base_ns'] / 1e3:.0f} us and {one['row_ns'] / 1e3:.1f} us a row; "
            f"{one['around_base_ns'] / 1e3:.0f} us are around it. {len(sweep['simulated'])} settings were simulated."
        )
    yield ""
    yield from verdicts(case, found, off)
    yield ""
    yield from (f"- {reason}" for reason in found["reasons"])
    yield ""


def verdicts(case: Case, found: dict[str, Any], off: Sequence[float]) -> Iterator[str]:
    """What the case must show."""
    if found["verdict"] != "pass":
        yield "- undecided: the machine was not quiet enough, or the budget too short"
        return
    what = "another setting is chosen" if case.gains else "the present settings stay"
    yield f"- {what}: {'yes' if found['sweep']['changed'] == case.gains else '**no**'}"
    if off:
        near = "yes" if max(off) <= NEAR else "**no**"
        yield f"- simulations within {NEAR:.0%} of the measured brackets: {near} ({max(off):.0%} at most)"


def shown(rate: float | None) -> str:
    """A rate of a table."""
    return "-" if rate is None else f"{rate:,.0f}"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Sweeps models of which it is known what helps.")
    parser.add_argument("--budget", default="15m", help="of each sweep (default 15m)")
    parser.add_argument("--only", choices=[case.name for case in CASES], help="one case")
    arguments = parser.parse_args()
    lines = [f"# sweep, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC", ""]
    with tempfile.TemporaryDirectory(prefix="headgate-sweeps-") as name:
        for case in CASES:
            if arguments.only in (None, case.name):
                lines += lines_of(case, swept(case, Path(name), arguments.budget))
    facts = machine() | {"budget": arguments.budget}
    text = "\n".join([*lines, *(f"- {key}: {value}" for key, value in facts.items()), ""])
    (RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-sweep.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

"""The commands ``headgate bench``: they measure, sweep, compare, plan and report. Next: bench_measure.py, bench_sweep.py,
bench_compare.py, bench_plan.py.
"""

from __future__ import annotations

import click

from headgate.cli import bench_compare, bench_measure, bench_plan, bench_sweep
from headgate.cli.groups import Group


@click.group(cls=Group)
def bench() -> None:
    """Measure how much a model server takes, and plan for more.

    Latency counts from the moment a request was due, so that a slow server cannot hide what it delays. Exit codes: 0 done, 1 the
    objective is missed, 2 wrong usage, 3 unreachable, undecided, or the client was the limit.

    \b
    Example:
      headgate bench find digits --slo p99=5ms
      headgate bench run digits --rate 500/s --for 30s
      headgate bench plan results --target 6000/s
    """


_COMMANDS = (
    *bench_measure.COMMANDS,
    *bench_sweep.COMMANDS,
    *bench_compare.COMMANDS,
    *bench_plan.COMMANDS,
)

for _command in _COMMANDS:
    bench.add_command(_command)

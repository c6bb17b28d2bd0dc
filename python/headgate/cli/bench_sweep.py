"""The command ``headgate bench sweep``: which ``run:`` settings of a document hold more. Next: bench_measure.py, bench_options.py."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headgate.cli import session as cli
from headgate.cli.bench_measure import measure
from headgate.cli.bench_options import ServerOptions, bundled, scenario_options, server_options
from headgate.cli.output import Format

if TYPE_CHECKING:
    from headgate.bench.preparing import Asked
    from headgate.bench.results import Result
    from headgate.bench.run import Tools
    from headgate.bench.scenario import Scenario

_BUDGET = "30m"


@click.command()
@scenario_options
@click.option(
    "--measured",
    metavar="N",
    default=3,
    show_default=True,
    type=click.IntRange(1, 10),
    help="Settings that are measured beside the present one: the best of those that were simulated.",
)
@click.option(
    "--rounds",
    metavar="N",
    default=2,
    show_default=True,
    type=click.IntRange(1, 10),
    help="How often each is measured.",
)
@click.option("--precision", metavar="SHARE", help="How narrow each bracket gets. [default: 5%]")
@click.option("--budget", metavar="TIME", help=f"The longest time for all loads. [default: {_BUDGET}]")
@click.option(
    "--start", metavar="RATE", help="The first rate of each setting. [default: from a short closed loop]"
)
@click.option("--highest", metavar="RATE", help="No higher rate is tried.")
@click.option("--apply", is_flag=True, help="Write the settings that hold more into the document.")
@server_options
@cli.output_options
@click.pass_context
@bundled
def sweep(
    context: click.Context,
    /,
    wanted: dict[str, Any],
    server: ServerOptions,
    measured: int,
    rounds: int,
    precision: str | None,
    budget: str | None,
    start: str | None,
    highest: str | None,
    apply: bool,
    out: Path | None,
    no_live: bool,
    form: Format,
) -> None:
    """Find the run settings of a document with which an endpoint holds more.

    It serves the document (--spawn) with each setting in turn: first to learn what runs take, then it simulates all settings, and
    measures the best and the present one. It prints a patch of the document, and changes nothing without --apply.

    \b
    Example:
      headgate bench sweep digits --spawn digits.yaml --slo p99=15ms
      headgate bench sweep digits --spawn digits.yaml --slo p99=15ms --data file:day.jsonl --budget 10m --apply
    """
    given = {"precision": precision, "budget": budget, "start": start, "highest": highest}
    search = {name: value for name, value in given.items() if value is not None}
    if budget is None and wanted["scenario"] is None:
        search["budget"] = _BUDGET

    def work(asked: Asked, scenario: Scenario, tools: Tools) -> Result:
        from headgate.bench.native_functions import simulate_batches
        from headgate.bench.sweep import Plan
        from headgate.bench.sweep_servers import Wishes
        from headgate.bench.sweep_servers import sweep as sweep_document

        wishes = Wishes(Plan(measured, rounds), apply)
        return sweep_document(asked, scenario, tools, simulate_batches, wishes)

    measure(context, (wanted, {"search": search}, server), work, (out, no_live, form))


COMMANDS: tuple[click.Command, ...] = (sweep,)

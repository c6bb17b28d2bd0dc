"""The commands that read results: ``headgate bench plan|report``. Next: bench_compare.py."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headgate.cli import session as cli
from headgate.cli.bench_options import out_option, parsed
from headgate.cli.exits import EXIT_NO, EXIT_TRY_AGAIN, failures
from headgate.cli.output import Format, Lines, show, words
from headgate.cli.text import escape
from headgate.errors import HeadgateError, InvalidArgument

if TYPE_CHECKING:
    from headgate.bench.plan import Objective, Plan
    from headgate.bench.results import Result
    from headgate.bench.scenario import PlanFor

_RESULT: Any = click.Path(path_type=Path)


@click.command()
@click.argument("results", metavar="RESULT...", nargs=-1, required=True, type=_RESULT)
@click.option("--merge", is_flag=True, help="Put the results of several load hosts (--part) together.")
@click.option("--html", is_flag=True, help="Write the page, and no tables.")
@click.option("--csv", is_flag=True, help="Write the tables, and no page.")
@out_option
@cli.output_options
def report(
    results: tuple[Path, ...], merge: bool, html: bool, csv: bool, out: Path | None, form: Format
) -> None:
    """Show a result again, and write its page and tables.

    RESULT is a folder of --out, or a result.json. With --merge, histograms are added and quantiles are read from the sum: quantiles
    are never averaged.

    \b
    Example:
      headgate bench report results
      headgate bench report results/result.json --out page --html
      headgate bench report host-1 host-2 host-3 --merge --out whole
    """
    if html and csv:
        raise click.UsageError(
            "--html and --csv exclude each other; without both, page and tables are written"
        )
    if (html or csv) and out is None:
        raise click.UsageError(f"{'--html' if html else '--csv'} needs --out, where to write it")
    if len(results) > 1 and not merge:
        raise click.UsageError("a report is of one result; --merge puts the parts of one load together")
    with failures():
        from headgate.bench.report.files import write_all
        from headgate.bench.report.merge import merge as merged
        from headgate.bench.results import read_result
        from headgate.cli.bench_view import result_view

        found = [read_result(path) for path in results]
        result = merged(found) if merge else found[0]
        show(form, result.as_json(), lambda _: result_view(result), lambda _: [result.verdict])
        if out is not None:
            _write(lambda: write_all(result, out, pages=not csv, tables=not html), out)


@click.command()
@click.argument("result", type=_RESULT)
@click.option("--target", metavar="RATE", help="What all replicas together must hold, such as 6000/s.")
@click.option("--headroom", metavar="SHARE", help="How much more than that is planned for. [default: 20%]")
@click.option("--spare", metavar="N", type=int, help="Replicas that may be away. [default: 1]")
@click.option("--slo", metavar="LIMIT", help="The objective, such as p99=10ms. [default: that of the result]")
@click.option("--price-per-hour", metavar="PRICE", type=float, help="What a replica costs in an hour.")
@click.option("--growth", metavar="SHARE", help="How much the rate grows in a month, such as 3%.")
@click.option(
    "--run",
    metavar="SETTINGS",
    help="How the server makes batches: max_batch=32,instances=2,max_delay=1ms. [default: as the result says]",
)
@out_option
@cli.output_options
def plan(result: Path, run: str | None, out: Path | None, form: Format, **asked: Any) -> None:
    """Say how many replicas a target needs, from the result of `find`.

    A queueing model is fitted to the measured rates and checked on two that it did not see. If it does not hold there, that is said, and
    the measured capacity decides. A replica is never asked for more than was measured. What is not given here, the scenario's `plan:`
    says.

    \b
    Example:
      headgate bench find digits --slo p99=15ms --out results
      headgate bench plan results --target 6000/s
      headgate bench plan results --target 6000/s --spare 2 --price-per-hour 0.40 --growth 3%
    """
    with failures():
        from headgate.bench import planning
        from headgate.bench.plan_facts import NothingToPlanFrom
        from headgate.bench.results import read_result

        read = read_result(result)
        wanted = _wanted(read, asked)
        settings = None if run is None else parsed("--run", planning.parse_run, run)
        try:
            found = planning.plan_of(read, planning.request_of(wanted, _objective(asked["slo"])), settings)
        except NothingToPlanFrom as error:
            words(f"headgate: {error.message}")
            sys.exit(EXIT_NO if error.missed else EXIT_TRY_AGAIN)
        whole = planning.with_plan(read, found)
        show(form, found.as_json(), lambda _: plan_view(found), lambda _: [found.replicas])
        if out is not None:
            from headgate.bench.report import write_all

            _write(lambda: write_all(whole, out), out)


COMMANDS: tuple[click.Command, ...] = (plan, report)


def plan_view(plan: Plan) -> Lines:
    """A plan for a person."""
    from headgate.bench.plan import words as plan_words

    return [escape(line) for line in plan_words(plan)]


def _wanted(result: Result, asked: dict[str, Any]) -> PlanFor:
    """The ``plan:`` of the result's scenario, with what the options say instead."""
    from headgate.bench.scenario import plan_from

    given = {name: asked[name] for name in ("target", "headroom", "spare", "price_per_hour", "growth")}
    written = result.scenario.get("plan")
    values = {
        **(written if isinstance(written, dict) else {}),
        **{k: v for k, v in given.items() if v is not None},
    }
    if "target" not in values:
        raise click.UsageError("name the rate that is planned for: --target 6000/s")
    return plan_from(values, "the options")


def _objective(written: str | None) -> Objective | None:
    if written is None:
        return None
    from headgate.bench import slo
    from headgate.bench.plan import Objective

    found = parsed("--slo", lambda text: slo.parse_values(slo.split_words([text])), written)
    if len(found.quantiles) != 1 or found.errors is not None:
        raise InvalidArgument("--slo: a plan is for one quantile with its limit, such as p99=15ms")
    ((quantile, limit),) = found.quantiles
    return Objective(quantile, limit / 1e9)


def _write(write: Callable[[], object], folder: Path) -> None:
    """Writes files; what was printed stays if the disk refuses."""
    try:
        write()
    except HeadgateError as error:
        words(f"headgate: {error.message}")
        sys.exit(EXIT_TRY_AGAIN)
    words(f"written to {folder}")

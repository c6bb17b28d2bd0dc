"""``headgate bench compare``: two results, or two servers that are measured in turn. Next: bench_compare_view.py."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headgate.cli import session as cli
from headgate.cli.bench_options import (
    ServerOptions,
    asked_of,
    client_options,
    live_option,
    parsed,
    request_options,
    scenario_of,
    view_of,
    with_options,
)
from headgate.cli.exits import EXIT_TRY_AGAIN, INTERRUPTED, failures
from headgate.cli.output import Format, show
from headgate.errors import InvalidArgument

if TYPE_CHECKING:
    from headgate.bench.comparison import Comparison
    from headgate.bench.results import Outcome
    from headgate.bench.scenario import Scenario
    from headgate.bench.server_comparison import ServerRules, Side

_SIDES = ("a", "b")


def _side_options(side: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Where one of both is, and which version of it is asked."""
    name = side.upper()
    return with_options(
        click.option(
            f"--url-{side}", metavar="URL", help=f"The server {name}. [default: http://127.0.0.1:8000]"
        ),
        click.option(
            f"--grpc-url-{side}", metavar="URL", help=f"Its port for gRPC. [default: that of --url-{side}]"
        ),
        click.option(
            f"--spawn-{side}",
            metavar="DOCUMENT",
            type=click.Path(path_type=Path),
            help=f"Serve this document as {name}.",
        ),
        click.option(
            f"--version-{side}",
            metavar="VERSION",
            help=f"The version of {name}. [default: the one that serves]",
        ),
    )


@click.command()
@click.argument("names", metavar="[A B | ENDPOINT]", nargs=-1)
@click.option(
    "--margin", metavar="SHARE", default="3%", show_default=True, help="By how much B may be slower."
)
@click.option(
    "--quantile",
    metavar="QUANTILE",
    default="p50",
    show_default=True,
    help="Of response times; of results: p50 or p99.",
)
@click.option("--force", is_flag=True, help="Compare results of different models, machines or scenarios.")
@_side_options("a")
@_side_options("b")
@click.option("--rate", metavar="RATE", help="The rate at which both are measured, such as 200/s.")
@click.option("--for", "length", metavar="TIME", help="How long each run is. [default: 10s]")
@click.option("--max-pairs", metavar="N", type=int, help="Pairs of runs at most, 6 to 20. [default: 12]")
@click.option(
    "--noise-pairs", metavar="N", type=int, help="Pairs of A with itself, before both. [default: 6]"
)
@request_options
@client_options
@live_option
@cli.output_options
@click.pass_context
def compare(
    context: click.Context, /, names: tuple[str, ...], margin: str, quantile: str, form: Format, **given: Any
) -> None:
    """Say whether B is slower than A by more than a margin: two results, or two servers that are measured in turn.

    Exit codes: 0 it is not, 1 it is, 3 that is not decided. Results must be of the same model, machine and scenario. Servers are
    measured in pairs of runs, A B B A, until it is decided. Runs of A against itself come first; a margin below that noise is refused.

    \b
    Example:
      headgate bench compare before after --margin 5%
      headgate bench compare digits --url-a http://127.0.0.1:8000 --url-b http://127.0.0.1:9000 --rate 200/s
      headgate bench compare digits --version-a 1 --version-b 2 --rate 200/s --for 20s --quantile p99
      headgate bench compare digits --spawn-a now.yaml --spawn-b changed.yaml --rate 200/s
    """
    with failures():
        from headgate.bench.rates import format_quantile
        from headgate.cli.bench_compare_view import comparison_view

        share, level = _share(margin), _quantile(quantile)
        outcome: Outcome = "measured"
        if _are_results(context, names, given):
            found = _results(names, format_quantile(level), share, force=given["force"])
        else:
            found, outcome = _servers(context, names, given, (share, level))
        show(form, found.as_json(), lambda _: comparison_view(found), lambda _: [found.finding])
        if outcome == "interrupted":
            sys.exit(INTERRUPTED)
        sys.exit(found.exit_code if outcome == "measured" else EXIT_TRY_AGAIN)


COMMANDS: tuple[click.Command, ...] = (compare,)


# === two results ===


def _are_results(context: click.Context, names: tuple[str, ...], given: Mapping[str, Any]) -> bool:
    """Whether two results were named; a usage error for words that do not go together."""
    if len(names) > 2:
        raise click.UsageError("two results are compared, or two servers at one endpoint")
    if len(names) == 2:
        # What is about servers would be ignored otherwise.
        source = click.core.ParameterSource.COMMANDLINE
        wrong = [name for name in given if name != "force" and context.get_parameter_source(name) is source]
        if wrong:
            option = next(one.opts[0] for one in context.command.params if one.name == wrong[0])
            raise click.UsageError(f"{option} is about servers, and two results are named; give one of both")
        return True
    if given["force"]:
        raise click.UsageError("--force is about two results")
    if names and Path(names[0]).is_file():
        raise click.UsageError(
            f"{names[0]} is a file: two results are compared, or two servers at one endpoint"
        )
    return False


def _results(names: tuple[str, ...], metric: str, margin: float, *, force: bool) -> Comparison:
    from headgate.bench.comparison import NativeStatistics
    from headgate.bench.file_comparison import compare_files
    from headgate.bench.results import read_result

    a, b = (read_result(Path(name)) for name in names)
    return compare_files(a, b, metric, margin, NativeStatistics(), force=force)


# === two servers ===


def _servers(
    context: click.Context, names: tuple[str, ...], given: Mapping[str, Any], wanted: tuple[float, float]
) -> tuple[Comparison, Outcome]:
    from headgate.bench.measuring import Interruption
    from headgate.bench.run import Tools
    from headgate.bench.server_comparison import compare_servers

    sides = _sides(context, names, given)
    rules = _rules(sides[0].scenario, given, wanted)
    started = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    generator = cli.environment_of(context).generator()
    return compare_servers(sides, rules, Tools(generator, view_of(given["no_live"]), Interruption(), started))


def _sides(context: click.Context, names: tuple[str, ...], given: Mapping[str, Any]) -> tuple[Side, Side]:
    from headgate.bench.server_comparison import Side

    asked: dict[str, dict[str, Any]] = {
        side: {name: given[f"{name}_{side}"] for name in ("url", "grpc_url", "spawn", "version")}
        for side in _SIDES
    }
    if asked["a"] == asked["b"]:
        raise click.UsageError(
            "A and B are the same: name another server (--url-b), document (--spawn-b) or version (--version-b)"
        )
    found = []
    for side in _SIDES:
        options = ServerOptions(
            url=asked[side]["url"],
            grpc_url=asked[side]["grpc_url"],
            document=asked[side]["spawn"],
            yes_load_remote=given["yes_load_remote"],
            as_traffic=False,
            threads=given["threads"],
            pin=given["pin"],
            wait=given["wait"],
            part=None,
            admin=None,
            state=None,
        )
        of = {**given, "endpoint": names[0] if names else None, "slo": (), "version": asked[side]["version"]}
        found.append(Side(asked_of(options, cli.environment_of(context)), scenario_of(of, {})))
    return found[0], found[1]


def _rules(scenario: Scenario, given: Mapping[str, Any], wanted: tuple[float, float]) -> ServerRules:
    """The rate and length of the options, else those of a scenario with one stage that is held."""
    from headgate.bench.pairs import PairRules
    from headgate.bench.rates import parse_ns, parse_rate
    from headgate.bench.server_comparison import ServerRules

    margin, quantile = wanted
    if scenario.load.arrivals == "trace" or scenario.load.clients is not None:
        raise InvalidArgument(
            "two servers are compared at one rate: remove clients, or arrivals: trace, from the load"
        )
    stages = scenario.load.stages or ()
    held = stages[0] if len(stages) == 1 and stages[0].rate is not None else None
    rate = (
        parsed("--rate", parse_rate, given["rate"]) if given["rate"] else None if held is None else held.rate
    )
    if rate is None:
        raise click.UsageError("two servers are compared at one rate: --rate 200/s")
    length = parse_ns("10s") if held is None else held.for_ns
    if given["length"]:
        length = parsed("--for", parse_ns, given["length"])
    pairs = {name: given[name] for name in ("max_pairs", "noise_pairs") if given[name] is not None}
    return ServerRules(rate, length, quantile, PairRules(margin=margin, **pairs))


def _share(text: str) -> float:
    from headgate.bench.comparison import checked_margin
    from headgate.bench.scenario_rules import increase

    return checked_margin(parsed("--margin", increase, text))


def _quantile(text: str) -> float:
    from headgate.bench.rates import parse_quantile

    return parsed("--quantile", parse_quantile, text)

"""The commands that measure: ``headgate bench run|find|replay|selftest``. Next: bench_options.py, bench_view.py."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headgate.cli import session as cli
from headgate.cli.bench_options import (
    ServerOptions,
    asked_of,
    bundled,
    scenario_of,
    scenario_options,
    server_options,
    stages_of,
    view_of,
)
from headgate.cli.bench_plan import plan_view
from headgate.cli.exits import EXIT_NO, EXIT_TRY_AGAIN, INTERRUPTED, failures
from headgate.cli.output import Format, Lines, show, words
from headgate.errors import HeadgateError

if TYPE_CHECKING:
    from headgate.bench.plan import Plan
    from headgate.bench.preparing import Asked
    from headgate.bench.results import Result
    from headgate.bench.run import Tools
    from headgate.bench.scenario import Scenario

_EXITS = {
    "pass": 0,
    "measured": 0,
    "fail": EXIT_NO,
    "undecided": EXIT_TRY_AGAIN,
    "client_limited": EXIT_TRY_AGAIN,
    "unreachable": EXIT_TRY_AGAIN,
    "interrupted": INTERRUPTED,
}

Work = Callable[["Asked", "Scenario", "Tools"], "Result"]


@click.command()
@scenario_options
@click.option("--rate", metavar="RATE", help="Requests a second, such as 200/s, whatever the answers take.")
@click.option(
    "--clients", metavar="N", type=int, help="Clients that each wait for their answer, instead of a rate."
)
@click.option("--for", "length", metavar="TIME", help="How long. [default: 30s]")
@server_options
@cli.output_options
@click.pass_context
@bundled
def run(
    context: click.Context,
    /,
    wanted: dict[str, Any],
    server: ServerOptions,
    rate: str | None,
    clients: int | None,
    length: str | None,
    out: Path | None,
    no_live: bool,
    form: Format,
) -> None:
    """Send one load, and show all its numbers.

    Latency counts from the moment a request was due. Without an objective (--slo) the exit code is 0 if requests were answered.

    \b
    Example:
      headgate bench run digits --rate 500/s --for 30s
      headgate bench run digits --rate 500/s --slo p99=5ms,errors=0.1% --out results
      headgate bench run digits --clients 8 --for 10s --protocol grpc
    """
    if rate is not None and clients is not None:
        raise click.UsageError("--rate and --clients exclude each other")
    load: dict[str, Any] = {}
    if clients is not None:
        load = {"clients": clients, "for": length or "30s"}
    elif (stages := stages_of(rate, length)) is not None:
        load = {"stages": stages}
    elif length is not None:
        raise click.UsageError("--for needs --rate or --clients")
    from headgate.bench.run import run as work

    measure(context, (wanted, {"load": load}, server), work, (out, no_live, form))


@click.command()
@scenario_options
@click.option("--precision", metavar="SHARE", help="How narrow the bracket gets. [default: 5%]")
@click.option("--budget", metavar="TIME", help="The longest time for all of it. [default: 10m]")
@click.option("--start", metavar="RATE", help="The first rate. [default: from a short closed loop]")
@click.option("--highest", metavar="RATE", help="No higher rate is tried.")
@click.option(
    "--steady-rates",
    is_flag=True,
    help="Measure 0.3, 0.5, 0.7 and 0.85 of the answer as well, for the model of `plan`; half of the budget more.",
)
@server_options
@cli.output_options
@click.pass_context
@bundled
def find(
    context: click.Context,
    /,
    wanted: dict[str, Any],
    server: ServerOptions,
    precision: str | None,
    budget: str | None,
    start: str | None,
    highest: str | None,
    steady_rates: bool,
    out: Path | None,
    no_live: bool,
    form: Format,
) -> None:
    """Find the highest rate that an endpoint holds within an objective.

    Each rate is measured until it is decided; the answer is confirmed by a longer run. It takes minutes.

    \b
    Example:
      headgate bench find digits --slo p99=5ms
      headgate bench find digits --slo p99=15ms,errors=0.1% --spawn digits.yaml --budget 5m --out results
      headgate bench find --scenario evening.yaml --url http://127.0.0.1:8000
    """
    given = {"precision": precision, "budget": budget, "start": start, "highest": highest}
    search: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if steady_rates:
        search["steady_rates"] = True
    from headgate.bench.find import find as work

    measure(context, (wanted, {"search": search}, server), work, (out, no_live, form))


@click.command()
@scenario_options
@click.option("--speed", metavar="X", type=float, help="How much faster than captured. [default: 1]")
@server_options
@cli.output_options
@click.pass_context
@bundled
def replay(
    context: click.Context,
    /,
    wanted: dict[str, Any],
    server: ServerOptions,
    speed: float | None,
    out: Path | None,
    no_live: bool,
    form: Format,
) -> None:
    """Send captured requests at the pace at which they came, or faster.

    The requests are those of the endpoint's capture, which needs pyarrow. `headgate replay` compares answers; this measures.

    \b
    Example:
      headgate bench replay digits --state .state
      headgate bench replay digits --data capture:backup/digits --speed 4 --slo p99=15ms
    """
    load: dict[str, Any] = {"arrivals": "trace"}
    if speed is not None:
        load["speed"] = speed
    if wanted["scenario"] is None and wanted["data"] is None:
        wanted = {**wanted, "data": "capture"}
    from headgate.bench.run import replay as work

    measure(context, (wanted, {"load": load}, server), work, (out, no_live, form))


@click.command()
@click.option(
    "--rate", metavar="RATE", default="1000/s", show_default=True, help="The rate of a load to come."
)
@click.option(
    "--seconds", metavar="N", default=2.0, show_default=True, type=click.FloatRange(0.5, 60), help="How long."
)
@click.option(
    "--request-bytes", metavar="N", default=1024, show_default=True, type=click.IntRange(1, 64 * 1024 * 1024)
)
@click.option(
    "--protocol",
    type=click.Choice(["http", "grpc", "grpc_stream"]),
    default="http",
    show_default=True,
    help="What is spoken with the echo.",
)
@click.option(
    "--threads",
    metavar="N",
    default=1,
    show_default=True,
    type=click.IntRange(1, 256),
    help="Threads that send.",
)
@click.option("--pin", is_flag=True, help="Keep those threads on processors of their own.")
@click.option("--wait", type=click.Choice(["auto", "spin", "sleep"]), default="auto", show_default=True)
@cli.output_options
@click.pass_context
def selftest(
    context: click.Context,
    /,
    rate: str,
    seconds: float,
    request_bytes: int,
    protocol: str,
    threads: int,
    pin: bool,
    wait: Any,
    form: Format,
) -> None:
    """Say whether this machine can send a rate, without any server.

    It sends 1.25 times the rate to an echo inside the generator, as each measurement does before it begins.

    \b
    Example:
      headgate bench selftest --rate 20000/s
    """
    with failures():
        from headgate.bench import machine
        from headgate.bench.loads import GeneratorSettings
        from headgate.bench.rates import parse_rate
        from headgate.bench.selftest import AHEAD, EchoLoad, self_test
        from headgate.cli.bench_view import selftest_view
        from headgate.errors import InvalidArgument

        try:
            wanted = parse_rate(rate)
        except ValueError as error:
            raise InvalidArgument(f"--rate: {error}") from None
        cpus = machine.available_cpus()[-threads:] if pin else None
        settings = GeneratorSettings(threads, cpus, wait)
        load = EchoLoad(wanted * AHEAD, request_bytes, protocol, seconds)
        answer = self_test(cli.environment_of(context).generator(), settings, load)
        show(
            form,
            answer.model_dump(mode="json", by_alias=True),
            lambda _: selftest_view(answer, wanted),
            lambda _: ["limited" if answer.client.limited else "ok"],
        )
        if answer.client.limited:
            sys.exit(EXIT_TRY_AGAIN)


COMMANDS: tuple[click.Command, ...] = (run, find, replay, selftest)


def measure(
    context: click.Context,
    what: tuple[dict[str, Any], dict[str, Any], ServerOptions],
    work: Work,
    shown: tuple[Path | None, bool, Format],
) -> None:
    """Measures, prints, keeps, and exits with what came of it."""
    wanted, more, server = what
    out, no_live, form = shown
    with failures():
        from headgate.bench import keeping
        from headgate.bench.find import find as find_rate
        from headgate.bench.measuring import Interruption
        from headgate.bench.planning import planned
        from headgate.bench.run import Tools
        from headgate.cli.bench_view import result_view

        environment = cli.environment_of(context)
        scenario = scenario_of(wanted, more)
        asked = asked_of(server, environment)
        if out is not None:
            _try_to_keep(lambda: keeping.prepare(out))
        started = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        tools = Tools(environment.generator(), view_of(no_live), Interruption(), started)
        # Of a search alone: one load says nothing of what a replica holds.
        result, plan = planned(work(asked, scenario, tools), scenario.plan if work is find_rate else None)
        show(form, result.as_json(), lambda _: [*result_view(result), *_plan(plan)], lambda _: _names(result))
        kept = out is None or _try_to_keep(lambda: keeping.keep(result, out))
        if out is not None and kept:
            words(f"kept in {out}")
        code = EXIT_TRY_AGAIN if result.sweep and result.sweep["not_applied"] else _EXITS[result.verdict]
        sys.exit(code if kept or code == INTERRUPTED else EXIT_TRY_AGAIN)


def _try_to_keep(keep: Callable[[], None]) -> bool:
    """Whether it could be written. The numbers are printed in any case, so that a full disk costs no measurement."""
    try:
        keep()
    except HeadgateError as error:
        words(f"headgate: {error.message}")
        return False
    return True


def _plan(plan: Plan | None) -> Lines:
    return [] if plan is None else ["", *plan_view(plan)]


def _names(result: Result) -> list[str]:
    """What a loop of the shell wants: the rate that passed, else the verdict."""
    passed = None if result.capacity is None else result.capacity.passed
    return [result.verdict if passed is None else f"{passed:.6g}"]

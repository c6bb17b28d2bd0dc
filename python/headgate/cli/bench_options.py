"""The options that measuring commands share, and what they make: a scenario, the server, the generator. Next: bench_measure.py."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from headgate.cli import completion
from headgate.cli.client import AdminClient, Timing, segment
from headgate.cli.session import CliEnvironment
from headgate.cli.target import GatewayOptions, read_addresses
from headgate.errors import HeadgateError, InvalidArgument, NotFound

if TYPE_CHECKING:
    from headgate.bench.measuring import View
    from headgate.bench.preparing import Asked, LiveEndpoint
    from headgate.bench.scenario import Scenario
    from headgate.bench.target import ServerAddress

T = TypeVar("T")

_CONNECT_SECONDS = 2.0


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def with_options(*options: Decorator) -> Decorator:
    """Several options as one decorator, in the order in which help shows them."""

    def decorated(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorated


request_options = with_options(
    click.option(
        "--scenario",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="A document of kind Scenario; options go before what it says.",
    ),
    click.option(
        "--data",
        metavar="SOURCE",
        help="synthetic, file:PATH (.json .jsonl .npy .npz .parquet), capture[:FOLDER]. [default: synthetic]",
    ),
    click.option(
        "--rows",
        metavar="ROWS",
        help="Rows of a request with their shares, such as 1=90%,16=10%. [default: 1]",
    ),
    click.option("--protocol", type=click.Choice(["http", "grpc", "grpc_stream"]), help="[default: http]"),
    click.option(
        "--tensors", type=click.Choice(["json", "binary"]), help="How HTTP carries them. [default: json]"
    ),
    click.option(
        "--arrivals", type=click.Choice(["poisson", "constant", "gamma"]), help="[default: poisson]"
    ),
    click.option("--cv", type=float, metavar="X", help="Standard deviation over mean of gamma arrivals."),
    click.option("--timeout", metavar="TIME", help="How long an answer may take. [default: 5s]"),
    click.option(
        "--max-in-flight", metavar="N", type=int, help="More that is due is not sent. [default: 10000]"
    ),
    click.option(
        "--seed", type=int, metavar="N", help="Of arrivals, of the mix, and of made-up values. [default: 1]"
    ),
)
"""What is sent."""

scenario_options = with_options(
    click.argument("endpoint", required=False, shell_complete=completion.endpoints),
    click.option(
        "--version", metavar="VERSION", help="The version that is asked. [default: the one that serves]"
    ),
    click.option(
        "--slo",
        multiple=True,
        metavar="LIMITS",
        help="What must hold, such as p99=15ms,errors=0.1%; may be repeated.",
    ),
    request_options,
)
"""What is sent, and what it must meet."""

client_options = with_options(
    click.option(
        "--yes-load-remote", is_flag=True, help="Load a server on another machine. It is yours to load."
    ),
    click.option(
        "--threads",
        metavar="N",
        default=1,
        show_default=True,
        type=click.IntRange(1, 256),
        help="Threads that send.",
    ),
    click.option("--pin", is_flag=True, help="Keep those threads on processors of their own."),
    click.option(
        "--wait",
        type=click.Choice(["auto", "spin", "sleep"]),
        default="auto",
        show_default=True,
        help="How they wait: spin needs a free core for each.",
    ),
)
"""From which processors it is sent."""

out_option: Decorator = click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Keep the result, its tables and the scenario there.",
)
live_option: Decorator = click.option("--no-live", is_flag=True, help="Show nothing while it runs.")

server_options = with_options(
    click.option("--url", metavar="URL", help="The server. [default: http://127.0.0.1:8000]"),
    click.option("--grpc-url", metavar="URL", help="Its port for gRPC. [default: that of --url]"),
    click.option(
        "--spawn",
        "document",
        metavar="DOCUMENT",
        type=click.Path(path_type=Path),
        help="Serve this document for the measurement, on processors apart from the generator's.",
    ),
    click.option(
        "--as-traffic",
        is_flag=True,
        help="Have routing decide, instead of naming the version. Refused during a rollout.",
    ),
    client_options,
    click.option(
        "--part", metavar="I/N", help="Send every N-th request only: one of N load hosts, with the same seed."
    ),
    click.option(
        "--admin",
        metavar="URL",
        help="The gateway's admin API, for its champion and digests. [HEADGATE_ADMIN]",
    ),
    click.option(
        "--state",
        metavar="DIR",
        type=click.Path(path_type=Path),
        help="The gateway's state folder. [HEADGATE_STATE]",
    ),
    out_option,
    live_option,
)
"""Where it is sent, and from which processors."""


@dataclass(frozen=True)
class ServerOptions:
    """What the options of :func:`server_options` say."""

    url: str | None
    grpc_url: str | None
    document: Path | None
    yes_load_remote: bool
    as_traffic: bool
    threads: int
    pin: bool
    wait: Any
    part: str | None
    admin: str | None
    state: Path | None


def bundled(command: Callable[..., Any]) -> Callable[..., Any]:
    """Hands the command its options as two bundles: ``wanted`` for the scenario and ``server``."""

    def wrapped(*given: Any, **rest: Any) -> Any:
        server = ServerOptions(**{name: rest.pop(name) for name in ServerOptions.__dataclass_fields__})
        wanted = {name: rest.pop(name) for name in _WANTED}
        return command(*given, wanted=wanted, server=server, **rest)

    return functools.update_wrapper(wrapped, command, updated=("__dict__",))


_WANTED = (
    "endpoint",
    "scenario",
    "version",
    "data",
    "rows",
    "protocol",
    "tensors",
    "slo",
    "arrivals",
    "cv",
    "timeout",
    "max_in_flight",
    "seed",
)


def scenario_of(wanted: Mapping[str, Any], more: Mapping[str, Any]) -> Scenario:
    """The scenario of the file, with what the options say instead; ``more`` has further parts in a document's form, such as ``load``."""
    # Here and below, imported where it is needed: help and completion wait for no numpy.
    from headgate.bench import slo as objectives
    from headgate.bench.scenario import scenario_from

    values = _begin(wanted)
    entry = {name: wanted[name] for name in ("version", "data") if wanted[name] is not None}
    if wanted["rows"] is not None:
        entry["rows"] = _rows(wanted["rows"])
    if entry:
        if len(values["mix"]) > 1:
            raise InvalidArgument(
                f"--{next(iter(entry))} is about one endpoint, and the scenario asks several"
            )
        values["mix"] = [{**values["mix"][0], **entry}]
    for name in ("protocol", "tensors", "timeout", "max_in_flight", "seed"):
        if wanted[name] is not None:
            values[name] = wanted[name]
    if wanted["slo"]:
        try:
            values["slo"] = objectives.split_words(wanted["slo"])
        except ValueError as error:
            raise InvalidArgument(f"--slo: {error}") from None
    load = dict(more.get("load") or values.get("load") or {})
    for name in ("arrivals", "cv"):
        if wanted[name] is not None:
            load[name] = wanted[name]
    if load:
        values["load"] = load
    for part, fields in more.items():
        if part != "load" and fields:
            values[part] = {**values.get(part, {}), **fields}
    return scenario_from(values, str(wanted["scenario"] or "the options"))


def _begin(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the file, or those of a scenario with one endpoint."""
    endpoint = wanted["endpoint"]
    if wanted["scenario"] is None:
        if endpoint is None:
            raise click.UsageError("name the endpoint that is measured, or a --scenario")
        return {
            "apiVersion": "headgate/v1",
            "kind": "Scenario",
            "name": endpoint,
            "mix": [{"endpoint": endpoint}],
        }
    from headgate.bench.scenario import read_scenario

    read = read_scenario(wanted["scenario"])
    if endpoint is None:
        return read.as_written()
    if endpoint not in [one.endpoint for one in read.mix]:
        raise InvalidArgument(f"{wanted['scenario']} does not ask {endpoint}; give one of both")
    if len(read.mix) > 1:
        raise InvalidArgument(f"{wanted['scenario']} asks several endpoints; remove {endpoint}")
    return read.as_written()


def _rows(text: str) -> dict[str, str]:
    found = {}
    for word in text.split(","):
        count, equals, share = word.strip().partition("=")
        found[count] = share if equals else "100%"
    return found


def asked_of(options: ServerOptions, environment: CliEnvironment) -> Asked:
    """The server and the generator that the options mean."""
    from headgate.bench.loads import GeneratorSettings
    from headgate.bench.preparing import Asked

    control = _Control(options, environment)
    settings = GeneratorSettings(options.threads, None, options.wait, _part(options.part))
    return Asked(
        url=options.url,
        grpc=options.grpc_url,
        document=options.document,
        remote_allowed=options.yes_load_remote,
        as_traffic=options.as_traffic,
        captures=GatewayOptions(state=options.state).state_folder(environment.variables) / "captures",
        settings=settings,
        pin=options.pin,
        ask_control=control.ask,
    )


def _part(written: str | None) -> tuple[int, int]:
    if written is None:
        return 1, 1
    part, slash, of = written.partition("/")
    if not slash or not part.isdigit() or not of.isdigit() or not 1 <= int(part) <= int(of) <= 1000:
        raise InvalidArgument(f"--part {written}: write it as 1/3, the first of three")
    return int(part), int(of)


class _Control:
    """The admin API of the gateway under test, as far as there is access to it."""

    def __init__(self, options: ServerOptions, environment: CliEnvironment) -> None:
        self._options = options
        self._environment = environment

    def ask(self, address: ServerAddress, state: Path | None, endpoint: str) -> LiveEndpoint | None:
        """What it says of the endpoint; None if it cannot be asked, or is another gateway's."""
        gateway = GatewayOptions(self._options.admin, state or self._options.state)
        if state is None and self._options.admin is None and not self._is_state_of(gateway, address):
            return None
        timing = replace(Timing(), connect_seconds=_CONNECT_SECONDS)
        try:
            with self._environment.client(gateway, timing) as client:
                live = _live(client.get(f"/endpoints/{segment(endpoint)}").body)
                if not self._options.as_traffic:
                    return live
                # Before its first step with a weight, a rollout shows in no weights, and counts copies.
                return replace(
                    live, shared=", ".join(filter(None, [live.shared, _rollout(client, endpoint)]))
                )
        except (HeadgateError, KeyError, TypeError, AttributeError):
            # Without access the measurement does without what it would have said; --as-traffic alone needs it.
            return None

    def _is_state_of(self, gateway: GatewayOptions, address: ServerAddress) -> bool:
        left = read_addresses(gateway.state_folder(self._environment.variables))
        return address.port in {_port(left.get(name, "")) for name in ("http", "grpc")}


def _rollout(client: AdminClient, endpoint: str) -> str:
    """The rollout that is under way, in words; an empty text if there is none, or the gateway knows none."""
    try:
        found = client.get(f"/endpoints/{segment(endpoint)}/rollout").body
    except NotFound:
        return ""
    return "" if found["end"] is not None else f"the rollout of {found['challenger']} is {found['phase']}"


def _port(address: str) -> int | None:
    port = address.rpartition(":")[2]
    return int(port) if port.isdigit() else None


def _live(found: Mapping[str, Any]) -> LiveEndpoint:
    from headgate.bench.preparing import LiveEndpoint

    traffic = found["traffic"]
    shared = ", ".join(f"{version} {share}" for version, share in traffic["weights"].items())
    digests = {
        name: str(one["digest"])
        for name, one in (found.get("versions") or {}).items()
        if isinstance(one, dict) and one.get("digest")
    }
    runs = _runs(found.get("document"))
    return LiveEndpoint(str(traffic["champion"]), int(traffic["revision"]), digests, shared, runs)


def _runs(document: Any) -> dict[str, dict[str, Any]]:
    """The written ``run:`` settings of each version of a document; none of a document that this build does not read."""
    if not isinstance(document, str):
        return {}
    from headgate.bench.run_settings import choice_of
    from headgate.documents import Files, parse_one

    try:
        endpoint = parse_one(
            document.encode(), source="the document", root=Path("/"), follow=Files.IGNORED
        ).endpoint
    except HeadgateError:
        return {}
    return {name: choice_of(one.run).written for name, one in endpoint.versions.items()}


def parsed(option: str, parse: Callable[[str], T], text: str) -> T:
    """What ``parse`` makes of an option's text; :class:`InvalidArgument` that names the option."""
    try:
        return parse(text)
    except ValueError as error:
        raise InvalidArgument(f"{option}: {error}") from None


def view_of(no_live: bool) -> View:
    """What is shown while it runs."""
    from headgate.bench.live import NoView, PlainView, TerminalView

    if no_live:
        return NoView()
    return TerminalView(sys.stderr) if sys.stderr.isatty() else PlainView(sys.stderr)


def stages_of(rate: str | None, length: str | None) -> Sequence[Mapping[str, str]] | None:
    """The stages of ``--rate`` and ``--for``."""
    return None if rate is None else [{"rate": rate, "for": length or "30s"}]

"""Documents of kind ``Scenario``: which requests are sent, how fast, and what they must meet.

As written: YAML or JSON with units (``200/s``, ``15ms``, ``80%``). Validated: :class:`Scenario`. A command's options make the same
values, so that ``--out`` keeps a document that repeats the measurement. Not here: the server, and how the generator runs; both are
the command's. Next: ``plan_of`` in ``loads``, which makes of it what the generator reads.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, PlainValidator, ValidationError

from headgate.bench import rates, scenario_rules, slo
from headgate.bench.slo import Slo
from headgate.documents import checks, nodes, reading
from headgate.documents.faults import Fault, did_you_mean, format_path, policy_invalid, quoted
from headgate.documents.fields import EndpointName, Label, Share, VersionName
from headgate.documents.nodes import WrittenFloat, WrittenInt, describe
from headgate.documents.parsing import Collector
from headgate.documents.part import Part
from headgate.documents.values import SLOTS, format_weight
from headgate.errors import InvalidArgument
from headgate.regular_files import read_regular

MAX_MIX = 64
MAX_STAGES = 256
MAX_CLIENTS = 10_000
MAX_ROWS = 100_000


def _text(value: Any) -> str:
    if isinstance(value, WrittenInt | WrittenFloat):
        return value.text
    if not isinstance(value, str):
        raise ValueError(f"must be a text, not {describe(value)}")
    return value


def _written_rows(rows: dict[int, int]) -> dict[str, str]:
    return {str(count): format_weight(share) for count, share in rows.items()}


Rate = Annotated[
    float,
    BeforeValidator(lambda value: rates.parse_rate(_text(value))),
    PlainSerializer(rates.format_rate, when_used="json"),
]
Nanoseconds = Annotated[
    int,
    BeforeValidator(lambda value: rates.parse_ns(_text(value))),
    PlainSerializer(rates.format_ns, when_used="json"),
]
Objective = Annotated[
    Slo,
    PlainValidator(
        lambda value: slo.parse_values(value) if isinstance(value, dict) else _not_a_mapping(value)
    ),
    PlainSerializer(Slo.written, when_used="json"),
]
Rows = Annotated[
    dict[int, int],
    PlainValidator(lambda value: scenario_rules.rows_of(value, MAX_ROWS)),
    PlainSerializer(_written_rows, when_used="json"),
]
DataSource = Annotated[str, BeforeValidator(lambda value: scenario_rules.data_source(_text(value)))]
Fraction = Annotated[
    float,
    BeforeValidator(lambda value: scenario_rules.fraction(_text(value))),
    PlainSerializer(slo.format_share, when_used="json"),
]


Increase = Annotated[
    float,
    BeforeValidator(lambda value: scenario_rules.increase(_text(value))),
    PlainSerializer(slo.format_share, when_used="json"),
]


def _not_a_mapping(value: Any) -> Slo:
    raise ValueError(f'must be a mapping such as {{p99: "15ms"}}, not {describe(value)}')


class MixEntry(Part):
    """One endpoint of the mix."""

    endpoint: EndpointName = Field(description="The endpoint that is asked.")
    version: VersionName | None = Field(
        None, description="The version that is named; the one that serves now unless written."
    )
    share: Share = Field(SLOTS, description="Its share of the requests; all shares make 100%.")
    data: DataSource = Field(
        "synthetic",
        description="synthetic (made from the metadata), file:PATH (.json, .jsonl, .npy, .npz, .parquet), or capture[:FOLDER].",
    )
    rows: Rows | None = Field(
        None,
        description="Rows of a request with their shares, such as {1: 90%, 16: 10%}; one row unless written.",
    )
    headers: Annotated[dict[Label, Label], Field(max_length=32)] = Field(
        default_factory=dict, description="Headers of each request; metadata over gRPC."
    )


class Stage(Part):
    """A rate that is held, or that is reached at the end; from the end of the stage before, or from 0."""

    rate: Rate | None = Field(default=None, description="The rate that is held.")
    ramp: Rate | None = Field(default=None, description="The rate at the end of the stage.")
    for_ns: Nanoseconds = Field(alias="for", description="How long.")


class Load(Part):
    """When requests are sent: in stages of a rate (open loop), or by clients that wait for their answers (closed loop)."""

    arrivals: Literal["poisson", "constant", "gamma", "trace"] = Field(
        default="poisson",
        description="The distances between requests of an open loop; trace is the captured times themselves.",
    )
    cv: Annotated[float, Field(gt=0, le=100)] | None = Field(
        default=None, description="Standard deviation over mean of the distances; for gamma."
    )
    stages: Annotated[tuple[Stage, ...], Field(min_length=1, max_length=MAX_STAGES)] | None = Field(
        default=None, description="The stages of an open loop."
    )
    clients: Annotated[int, Field(ge=1, le=MAX_CLIENTS)] | None = Field(
        default=None, description="Clients of a closed loop."
    )
    for_ns: Nanoseconds | None = Field(default=None, alias="for", description="How long a closed loop runs.")
    speed: Annotated[float, Field(gt=0, le=10_000)] = Field(
        default=1.0, description="How much faster than captured a trace is."
    )


class Check(Part):
    """Which answers are looked at more closely."""

    replies: Fraction = Field(
        default=0.01,
        description="The share whose values are compared with the first answer to the same request.",
    )
    timing: Fraction = Field(
        default=0.02, description="The share that asks the server for the times of its phases."
    )


class Search(Part):
    """How the highest rate is looked for."""

    precision: Fraction = Field(
        default=0.05, description="How far the lowest failed rate may lie above the highest passed one."
    )
    budget: Nanoseconds = Field(default=600_000_000_000, description="The longest time for all of it.")
    start: Rate | None = Field(
        default=None, description="The first rate; estimated from a short closed loop unless written."
    )
    highest: Rate | None = Field(default=None, description="No higher rate is tried.")
    steady_rates: bool = Field(
        default=False,
        description="Whether rates of 0.3 to 0.85 of the answer are measured as well, for the model of a plan.",
    )


class PlanFor(Part):
    """What the plan is for."""

    target: Rate = Field(description="The rate that all replicas together must hold.")
    headroom: Increase = Field(0.2, description="How much more than the target is planned for.")
    spare: Annotated[int, Field(ge=0, le=100)] = Field(1, description="Replicas that may be away.")
    price_per_hour: Annotated[float, Field(ge=0, le=1_000_000)] | None = Field(
        None, description="What one replica costs in an hour, in any currency."
    )
    growth: Increase | None = Field(None, description="How much the rate grows in a month.")


class Scenario(Part):
    """What is measured: the requests and their mix, the load, and the objective."""

    api_version: Literal["headgate/v1"] = Field(alias="apiVersion", description="The version of this format.")
    kind: Literal["Scenario"] = Field(description="What this document describes.")
    name: EndpointName = Field(description="What reports call it.")
    mix: Annotated[tuple[MixEntry, ...], Field(min_length=1, max_length=MAX_MIX)] = Field(
        description="The endpoints that are asked, with their shares."
    )
    protocol: Literal["http", "grpc", "grpc_stream"] = Field(
        "http", description="HTTP/1.1, gRPC calls, or a gRPC stream for each connection."
    )
    tensors: Literal["json", "binary"] = Field(
        "json", description="How HTTP carries tensors; gRPC carries them raw."
    )
    load: Load = Field(default_factory=Load, description="When requests are sent.")
    slo: Objective | None = Field(None, description="What response times must meet.")
    check: Check = Field(default_factory=Check, description="Which answers are looked at more closely.")
    search: Search = Field(default_factory=Search, description="How `find` looks for the highest rate.")
    plan: PlanFor | None = Field(None, description="What `plan` is for.")
    timeout: Nanoseconds = Field(
        5_000_000_000, description="How long an answer may take, counted from the sending."
    )
    max_in_flight: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        10_000, description="Requests in flight at most; what is due beyond counts as unsent."
    )
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = Field(
        1, description="The seed of the arrivals, of the draws from the mix, and of made-up values."
    )

    def as_written(self) -> dict[str, Any]:
        """The document as JSON values with units, in normal form: reading it gives an equal scenario."""
        written: dict[str, Any] = self.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
        head = {"apiVersion": self.api_version, "kind": self.kind, "name": self.name}
        return {**head, **written}


_REQUIRED: dict[tuple[str | int, ...], str] = {
    ("apiVersion",): 'is required: write "apiVersion: headgate/v1"',
    ("kind",): 'is required: write "kind: Scenario"',
    ("name",): "is required: what reports call it",
    ("mix",): "is required: at least one endpoint, such as [{endpoint: digits}]",
}


def read_scenario(path: Path) -> Scenario:
    """The scenario in the file at ``path``; :class:`PolicyInvalid` with every fault, :class:`InvalidArgument` if it cannot be read."""
    try:
        data = read_regular(path, reading.MAX_BYTES)
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be read: {error.strerror or error}") from None
    return parse_scenario(data, str(path))


def parse_scenario(data: bytes, source: str) -> Scenario:
    """The one scenario of ``data`` (YAML 1.2 or JSON); :class:`PolicyInvalid` with every fault otherwise."""
    pieces = reading.read(data, source)
    if len(pieces) > 1:
        raise policy_invalid(
            source, [Fault("", None, f"holds {len(pieces)} documents; one scenario is expected")]
        )
    root = pieces[0].root
    collector = Collector(root, data)
    scenario = None
    if isinstance(root, nodes.Mapping):
        scenario = _validated(nodes.plain(root, (), collector.report), collector.report)
    else:
        collector.report((), "a scenario must be a mapping with apiVersion, kind, name and mix")
    found = collector.faults()
    if found or scenario is None:
        raise policy_invalid(source, found)
    return scenario


def scenario_from(values: dict[str, Any], source: str = "the options") -> Scenario:
    """The scenario of plain values in a document's form; :class:`PolicyInvalid` with every fault otherwise."""
    found: list[Fault] = []
    scenario = _validated(values, lambda path, message: found.append(_fault(path, message)))
    if found or scenario is None:
        raise policy_invalid(source, found)
    return scenario


def plan_from(values: dict[str, Any], source: str = "the options") -> PlanFor:
    """A ``plan:`` of plain values; :class:`PolicyInvalid` with every fault otherwise."""
    found: list[Fault] = []

    def report(path: tuple[str | int, ...], message: str) -> None:
        found.append(_fault(path, message))

    known = checks.known_only(PlanFor, values, checks.homes(PlanFor), report)
    try:
        plan = PlanFor.model_validate(known)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            report(*checks.worded(detail, _REQUIRED))
        raise policy_invalid(source, found) from None
    if found:
        raise policy_invalid(source, found)
    return plan


def _fault(path: tuple[str | int, ...], message: str) -> Fault:
    return Fault(format_path(path), None, message)


def _validated(data: dict[str, Any], report: nodes.Report) -> Scenario | None:
    kind = data.get("kind", "Scenario")
    if kind != "Scenario":
        what = quoted(kind) if isinstance(kind, str) else describe(kind)
        hint = did_you_mean(kind, ["Scenario"]) if isinstance(kind, str) and kind != "Endpoint" else None
        report(("kind",), f"kind {what} is no load; {hint or 'a scenario has kind Scenario'}")
        return None
    faults = 0

    def count(path: tuple[str | int, ...], message: str) -> None:
        nonlocal faults
        faults += 1
        report(path, message)

    known = checks.known_only(Scenario, data, checks.homes(Scenario), count)
    known = scenario_rules.check(known, count)
    try:
        scenario = Scenario.model_validate(known)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            if detail["type"] == "too_short" and detail["input"]:
                continue  # its entries are wrong, and each is reported
            count(*checks.worded(detail, _REQUIRED))
        return None
    return scenario if faults == 0 else None

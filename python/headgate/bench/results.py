"""What a measurement found: the models of a result file, schema ``headgate.bench/1``.

Durations are integer nanoseconds and rates are per second. What is not known is null, never 0. A newer Headgate may add fields: what
is not known here is ignored when a file is read. Not here: how the numbers come about (the data plane), how they are shown (``report``).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from headgate import regular_files
from headgate.errors import InvalidArgument

SCHEMA = "headgate.bench/1"
"""The schema of result files that this build writes and reads."""

MAX_RESULT_BYTES = 256 * 1024 * 1024
"""The largest result file that is read: an hour's slices and histograms take a few MB."""

Verdict = Literal["pass", "fail", "undecided"]
Outcome = Literal["pass", "fail", "undecided", "measured", "client_limited", "interrupted", "unreachable"]
"""How a measurement ended; ``measured`` if there was no objective to decide."""

Nanoseconds = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class ResultPart(BaseModel):
    """A part of a result: frozen; fields that are not known here are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True, serialize_by_alias=True)


# === what the generator answers ===


class Counts(ResultPart):
    """Requests by what became of them. ``due`` is the sum of all others but ``sent``."""

    due: int = 0
    sent: int = 0
    good: int = 0
    shed: int = 0
    failed: int = 0
    timed_out: int = 0
    unsent: int = 0
    in_flight: int = 0

    @property
    def not_good(self) -> int:
        """Requests that got no good answer."""
        return self.shed + self.failed + self.timed_out + self.unsent


class QuantileEstimate(ResultPart):
    """A quantile of a latency with its interval.

    ``censored``: the quantile lies among requests without a good answer, so that ``value_ns`` is a lower bound. ``high_ns`` is null
    while the data bounds it by nothing.
    """

    quantile: float
    value_ns: int | None = None
    low_ns: int | None = None
    high_ns: int | None = None
    censored: bool = False
    inflation: float | None = None
    """By how much autocorrelation inflates the variance."""
    effective: float | None = None
    """Independent requests that would say as much."""


class Latency(ResultPart):
    """The distribution of a latency: quantiles are in the order that was asked for."""

    mean_ns: float | None = None
    max_ns: int | None = None
    quantiles: tuple[QuantileEstimate, ...] = ()

    def quantile(self, wanted: float) -> QuantileEstimate | None:
        """The estimate at that quantile; None if it was not asked for."""
        return next((one for one in self.quantiles if abs(one.quantile - wanted) < 1e-9), None)


class Lateness(ResultPart):
    """How long after its due time a request was sent."""

    p50_ns: int | None = None
    p99_ns: int | None = None
    max_ns: int | None = None


class PhaseTimes(ResultPart):
    """The times of one phase over the sampled requests."""

    mean_ns: float | None = None
    p50_ns: int | None = None
    p99_ns: int | None = None


class Phases(ResultPart):
    """Where the time went, from the timing headers of sampled answers. ``outside`` is service time less the server's total: the wire,
    the client's reading, and the time before the server reads a request.
    """

    sampled: int = 0
    decode: PhaseTimes = PhaseTimes()
    queue: PhaseTimes = PhaseTimes()
    run: PhaseTimes = PhaseTimes()
    reply: PhaseTimes = PhaseTimes()
    total: PhaseTimes = PhaseTimes()
    outside: PhaseTimes = PhaseTimes()


class ObjectiveResult(ResultPart):
    """The sequential test of one objective: a verdict stands when its evidence reaches ``needed``."""

    quantile: float
    limit_ns: int
    verdict: Verdict = "undecided"
    pass_evidence: float | None = None
    fail_evidence: float | None = None
    needed: float | None = None
    slower: int = 0
    requests: int = 0
    inflation: float | None = None


class Steadiness(ResultPart):
    """Whether latency and requests in flight kept their level over the window."""

    steady: bool | None = None
    latency_z: float | None = None
    in_flight_z: float | None = None
    overload: bool | None = None
    little_gap: float | None = None


class WarmUp(ResultPart):
    """What was left out at the begin of the window."""

    from_ns: int | None = None
    settled: bool | None = None
    requests: int = 0


class ClientLoad(ResultPart):
    """What the generator's threads had of their processors, and whether they were the limit."""

    cpu_share: float | None = None
    run_delay_share: float | None = None
    steal_share: float | None = None
    throttled_share: float | None = None
    limited: bool = False
    reasons: tuple[str, ...] = ()


class ErrorKind(ResultPart):
    """Answers that were not good, of one kind."""

    what: str
    count: int
    example: str | None = None


class GroupAnswer(ResultPart):
    """One endpoint of a mix."""

    group: str
    counts: Counts = Counts()
    quantiles: tuple[QuantileEstimate, ...] = ()


class Replies(ResultPart):
    """Answers whose values were compared with the first answer to the same request."""

    compared: int = 0
    differing: int = 0
    example: str | None = None


class Slice(ResultPart):
    """One second of a window, by due time."""

    from_ns: Nanoseconds
    due: int = 0
    sent: int = 0
    good: int = 0
    shed: int = 0
    failed: int = 0
    unsent: int = 0
    p50_ns: int | None = None
    p99_ns: int | None = None
    in_flight: int | None = None


class Histograms(ResultPart):
    """HdrHistogram V2 histograms of the window, compressed, in base64. They are merged; quantiles never are."""

    response: str | None = None
    service: str | None = None
    lateness: str | None = None


class Answer(ResultPart):
    """What the generator says of a load. ``response`` counts from the due time and is what objectives mean; ``service`` counts from
    sending.
    """

    elapsed_ns: Nanoseconds = 0
    finished: bool = False
    interrupted: str | None = None
    counts: Counts = Counts()
    offered_per_second: float | None = None
    good_per_second: float | None = None
    warmup: WarmUp = WarmUp()
    response: Latency = Latency()
    service: Latency = Latency()
    lateness: Lateness = Lateness()
    phases: Phases = Phases()
    objectives: tuple[ObjectiveResult, ...] = ()
    steadiness: Steadiness = Steadiness()
    need_ns: int | None = None
    client: ClientLoad = ClientLoad()
    errors: tuple[ErrorKind, ...] = ()
    groups: tuple[GroupAnswer, ...] = ()
    replies: Replies = Replies()
    slices: tuple[Slice, ...] = ()
    hdr_v2: Histograms | None = None

    @property
    def verdict(self) -> Verdict:
        """One failed objective fails; all of them have to pass."""
        verdicts = {one.verdict for one in self.objectives}
        if "fail" in verdicts:
            return "fail"
        return "pass" if verdicts == {"pass"} else "undecided"


# === the file ===


class ServedModel(ResultPart):
    """One endpoint that was asked: which version answered and what it is."""

    endpoint: str
    version: str | None = None
    revision: int | None = None
    digest: str | None = None
    run: dict[str, Any] | None = None
    """Those of its ``run:`` settings that are written; empty if none is, null if that is not known."""


class TargetFacts(ResultPart):
    """The server under test."""

    url: str
    protocol: Literal["http", "grpc", "grpc_stream"] = "http"
    server: str | None = None
    """What it calls itself."""
    server_version: str | None = None
    server_phases: bool = False
    """Whether its answers tell where their time went."""
    spawned: str | None = None
    """The document that ``--spawn`` named."""
    cpus: tuple[int, ...] | None = None
    """The processors of a spawned server."""
    models: tuple[ServedModel, ...] = ()


class Machine(ResultPart):
    """Where the generator ran."""

    cpu: str | None = None
    cpus: int | None = None
    memory_bytes: int | None = None
    kernel: str | None = None
    python: str | None = None
    headgate: str | None = None
    governor: str | None = None


class ClientFacts(ResultPart):
    """The generator: how it ran, what its self-test said, and whether it was the limit."""

    threads: int = 1
    cpus: tuple[int, ...] | None = None
    wait: Literal["auto", "spin", "sleep"] = "auto"
    shares_cpus: bool | None = None
    """Whether it may run on processors of the server; null if that is not known."""
    selftest: Answer | None = None
    selftest_rate: float | None = None
    limited: bool = False
    reasons: tuple[str, ...] = ()


class Window(ResultPart):
    """One load that was measured as a whole. ``rate`` is null for a closed loop and for stages, ``clients`` for an open loop."""

    name: str = ""
    rate: float | None = None
    clients: int | None = None
    for_ns: Nanoseconds = 0
    answer: Answer = Answer()


class Probe(ResultPart):
    """One rate that a search tried. ``from_ns`` counts from the start of the search."""

    rate: Rate
    verdict: Verdict
    from_ns: Nanoseconds = 0
    confirming: bool = False
    why: str | None = None
    answer: Answer = Answer()


class SloFacts(ResultPart):
    """An objective as it was asked for: quantiles with their limits, and the share of requests that may fail."""

    quantiles: dict[str, Nanoseconds] = Field(default_factory=dict)
    """``{"p99": 15000000}``."""
    errors: float | None = None


class Capacity(ResultPart):
    """The highest rate that passed and the lowest that failed, pooled over all probes.

    ``pass`` is null if no rate passed, ``fail`` if none failed (``at_least``). ``confirmed``: a long run at ``confirmed_rate`` passed.
    """

    passed: float | None = Field(default=None, alias="pass")
    failed: float | None = Field(default=None, alias="fail")
    alpha: float
    confirmed: bool = False
    confirmed_rate: float | None = None
    at_least: bool = False
    slo: SloFacts = SloFacts()


class Result(ResultPart):
    """A whole measurement, as in ``result.json``."""

    schema_: Literal["headgate.bench/1"] = Field(default="headgate.bench/1", alias="schema")
    command: str
    """``run``, ``find``, ``replay`` and so on."""
    name: str = ""
    started_at: str
    """UTC, ISO 8601."""
    seed: int
    scenario: dict[str, Any]
    """As written, in normal form."""
    target: TargetFacts
    machine: Machine = Machine()
    client: ClientFacts = ClientFacts()
    windows: tuple[Window, ...] = ()
    probes: tuple[Probe, ...] = ()
    steadiness: Steadiness | None = None
    capacity: Capacity | None = None
    model: dict[str, Any] | None = None
    plan: dict[str, Any] | None = None
    sweep: dict[str, Any] | None = None
    """Settings of a document by what they hold; windows, probes and capacity are those of the chosen one, with all calibrations."""
    verdict: Outcome = "measured"
    reasons: tuple[str, ...] = ()
    """Why the verdict is what it is, and what limits what the numbers say; one sentence each."""

    def as_json(self) -> dict[str, Any]:
        """The JSON values of the file."""
        found: dict[str, Any] = self.model_dump(mode="json", by_alias=True)
        return found


def parse_result(data: bytes, source: str) -> Result:
    """The result in a file's bytes; :class:`InvalidArgument` for what is none, or one of another schema."""
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        raise InvalidArgument(
            f"{source} is not JSON; a result of `headgate bench --out` is expected"
        ) from None
    schema = values.get("schema") if isinstance(values, dict) else None
    if schema != SCHEMA:
        raise InvalidArgument(f"{source} is no result of `headgate bench`: its schema is not {SCHEMA}")
    try:
        return Result.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InvalidArgument(f"{source} is damaged: {place}: {first['msg']}") from None


def read_result(path: Path) -> Result:
    """The result at ``path``, a file or the folder of ``--out``; :class:`InvalidArgument` if there is none."""
    file = path / "result.json" if path.is_dir() else path
    try:
        data = regular_files.read_regular(file, MAX_RESULT_BYTES)
    except OSError as error:
        raise InvalidArgument(f"{file} cannot be read: {error.strerror or error}") from None
    return parse_result(data, str(file))

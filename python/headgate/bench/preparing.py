"""From what a command was told to a server that is there and requests that it takes: everything before the first load.

Requests name the version that serves, so that they stay out of gates and drift; ``--as-traffic`` has routing decide, and is refused while
versions share traffic. Next: ``measuring``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from headgate.bench import data, machine, spawn
from headgate.bench.encoding import Address, Encoded, encode, encode_grpc
from headgate.bench.loads import GeneratorSettings, Prepared, SentRequest, weights
from headgate.bench.native import Generator
from headgate.bench.results import ServedModel, TargetFacts
from headgate.bench.scenario import MixEntry, Scenario
from headgate.bench.target import DEFAULT_URL, ModelFacts, Server, ServerAddress, ServerFacts, parse_url
from headgate.errors import Conflict, InvalidArgument, PermissionDenied
from headgate.errors import ModelNotReady as NotReady

_TIMING = {"x-headgate-timing": "1"}


@dataclass(frozen=True)
class LiveEndpoint:
    """What the admin API says of an endpoint. ``shared`` says how versions share its traffic; empty if one has all of it."""

    champion: str
    revision: int | None = None
    digests: dict[str, str] = field(default_factory=dict)
    shared: str = ""
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The written ``run:`` settings by version."""


AskControl = Callable[[ServerAddress, Path | None, str], LiveEndpoint | None]
"""The admin API of the gateway at an address, with its state folder if it was spawned, about an endpoint; None without access."""


@dataclass(frozen=True)
class Asked:
    """What a command was told about the server and the generator."""

    url: str | None = None
    grpc: str | None = None
    document: Path | None = None
    """That of ``--spawn``."""
    serve_options: tuple[str, ...] = ()
    remote_allowed: bool = False
    as_traffic: bool = False
    captures: Path | None = None
    """The folder of captured requests of the gateway, if it is known."""
    settings: GeneratorSettings = field(default_factory=GeneratorSettings)
    pin: bool = False
    ask_control: AskControl = lambda _address, _state, _endpoint: None


@dataclass(frozen=True)
class Place:
    """A server that is there, and requests that it takes."""

    server: Server
    prepared: Prepared
    facts: TargetFacts
    settings: GeneratorSettings
    shares_cpus: bool | None
    notes: tuple[str, ...]
    first: tuple[Encoded, ...]
    """One request of each endpoint over HTTP; none over gRPC."""


@dataclass(frozen=True)
class Running:
    """A server that is there: its addresses for HTTP and gRPC, the gateway if it was spawned, the generator's settings beside it."""

    addresses: tuple[ServerAddress, ServerAddress]
    gateway: spawn.Spawned | None
    shares_cpus: bool | None
    settings: GeneratorSettings


@contextmanager
def running_server(asked: Asked) -> Iterator[Running]:
    """The server, spawned if that was asked for."""
    document = asked.document
    if document is None:
        address = parse_url(asked.url or DEFAULT_URL, remote_allowed=asked.remote_allowed)
        grpc = address if asked.grpc is None else parse_url(asked.grpc, remote_allowed=asked.remote_allowed)
        shares = True if address.ip.startswith("127.") or address.ip == "::1" else None
        yield Running((address, grpc), None, shares, asked.settings)
        return
    if asked.url is not None or asked.grpc is not None:
        raise InvalidArgument("--spawn starts the server itself: give it without --url and --grpc")
    apart = machine.split_cpus(machine.available_cpus(), asked.settings.threads)
    settings = asked.settings if apart is None else replace(asked.settings, cpus=apart[1])
    with spawn.spawned(document, asked.serve_options, apart and apart[0]) as gateway:
        yield Running((gateway.address, gateway.grpc), gateway, apart is None, settings)


@contextmanager
def prepared_place(asked: Asked, scenario: Scenario, generator: Generator) -> Iterator[Place]:
    """The server, spawned if that was asked for, and all requests encoded; one of each endpoint was answered well."""
    with running_server(asked) as running:
        yield place_at(running, asked, scenario, generator)


def place_at(running: Running, asked: Asked, scenario: Scenario, generator: Generator) -> Place:
    """A server that runs, with all requests encoded; one of each endpoint was answered well."""
    preparing = _Preparing(replace(asked, settings=running.settings), scenario, generator)
    return preparing.place(running.addresses, running.gateway, running.shares_cpus)


class _Preparing:
    """The steps of one preparation."""

    def __init__(self, asked: Asked, scenario: Scenario, generator: Generator) -> None:
        self._asked = asked
        self._scenario = scenario
        self._generator = generator
        self._notes: list[str] = []
        self._first: dict[str, Encoded] = {}
        self._phases = False

    def place(
        self,
        addresses: tuple[ServerAddress, ServerAddress],
        gateway: spawn.Spawned | None,
        shares: bool | None,
    ) -> Place:
        address, grpc = addresses
        server = Server(address)
        server.check_ready()
        facts = server.facts()
        if not facts.is_headgate:
            self._notes.append(
                f"the server is {facts.name or 'no Headgate'}: its answers do not tell where their time went"
            )
        models, requests, bodies, due = [], [], [], None
        for entry in self._scenario.mix:
            model, loaded = self._endpoint(server, facts, entry, gateway)
            models.append(model)
            address_of = Address(entry.endpoint, model.version)
            total = sum(row.weight for row in loaded.rows)
            for row in loaded.rows:
                encoded = self._encoded(row, address_of)
                bodies.append(encoded.body)
                weight = weights(entry.share, row.weight, total)
                fields = (*encoded.headers, *entry.headers.items())
                requests.append(SentRequest(entry.endpoint, weight, encoded.path, fields, row.request.rows))
            due = loaded.due_ns if len(self._scenario.mix) == 1 else None
        sent_to = address if self._scenario.protocol == "http" else grpc
        target = self._facts(sent_to, facts, tuple(models), gateway)
        return Place(
            server,
            Prepared(sent_to, tuple(requests), tuple(bodies), due, target.server_phases),
            target,
            self._settings(gateway),
            shares,
            tuple(dict.fromkeys(self._notes)),
            tuple(self._first.values()),
        )

    def _settings(self, gateway: spawn.Spawned | None) -> GeneratorSettings:
        settings = self._asked.settings
        if gateway is not None or settings.cpus is not None or not self._asked.pin:
            return settings
        return replace(settings, cpus=machine.available_cpus()[-settings.threads :])

    def _facts(
        self,
        address: ServerAddress,
        facts: ServerFacts,
        models: tuple[ServedModel, ...],
        gateway: spawn.Spawned | None,
    ) -> TargetFacts:
        return TargetFacts(
            url=address.url,
            protocol=self._scenario.protocol,
            server=facts.name,
            server_version=facts.version,
            server_phases=self._phases or (facts.is_headgate and self._scenario.protocol != "http"),
            spawned=None if gateway is None else str(self._asked.document),
            cpus=None if gateway is None else gateway.cpus,
            models=models,
        )

    def _endpoint(
        self, server: Server, facts: ServerFacts, entry: MixEntry, gateway: spawn.Spawned | None
    ) -> tuple[ServedModel, data.Requests]:
        """Which version is asked, and the requests, checked; one of them has been answered well."""
        found = server.model(entry.endpoint, entry.version)
        state = None if gateway is None else gateway.state
        live = self._asked.ask_control(server.address, state, entry.endpoint) if facts.is_headgate else None
        if self._asked.as_traffic and facts.is_headgate:
            self._check_traffic(entry, live)
        # Also for a gateway that was spawned: it is new, and has captured nothing.
        captures = self._asked.captures
        source = data.Source(entry.endpoint, entry.version, found.inputs, entry.rows, self._scenario.seed)
        loaded = data.load(entry.data, source, captures)
        self._notes += loaded.notes
        version = self._version(server, facts, entry, (found, live, loaded))
        self._try(server, loaded.rows[0], Address(entry.endpoint, version), entry)
        return ServedModel(
            endpoint=entry.endpoint,
            version=version,
            revision=None if live is None else live.revision,
            digest=None if live is None or version is None else live.digests.get(version),
            run=None if live is None or version is None else live.runs.get(version),
        ), loaded

    def _check_traffic(self, entry: MixEntry, live: LiveEndpoint | None) -> None:
        if entry.version is not None:
            raise InvalidArgument(
                f"--as-traffic has routing decide, and {entry.endpoint} names version {entry.version}; remove one"
            )
        if live is None:
            raise PermissionDenied(
                f"--as-traffic needs the admin API, to know that no rollout of {entry.endpoint} is under way: name it with --state "
                "or --admin"
            )
        if live.shared:
            raise Conflict(
                f"--as-traffic is refused while versions of {entry.endpoint} share traffic ({live.shared}): a load would decide the rollout"
            )

    def _version(
        self,
        server: Server,
        facts: ServerFacts,
        entry: MixEntry,
        known: tuple[ModelFacts, LiveEndpoint | None, data.Requests],
    ) -> str | None:
        """The version that requests name; None if routing decides, or a server of others does."""
        found, live, loaded = known
        if entry.version is not None or self._asked.as_traffic or not facts.is_headgate:
            return entry.version
        if live is not None and live.champion in found.versions:
            return live.champion
        if len(found.versions) == 1:
            return found.versions[0]
        reply = self._try(server, loaded.rows[0], Address(entry.endpoint, None), entry)
        if reply is not None:
            self._notes.append(
                f"{entry.endpoint} has {len(found.versions)} versions; version {reply} answered a first request and is measured (--version "
                "names another)"
            )
        return reply

    def _try(self, server: Server, row: data.Row, address: Address, entry: MixEntry) -> str | None:
        """Sends one request over HTTP and wants a good answer; the version that gave it."""
        form: Literal["json", "binary"] = "json" if self._scenario.tensors == "json" else "binary"
        headers = {**entry.headers, **_TIMING}
        if self._scenario.protocol != "http":
            form = "binary"
        encoded = encode(row.request, address, form)
        reply = server.infer(encoded, headers)
        if self._scenario.protocol != "http" and reply.status not in (200, 404, 405, 429, 501, 503):
            # gRPC carries bytes, and over HTTP not every server takes them.
            with suppress(
                InvalidArgument
            ):  # values that JSON does not have: the refusal of the bytes is shown
                encoded = encode(row.request, address, "json")
                reply = server.infer(encoded, headers)
        if self._scenario.protocol != "http" and reply.status in (404, 405, 415, 501):
            return None  # a server that speaks gRPC alone
        if reply.status in (429, 503):
            raise NotReady(f"{address.endpoint} does not take a first request: {reply.shown}")
        if reply.status != 200 or (not isinstance(reply.json, dict) and form == "json"):
            raise InvalidArgument(f"{address.endpoint} refuses a first request: {reply.shown}")
        self._first[address.endpoint] = encoded
        self._phases = self._phases or "server-timing" in reply.headers
        version = reply.headers.get("x-headgate-version")
        named = reply.json.get("model_version") if isinstance(reply.json, dict) else None
        return version or (named if isinstance(named, str) else None)

    def _encoded(self, row: data.Row, address: Address) -> Encoded:
        scenario = self._scenario
        if scenario.protocol == "http":
            return encode(row.request, address, scenario.tensors)
        return encode_grpc(row.request, address, scenario.protocol, self._generator.encode_grpc)

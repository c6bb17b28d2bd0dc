"""The ways in which clients that others wrote ask for inference, and how a test sends its cases through them.

A way is a mode of a script in ``clients``; the scripts run in environments of their own (``support.environments``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from conformance.clients import exchange
from conformance.clients.exchange import Case, Failure, Tensor
from support import environments

HALF = frozenset({"FP16", "BF16"})

#: By mode and case.
Answers = dict[tuple[str, str], list[Tensor] | Failure]


@dataclass(frozen=True)
class Way:
    """One mode of a client."""

    client: str
    """The script in ``clients``."""
    mode: str
    environment: str = "triton"
    bytes_only: bool = True
    """Whether values travel as bytes; else as JSON or through the client's own lists."""
    lacks: frozenset[str] = frozenset()
    """Datatypes that the client or the form itself does not have."""

    @property
    def id(self) -> str:
        """How it is called in a test's name."""
        return f"{self.client}-{self.mode}"


#: KServe's client knows no BF16 at all, and refuses FP16 in JSON itself. Typed contents have no list for either.
KSERVE_LACKS = frozenset({"BF16"})

WAYS = [
    Way("tritonclient_http", "json", bytes_only=False),
    Way("tritonclient_http", "binary"),
    Way("tritonclient_http", "async_infer"),
    Way("tritonclient_http_aio", "json", bytes_only=False),
    Way("tritonclient_http_aio", "binary"),
    Way("tritonclient_grpc", "infer"),
    Way("tritonclient_grpc", "async_infer"),
    Way("tritonclient_grpc", "stream"),
    Way("tritonclient_grpc_aio", "infer"),
    Way("tritonclient_grpc_aio", "stream_infer"),
    Way("kserve_client", "rest_json", "kserve", bytes_only=False, lacks=HALF),
    Way("kserve_client", "rest_binary", "kserve", bytes_only=False, lacks=KSERVE_LACKS),
    Way("kserve_client", "grpc_raw", "kserve", lacks=KSERVE_LACKS),
    Way("kserve_client", "grpc_typed", "kserve", bytes_only=False, lacks=HALF),
    Way("reflection", "raw", "grpcio"),
    Way("reflection", "typed", "grpcio", bytes_only=False, lacks=HALF),
    Way("reflection", "stream", "grpcio"),
]
ENVIRONMENTS = {way.client: way.environment for way in WAYS}


class Gateway(Protocol):
    """A gateway that runs somewhere."""

    @property
    def http(self) -> str:
        """A data port, ``host:port``."""

    @property
    def grpc(self) -> str:
        """Likewise; it may be the same."""


def ask(client: str, gateway: Gateway, folder: Path, cases: Iterable[Case]) -> Answers:
    """Sends cases through every mode of a client that they name; the answers by mode and case."""
    folder.mkdir(parents=True, exist_ok=True)
    exchange.write_cases(folder, cases)
    addresses = ["--http", gateway.http, "--grpc", gateway.grpc, "--folder", str(folder)]
    printed = environments.run(ENVIRONMENTS[client], f"conformance.clients.{client}", addresses)
    return exchange.read_answers(folder, printed)


def task(client: str, gateway: Gateway, name: str) -> object:
    """Lets a client do something else than infer; what it prints."""
    addresses = ["--http", gateway.http, "--grpc", gateway.grpc, "--task", name]
    return environments.run(ENVIRONMENTS[client], f"conformance.clients.{client}", addresses)


def once(gateway: Gateway, folder: Path, cases: Callable[[str], list[Case]]) -> Callable[[str], Answers]:
    """Asks a client's cases when the first test wants an answer, all in one process."""
    known: dict[str, Answers] = {}

    def answers(client: str) -> Answers:
        if client not in known:
            known[client] = ask(client, gateway, folder / client, cases(client))
        return known[client]

    return answers

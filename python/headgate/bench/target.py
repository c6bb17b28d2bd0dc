"""The server under test: its address, whether it is ready, what its metadata says, and one request before the load.

Any server of the Open Inference Protocol will do; what only Headgate has is asked for and may be missing. Nothing here is measured:
the load is the generator's (``measuring``). Next: ``spawn``, for a server that is started for the measurement.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import socket
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

from headgate.bench.encoding import Encoded
from headgate.bench.tensors import TensorSpec
from headgate.documents.faults import did_you_mean, quoted
from headgate.errors import HeadgateError, InvalidArgument, ModelNotFound, ModelNotReady, VersionNotFound

DEFAULT_URL = "http://127.0.0.1:8000"
_SECONDS = 5.0
_MAX_REPLY = 16 * 1024 * 1024
_SHOWN = 300
"""Characters of a server's answer that a message shows."""


class TargetUnreachable(HeadgateError):
    """The server does not answer, or what answers speaks no HTTP."""

    code: ClassVar[str] = "unreachable"


@dataclass(frozen=True)
class ServerAddress:
    """Where a server listens. ``ip`` is what the generator connects to; ``authority`` is what its requests name."""

    host: str
    ip: str
    port: int

    @property
    def socket_address(self) -> str:
        """``127.0.0.1:8000`` or ``[::1]:8000``."""
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"

    @property
    def authority(self) -> str:
        """``localhost:8000``."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """``http://localhost:8000``."""
        return f"http://{self.authority}"


def parse_url(text: str, *, remote_allowed: bool = False) -> ServerAddress:
    """``http://HOST:PORT`` or ``HOST:PORT``; :class:`InvalidArgument` for https, other forms, and other machines unless allowed."""
    written = text.strip()
    parts = urlsplit(written if "://" in written else f"http://{written}")
    if parts.scheme == "https":
        raise InvalidArgument(
            f"{text}: https is not built yet; measure the server's clear text port, or what a proxy adds with a tool that has TLS"
        )
    try:
        port = parts.port
    except ValueError:
        port = -1
    plain = not (parts.path.strip("/") or parts.query or parts.fragment or parts.username)
    if parts.scheme != "http" or not parts.hostname or port == -1 or not plain:
        raise InvalidArgument(f"{quoted(text)} is not an address: write http://HOST:PORT")
    ip = _resolved(parts.hostname, port or 80)
    if not ipaddress.ip_address(ip).is_loopback and not remote_allowed:
        raise InvalidArgument(
            f"{text} is another machine ({ip}), and a load can take it down: give --yes-load-remote if it is yours to load"
        )
    return ServerAddress(parts.hostname, ip, port or 80)


def _resolved(host: str, port: int) -> str:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise TargetUnreachable(f"{quoted(host)} has no address: {error}") from None
    # IPv4 first: a server on 127.0.0.1 does not listen on ::1, and localhost names both.
    found.sort(key=lambda one: one[0] != socket.AF_INET)
    ip = str(found[0][4][0])
    address = ipaddress.ip_address(ip.partition("%")[0])
    return "127.0.0.1" if address == ipaddress.ip_address("0.0.0.0") else str(address)  # noqa: S104


@dataclass(frozen=True)
class Reply:
    """One answer of the server; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON; None if it is none."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    @property
    def shown(self) -> str:
        """What it says, short enough for a message."""
        found = self.json
        text = found.get("error") if isinstance(found, dict) else None
        return f"{self.status} {text if isinstance(text, str) else self.body[:_SHOWN].decode('utf-8', 'replace')}"[
            :_SHOWN
        ]


@dataclass(frozen=True)
class ServerFacts:
    """What a server says of itself; null if it says nothing."""

    name: str | None
    version: str | None

    @property
    def is_headgate(self) -> bool:
        """Whether it has versions by name, phases and an admin API as they are known here."""
        return self.name == "headgate"


@dataclass(frozen=True)
class ModelFacts:
    """What the metadata of an endpoint says."""

    versions: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]


class Server:
    """Asks the server, one connection for each question."""

    def __init__(self, address: ServerAddress, seconds: float = _SECONDS) -> None:
        self.address = address
        self._seconds = seconds

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """One request; :class:`TargetUnreachable` if no whole HTTP answer comes in time."""
        connection = http.client.HTTPConnection(self.address.ip, self.address.port, timeout=self._seconds)
        try:
            with closing(connection):
                fields = {"host": self.address.authority, **(headers or {})}
                connection.request(method, path, body=body, headers=fields)
                answer = connection.getresponse()
                content = answer.read(_MAX_REPLY)
                found = {name.lower(): value for name, value in answer.getheaders()}
                return Reply(answer.status, found, content)
        except TimeoutError:
            raise TargetUnreachable(
                f"{self.address.url} does not answer within {self._seconds:g} s"
            ) from None
        except http.client.HTTPException as error:
            name = type(error).__name__
            raise TargetUnreachable(
                f"{self.address.url} answers something that is no HTTP ({name}: {str(error)[:80]!r})"
            ) from None
        except OSError as error:
            raise TargetUnreachable(f"{self.address.url}: {error.strerror or error}") from None

    def check_ready(self) -> None:
        """:class:`ModelNotReady` unless it says that it is ready; a server without that call is taken as ready."""
        reply = self.ask("GET", "/v2/health/ready")
        if reply.status >= 500 or reply.status in (400, 409, 429):
            raise ModelNotReady(f"{self.address.url} is not ready: {reply.shown}")

    def is_there(self) -> bool:
        """Whether it still answers HTTP at all."""
        try:
            self.ask("GET", "/v2/health/live")
        except TargetUnreachable:
            return False
        return True

    def facts(self) -> ServerFacts:
        """What it calls itself."""
        found = self.ask("GET", "/v2").json
        if not isinstance(found, dict):
            return ServerFacts(None, None)
        return ServerFacts(_text(found.get("name")), _text(found.get("version")))

    def model(self, endpoint: str, version: str | None) -> ModelFacts:
        """The metadata; :class:`ModelNotFound` or :class:`VersionNotFound`, and :class:`TargetUnreachable` if it is none."""
        path = f"/v2/models/{quote(endpoint, safe='')}"
        if version is not None:
            path += f"/versions/{quote(version, safe='')}"
        reply = self.ask("GET", path)
        if reply.status == 404:
            kind = ModelNotFound if version is None else VersionNotFound
            raise kind(f"{self.address.url}: {reply.shown}{self._near(endpoint)}")
        if reply.status >= 500:
            raise ModelNotReady(f"{endpoint} is not ready: {reply.shown}")
        found = reply.json
        if reply.status != 200 or not isinstance(found, dict) or not isinstance(found.get("inputs"), list):
            raise TargetUnreachable(
                f"{self.address.url} has no metadata of {endpoint} as the Open Inference Protocol has it: {reply.shown}"
            )
        versions = found.get("versions")
        named = tuple(str(one) for one in versions) if isinstance(versions, list) else ()
        return ModelFacts(named, tuple(_spec(one, endpoint) for one in found["inputs"]))

    def infer(self, request: Encoded, headers: Mapping[str, str]) -> Reply:
        """One inference over HTTP, whatever comes of it."""
        return self.ask("POST", request.path, request.body, {**dict(request.headers), **headers})

    def _near(self, endpoint: str) -> str:
        """What was probably meant; nothing if the server has no list of names."""
        try:
            found = self.ask("GET", "/v2/models").json
        except TargetUnreachable:
            return ""
        names = found.get("models") if isinstance(found, dict) else found
        if not isinstance(names, list):
            return ""
        known = [_text(one.get("name")) if isinstance(one, dict) else _text(one) for one in names]
        return f"; {did_you_mean(endpoint, [name for name in known if name])}"


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _spec(found: Any, endpoint: str) -> TensorSpec:
    try:
        optional = bool((found.get("parameters") or {}).get("optional", False))
        return TensorSpec(
            str(found["name"]), str(found["datatype"]), tuple(int(size) for size in found["shape"]), optional
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        raise TargetUnreachable(
            f"the metadata of {endpoint} has an input without name, datatype and shape"
        ) from None

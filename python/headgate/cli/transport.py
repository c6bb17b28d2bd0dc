"""HTTP to one address, on ``http.client``: one connection that is kept, over TCP or TLS, with time limits.

It follows no redirect, uses no proxy and never repeats a write: what may have happened is for the caller to look at. Not here:
tokens and JSON (``client``). Next: client.py.
"""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Protocol

from headgate.cli.address import AdminAddress
from headgate.cli.exits import UnreachableError

_LARGEST_BYTES = 1 << 30
"""An answer beyond it is not one of a gateway."""


@dataclass(frozen=True)
class Request:
    """One request; ``target`` is the path with its query. An answer must come within ``seconds``."""

    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    seconds: float = 900.0


@dataclass(frozen=True)
class Response:
    """A whole answer; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Stream(Protocol):
    """An answer that goes on."""

    status: int

    def readline(self, limit: int, /) -> bytes:
        """The next line with its end; empty when the answer is over."""

    def read(self, amount: int, /) -> bytes:
        """What follows, at most ``amount`` bytes."""


class Transport(Protocol):
    """What carries requests; tests hand in another one."""

    def send(self, request: Request) -> Response:
        """Sends it and reads the whole answer; :class:`UnreachableError`."""

    def stream(self, request: Request) -> AbstractContextManager[Stream]:
        """The answer while it comes; ``seconds`` is the longest pause in it."""

    def close(self) -> None:
        """Gives the connection back."""


class HttpTransport:
    """One kept connection to one address."""

    def __init__(self, address: AdminAddress, connect_seconds: float) -> None:
        self._address = address
        self._connect_seconds = connect_seconds
        self._connection: http.client.HTTPConnection | None = None

    def send(self, request: Request) -> Response:
        """A read is repeated once if a kept connection turns out to be closed."""
        kept = self._connection is not None
        try:
            return self._exchange(request)
        except (http.client.RemoteDisconnected, ConnectionError) as error:
            self.close()
            if kept and request.method == "GET":
                return self.send(request)
            raise self._no_answer(error) from error
        except (http.client.HTTPException, OSError) as error:
            self.close()
            raise self._no_answer(error) from error

    @contextmanager
    def stream(self, request: Request) -> Iterator[Stream]:
        """Uses the connection up: what was not read would be taken for the next answer."""
        try:
            yield self._begin(request)
        except (http.client.HTTPException, OSError) as error:
            raise self._no_answer(error) from error
        finally:
            self.close()

    def close(self) -> None:
        """Closes the connection, if there is one."""
        if self._connection is not None:
            with suppress(OSError):
                self._connection.close()
        self._connection = None

    def _exchange(self, request: Request) -> Response:
        answer = self._begin(request)
        body = answer.read(_LARGEST_BYTES)
        if answer.length:
            raise http.client.IncompleteRead(body, answer.length)
        if answer.read(1):
            raise http.client.HTTPException(f"the answer is longer than {_LARGEST_BYTES} bytes")
        headers = {name.lower(): value for name, value in answer.getheaders()}
        if answer.will_close:
            self.close()
        return Response(answer.status, headers, body)

    def _begin(self, request: Request) -> http.client.HTTPResponse:
        if self._connection is None:
            self._connection = self._connect()
        self._connection.sock.settimeout(request.seconds)
        self._connection.request(request.method, request.target, request.body, dict(request.headers))
        return self._connection.getresponse()

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._address.host, self._address.port
        if self._address.scheme == "https":
            trusted = ssl.create_default_context()
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, port, timeout=self._connect_seconds, context=trusted
            )
        else:
            connection = http.client.HTTPConnection(host, port, timeout=self._connect_seconds)
        try:
            connection.connect()
        except ssl.SSLCertVerificationError as error:
            raise UnreachableError(
                f"{self._address} is not trusted, and nothing was sent to it: {error.verify_message}; if the certificate is "
                "one of your own, SSL_CERT_FILE names the authority that signed it"
            ) from error
        except OSError as error:
            raise UnreachableError(
                f"no gateway answers at {self._address} ({_reason(error)}); start one with `headgate serve`, or name "
                "another with --admin URL"
            ) from error
        return connection

    def _no_answer(self, error: Exception) -> UnreachableError:
        return UnreachableError(f"{self._address} did not answer: {_reason(error)}")


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it took too long"
    strerror = getattr(error, "strerror", None)
    return str(strerror or error or type(error).__name__)

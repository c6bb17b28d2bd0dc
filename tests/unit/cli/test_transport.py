"""The transport against real sockets: connections that are kept, cut, silent or closed."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from headgate.cli.address import AdminAddress
from headgate.cli.exits import UnreachableError
from headgate.cli.transport import HttpTransport, Request

OK = b'HTTP/1.1 200 OK\r\ncontent-length: 2\r\netag: "7"\r\n\r\n{}'
GET = Request("GET", "/v1/endpoints", seconds=5)
POST = Request("POST", "/v1/endpoints/a:rollback", body=b"{}", seconds=5)


class Server:
    """Takes connections one after the other; on each it gives the answers of one list and closes."""

    def __init__(self, *connections: list[bytes]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(10)
        self._connections = connections
        self.requests: list[bytes] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def address(self) -> AdminAddress:
        return AdminAddress("http", "127.0.0.1", self._listener.getsockname()[1])

    def _serve(self) -> None:
        for answers in self._connections:
            connection, _ = self._listener.accept()
            with connection:
                connection.settimeout(10)
                for answer in answers:
                    self.requests.append(_request(connection))
                    connection.sendall(answer)

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(10)
        self._listener.close()


def _request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65_536)
    return data


@contextmanager
def transport(server: Server) -> Iterator[HttpTransport]:
    made = HttpTransport(server.address, 5)
    try:
        yield made
    finally:
        made.close()


def test_one_connection_is_kept_and_headers_are_in_lower_case() -> None:
    with Server([OK, OK]) as server, transport(server) as carrier:
        assert carrier.send(GET).headers["etag"] == '"7"'
        assert carrier.send(POST).body == b"{}"
    assert [line.split(b" ")[0] for line in server.requests] == [b"GET", b"POST"]


def test_a_read_on_a_connection_that_was_closed_meanwhile_is_repeated() -> None:
    with Server([OK], [OK]) as server, transport(server) as carrier:
        carrier.send(GET)
        assert carrier.send(GET).status == 200


def test_a_write_is_never_repeated() -> None:
    with Server([OK], []) as server, transport(server) as carrier:
        carrier.send(GET)
        with pytest.raises(UnreachableError, match="did not answer"):
            carrier.send(POST)
        with pytest.raises(UnreachableError):
            carrier.send(POST)


@pytest.mark.parametrize("answer", [b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{", b""])
def test_what_is_cut_or_no_http_is_an_error_in_words(answer: bytes) -> None:
    silent = pytest.raises(UnreachableError, match="did not answer")
    with Server([answer]) as server, transport(server) as carrier, silent:
        carrier.send(POST)


def test_a_server_that_says_nothing_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = AdminAddress("http", "127.0.0.1", silent.getsockname()[1])
        carrier = HttpTransport(address, 5)
        with pytest.raises(UnreachableError, match="took too long"):
            carrier.send(Request("GET", "/", seconds=0.05))
        carrier.close()


def test_a_stream_is_read_line_by_line_and_its_connection_is_not_used_again() -> None:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    body = b"6\r\nid: 1\n\r\n7\r\ndata: {\r\n3\r\n}\n\n\r\n0\r\n\r\n"
    with Server([head + body], [OK]) as server, transport(server) as carrier:
        with carrier.stream(GET) as stream:
            assert (stream.status, stream.readline(100), stream.readline(100)) == (
                200,
                b"id: 1\n",
                b"data: {}\n",
            )
        assert carrier.send(POST).status == 200


def test_tls_is_asked_for_and_a_server_without_it_is_an_error_in_words() -> None:
    first: list[bytes] = []

    def plain(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            first.append(connection.recv(1))
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=plain, args=(listener,), daemon=True)
        server.start()
        secure = HttpTransport(AdminAddress("https", "127.0.0.1", listener.getsockname()[1]), 5)
        with pytest.raises(UnreachableError, match=r"https://127\.0\.0\.1"):
            secure.send(GET)
        server.join(10)
    assert first == [b"\x16"], "the first byte of a TLS handshake"


def test_a_certificate_that_nobody_vouches_for_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    made += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", *made], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    requests: list[bytes] = []

    def serve(listener: socket.socket) -> None:
        for _ in range(2):
            connection, _ = listener.accept()
            with suppress(OSError), context.wrap_socket(connection, server_side=True) as secured:
                requests.append(_request(secured))  # type: ignore[arg-type]
                secured.sendall(OK)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve, args=(listener,), daemon=True)
        server.start()
        address = AdminAddress("https", "127.0.0.1", listener.getsockname()[1])
        with pytest.raises(UnreachableError, match=r"not trusted, and nothing was sent"):
            HttpTransport(address, 5).send(GET)
        assert requests == []
        with pytest.MonkeyPatch.context() as patched:
            patched.setenv("SSL_CERT_FILE", str(certificate))
            trusting = HttpTransport(address, 5)
            assert trusting.send(GET).body == b"{}"
            trusting.close()
        server.join(10)
    assert requests[0].startswith(b"GET /v1/endpoints")

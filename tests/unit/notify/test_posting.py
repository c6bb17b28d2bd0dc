"""One POST to a real receiver on loopback: what arrives, what counts as taken, and where nothing is sent."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from headgate.notify.posting import Policy, PostError, post
from support.receiver import Received, Receiver
from support.tools import need_program


async def loopback(_host: str, _port: int) -> Sequence[str]:
    return ["127.0.0.1"]


LOCAL = Policy(loopback, private=True)


def send(address: str, policy: Policy = LOCAL, seconds: float = 30.0, body: bytes = b"{}") -> None:
    asyncio.run(post(policy, address, {"webhook-id": "evt_1"}, body, seconds))


def test_what_arrives() -> None:
    with Receiver() as receiver:
        send(f"http://hooks.example:{receiver.port}/a b/c?x=1 2&y=%20", body=b'{"a": 1}')
        (one,) = receiver.wait(1)
    assert (one.path, one.body) == ("/a%20b/c?x=1%202&y=%20", b'{"a": 1}')
    assert one.fields["host"] == f"hooks.example:{receiver.port}"
    assert one.fields["content-type"] == "application/json"
    assert one.fields["webhook-id"] == "evt_1"


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (200, None), (204, None), (301, "redirects are not followed"), (307, "redirects"), (404, "404"), (410, "410"), (500, "500"),
        (None, "closed the connection"),
    ],
)  # fmt: skip
def test_what_counts_as_taken(status: int | None, says: str | None) -> None:
    with Receiver(answer=lambda _: status) as receiver:
        if says is None:
            send(receiver.url)
        else:
            with pytest.raises(PostError, match=says):
                send(receiver.url)
        assert len(receiver.wait(1)) == 1


def test_a_receiver_that_does_not_answer_is_left_after_the_time() -> None:
    gone = threading.Event()

    def answer(_: Received) -> int:
        assert gone.wait(60)
        return 200

    with Receiver(answer=answer) as receiver:
        with pytest.raises(PostError, match=r"no answer within 0.2 s"):
            send(receiver.url, seconds=0.2)
        gone.set()


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("ftp://example.com/x", "https://host/path"),
        ("https://", "https://host/path"),
        ("https://ann@example.com/x", "https://host/path"),
        ("https://example.com:99999/x", "no address"),
        ("https://exa mple.com\r\nx: y/", "."),
        ("file:///etc/passwd", "https://host/path"),
        ("http://example.com/x", "--private-webhooks"),
    ],
)
def test_addresses_that_are_none(address: str, says: str) -> None:
    with pytest.raises(PostError, match=says):
        send(address, Policy(loopback))


@pytest.mark.parametrize(
    "found",
    [
        "127.0.0.1", "10.1.2.3", "192.168.0.1", "169.254.169.254", "::1", "fe80::1%eth0", "::ffff:10.0.0.1", "0.0.0.0", "224.0.0.1",
        "64:ff9b::a00:1", "2002:a00:1::1", "fd00::1",
    ],
)  # fmt: skip
def test_nothing_is_sent_to_an_address_that_is_not_public(found: str) -> None:
    async def look_up(_host: str, _port: int) -> Sequence[str]:
        return ["93.184.216.34", found]

    with pytest.raises(PostError, match="no public address"):
        send("https://example.com/x", Policy(look_up))


def test_the_connection_goes_to_the_address_that_was_checked() -> None:
    asked = []

    async def look_up(host: str, port: int) -> Sequence[str]:
        asked.append((host, port))
        return ["127.0.0.1"]

    with Receiver() as receiver:
        send(f"http://nowhere.invalid:{receiver.port}/", Policy(look_up, private=True))
        assert asked == [("nowhere.invalid", receiver.port)]


def test_the_next_address_is_tried_when_one_refuses() -> None:
    with Receiver() as receiver:

        async def look_up(_host: str, _port: int) -> Sequence[str]:
            return ["127.0.0.2", "127.0.0.1"]

        send(f"http://example.com:{receiver.port}/", Policy(look_up, private=True))
        assert len(receiver.wait(1)) == 1


def test_a_name_that_is_not_known_and_a_port_that_nobody_has() -> None:
    async def unknown(_host: str, _port: int) -> Sequence[str]:
        raise socket.gaierror(-2, "Name or service not known")

    with pytest.raises(PostError, match="not known"):
        send("https://nowhere.invalid/", Policy(unknown))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(PostError, match=r"(?i)connect"):
        send(f"http://127.0.0.1:{port}/")


@pytest.mark.parametrize(
    "said",
    [b"hello\r\n\r\n", b"HTTP/2 200\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * 40_000],
    ids=["words", "other", "long"],
)
def test_a_receiver_that_speaks_no_http(said: bytes) -> None:
    def answer(server: socket.socket) -> None:
        with server.accept()[0] as one:
            one.recv(65536)
            # A client that has read enough may reset the connection.
            with suppress(ConnectionError):
                one.sendall(said)
                one.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer, args=(server,), daemon=True)
        thread.start()
        with pytest.raises(PostError, match=r"no HTTP/1.1|more than"):
            send(f"http://127.0.0.1:{server.getsockname()[1]}/")
        thread.join(60)


def test_an_informational_answer_is_passed_over() -> None:
    def answer(server: socket.socket) -> None:
        with server.accept()[0] as one:
            one.recv(65536)
            one.sendall(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n")
            one.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer, args=(server,), daemon=True)
        thread.start()
        send(f"http://127.0.0.1:{server.getsockname()[1]}/")
        thread.join(60)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of ``hooks.example`` with its key."""
    path = tmp_path_factory.mktemp("tls") / "hooks.pem"
    subprocess.run(
        [need_program("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", "2", "-subj", "/CN=hooks.example", "-addext", "subjectAltName=DNS:hooks.example",
         "-keyout", str(path), "-out", str(path.with_suffix(".crt"))],
        check=True, capture_output=True,
    )  # fmt: skip
    path.write_text(path.read_text() + path.with_suffix(".crt").read_text())
    return path


def test_a_certificate_is_checked_for_its_issuer_and_its_name(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    monkeypatch.setenv("SSL_CERT_FILE", os.devnull)
    with Receiver(tls=context) as receiver:
        with pytest.raises(PostError, match="TLS: self"):
            send(f"https://hooks.example:{receiver.port}/")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate.with_suffix(".crt")))
        with pytest.raises(PostError, match="TLS: Hostname mismatch"):
            send(f"https://other.example:{receiver.port}/")
        send(f"https://hooks.example:{receiver.port}/")
        assert len(receiver.wait(1)) == 1

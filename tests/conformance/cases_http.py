"""What HTTP itself refuses, as bytes on the wire. The connection is closed, with or without an answer.

Read next: ``test_malformed``, which sends all tables.
"""

from __future__ import annotations

from dataclasses import dataclass

from conformance.cases import GOOD

POST = b"POST /v2/models/pair/infer HTTP/1.1\r\nHost: gateway\r\n"
GET = b"GET /v2 HTTP/1.1\r\nHost: gateway\r\n"


@dataclass(frozen=True)
class Wire:
    """Bytes that are not HTTP; ``statuses`` are the answers that may come before the close."""

    id: str
    content: bytes
    statuses: frozenset[int] = frozenset({400})


def heads() -> list[Wire]:
    """Request heads that break the grammar."""
    contents: dict[str, bytes] = {
        "noise": bytes(range(32)) * 4 + b"\r\n\r\n",
        "tls-hello": b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03" + b"\0" * 64 + b"\r\n\r\n",
        "no-version": b"GET /v2\r\n\r\n",
        "version-3": b"GET /v2 HTTP/3.0\r\nHost: gateway\r\n\r\n",
        "version-word": b"GET /v2 HTTP/one\r\nHost: gateway\r\n\r\n",
        "no-path": b"GET  HTTP/1.1\r\nHost: gateway\r\n\r\n",
        "space-in-path": b"GET /v2 /x HTTP/1.1\r\nHost: gateway\r\n\r\n",
        "control-in-path": b"GET /v2\x01 HTTP/1.1\r\nHost: gateway\r\n\r\n",
        "method-with-at": b"G@T /v2 HTTP/1.1\r\nHost: gateway\r\n\r\n",
        "header-without-colon": GET + b"broken\r\n\r\n",
        "header-name-with-space": GET + b"bad name: x\r\n\r\n",
        "header-space-before-colon": GET + b"name : x\r\n\r\n",
        "header-without-name": GET + b": x\r\n\r\n",
        "header-nul-in-value": GET + b"name: a\x00b\r\n\r\n",
        "header-control-in-value": GET + b"name: a\x07b\r\n\r\n",
        "header-folded": GET + b"name: a\r\n b\r\n\r\n",
        "header-first-indented": b"GET /v2 HTTP/1.1\r\n Host: gateway\r\n\r\n",
    }
    return [Wire(f"head-{name}", content) for name, content in contents.items()]


def sizes() -> list[Wire]:
    """Heads that are too large."""
    many = b"".join(b"x-%d: 1\r\n" % number for number in range(300))
    return [
        Wire("size-header-1-mib", GET + b"x: " + b"a" * (1 << 20) + b"\r\n\r\n", frozenset({400, 431})),
        Wire("size-header-name-1-mib", GET + b"a" * (1 << 20) + b": x\r\n\r\n", frozenset({400, 431})),
        Wire("size-300-headers", GET + many + b"\r\n", frozenset({400, 431})),
        Wire(
            "size-path-1-mib", b"GET /" + b"a" * (1 << 20) + b" HTTP/1.1\r\n\r\n", frozenset({400, 414, 431})
        ),
    ]


def framing() -> list[Wire]:
    """Lengths and encodings that leave open where the body ends."""
    contents: dict[str, bytes] = {
        "length-word": POST + b"Content-Length: abc\r\n\r\n" + GOOD,
        "length-negative": POST + b"Content-Length: -1\r\n\r\n" + GOOD,
        "length-signed": POST + b"Content-Length: +5\r\n\r\n" + GOOD,
        "length-beyond-64-bit": POST + b"Content-Length: 99999999999999999999\r\n\r\n" + GOOD,
        "length-twice": POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n" + GOOD,
        "encoding-gzip": POST + b"Transfer-Encoding: gzip\r\n\r\n" + GOOD,
        "encoding-chunked-not-last": POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        "encoding-in-http-1-0": b"POST /v2/models/pair/infer HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "chunk-size-word": POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
        "chunk-size-negative": POST + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nabc\r\n0\r\n\r\n",
        "chunk-size-beyond-64-bit": POST
        + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        "chunk-longer-than-said": POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\nabcdef\r\n0\r\n\r\n",
    }
    return [Wire(f"framing-{name}", content) for name, content in contents.items()]


def http2() -> list[Wire]:
    """Openings of HTTP/2 that go wrong; there is no HTTP/1.1 answer to them."""
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    return [
        Wire("http2-preface-broken", b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"),
        Wire("http2-frame-too-large", preface + b"\xff\xff\xff\x04\x00\x00\x00\x00\x00", frozenset()),
        Wire("http2-headers-before-settings", preface + b"\x00\x00\x00\x01\x05\x00\x00\x00\x01", frozenset()),
    ]


CASES = [*heads(), *sizes(), *framing(), *http2()]

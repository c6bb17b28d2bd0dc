"""Where a request of HTTP/1.1 ends: for every case a second request follows in the same write, and it is answered only if the
first one has exactly one reading, which the table states.

Not here: what HTTP refuses in heads of any kind (``cases_http``, of which the end of this file takes the table), claimed
sizes and slow clients (``test_limits``), HTTP/2 (``test_http2_frames``).
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from conformance.cases import GOOD
from conformance.cases_http import CASES as WIRE
from conformance.cases_http import GET, POST, Wire
from support.client import Connection, raw
from support.gateway import GatewayProcess

#: The second request: its answer names it, and it closes the connection.
SECOND_PATH = b"/v2/second"
SECOND = b"GET " + SECOND_PATH + b" HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n"
INSIDE_PATH = b"/v2/inside"
#: A request that stands where the first one's body is.
INSIDE = b"GET " + INSIDE_PATH + b" HTTP/1.1\r\nHost: gateway\r\n\r\n"

LENGTH = b"Content-Length: %d\r\n" % len(GOOD)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (len(GOOD), GOOD)


@dataclass(frozen=True)
class Ambiguous:
    """Bytes with several readings, or none: at most one answer, a refusal, and the connection is closed."""

    id: str
    content: bytes


@dataclass(frozen=True)
class Clear:
    """Bytes that are not what a good client sends, with one reading all the same."""

    id: str
    content: bytes
    reading: str
    statuses: tuple[int, ...] = (200,)
    """The answers before that to the second request; interim ones count."""
    closes: bool = False
    """Whether the connection is closed then, and the second request is not read."""


def lengths() -> list[Ambiguous]:
    """Bodies with two lengths, or with one that is none."""
    smuggle = b"0\r\n\r\n" + INSIDE
    cases = {
        "length-hides-a-request-behind-chunks": POST
        + CHUNKED + b"Content-Length: %d\r\n\r\n" % len(smuggle) + smuggle,
        "chunks-hide-a-request-behind-length": POST
        + CHUNKED + b"Content-Length: 4\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(INSIDE), INSIDE),
        "two-lengths-in-a-list": POST + b"Content-Length: 5, 6\r\n\r\n" + GOOD,
        "one-length-twice-in-a-list": POST + b"Content-Length: %d, %d\r\n\r\n" % (len(GOOD), len(GOOD)) + GOOD,
        "length-and-nothing-in-a-list": POST + b"Content-Length: 5,\r\n\r\n" + GOOD,
        "length-and-word-in-a-list": POST + b"Content-Length: 5, five\r\n\r\n" + GOOD,
        "length-empty": POST + b"Content-Length:\r\n\r\n" + GOOD,
        "length-hexadecimal": POST + b"Content-Length: 0x5\r\n\r\n" + GOOD,
        "length-with-a-space-within": POST + b"Content-Length: 5 6\r\n\r\n" + GOOD,
        "length-float": POST + b"Content-Length: 5.0\r\n\r\n" + GOOD,
        "length-with-vertical-tab": POST + b"Content-Length: \x0b5\r\n\r\n" + GOOD,
        "length-with-nul": POST + b"Content-Length: 5\0\r\n\r\n" + GOOD,
        "length-of-a-get-twice": GET + b"Content-Length: 0\r\nContent-Length: 5\r\n\r\n",
    }  # fmt: skip
    return [Ambiguous(name, content) for name, content in cases.items()]


def encodings() -> list[Ambiguous]:
    """Transfer codings that are not the one that is known."""
    values = {
        "identity": b"identity", "xchunked": b"xchunked", "chunked-x": b"chunkedx", "empty": b"",
        "chunked-then-identity": b"chunked, identity", "quoted": b'"chunked"', "parameter": b"chunked;q=1",
        "vertical-tab": b"\x0bchunked", "folded": b"\r\n chunked", "nul": b"chunked\0",
    }  # fmt: skip
    lenient = {
        "gzip-and-chunked": b"gzip, chunked", "chunked-twice": b"chunked, chunked", "unknown-and-chunked": b"foo, chunked",
        "identity-and-chunked": b"identity, chunked",
    }  # fmt: skip
    lines = {
        "in-two-lines": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "in-two-lines-chunked-first": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n",
        "with-space-before-colon": b"Transfer-Encoding : chunked\r\n",
        "with-name-folded": b"Transfer-\r\n Encoding: chunked\r\n",
        "with-bare-cr-before": b"X: y\rTransfer-Encoding: chunked\r\n",
    }
    squeezed = gzip.compress(GOOD)
    zipped = POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (
        len(squeezed),
        squeezed,
    )
    return [
        *[Ambiguous(f"encoding-{name}", POST + b"Transfer-Encoding: " + value + b"\r\n\r\n" + CHUNKS)
          for name, value in values.items()],
        *[Ambiguous(f"encoding-{name}", POST + b"Transfer-Encoding: " + value + b"\r\n\r\n" + CHUNKS)
          for name, value in lenient.items()],
        *[Ambiguous(f"encoding-{name}", POST + line + b"\r\n" + CHUNKS) for name, line in lines.items()],
        Ambiguous("encoding-gzip-of-the-body", zipped),
    ]  # fmt: skip


def chunks() -> list[Ambiguous]:
    """Chunks whose size or end is not where it is said to be."""
    whole, size = GOOD, b"%x" % len(GOOD)
    bodies = {
        "size-empty": b"\r\n" + whole + b"\r\n0\r\n\r\n",
        "size-signed": b"+" + CHUNKS,
        "size-hexadecimal-prefix": b"0x" + CHUNKS,
        "size-with-underscore": b"0_" + CHUNKS,
        "size-with-leading-space": b" " + CHUNKS,
        "size-of-17-digits": b"1" + b"0" * 15 + size + b"\r\n" + whole + b"\r\n0\r\n\r\n",
        "size-line-ends-in-lf": size + b"\n" + whole + b"\r\n0\r\n\r\n",
        "size-line-ends-in-cr": size + b"\r" + whole + b"\r\n0\r\n\r\n",
        "size-line-ends-in-two-cr": size + b"\r\r\n" + whole + b"\r\n0\r\n\r\n",
        "size-then-word": size + b" word\r\n" + whole + b"\r\n0\r\n\r\n",
        "extension-with-lf": size + b";a\n" + whole + b"\r\n0\r\n\r\n",
        "extension-with-bare-cr": size + b";a\rb\r\n" + whole + b"\r\n0\r\n\r\n",
        "extension-of-1-mib": size + b";" + b"a" * (1 << 20) + b"\r\n" + whole + b"\r\n0\r\n\r\n",
        "data-without-crlf": size + b"\r\n" + whole + b"0\r\n\r\n",
        "data-then-lf": size + b"\r\n" + whole + b"\n0\r\n\r\n",
        "data-then-cr": size + b"\r\n" + whole + b"\r0\r\n\r\n",
        "data-then-two-letters": size + b"\r\n" + whole + b"xx0\r\n\r\n",
        "data-one-byte-longer": b"%x\r\n%s\r\n0\r\n\r\n" % (len(GOOD) - 1, whole),
        "data-one-byte-shorter": b"%x\r\n%s\r\n0\r\n\r\n" % (len(GOOD) + 1, whole),
        "last-chunk-without-crlf": size + b"\r\n" + whole + b"\r\n0\r\n",
        "last-chunk-ends-in-lf": size + b"\r\n" + whole + b"\r\n0\n\n",
        "trailer-without-colon": CHUNKS[:-2] + b"broken\r\n\r\n",
        "trailer-with-nul": CHUNKS[:-2] + b"a: b\0\r\n\r\n",
        "trailer-folded": CHUNKS[:-2] + b"a: b\r\n c\r\n\r\n",
        "trailers-of-1-mib": CHUNKS[:-2] + b"a: " + b"b" * (1 << 20) + b"\r\n\r\n",
    }
    return [Ambiguous(f"chunk-{name}", POST + CHUNKED + b"\r\n" + body) for name, body in bodies.items()]


def heads() -> list[Ambiguous]:
    """Heads whose lines, target or version have several readings."""
    start = b"GET /v2 HTTP/1.1\r\n"
    contents = {
        "bare-cr-as-line-end": b"GET /v2 HTTP/1.1\rHost: gateway\r\r",
        "bare-cr-in-value": GET + b"x: a\rb: c\r\n\r\n",
        "bare-cr-in-request-line": b"GET /v2\r HTTP/1.1\r\nHost: gateway\r\n\r\n",
        "bare-lf-in-name": GET + b"x\ny: z\r\n\r\n",
        "folded-length": POST + b"Content-Length:\r\n %d\r\n\r\n" % len(GOOD) + GOOD,
        "folded-with-a-tab": GET + b"x: y\r\n\tz\r\n\r\n",
        "tabs-in-request-line": b"GET\t/v2\tHTTP/1.1\r\nHost: gateway\r\n\r\n",
        "two-spaces": b"GET  /v2 HTTP/1.1\r\nHost: gateway\r\n\r\n",
        "space-after-version": b"GET /v2 HTTP/1.1 \r\nHost: gateway\r\n\r\n",
        "version-0-9": b"GET /v2 HTTP/0.9\r\nHost: gateway\r\n\r\n",
        "version-1-2": b"GET /v2 HTTP/1.2\r\nHost: gateway\r\n\r\n",
        "version-1-10": b"GET /v2 HTTP/1.10\r\nHost: gateway\r\n\r\n",
        "version-2-0": b"GET /v2 HTTP/2.0\r\nHost: gateway\r\n\r\n",
        "version-lower-case": b"GET /v2 http/1.1\r\nHost: gateway\r\n\r\n",
        "preface-of-http2-later": GET + b"\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    }
    hosts = {
        "no-host": start + b"\r\n",
        "two-hosts": start + b"Host: gateway\r\nHost: other\r\n\r\n",
        "host-with-space": start + b"Host: gate way\r\n\r\n",
        "host-with-a-path": start + b"Host: gateway/v2\r\n\r\n",
    }
    return [
        *[Ambiguous(f"head-{name}", content) for name, content in contents.items()],
        *[Ambiguous(f"head-{name}", content) for name, content in hosts.items()],
    ]


def clear() -> list[Clear]:
    """Unusual, and clear."""
    length = len(GOOD)
    both = "RFC 9112, 6.3: chunks go before a length, and the connection is closed"
    waits = b"Expect: 100-continue\r\n"

    def refused(line: bytes, *fields: bytes) -> bytes:
        # The body is a request: it must be read as a body, or the connection be closed.
        return b"".join(
            [line, b"\r\nHost: gateway\r\nContent-Length: %d\r\n" % len(INSIDE), *fields, b"\r\n", INSIDE]
        )

    return [
        Clear("length-twice-the-same", POST + LENGTH * 2 + b"\r\n" + GOOD, "both lines say one length"),
        Clear("length-and-chunked", POST + LENGTH + CHUNKED + b"\r\n" + CHUNKS, both, closes=True),
        Clear("chunked-and-length", POST + CHUNKED + LENGTH + b"\r\n" + CHUNKS, both, closes=True),
        Clear("length-with-zeros", POST + b"Content-Length: 00%d\r\n\r\n" % length + GOOD, "digits are decimal"),
        Clear("length-between-tabs", POST + b"Content-Length:\t%d\t\r\n\r\n" % length + GOOD, "space around is none of the value"),
        Clear("chunked-in-capitals", POST + b"transfer-encoding:CHUNKED\r\n\r\n" + CHUNKS, "names of codings have no case"),
        Clear("chunked-after-a-tab", POST + b"Transfer-Encoding:\tchunked\r\n\r\n" + CHUNKS, "space around is none of the value"),
        Clear("chunk-size-with-zeros", POST + CHUNKED + b"\r\n00" + CHUNKS, "digits are hexadecimal"),
        Clear("chunk-size-in-capitals", POST + CHUNKED + b"\r\nA\r\n%s\r\n%X\r\n%s\r\n0\r\n\r\n"
              % (GOOD[:10], length - 10, GOOD[10:]), "hexadecimal digits have no case"),
        Clear("chunk-extension", POST + CHUNKED + b'\r\n%x;a=b;c="d"\r\n%s\r\n0;e\r\n\r\n' % (length, GOOD),
              "RFC 9112, 7.1.1: unknown extensions are passed over"),
        Clear("chunk-extension-with-nul", POST + CHUNKED + b"\r\n%x;a\0b\r\n%s\r\n0\r\n\r\n" % (length, GOOD),
              "an extension ends at CRLF, whatever is in it"),
        Clear("last-chunk-with-zeros", POST + CHUNKED + b"\r\n" + CHUNKS[:-5] + b"000\r\n\r\n", "000 is zero"),
        Clear("trailer-with-a-length", POST + CHUNKED + b"\r\n" + CHUNKS[:-2] + b"Content-Length: 50\r\n\r\n",
              "a trailer says nothing about framing"),
        Clear("bare-lf-line-ends", b"GET /v2 HTTP/1.1\nHost: gateway\n\n", "RFC 9112, 2.2: LF alone may end a line of a head"),
        Clear("empty-lines-before", b"\r\n\r\n" + GET + b"\r\n", "RFC 9112, 2.2: empty lines before a request are passed over"),
        Clear("absolute-form", b"GET http://gateway/v2 HTTP/1.1\r\nHost: gateway\r\n\r\n", "the target's path counts"),
        Clear("absolute-form-other-host", b"GET http://other/v2 HTTP/1.1\r\nHost: gateway\r\n\r\n",
              "the target's path counts, and no host does"),
        Clear("asterisk", b"OPTIONS * HTTP/1.1\r\nHost: gateway\r\n\r\n", "no path is served under *", (404,)),
        Clear("connect", b"CONNECT gateway:80 HTTP/1.1\r\nHost: gateway\r\n\r\n", "no tunnel: nothing is served there", (404,)),
        Clear("method-lower-case", refused(b"post /v2/models/pair/infer HTTP/1.1"), "methods have a case; the body is a body", (405,)),
        Clear("get-with-a-body", refused(b"GET /v2 HTTP/1.1"), "a length makes a body, whatever the method"),
        Clear("delete-with-a-body", refused(b"DELETE /v2 HTTP/1.1"), "a length makes a body, whatever the method", (405,)),
        Clear("refused-with-a-body", refused(b"POST /v2/nowhere HTTP/1.1"), "the body of a refused request is read", (404,)),
        Clear("not-json", refused(b"POST /v2/models/pair/infer HTTP/1.1"), "the body is a body, and no JSON", (400,)),
        Clear("get-in-chunks", b"GET /v2 HTTP/1.1\r\nHost: gateway\r\n" + CHUNKED + b"\r\n%x\r\n%s\r\n0\r\n\r\n"
              % (len(INSIDE), INSIDE), "chunks are a body, whatever the method"),
        Clear("upgrade-to-h2c", GET + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
              "no upgrade is offered: the connection goes on with HTTP/1.1"),
        Clear("chunked-for-this-hop-only", POST + b"Connection: Transfer-Encoding\r\n" + CHUNKED + b"\r\n" + CHUNKS,
              "this is the hop"),
        Clear("post-without-a-length", POST + b"\r\n", "RFC 9112, 6.3: no length, no body", (400,)),
        Clear("http-1-0-kept-alive", b"GET /v2 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "the client asked to go on"),
        Clear("http-1-0", b"GET /v2 HTTP/1.0\r\n\r\n", "HTTP/1.0 closes unless asked not to", closes=True),
        Clear("close", GET + b"Connection: close\r\n\r\n", "the client said that this is its last request", closes=True),
        Clear("expect-continue", POST + LENGTH + waits + b"\r\n" + GOOD, "the body follows, asked for or not", (100, 200)),
        Clear("expect-continue-refused", refused(b"POST /v2/nowhere HTTP/1.1", waits), "the body follows, refused or not", (404,)),
        Clear("expect-continue-too-large", POST + waits + b"Content-Length: %d\r\n\r\n" % (1 << 40) + INSIDE,
              "what follows is the body of the refused request", (413,), closes=True),
        Clear("refused-with-5-mib", b"POST /v2/nowhere HTTP/1.1\r\nHost: gateway\r\nContent-Length: %d\r\n\r\n" % (5 << 20)
              + INSIDE * ((5 << 20) // len(INSIDE)), "more than the gateway reads of a refused body", (404,), closes=True),
        Clear("refused-with-a-broken-chunk", b"POST /v2/nowhere HTTP/1.1\r\nHost: gateway\r\n" + CHUNKED + b"\r\nzz\r\n" + INSIDE,
              "the body has no end that could be found", (404,), closes=True),
        Clear("get-without-a-body", GET + b"\r\n", "a good request"),
    ]  # fmt: skip


AMBIGUOUS = [*lengths(), *encodings(), *chunks(), *heads()]
CLEAR = clear()


def answers(received: bytes) -> Iterator[tuple[int, bytes]]:
    """The status and body of each answer in what was received."""
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
        assert len(rest) >= length, "an answer that is cut off"
        yield int(head.split(b" ")[1]), rest[:length]
        received = rest[length:]


def assert_serves(gateway: GatewayProcess) -> None:
    with Connection(gateway.http) as connection:
        assert connection.send("POST", "/v2/models/pair/infer", GOOD).status == 200


def test_each_case_has_a_name_of_its_own() -> None:
    names = [row.id for row in AMBIGUOUS] + [row.id for row in CLEAR]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("row", AMBIGUOUS, ids=lambda row: row.id)
def test_what_has_several_readings_is_refused_and_nothing_behind_it_is_read(
    zoo: GatewayProcess, row: Ambiguous
) -> None:
    received = list(answers(raw(zoo.http, row.content + SECOND)))
    assert_serves(zoo)
    assert SECOND_PATH not in b"".join(body for _, body in received)
    assert INSIDE_PATH not in b"".join(body for _, body in received)
    # A good request before what is ambiguous has its answer.
    good = row.content.startswith(GET + b"\r\n")
    refusals = [status for status, _ in received][1 if good else 0 :]
    assert len(refusals) <= 1
    assert set(refusals) <= {400, 413, 431, 501, 505}


@pytest.mark.parametrize("row", CLEAR, ids=lambda row: row.id)
def test_what_has_one_reading_is_answered_under_it(zoo: GatewayProcess, row: Clear) -> None:
    received = list(answers(raw(zoo.http, row.content + SECOND)))
    wanted = row.statuses if row.closes else (*row.statuses, 404)
    assert tuple(status for status, _ in received) == wanted, (row.reading, received)
    assert (SECOND_PATH in received[-1][1]) is not row.closes
    assert INSIDE_PATH not in b"".join(body for _, body in received)
    assert_serves(zoo)


@pytest.mark.parametrize(
    "wire", [wire for wire in WIRE if not wire.id.startswith("http2")], ids=lambda wire: wire.id
)
def test_nothing_behind_what_is_not_http_is_read(zoo: GatewayProcess, wire: Wire) -> None:
    received = list(answers(raw(zoo.http, wire.content + SECOND)))
    assert len(received) <= 1
    assert SECOND_PATH not in b"".join(body for _, body in received)

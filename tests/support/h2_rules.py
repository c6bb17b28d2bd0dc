"""Rules of HTTP/2 (RFC 9113) and HPACK (RFC 7541) broken one at a time, and odd things that break none.

The rows are sent on a fresh connection; stream 1 is theirs. ``conformance/test_http2_frames`` says what must come of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from conformance.cases import GOOD
from support.h2_frames import (
    ACK,
    COMPRESSION_ERROR,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PRIORITY,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    WINDOW_UPDATE,
    Fields,
    block,
    data,
    frame,
    headers,
    request,
    reset,
    settings,
    window,
)  # fmt: skip

INFER = "/v2/models/pair/infer"
WHOLE = END_HEADERS | END_STREAM
LIMIT = (1 << 31) - 1


@dataclass(frozen=True)
class Broken:
    """Frames that break a rule, and the error codes with which the stream or the connection may end."""

    id: str
    content: bytes
    codes: frozenset[int] = frozenset({PROTOCOL_ERROR})
    may_answer: bool = False
    """Whether stream 1 had a good request before the rule was broken."""


@dataclass(frozen=True)
class Taken:
    """Frames that are odd and break no rule that matters here, with their one reading."""

    id: str
    content: bytes
    reading: str
    status: int = 200


def get(*extra: tuple[str, str]) -> bytes:
    """A good request on stream 1, with more fields."""
    return headers(1, request("GET", "/v2", extra))


def post(*extra: tuple[str, str], end: bool = False) -> bytes:
    """The head of an inference request on stream 1."""
    return headers(1, request("POST", INFER, extra), end)


def head(**changes: str) -> bytes:
    """A request on stream 1 whose pseudo-headers are changed; an empty ``without`` removes none."""
    without = changes.pop("without", "")
    fields = {str(name)[1:]: value for name, value in request("GET", "/v2")} | changes
    return headers(1, [(f":{name}", value) for name, value in fields.items() if name != without])


def fields() -> list[Broken]:
    """Header fields that a request cannot have, or lacks."""
    good = request("GET", "/v2")
    late: Fields = [*good[:3], ("x", "y"), good[3]]
    rows = {
        "name-in-capitals": get(("X-Upper", "1")),
        "name-empty": get(("", "1")),
        "name-with-space": get(("x y", "1")),
        "name-with-colon": get(("x:y", "1")),
        "value-with-crlf": get(("x", "1\r\ny: 2")),
        "value-with-nul": get(("x", "1\0")),
        "no-fields": headers(1, []),
        "no-pseudo-headers": headers(1, [("x", "y")]),
        **{f"no-{name}": head(without=name) for name in ("method", "scheme", "path")},
        **{f"{name}-twice": headers(1, [*good, (f":{name}", "/v2")]) for name in ("method", "path", "scheme")},
        "pseudo-header-late": headers(1, late),
        "pseudo-header-unknown": headers(1, [*good, (":unknown", "1")]),
        "pseudo-header-of-an-answer": headers(1, [*good, (":status", "200")]),
        "protocol-without-leave": head(method="CONNECT", protocol="websocket"),
        "path-empty": head(path=""),
        "path-relative": head(path="v2"),
        "path-with-space": head(path="/v2 HTTP/1.1"),
        "path-with-crlf": head(path="/v2\r\nx: y"),
        "method-empty": head(method=""),
        "method-with-space": head(method="GET /v2"),
        **{
            f"{name}-of-http-1": get((name, value))
            for name, value in {"connection": "close", "transfer-encoding": "chunked", "upgrade": "h2c", "te": "gzip"}.items()
        },
    }  # fmt: skip
    return [Broken(f"field-{name}", content) for name, content in rows.items()]


def lengths() -> list[Broken]:
    """Content-Length against the DATA that comes."""
    size = len(GOOD)

    def sent(*values: str, body: bytes = GOOD, path: str = INFER) -> bytes:
        extra = [("content-length", value) for value in values]
        return headers(1, request("POST", path, extra), not body) + (data(1, body) if body else b"")

    rows = {
        "too-small": sent("5"), "too-large": sent(str(size + 1)), "zero": sent("0"), "no-data": sent("5", body=b""),
        "word": sent("five"), "negative": sent("-1"), "signed": sent(f"+{size}"), "beyond-64-bits": sent(str(1 << 70)),
        "twice": sent(str(size), "6"), "list": sent(f"{size}, 6"), "empty": sent(""),
        "too-small-refused": sent("5", path="/v2/nowhere"), "too-large-refused": sent("999", path="/v2/nowhere"),
    }  # fmt: skip
    return [Broken(f"length-{name}", content) for name, content in rows.items()]


def states() -> list[Broken]:
    """Frames on streams that are idle, closed, or not the client's."""
    closed = frozenset({STREAM_CLOSED, PROTOCOL_ERROR})
    idle = {
        "data-idle": data(1, b"x"), "data-stream-0": data(0, b"x"), "reset-idle": reset(1), "reset-stream-0": reset(0),
        "window-idle": window(1, 1), "headers-stream-0": headers(0, request("GET", "/v2")),
        "headers-even-stream": headers(2, request("GET", "/v2")), "continuation-alone": frame(CONTINUATION, END_HEADERS, 1),
        "push": frame(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\2" + block(request("GET", "/v2"))),
        "headers-descending": headers(5, request("GET", "/v2/x")) + get(),
    }  # fmt: skip
    over = {
        "data-after-end": post() + data(1, GOOD) + data(1, b"x"),
        "data-after-get": get() + data(1, b"x"),
        "headers-after-end": get() + get(),
        "trailers-without-end": post() + data(1, GOOD, False) + headers(1, [("x", "y")], False),
    }
    return [
        *[Broken(f"state-{name}", content) for name, content in idle.items()],
        *[Broken(f"state-{name}", content, closed, may_answer=True) for name, content in over.items()],
        Broken("state-data-after-reset", post() + reset(1) + data(1, GOOD), closed),
    ]


def windows() -> list[Broken]:
    """Flow control beyond its limits, by either side."""
    control = frozenset({FLOW_CONTROL_ERROR})
    return [
        Broken("window-overflow", window(0, LIMIT), control),
        Broken("window-overflow-of-a-stream", post() + window(1, LIMIT), control),
        Broken(
            "window-overflow-by-settings",
            post() + window(1, LIMIT - 65_535) + settings(initial_window_size=65_536),
            control,
        ),
        Broken("window-by-0", window(0, 0)),
        Broken("window-by-0-of-a-stream", post() + window(1, 0)),
        Broken("window-not-heeded", post() + data(1, bytes(1 << 20), False) + data(1, b"x"), control),
        Broken("window-of-settings", settings(initial_window_size=1 << 31), control | {PROTOCOL_ERROR}),
    ]


def sizes() -> list[Broken]:
    """Frames of a size or form that their kind does not have."""
    size = frozenset({FRAME_SIZE_ERROR, PROTOCOL_ERROR})
    rows = {
        "too-large": frame(DATA, 0, 1, length=1 << 21), "http-1": b"GET /v2 HTTP/1.1\r\nHost: gateway\r\n\r\n",
        "noise": bytes(range(256)), "reset-short": post() + frame(RST_STREAM, 0, 1, b"\0"),
        "window-short": frame(WINDOW_UPDATE, 0, 0, bytes(3)), "ping-short": frame(PING, 0, 0, bytes(7)),
        "ping-on-a-stream": frame(PING, 0, 1, bytes(8)), "goaway-short": frame(GOAWAY, 0, 0, bytes(4)),
        "goaway-on-a-stream": frame(GOAWAY, 0, 1, bytes(8)), "priority-short": frame(PRIORITY, 0, 1, b"\0"),
        "settings-odd": frame(SETTINGS, 0, 0, bytes(5)), "settings-on-a-stream": frame(SETTINGS, 0, 1),
        "settings-acknowledged-with-content": frame(SETTINGS, ACK, 0, bytes(6)),
        "settings-acknowledged-unasked": frame(SETTINGS, ACK, 0) * 3, "settings-push": settings(enable_push=2),
        "settings-frame-size": settings(max_frame_size=100),
        "padding-beyond-headers": frame(HEADERS, WHOLE | PADDED, 1, b"\xff" + block(request("GET", "/v2"))),
        "padding-beyond-data": post() + frame(DATA, END_STREAM | PADDED, 1, b"\xffabc"),
        "padding-missing": post() + frame(DATA, END_STREAM | PADDED, 1),
        "depends-on-itself": frame(HEADERS, WHOLE | 0x20, 1, b"\0\0\0\1\0" + block(request("GET", "/v2"))),
    }  # fmt: skip
    return [Broken(f"frame-{name}", content, size) for name, content in rows.items()]


def blocks() -> list[Broken]:
    """Header blocks that cannot be decoded, or are interrupted."""
    good = block(request("GET", "/v2"))
    begun = frame(HEADERS, END_STREAM, 1, good)
    wrong = {
        "index-0": b"\x80", "index-beyond": b"\xff\x80\x01", "cut-off": good[:-1], "integer-without-end": b"\xff" * 20,
        "huffman-padding": good + b"\0\1x\x84" + b"\xff" * 4, "table-beyond": b"\x3f\xff\xff\xff\x07" + good,
        "table-update-late": good + b"\x20",
    }  # fmt: skip
    codes = frozenset({COMPRESSION_ERROR, PROTOCOL_ERROR})
    return [
        *[
            Broken(f"block-{name}", frame(HEADERS, WHOLE, 1, content), codes)
            for name, content in wrong.items()
        ],
        Broken(
            "block-interrupted", begun + frame(PING, 0, 0, bytes(8)) + frame(CONTINUATION, END_HEADERS, 1)
        ),
        Broken("block-goes-on-elsewhere", begun + frame(CONTINUATION, END_HEADERS, 3)),
        Broken("block-goes-on-with-headers", begun + headers(3, request("GET", "/v2"))),
    ]


BROKEN = [*fields(), *lengths(), *states(), *windows(), *sizes(), *blocks()]

TAKEN = [
    Taken("no-authority", head(without="authority"), "no host counts"),
    Taken("other-host", get(("host", "other")), "no host counts"),
    Taken("connect", headers(1, [(":method", "CONNECT"), (":authority", "g:80")]), "no tunnel: nothing is served there", 404),
    Taken("method-lower-case", head(method="get"), "methods have a case", 405),
    Taken("one-length-twice", post(*[("content-length", str(len(GOOD)))] * 2) + data(1, GOOD), "both say one length"),
    Taken("trailers", post() + data(1, GOOD, False) + headers(1, [("content-length", "5")]), "trailers say nothing about framing"),
    Taken("padding", post() + frame(DATA, END_STREAM | PADDED, 1, b"\4" + GOOD + bytes(4)), "padding is no content"),
    Taken("continued", frame(HEADERS, END_STREAM, 1, block(request("GET", "/v2"))[:9])
          + frame(CONTINUATION, END_HEADERS, 1, block(request("GET", "/v2"))[9:]), "one block in two frames"),
    Taken("unknown-frame", frame(0xBE, 0xFF, 1, b"?") + get(), "unknown frames are passed over"),
    Taken("unknown-setting", frame(SETTINGS, 0, 0, b"\xbe\xef\0\0\0\1") + get(), "unknown settings are passed over"),
    Taken("ping-acknowledged-unasked", frame(PING, ACK, 0, bytes(8)) + get(), "passed over"),
    Taken("goaway-first", frame(GOAWAY, 0, 0, bytes(8)) + get(), "the client takes no streams of ours, and sends its own"),
]  # fmt: skip

"""Malformed gRPC calls, as bytes: framing, protobuf, what the model does not take, parameters.

Each has the status that it must get and a word of the message. Calls beside ``ModelInfer`` and deadlines are in
``support/grpc_others``. Not here: HTTP/2 itself (``test_http2_frames``). Read next: ``test_grpc_malformed``, which sends
them.
"""

from __future__ import annotations

import gzip
import struct
import zlib

from support.grpc_calls import (
    EXHAUSTED,
    GOOD,
    INVALID,
    MAX_BODY,
    NOT_FOUND,
    PAIR,
    RAW,
    UNIMPLEMENTED,
    A,
    B,
    Call,
    identity,
    infer,
)
from support.grpc_others import CASES as OTHERS
from support.grpc_wire import (
    blob,
    bool_value,
    double_value,
    entry,
    fixed32,
    fixed64,
    frame,
    group,
    int_value,
    packed,
    request,
    tag,
    tensor,
    text_value,
    varint,
    whole,
)

# --- framing ---


def framing() -> list[Call]:
    """Bodies that are not one message, or compressed in a way that is not known or not true."""
    squeezed, half = gzip.compress(PAIR), len(PAIR) // 2
    plain = [
        ("empty-body", b"", "0 bytes"),
        ("half-a-prefix", b"\0\0\0", "3 bytes"),
        ("prefix-alone", GOOD[:5], "0 follow"),
        ("one-byte-short", GOOD[:-1], "follow"),
        ("one-byte-more", GOOD + b"\0", "follow"),
        ("length-too-small", frame(PAIR, length=half), "follow"),
        ("length-zero", frame(PAIR, length=0), "follow"),
        ("two-messages", GOOD + GOOD, "exactly one message"),
        ("a-message-and-an-empty-one", GOOD + frame(b""), "exactly one message"),
        ("flag-2", frame(PAIR, 2), "flag is 2"),
        ("flag-255", frame(PAIR, 255), "flag is 255"),
    ]
    coded = [
        ("flag-1-without-encoding", squeezed, "", INVALID, "grpc-encoding"),
        ("flag-1-identity", squeezed, "identity", INVALID, "identity"),
        ("flag-1-brotli", squeezed, "br", UNIMPLEMENTED, '"br"'),
        ("flag-1-nonsense", squeezed, "gzip, gzip", UNIMPLEMENTED, "not supported"),
        ("gzip-that-is-plain", PAIR, "gzip", INVALID, "not gzip"),
        ("gzip-cut-off", squeezed[:-6], "gzip", INVALID, "not gzip"),
        ("gzip-corrupt", squeezed[:20] + b"\xff" * 8 + squeezed[28:], "gzip", INVALID, "not gzip"),
        ("gzip-wrong-checksum", squeezed[:-8] + bytes(8), "gzip", INVALID, "not gzip"),
        ("gzip-bomb", gzip.compress(bytes(64 * MAX_BODY)), "gzip", EXHAUSTED, "--max-body"),
        ("gzip-one-byte-over", gzip.compress(bytes(MAX_BODY + 1)), "gzip", EXHAUSTED, "--max-body"),
        ("gzip-of-gzip", gzip.compress(squeezed), "gzip", INVALID, "not well-formed protobuf"),
        ("deflate-that-is-plain", PAIR, "deflate", INVALID, "not deflate"),
        ("deflate-bomb", zlib.compress(bytes(64 * MAX_BODY)), "deflate", EXHAUSTED, "--max-body"),
    ]
    return [
        Call("length-4-gib", frame(PAIR, length=(1 << 32) - 1), EXHAUSTED, "4294967295"),
        *[Call(name, body, INVALID, mentions) for name, body, mentions in plain],
        *[
            Call(name, frame(body, 1), status, mentions, headers={"grpc-encoding": coding} if coding else {})
            for name, body, coding, status, mentions in coded
        ],
        Call("one-byte-over-the-limit", frame(bytes(MAX_BODY + 1)), EXHAUSTED, "--max-body"),
    ]


# --- protobuf ---


def syntax() -> list[Call]:
    """Bytes that are not protobuf, whatever they would mean."""
    broken = {
        "tag-alone": tag(15, 0),
        "varint-cut-off": tag(15, 0) + b"\x80",
        "tag-cut-off": b"\x80",
        "varint-of-11-bytes": tag(15, 0) + varint(1, 11),
        "varint-beyond-64-bits": tag(15, 0) + b"\xff" * 9 + b"\x02",
        "tag-beyond-32-bits": varint((1 << 32) << 3) + b"\0",
        "field-number-0": tag(0, 0) + b"\1",
        "field-number-2-to-29": tag(1 << 29, 0) + b"\1",
        "group": group(15),
        "group-end": tag(15, 4),
        "wire-type-6": tag(15, 6),
        "wire-type-7": tag(15, 7),
        "fixed64-cut-off": fixed64(15, 1)[:-1],
        "fixed32-cut-off": fixed32(15, 1)[:-1],
        "length-past-the-end": tag(15, 2) + varint(5) + b"four",
        "length-2-to-63": tag(15, 2) + varint(1 << 63),
        "length-cut-off": tag(15, 2) + b"\x80",
        "input-cut-off": blob(5, A[:-1]),
        "input-parameter-cut-off": blob(5, A + blob(4, entry("k", int_value(1))[:-1])),
        "contents-cut-off": blob(5, A + tag(5, 2) + varint(9)),
        "output-cut-off": blob(6, blob(1, "A2")[:-1]),
        "parameter-cut-off": blob(4, entry("k", int_value(1))[:-1]),
        "parameter-value-cut-off": blob(4, entry("k", double_value(1)[:-1])),
        "shape-cut-off": blob(5, blob(1, "C") + blob(3, b"\x80")),
        "raw-contents-cut-off": blob(7, RAW[0])[:-1],
    }
    cases = [
        infer(f"protobuf-{name}", PAIR + rest, "not well-formed protobuf") for name, rest in broken.items()
    ]
    noise = {"nothing-but-zeros": bytes(32), "json": b'{"inputs": []}', "all-bytes": bytes(range(256))}
    return cases + [
        infer(f"protobuf-{name}", body, "not well-formed protobuf") for name, body in noise.items()
    ]


def kinds() -> list[Call]:
    """Fields of another wire type than the protocol's, and text that is not UTF-8."""
    value = blob(4, blob(1, "k") + blob(2, fixed32(1, 1)))
    broken = {
        **{f"field-{number}-a-number": whole(number, 1) for number in range(1, 8)},
        **{f"field-{number}-fixed": fixed64(number, 1) for number in range(1, 8)},
        **{f"input-field-{number}-a-number": blob(5, A + whole(number, 1)) for number in (1, 2, 4, 5)},
        "input-shape-fixed": blob(5, blob(1, "C") + blob(2, "FP32") + fixed64(3, 1)),
        "output-name-a-number": blob(6, whole(1, 1)),
        "output-parameters-a-number": blob(6, blob(1, "A2") + whole(2, 1)),
        "parameter-name-a-number": blob(4, whole(1, 1)),
        "parameter-value-a-number": blob(4, blob(1, "k") + whole(2, 1)),
        "parameter-boolean-fixed": value,
        "parameter-double-a-number": blob(4, entry("k", whole(4, 1))),
        "parameter-string-a-number": blob(4, entry("k", whole(3, 1))),
        "model-name-not-utf-8": blob(1, b"\xff"),
        "model-version-not-utf-8": blob(2, b"\xc3"),
        "id-not-utf-8": blob(3, b"\xed\xa0\x80"),
        "input-name-not-utf-8": blob(5, blob(1, b"A\xff")),
        "datatype-not-utf-8": blob(5, blob(1, "C") + blob(2, b"\xff")),
        "output-name-not-utf-8": blob(6, blob(1, b"\xff")),
        "parameter-name-not-utf-8": blob(4, blob(1, b"\xff") + blob(2, int_value(1))),
        "parameter-string-not-utf-8": blob(4, entry("k", blob(3, b"\xff"))),
    }
    return [infer(f"kind-{name}", PAIR + rest, "not well-formed protobuf") for name, rest in broken.items()]


# --- what the model takes ---


def inputs() -> list[Call]:
    """Names, datatypes and shapes that do not fit the endpoint ``pair``."""

    def with_a(*changed: bytes, raw: list[bytes] = RAW) -> bytes:
        return request([*changed, B], raw)

    fp32 = blob(1, "A") + blob(2, "FP32")
    cases = {
        "no-inputs": (request(), '"A" is missing'),
        "missing": (request([A], RAW[:1]), '"B" is missing'),
        "unknown": (request([A, B, tensor("Z", "FP32", [1])], [*RAW, bytes(4)]), '"Z"'),
        "other-case": (with_a(tensor("a", "FP32", [1, 2])), '"a"'),
        "twice": (request([A, A, B], [RAW[0], *RAW]), '"A" twice'),
        "nameless": (with_a(tensor("", "FP32", [1, 2])), "inputs[0] has no name"),
        "no-datatype": (with_a(blob(1, "A") + packed(3, [1, 2])), "datatype"),
        "datatype-unknown": (with_a(tensor("A", "FLOAT", [1, 2])), '"FLOAT" is not one of'),
        "datatype-lower-case": (with_a(tensor("A", "fp32", [1, 2])), '"fp32" is not one of'),
        "datatype-other": (with_a(tensor("A", "INT32", [1, 2])), '"A" is FP32'),
        "datatype-other-size": (with_a(tensor("A", "FP64", [1, 2])), '"A"'),
        "no-shape": (with_a(fp32, raw=[bytes(4), RAW[1]]), '"A" has shape []'),
        "rank-one": (with_a(tensor("A", "FP32", [2])), '"A" has shape [2]'),
        "rank-three": (with_a(tensor("A", "FP32", [1, 1, 2])), '"A" has shape'),
        "rank-17": (with_a(tensor("A", "FP32", [1] * 16 + [2])), "at most 16"),
        "rank-17-one-by-one": (with_a(fp32 + whole(3, 1) * 17), "at most 16"),
        "negative": (with_a(tensor("A", "FP32", [-1, 2])), "negative dimension -1"),
        "two-negatives": (with_a(tensor("A", "FP32", [-1, -2])), "negative dimension"),
        "huge": (with_a(tensor("A", "FP32", [1 << 62, 2])), "too many elements"),
        "claims-more": (with_a(tensor("A", "FP32", [1 << 30, 2])), '"A"'),
        "claims-more-typed": (request([tensor("A", "FP32", [1 << 40, 2], b"")]), '"A"'),
        "product-wraps": (with_a(tensor("A", "FP32", [1 << 32, 1 << 32])), "too many elements"),
        "empty-but-wide": (with_a(tensor("A", "FP32", [0, 1 << 40])), "no elements"),
        "other-dimension": (with_a(tensor("A", "FP32", [2, 1])), '"A" has shape [2, 1]'),
        "contents-twice": (
            request([tensor("A", "FP32", [1, 2], RAW[0]) + blob(5, b""), B]),
            "contents twice",
        ),
        "too-many": (
            request([tensor(f"i{number}", "FP32", [0]) for number in range(1025)]),
            "more than 1024",
        ),
    }
    return [infer(f"input-{name}", message, mentions) for name, (message, mentions) in cases.items()]


def whose() -> list[Call]:
    """Endpoints and versions that do not exist, and outputs that nobody gives."""

    def other(extra: bytes) -> bytes:
        return request([A, B], RAW, extra)

    found = [
        ("no-model-name", request([A, B], RAW, model=""), '""'),
        ("model-unknown", request([A, B], RAW, model="none"), '"none"'),
        ("model-other-case", request([A, B], RAW, model="Pair"), '"Pair"'),
        ("model-very-long", request([A, B], RAW, model="n" * 9_000), "nnn"),
        ("version-unknown", other(blob(2, "99")), '"99"'),
        ("version-negative", other(blob(2, "-1")), '"-1"'),
        ("version-word", other(blob(2, "abc")), '"abc"'),
    ]
    wrong = [
        ("output-unknown", other(blob(6, blob(1, "C"))), '"C"'),
        ("output-twice", other(blob(6, blob(1, "A2")) * 2), '"A2" twice'),
        ("output-nameless", other(blob(6, b"")), "outputs[0] has no name"),
        (
            "outputs-too-many",
            other(b"".join(blob(6, blob(1, f"o{n}")) for n in range(1025))),
            "more than 1024",
        ),
    ]
    return [
        *[infer(name, message, mentions, NOT_FOUND) for name, message, mentions in found],
        *[infer(name, message, mentions) for name, message, mentions in wrong],
    ]


# --- elements ---

#: By datatype: its typed list, one element in it, and the size of an element sent raw.
LISTS: dict[str, tuple[int, bytes, int]] = {
    "BOOL": (1, varint(1), 1),
    "INT8": (2, varint(1), 1),
    "INT16": (2, varint(1), 2),
    "INT32": (2, varint(1), 4),
    "INT64": (3, varint(1), 8),
    "UINT8": (4, varint(1), 1),
    "UINT16": (4, varint(1), 2),
    "UINT32": (4, varint(1), 4),
    "UINT64": (5, varint(1), 8),
    "FP32": (6, struct.pack("<f", 1), 4),
    "FP64": (7, struct.pack("<d", 1), 8),
}


def typed() -> list[Call]:
    """Typed contents: too few, too many, in the wrong list, of the wrong kind, out of range."""
    cases = []
    for datatype, (number, one, _) in LISTS.items():
        other = number % 8 + 1
        bodies = {
            "too-few": (blob(number, one), 3, '"x"'),
            "too-many": (blob(number, one * 3), 2, "more elements"),
            "wrong-list": (packed(other, [1, 1]), 2, "belong in"),
            "wrong-kind": (fixed64(number, 1) if number != 7 else fixed32(7, 1), 1, "wire type"),
        }
        for name, (contents, count, mentions) in bodies.items():
            message = identity(datatype, contents, count=count)
            cases.append(infer(f"typed-{datatype}-{name}", message, mentions))
    ranges = {
        "INT8": (128, -129), "INT16": (32_768, -32_769), "UINT8": (256,), "UINT16": (65_536,),
    }  # fmt: skip
    for datatype, values in ranges.items():
        for value in values:
            message = identity(datatype, packed(LISTS[datatype][0], [value]))
            cases.append(
                infer(f"typed-{datatype}-{value}", message, f"{value} is out of range for {datatype}")
            )
    strings = {
        "too-few": (blob(8, b"a" * 9), 2, "fewer elements"),
        "too-many": (blob(8, b"a") * 2, 1, "more elements"),
        "wrong-list": (packed(3, [1]), 1, "belong in bytes_contents"),
        "wrong-kind": (whole(8, 1), 1, "wire type"),
    }
    halves = [("FP16", fixed32(6, 1)), ("BF16", fixed32(6, 1)), ("FP16", packed(4, [1]))]
    return [
        *cases,
        *[
            infer(f"typed-BYTES-{name}", identity("BYTES", contents, count=count), mentions)
            for name, (contents, count, mentions) in strings.items()
        ],
        *[
            infer(f"typed-{datatype}-{place}", identity(datatype, contents), "no typed contents")
            for place, (datatype, contents) in enumerate(halves)
        ],
        infer("typed-FP32-ends-within", identity("FP32", blob(6, bytes(7)), count=1), "within an element"),
        infer("typed-INT32-cut-off", identity("INT32", blob(2, b"\x80")), "without an end"),
        infer("typed-no-contents", identity("FP32", None, count=2), '"x"'),
        infer("typed-empty-contents", identity("FP32", b"", count=2), '"x"'),
    ]


def raw() -> list[Call]:
    """Raw contents: sizes, numbers of entries, bytes that no element has, and both ways at once."""
    cases = []
    for datatype, size in {**{name: row[2] for name, row in LISTS.items()}, "FP16": 2, "BF16": 2}.items():
        for name, length in (("short", 2 * size - 1), ("long", 2 * size + 1), ("empty", 0)):
            message = identity(datatype, None, [bytes(length)], count=2)
            cases.append(infer(f"raw-{datatype}-{name}", message, '"x"'))
    five = struct.pack("<I", 5)
    strings = {
        "no-length": b"\1\0", "cut-element": five + b"abc", "4-gib": b"\xff" * 4 + b"abc", "left-over": five + b"abcdef",
    }  # fmt: skip
    both = [tensor("A", "FP32", [1, 2], blob(6, RAW[0])), B]
    counts = [
        ("one-entry-more", request([A, B], [*RAW, b""]), "2 inputs and 3"),
        ("one-entry-less", request([A, B], RAW[:1]), "2 inputs and 1"),
        ("entries-without-inputs", request([], RAW), "0 inputs and 2"),
        ("entries-in-the-other-order", request([A, B], RAW[::-1], blob(6, blob(1, "C"))), ""),
        ("both-ways", request(both, RAW), '"A" has contents'),
        ("too-many-entries", request([A, B], [b""] * 1025), "more than 1024"),
        ("bool-two", identity("BOOL", None, [b"\1\2"], count=2), "byte 2"),
    ]
    return [
        *cases,
        *[
            infer(f"raw-BYTES-{name}", identity("BYTES", None, [content]), '"x"')
            for name, content in strings.items()
        ],
        *[infer(f"raw-{name}", message, mentions) for name, message, mentions in counts],
    ]


# --- parameters ---


def parameters() -> list[Call]:
    """Parameters that are reserved, wrong, repeated, or mean what is not built."""

    def asked(*entries: bytes) -> bytes:
        return request([A, B], RAW, b"".join(blob(4, each) for each in entries))

    memory = entry("shared_memory_region", text_value("r"))
    top = entry("classification", int_value(0))
    unbuilt = {
        "shared-memory-input": request([A + blob(4, memory), B]),
        "shared-memory-output": request([A, B], RAW, blob(6, blob(1, "A2") + blob(2, memory))),
        "sequence-id": asked(entry("sequence_id", int_value(7))),
        "sequence-id-text": asked(entry("sequence_id", text_value("seven"))),
        "sequence-start": asked(entry("sequence_start", bool_value(1))),
        "sequence-end": asked(entry("sequence_end", bool_value(1))),
    }
    wrong = {
        "reserved": (asked(entry("triton_anything", int_value(1))), "triton_anything"),
        "no-value": (asked(blob(1, "k")), '"k" has no value'),
        "empty-value": (asked(entry("k", b"")), '"k" has no value'),
        "unknown-kind": (asked(entry("k", whole(9, 1))), '"k" has no value'),
        "input-no-value": (request([A + blob(4, blob(1, "k")), B], RAW), '"k" has no value'),
        "timeout-text": (asked(entry("timeout", text_value("10"))), '"timeout"'),
        "timeout-boolean": (asked(entry("timeout", bool_value(1))), '"timeout"'),
        "timeout-double": (asked(entry("timeout", double_value(1.5))), '"timeout"'),
        "timeout-negative": (asked(entry("timeout", int_value(-1))), '"timeout"'),
        "timeout-beyond-63-bits": (asked(entry("timeout", whole(5, 1 << 63))), '"timeout"'),
        "priority-text": (asked(entry("priority", text_value("1"))), '"priority"'),
        "priority-negative": (asked(entry("priority", int_value(-1))), '"priority"'),
        "twice": (asked(entry("k", int_value(1)), entry("k", int_value(2))), '"k" is given twice'),
        "65": (asked(*[entry(f"k{number}", int_value(1)) for number in range(65)]), "at most 64"),
        "classification-0": (request([A, B], RAW, blob(6, blob(1, "A2") + blob(2, top))), "classification"),
    }
    return [
        *[
            infer(f"parameter-{name}", message, "not supported", UNIMPLEMENTED)
            for name, message in unbuilt.items()
        ],
        *[infer(f"parameter-{name}", message, mentions) for name, (message, mentions) in wrong.items()],
    ]


CASES = [
    *framing(), *syntax(), *kinds(), *inputs(), *whose(), *typed(), *raw(), *parameters(), *OTHERS,
]  # fmt: skip

"""Malformed headers and binary tensors: lengths that contradict the body, the shape or each other.

Read next: ``cases_routes``.
"""

from __future__ import annotations

import struct
from typing import Any

from conformance.cases import GOOD, Case, a_input, b_input, encode, request

LENGTH = "Inference-Header-Content-Length"
PAIR = struct.pack("<2f", 1, 2)


def binary(size: Any, blob: bytes, name: str, **change: Any) -> Case:
    """``pair`` with A in binary of the claimed size, followed by ``blob``."""
    tensor = a_input(data=..., parameters={"binary_data_size": size}, **change)
    head = encode(request(inputs=[tensor, b_input()]))
    return Case(f"binary-{name}", head + blob, headers={LENGTH: str(len(head))})


def identity(datatype: str, shape: list[int], blob: bytes, name: str) -> Case:
    """An identity endpoint with x in binary, claimed and sent in the length of ``blob``."""
    tensor = {
        "name": "x",
        "shape": shape,
        "datatype": datatype,
        "parameters": {"binary_data_size": len(blob)},
    }
    head = encode({"inputs": [tensor]})
    path = f"/v2/models/identity-{datatype.lower()}/infer"
    return Case(f"binary-{name}", head + blob, path, headers={LENGTH: str(len(head))}, mentions='"x"')


def sizes() -> list[Case]:
    """``binary_data_size`` that is no size, or not the one of the shape or the body."""
    return [
        binary(7, PAIR[:7], "one-byte-short"),
        binary(9, PAIR + b"\0", "one-byte-long"),
        binary(0, b"", "zero"),
        binary(8, PAIR[:4], "body-too-short"),
        binary(8, b"", "body-without-blob"),
        binary(8, PAIR + b"more", "bytes-left-over"),
        binary(-8, PAIR, "negative"),
        binary(8.0, PAIR, "float"),
        binary("8", PAIR, "string"),
        binary(None, PAIR, "null"),
        binary(True, PAIR, "boolean"),
        binary([8], PAIR, "array"),
        binary(2**40, PAIR, "a-terabyte"),
        binary(2**64, PAIR, "beyond-64-bit"),
        binary(8, PAIR, "shape-claims-more", shape=[2, 2]),
        binary(8, PAIR, "shape-claims-a-lot", shape=[2**40, 2]),
        binary(8, PAIR, "wrong-datatype", datatype="FP64"),
    ]


def contents() -> list[Case]:
    """Bytes that are not the datatype they claim to be."""
    return [
        identity("BYTES", [1], b"", "bytes-empty"),
        identity("BYTES", [1], b"\x01\x00", "bytes-cut-length"),
        identity("BYTES", [1], struct.pack("<I", 5) + b"abc", "bytes-cut-element"),
        identity("BYTES", [1], struct.pack("<I", 2**32 - 1) + b"abc", "bytes-4-gib-element"),
        identity("BYTES", [2], struct.pack("<I", 3) + b"abc", "bytes-one-element-short"),
        identity("BYTES", [1], (struct.pack("<I", 3) + b"abc") * 2, "bytes-one-element-more"),
        identity("BYTES", [1], struct.pack("<I", 3) + b"abcd", "bytes-rest"),
        identity("BOOL", [1], b"\x02", "bool-two"),
        identity("FP16", [2], b"\x00\x3c", "fp16-short"),
        identity("INT64", [1], b"\x01\x00\x00\x00", "int64-short"),
        identity("UINT8", [3], b"\x01\x02", "uint8-short"),
    ]


def lengths() -> list[Case]:
    """The header that says where the JSON ends, wrong."""
    values = {
        "word": "abc",
        "empty": "",
        "negative": "-1",
        "signed": "+5",
        "float": "1.5",
        "hexadecimal": "0x10",
        "beyond-64-bit": "18446744073709551616",
        "beyond-body": str(len(GOOD) + 1),
        "far-beyond-body": "1000000000",
        "cuts-json": str(len(GOOD) - 5),
        "two-values": "10, 20",
    }
    return [Case(f"length-{name}", GOOD, headers={LENGTH: value}) for name, value in values.items()]


def encodings() -> list[Case]:
    """Bodies that are not what their content coding says, and codings that are not known."""
    known = [
        Case(f"encoding-{name}", GOOD, headers={"Content-Encoding": name}) for name in ("gzip", "deflate")
    ]
    unknown = [
        Case(
            f"encoding-{name}",
            GOOD,
            headers={"Content-Encoding": name},
            status=415,
            code="unsupported_media_type",
        )
        for name in ("br", "zstd", "gzip, gzip")
    ]
    return [*known, *unknown]


CASES = [*sizes(), *contents(), *lengths(), *encodings()]

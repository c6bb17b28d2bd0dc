"""The protobuf wire format by hand, and the messages of inference made of it: a test says exactly which bytes are sent.

No library that writes protobuf could write most of what the tests need. Not here: the transport (``h2_client``). The
messages are those of ``proto/inference.proto``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

#: Wire types: how the bytes of a field end.
VARINT, FIXED64, LENGTH, GROUP, GROUP_END, FIXED32 = range(6)

MASK = (1 << 64) - 1


# --- fields ---


def varint(value: int, length: int = 1) -> bytes:
    """A whole number in groups of seven bits; negative ones as 64 bits; in ``length`` bytes at least."""
    value &= MASK
    out = bytearray()
    while value >= 0x80 or len(out) + 1 < length:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def tag(number: int, kind: int) -> bytes:
    """What stands in front of a field."""
    return varint(number << 3 | kind)


def whole(number: int, value: int) -> bytes:
    """A field with a whole number or a boolean."""
    return tag(number, VARINT) + varint(value)


def blob(number: int, content: bytes | str) -> bytes:
    """A field of bytes with their length in front: text, a message, packed elements."""
    content = content.encode() if isinstance(content, str) else content
    return tag(number, LENGTH) + varint(len(content)) + content


def fixed64(number: int, value: float) -> bytes:
    """A field with a double."""
    return tag(number, FIXED64) + struct.pack("<d", value)


def fixed32(number: int, value: float) -> bytes:
    """A field with a float."""
    return tag(number, FIXED32) + struct.pack("<f", value)


def group(number: int) -> bytes:
    """An empty group, which proto3 does not have."""
    return tag(number, GROUP) + tag(number, GROUP_END)


def packed(number: int, values: Iterable[int]) -> bytes:
    """A list of whole numbers in one field."""
    return blob(number, b"".join(varint(value) for value in values))


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a well-formed message: number and value. Strict: what is cut off raises."""
    at = 0
    while at < len(message):
        key, at = _read_varint(message, at)
        kind, size = key & 7, {FIXED64: 8, FIXED32: 4}.get(key & 7)
        if kind == VARINT:
            value, at = _read_varint(message, at)
            yield key >> 3, value
            continue
        if kind == LENGTH:
            size, at = _read_varint(message, at)
        assert size is not None, f"wire type {kind}"
        assert at + size <= len(message), f"field {key >> 3} is cut off"
        yield key >> 3, message[at : at + size]
        at += size


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value, shift, at = value | (byte & 0x7F) << shift, shift + 7, at + 1
        if byte < 0x80:
            return value, at


def all_of(message: bytes, number: int) -> list[bytes]:
    """The values of a repeated field of bytes."""
    found = [value for known, value in fields(message) if known == number]
    return [value for value in found if isinstance(value, bytes)]


# --- the messages of inference ---


def bool_value(value: int) -> bytes:
    """An ``InferParameter`` with a boolean."""
    return whole(1, value)


def int_value(value: int) -> bytes:
    """An ``InferParameter`` with a whole number."""
    return whole(2, value)


def text_value(value: str) -> bytes:
    """An ``InferParameter`` with a string."""
    return blob(3, value)


def double_value(value: float) -> bytes:
    """An ``InferParameter`` with a double."""
    return fixed64(4, value)


def entry(name: str, value: bytes) -> bytes:
    """An entry of a map of parameters."""
    return blob(1, name) + blob(2, value)


def tensor(name: str, datatype: str, shape: Iterable[int], contents: bytes | None = None) -> bytes:
    """An input; ``contents`` is an ``InferTensorContents``, None for one that is sent raw."""
    head = blob(1, name) + blob(2, datatype) + packed(3, shape)
    return head if contents is None else head + blob(5, contents)


def request(
    inputs: Iterable[bytes] = (), raw: Iterable[bytes] = (), extra: bytes = b"", model: str = "pair"
) -> bytes:
    """A ``ModelInferRequest``; ``extra`` are fields that follow."""
    parts = [blob(1, model)]
    parts += [blob(5, tensor) for tensor in inputs]
    parts += [blob(7, content) for content in raw]
    return b"".join(parts) + extra


def frame(message: bytes, flag: int = 0, length: int | None = None) -> bytes:
    """A message with its prefix; ``length`` is what the prefix claims, if it is not the truth."""
    return struct.pack(">BI", flag, len(message) if length is None else length) + message


def unframe(body: bytes) -> list[bytes]:
    """The messages of a whole answer, none of them compressed."""
    messages, at = [], 0
    while at < len(body):
        flag, length = struct.unpack_from(">BI", body, at)
        assert flag == 0, "a compressed answer"
        at += 5 + length
        assert at <= len(body), "an answer that is cut off"
        messages.append(body[at - length : at])
    return messages

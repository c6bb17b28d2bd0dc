"""Reads the fields of a protobuf message in a file, and skips those that nobody wants: a tensor's bytes are never in memory.

Not here: what the fields of a model mean (``external``). Next: that.
Format: https://protobuf.dev/programming-guides/encoding/.

protobuf's own parser takes the whole file into memory and keeps every other thread from Python meanwhile: seconds for a large model.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MOST_VARINT_BYTES = 10
MAX_FIELDS = 20_000_000
"""Fields of a file that are looked at: a file of nothing but small fields would take hours."""


class Malformed(ValueError):
    """The bytes are no protobuf message, or not all of one."""


class Span(NamedTuple):
    """Where a field of bytes lies in the file: a text, or a message of its own."""

    start: int
    end: int


class MessageFile:
    """A file that holds a message."""

    def __init__(self, file: BinaryIO) -> None:
        """``file`` is moved about in."""
        self._file = file
        self._left = MAX_FIELDS

    def whole(self) -> Span:
        """The message that is the file."""
        return Span(0, os.fstat(self._file.fileno()).st_size)

    def fields(self, message: Span) -> Iterator[tuple[int, int | Span]]:
        """Number and value of each field of ``message``, in the order of the file: a number, or where the bytes lie.

        Numbers of fixed width are left out. :class:`Malformed` for what is no message.
        """
        place = message.start
        while place < message.end:
            self._left -= 1
            if self._left < 0:
                raise Malformed(f"there are more than {MAX_FIELDS} fields")
            number, value, place = self._field(place)
            if place > message.end or number == 0:
                raise Malformed(f"field {number} does not end within its message")
            if value is not None:
                yield number, value

    def _field(self, place: int) -> tuple[int, int | Span | None, int]:
        """Number, value and end of the field at ``place``."""
        self._file.seek(place)
        head = self._file.read(2 * _MOST_VARINT_BYTES)
        tag, used = _varint(head, 0)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, used = _varint(head, used)
            return number, value, place + used
        if kind == _BYTES:
            length, used = _varint(head, used)
            start = place + used
            return number, Span(start, start + length), start + length
        if kind in (_FIXED32, _FIXED64):
            return number, None, place + used + (4 if kind == _FIXED32 else 8)
        raise Malformed(f"field {number} at byte {place} has a type that does not exist")

    def read(self, span: Span, most: int) -> bytes:
        """The bytes of a span, cut after ``most``."""
        self._file.seek(span.start)
        return self._file.read(min(span.end - span.start, most))


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """A number of variable length, and where it ends."""
    value = 0
    for at, byte in enumerate(data[place : place + _MOST_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * at)
        if byte < 0x80:
            return value, place + at + 1
    raise Malformed("a number has no end")

"""HdrHistograms in their V2 encoding: what the generator hands out, what ``.hlog`` files hold, and what several load hosts add up.

Values are integers (ns here); histograms are added, quantiles never averaged. Format: HdrHistogram's ``encodeIntoCompressedByteBuffer``
(hdrhistogram.org). Not here: how the generator counts (the crate ``load``). Next: report/merge.py, report/hlog.py.
"""

from __future__ import annotations

import base64
import binascii
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from headgate.errors import InvalidArgument

_COOKIE, _COMPRESSED_COOKIE = 0x1C849303, 0x1C849304
_COOKIE_MASK = 0xFFFFFF0F  # the bits of the mask's third digit say how wide a word is, which V2 does not use
_WORD = 0x10
_HEADER = struct.Struct(">iiiiqqd")
_OUTER = struct.Struct(">ii")
_MOST_BYTES = 16 * 1024 * 1024
_MOST_PLACES = 1 << 20
_MOST_DIGITS = 5


@dataclass(frozen=True)
class Layout:
    """Which values a histogram tells apart: ``digits`` significant decimal digits from ``lowest`` to ``highest``."""

    lowest: int = 1
    highest: int = 3_600_000_000_000
    digits: int = 3

    def __post_init__(self) -> None:
        if not (self.lowest >= 1 and self.highest >= 2 * self.lowest and 0 <= self.digits <= _MOST_DIGITS):
            raise InvalidArgument(
                f"a histogram of {self.digits} digits from {self.lowest} to {self.highest} is none"
            )

    @cached_property
    def unit_magnitude(self) -> int:
        """The power of two of the lowest value that is told apart from 0."""
        return self.lowest.bit_length() - 1

    @cached_property
    def sub_bits(self) -> int:
        """The power of two of the counters in one bucket."""
        return max((2 * int(10**self.digits) - 1).bit_length(), 1)

    @property
    def places(self) -> int:
        """How many counters there are."""
        smallest_untrackable, buckets = 1 << (self.sub_bits + self.unit_magnitude), 1
        while smallest_untrackable <= self.highest:
            smallest_untrackable, buckets = smallest_untrackable << 1, buckets + 1
        return (buckets + 1) << (self.sub_bits - 1)

    def place(self, value: int) -> int:
        """The counter of a value."""
        half = self.sub_bits - 1
        bucket = max((value >> self.unit_magnitude).bit_length() - self.sub_bits, 0)
        sub = value >> (bucket + self.unit_magnitude)
        return ((bucket + 1) << half) + sub - (1 << half)

    def lowest_at(self, place: int) -> int:
        """The lowest value of a counter."""
        bucket, sub = self._split(place)
        return sub << (bucket + self.unit_magnitude)

    def highest_at(self, place: int) -> int:
        """The highest value of a counter, as it is reported."""
        bucket, _ = self._split(place)
        return self.lowest_at(place) + (1 << (bucket + self.unit_magnitude)) - 1

    def middle_at(self, place: int) -> int:
        """The value in the middle of a counter, for means."""
        bucket, _ = self._split(place)
        return self.lowest_at(place) + (1 << (bucket + self.unit_magnitude) >> 1)

    def _split(self, place: int) -> tuple[int, int]:
        half = self.sub_bits - 1
        bucket, sub = (place >> half) - 1, (place & ((1 << half) - 1)) + (1 << half)
        return (0, sub - (1 << half)) if bucket < 0 else (bucket, sub)


@dataclass(frozen=True)
class Histogram:
    """Counts by counter; what is not in ``counts`` is 0."""

    layout: Layout = Layout()
    counts: dict[int, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """How many values were counted."""
        return sum(self.counts.values())

    @property
    def mean(self) -> float | None:
        """The mean of the values, within the resolution; None without any."""
        total = self.total
        return sum(self.layout.middle_at(at) * n for at, n in self.counts.items()) / total if total else None

    def steps(self) -> Iterator[tuple[int, int]]:
        """The highest value of each counter that was hit, ascending, with its count."""
        return ((self.layout.highest_at(at), self.counts[at]) for at in sorted(self.counts))

    def quantile(self, share: float, slower: int = 0) -> int | None:
        """The value that ``share`` of all do not exceed; ``slower`` more count as above every value. None if it lies among those."""
        rank = max(1, -int(-share * (self.total + slower) // 1))
        seen = 0
        for value, count in self.steps():
            seen += count
            if seen >= rank:
                return value
        return None

    def merged(self, other: Histogram) -> Histogram:
        """Both together: counts are added. :class:`InvalidArgument` if they tell other values apart."""
        if other.layout != self.layout:
            raise InvalidArgument(
                f"histograms of {self.layout} and {other.layout} cannot be added: both need the same resolution and range"
            )
        counts = dict(self.counts)
        for at, count in other.counts.items():
            counts[at] = counts.get(at, 0) + count
        return Histogram(self.layout, counts)


def of_values(values: Iterator[int] | list[int], layout: Layout | None = None) -> Histogram:
    """A histogram of values; those above the range count as its highest."""
    layout = layout or Layout()
    counts: dict[int, int] = {}
    for value in values:
        at = layout.place(min(max(value, 0), layout.highest))
        counts[at] = counts.get(at, 0) + 1
    return Histogram(layout, counts)


def encode(histogram: Histogram) -> str:
    """The histogram in the compressed V2 encoding, in base64."""
    payload = bytearray()
    at = 0
    for place in sorted(place for place, count in histogram.counts.items() if count):
        if place > at:
            payload += _zigzag(-(place - at))
        payload += _zigzag(histogram.counts[place])
        at = place + 1
    layout = histogram.layout
    header = _HEADER.pack(_COOKIE | _WORD, len(payload), 0, layout.digits, layout.lowest, layout.highest, 1.0)
    packed = zlib.compress(header + bytes(payload))
    return base64.b64encode(_OUTER.pack(_COMPRESSED_COOKIE | _WORD, len(packed)) + packed).decode("ascii")


def decode(text: str) -> Histogram:
    """The histogram of :func:`encode`, of the generator or of another program; :class:`InvalidArgument` for what is none."""
    try:
        data = base64.b64decode(text, validate=True)
        cookie, length = _OUTER.unpack_from(data)
        if cookie & _COOKIE_MASK != _COMPRESSED_COOKIE & _COOKIE_MASK:
            raise InvalidArgument(
                "a histogram in HdrHistogram's compressed V2 encoding is expected, this is another encoding"
            )
        unpacker = zlib.decompressobj()
        plain = unpacker.decompress(data[_OUTER.size : _OUTER.size + length], _MOST_BYTES)
        if not unpacker.eof:
            raise InvalidArgument(f"a histogram is cut off, or larger than {_MOST_BYTES} bytes")
        cookie, size, shift, digits, lowest, highest, _ = _HEADER.unpack_from(plain)
    except (binascii.Error, struct.error, zlib.error, ValueError) as error:
        raise InvalidArgument(f"a histogram in base64 cannot be read: {error}") from None
    if cookie & _COOKIE_MASK != _COOKIE & _COOKIE_MASK or shift != 0:
        raise InvalidArgument(
            "a histogram in HdrHistogram's V2 encoding without shifts is expected, this is another encoding"
        )
    layout = Layout(lowest, highest, digits)
    if layout.places > _MOST_PLACES:
        raise InvalidArgument(
            f"a histogram has {layout.places} counters, and at most {_MOST_PLACES} are read"
        )
    return Histogram(layout, _counts(plain[_HEADER.size : _HEADER.size + size], layout.places))


def _counts(payload: bytes, places: int) -> dict[int, int]:
    counts: dict[int, int] = {}
    at = place = 0
    while at < len(payload):
        value, at = _read_zigzag(payload, at)
        if value < 0:
            place -= value
            continue
        if place >= places:
            raise InvalidArgument("a histogram has more counts than counters")
        if value:
            counts[place] = value
        place += 1
    return counts


def _zigzag(value: int) -> bytes:
    """ZigZag LEB128 of at most nine bytes, of which the ninth holds eight bits."""
    left = ((value << 1) ^ (value >> 63)) & 0xFFFFFFFFFFFFFFFF
    out = bytearray()
    while left > 0x7F and len(out) < 8:
        out.append(left & 0x7F | 0x80)
        left >>= 7
    out.append(left)
    return bytes(out)


def _read_zigzag(payload: bytes, at: int) -> tuple[int, int]:
    value = 0
    for byte in range(9):
        if at + byte >= len(payload):
            raise InvalidArgument("a histogram is cut off")
        part = payload[at + byte]
        value |= (part if byte == 8 else part & 0x7F) << (7 * byte)
        if byte == 8 or part < 0x80:
            return (value >> 1) ^ -(value & 1), at + byte + 1
    raise AssertionError("the ninth byte ends a number")

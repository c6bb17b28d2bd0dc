"""Histograms survive their encoding, add up to the whole, and tell values apart as the generator's do."""

import base64
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.bench import hdr
from headgate.errors import InvalidArgument

# By Python's package hdrhistogram 0.10.8, 1 to 3 600 000 000 000 with 3 digits: 1, 2047, 2048, 4096, 12 345 678 twice.
FOREIGN = "HISTFAAAAC14nJNpmSzMwMDAywABzFCaEch0M9ixgMH+A1SA6ac8E9NffqbD2xlZAKEUCAQ="

values = st.lists(st.integers(0, 3_600_000_000_000), max_size=60)


def test_the_highest_equivalent_of_three_digits():
    layout = hdr.Layout()

    assert layout.highest_at(layout.place(12_345_678)) == 12_353_535
    assert layout.places == 33_792


@given(st.integers(0, 3_600_000_000_000), st.integers(1, 5), st.sampled_from([1, 1000, 12345]))
def test_a_value_lies_in_its_counter(value, digits, lowest):
    layout = hdr.Layout(lowest, digits=digits)
    place = layout.place(value)

    assert layout.lowest_at(place) <= value <= layout.highest_at(place)
    assert 0 <= place < layout.places
    assert layout.lowest_at(place + 1) == layout.highest_at(place) + 1


@given(values)
def test_what_is_encoded_is_decoded(given):
    histogram = hdr.of_values(given)

    assert hdr.decode(hdr.encode(histogram)) == histogram
    assert histogram.total == len(given)


@given(values, values)
def test_parts_add_up_to_the_whole(one, other):
    assert hdr.of_values(one).merged(hdr.of_values(other)) == hdr.of_values(one + other)


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=60), st.floats(0.01, 0.999), st.integers(0, 5))
def test_a_quantile_is_the_value_of_its_rank(given, share, slower):
    found = hdr.of_values(given).quantile(share, slower)

    ordered = sorted(given)
    rank = max(1, -int(-share * (len(given) + slower) // 1))
    if rank > len(given):
        assert found is None
    else:
        layout = hdr.Layout()
        assert found == layout.highest_at(layout.place(ordered[rank - 1]))


def test_another_program_s_histogram_is_read():
    found = hdr.decode(FOREIGN)

    assert found == hdr.of_values([1, 2047, 2048, 4096, 12_345_678, 12_345_678])


def _packed(plain: bytes, cookie: int = 0x1C849314) -> str:
    packed = zlib.compress(plain)
    return base64.b64encode(struct.pack(">ii", cookie, len(packed)) + packed).decode()


def _header(
    cookie: int = 0x1C849313, size: int = 0, shift: int = 0, digits: int = 3, highest: int = 10**12
) -> bytes:
    return struct.pack(">iiiiqqd", cookie, size, shift, digits, 1, highest, 1.0)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("&", "base64"),
        ("", "base64"),
        (_packed(_header(), cookie=0x1C849301), "another encoding"),
        (_packed(_header(cookie=0x1C849301)), "another encoding"),
        (_packed(_header(shift=1)), "without shifts"),
        (_packed(b"short"), "cannot be read"),
        (_packed(_header(digits=9)), "9 digits"),
        (_packed(_header(digits=5, highest=2**62)), "counters"),
        (_packed(_header(size=1) + b"\x80"), "cut off"),
        (_packed(_header(size=5) + b"\x81\x80\x80\x20\x02"), "more counts than counters"),
        (base64.b64encode(base64.b64decode(_packed(_header() + bytes(1000)))[:-6]).decode(), "cut off"),
    ],
)
def test_what_is_no_histogram_is_refused(text, what):
    with pytest.raises(InvalidArgument, match=what):
        hdr.decode(text)


def test_histograms_of_other_resolutions_are_not_added():
    with pytest.raises(InvalidArgument, match="same resolution"):
        hdr.of_values([1]).merged(hdr.of_values([1], hdr.Layout(digits=2)))


def test_an_empty_histogram_has_no_mean_and_no_quantile():
    assert hdr.Histogram().mean is None
    assert hdr.Histogram().quantile(0.5) is None

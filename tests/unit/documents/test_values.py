"""The grammar of names, weights, durations, sizes and headers, at its edges."""

from __future__ import annotations

import pytest

from headgate.documents import values


@pytest.mark.parametrize("name", ["a", "_", "0", "fraud-score", "v1.2_3-x", "a" * 128])
def test_good_names(name: str) -> None:
    assert values.is_name(name)
    assert values.check_name("version", name) == name


@pytest.mark.parametrize("name", ["", ".", "-a", "a..b", "a/b", "ä", "a b", "a\n", "a" * 129])
def test_bad_names(name: str) -> None:
    assert not values.is_name(name)
    with pytest.raises(ValueError, match="version name"):
        values.check_name("version", name)


@pytest.mark.parametrize(
    ("text", "slots"),
    [
        ("0%", 0),
        ("0.01%", 1),
        ("2.5%", 250),
        ("2.50 %", 250),
        ("33.33%", 3333),
        ("100%", 10_000),
        ("007%", 700),
    ],
)
def test_weights_are_exact(text: str, slots: int) -> None:
    assert values.parse_weight(text) == slots


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("5", 'write "5%"'),
        ("0.05", 'write "0.05%"'),
        ("five", "percent sign"),
        ("0.005%", "steps of 0.01%"),
        ("100.01%", "more than 100%"),
        ("-1%", "0% to 100%"),
        ("1e1%", "0% to 100%"),
        ("5%%", "0% to 100%"),
        ("٥%", "0% to 100%"),
        ("", "percent sign"),
    ],
)
def test_bad_weights_say_what_is_right(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        values.parse_weight(text)


def test_every_weight_survives_a_round_trip() -> None:
    assert [values.parse_weight(values.format_weight(slots)) for slots in range(10_001)] == list(
        range(10_001)
    )
    assert values.format_weight(250) == "2.5%"
    assert values.format_weight(10_000) == "100%"
    assert values.format_weight(1) == "0.01%"
    for outside in (-1, 10_001):
        with pytest.raises(ValueError, match="slots"):
            values.format_weight(outside)


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("200ms", 200),
        ("30s", 30_000),
        ("1.5s", 1500),
        ("5m", 300_000),
        ("24h", 86_400_000),
        ("7d", 604_800_000),
    ],
)
def test_durations(text: str, milliseconds: int) -> None:
    assert values.parse_duration(text) == milliseconds
    assert values.parse_duration(values.format_duration(milliseconds)) == milliseconds


@pytest.mark.parametrize("text", ["30", "1h30m", "-1s", "1 s", "1us", "s", "", "1.0001s", "1S"])
def test_bad_durations(text: str) -> None:
    with pytest.raises(ValueError, match="duration|finer"):
        values.parse_duration(text)


@pytest.mark.parametrize(("text", "size"), [("1B", 1), ("64MiB", 2**26), ("2GiB", 2**31), ("1.5kB", 1500)])
def test_sizes(text: str, size: int) -> None:
    assert values.parse_size(text) == size


@pytest.mark.parametrize("text", ["64", "64M", "1.5B", "-1B", "1 GiB"])
def test_bad_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="size|finer"):
        values.parse_size(text)


def test_headers_are_named_in_lower_case() -> None:
    assert values.parse_header("header.X-User-Id") == "header.x-user-id"
    for bad in ("x-user-id", "header.", "header", "cookie.a", "header.a b", "header.ä", "header.a:b"):
        with pytest.raises(ValueError, match="names no header|header name"):
            values.parse_header(bad)


def test_natural_order_reads_digits_as_numbers() -> None:
    assert sorted(["v10", "v9", "v9.1", "10", "9", "v"], key=values.natural_key) == [
        "9", "10", "v", "v9", "v9.1", "v10",
    ]  # fmt: skip


def test_secrets_are_refused_where_none_is_taken() -> None:
    assert values.refuse_secret("$5") == "$5"
    with pytest.raises(ValueError, match="takes none"):
        values.refuse_secret("${env:TOKEN}")
    with pytest.raises(ValueError, match="env:NAME"):
        values.refuse_secret("x${file:/etc/passwd}")

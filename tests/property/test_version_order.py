"""The order of version names, and the champion that follows from it, for names of every kind."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from headgate.registry.versions import choose, link_to, number_of, order, why_no_traffic

parts = st.lists(st.integers(0, 10**12), min_size=1, max_size=4).map(tuple)
prefixes = st.sampled_from(["", "v", "V"])
# What begins with a number, as v1_ does, belongs right below that number.
words = st.from_regex(r"(?!v[0-9])[a-z][a-z0-9_.-]{0,8}", fullmatch=True)
suffixes = st.from_regex(r"[-_.]?[a-z][a-z0-9.-]{0,6}", fullmatch=True)
tails = suffixes.filter(lambda text: not text[0].isdigit())


@st.composite
def numbers(draw: st.DrawFn) -> tuple[str, tuple[int, ...]]:
    """A name that is a number, as somebody would write it, and its parts."""
    value = draw(parts)
    zeros = draw(st.integers(0, 3))
    return draw(prefixes) + ".".join("0" * zeros + str(part) for part in value), value


def padded(value: tuple[int, ...]) -> tuple[int, ...]:
    return value + (0,) * (4 - len(value))


@given(numbers(), numbers())
def test_numbers_are_ordered_by_value(
    one: tuple[str, tuple[int, ...]], two: tuple[str, tuple[int, ...]]
) -> None:
    if padded(one[1]) == padded(two[1]):
        assert number_of(one[0]) == number_of(two[0])
    else:
        assert (order(one[0]) < order(two[0])) == (padded(one[1]) < padded(two[1]))


@given(numbers(), words)
def test_every_number_is_above_every_word(number: tuple[str, tuple[int, ...]], word: str) -> None:
    assert order(word) < order(number[0])
    assert choose(folders(number[0], word)).champion == number[0]


@given(numbers(), tails, numbers())
def test_what_only_begins_with_a_number_is_right_below_it(
    number: tuple[str, tuple[int, ...]], tail: str, other: tuple[str, tuple[int, ...]]
) -> None:
    name = number[0] + tail
    assert number_of(name) is None
    assert order(name) < order(number[0])
    if padded(other[1]) < padded(number[1]):
        assert order(other[0]) < order(name)
    assert choose(folders(name, other[0])).champion == other[0]


@given(st.lists(st.one_of(numbers().map(lambda pair: pair[0]), words), min_size=2, unique=True))
def test_no_two_names_are_equal_and_the_choice_does_not_depend_on_the_order(names: list[str]) -> None:
    assert len({order(name) for name in names}) == len(names)
    chosen = choose(folders(*names))
    assert chosen == choose(folders(*reversed(names)))
    numbered = [name for name in names if number_of(name) is not None]
    assert chosen.champion == (max(numbered, key=order) if numbered else None)
    assert bool(chosen.why_none) == (chosen.champion is None)


@given(numbers(), st.one_of(words, numbers().map(lambda pair: pair[0])))
def test_a_link_to_another_version_is_never_champion(number: tuple[str, tuple[int, ...]], link: str) -> None:
    if link == number[0]:
        return
    place = Path("/models/e") / number[0]
    both = {link: place, number[0]: place}
    assert link_to(link, both) == number[0]
    assert choose(both).champion == number[0]
    assert why_no_traffic(link, both) == f"is a link to {number[0]}"


@given(
    st.one_of(
        words, numbers().map(lambda pair: pair[0]), st.tuples(numbers(), tails).map(lambda t: t[0][0] + t[1])
    )
)
def test_a_folder_that_is_alone_is_champion_whatever_its_name(name: str) -> None:
    assert choose(folders(name)).champion == name


def folders(*names: str) -> dict[str, Path]:
    return {name: Path("/models/e") / name for name in names}


def test_the_names_that_people_give() -> None:
    ascending = ["Untitled", "backup", "latest", "old", "1", "v2", "9", "10", "1.10.0-rc1"]
    assert choose(folders(*ascending)).champion == "10"
    releases = ["1.9.9", "1.10.0-rc1", "1.10.0-rc2", "1.10.0-rc10", "1.10.0", "v1.10.1"]
    assert sorted(releases, key=order) == releases
    assert choose(folders("1.10.0-rc1", "1.9.9")).champion == "1.9.9"
    assert choose(folders("2-backup", "2.bak", "2_old", "1")).champion == "1"
    assert choose(folders("old", "new")) == choose(folders("new", "old"))
    assert "none of new, old is a number" in choose(folders("old", "new")).why_none
    assert (
        choose({"latest": Path("/models/e/build-a"), "build-a": Path("/models/e/build-a")}).champion
        == "build-a"
    )
    hidden = Path("/models/.store/abc")
    assert choose({"latest": hidden, "3": hidden}).champion == "3"
    assert why_no_traffic("6", folders("6", "7")) is None
    assert why_no_traffic("old", folders("old", "7")) == "is no number"
    assert why_no_traffic("7-rc1", folders("7-rc1", "7")) == "is not a number alone, but begins with one"

from __future__ import annotations

import json

import pytest

from headgate.cli import text
from headgate.cli.output import Table, to_json, to_yaml
from unit.cli.fake_admin import FakeAdmin, call, ok, problem

HOSTILE = "red\x1b[31m bell\x07 csi\x9b2J back\x08 line\nbreak\r tab\t rtl\u202e del\x7f sep\u2028"
UNSAFE = [letter for letter in HOSTILE if not letter.isprintable()]
SUMMARY = {
    "name": HOSTILE, "revision": 1, "state": HOSTILE, "champion": HOSTILE, "weights": {HOSTILE: HOSTILE}, "frozen": False,
    "blocked": 0, "since": HOSTILE, "notes": [HOSTILE], "alarms": [HOSTILE],
}  # fmt: skip


def test_nothing_that_steers_a_terminal_is_left_in_a_line() -> None:
    shown = text.escape(HOSTILE)
    assert shown.isprintable()
    assert shown.startswith(r"red\x1b[31m bell\x07 csi\x9b2J")
    assert r"line\x0abreak" in shown
    assert r"\u202e" in shown
    assert text.escape("plain, größer, 数字, v1→v2") == "plain, größer, 数字, v1→v2"
    assert text.escape_lines("-a\n+b\t\x1b[0m\r") == "-a\n+b\t\\x1b[0m\\x0d"


def test_an_answer_is_escaped_everywhere_and_texts_of_lines_keep_them() -> None:
    data = {"a\x1b": ["\x1b", {"b": "\n"}], "diff": "-a\n+\x1b", "n": 1, "none": None}
    assert text.printable(data) == {
        "a\\x1b": ["\\x1b", {"b": "\\x0a"}],
        "diff": "-a\n+\\x1b",
        "n": 1,
        "none": None,
    }


@pytest.mark.parametrize("form", ["table", "json", "yaml", "name"])
def test_no_form_of_output_lets_a_name_steer_the_terminal(form: str) -> None:
    result = call(FakeAdmin({"GET /v1/endpoints": ok({"endpoints": [SUMMARY]})}), "get", "-o", form)
    assert result.exit_code == 0, result.output
    assert all(line.isprintable() for line in result.stdout.split("\n"))
    if form in ("table", "name"):
        assert len(result.stdout.splitlines()) == (2 if form == "table" else 1)


def test_a_message_of_the_gateway_cannot_steer_the_terminal() -> None:
    answer = problem(409, "conflict", HOSTILE, faults=[{"path": HOSTILE, "message": HOSTILE}])
    result = call(FakeAdmin({"POST /v1/endpoints/digits:rollback": answer}), "rollback", "digits")
    assert result.exit_code == 5
    assert all(line.isprintable() or set(line) & set("\t") for line in result.stderr.split("\n"))
    assert "\x1b" not in result.stderr


def test_json_and_yaml_keep_the_value() -> None:
    from ruamel.yaml import YAML

    assert json.loads(to_json({"a": HOSTILE})) == {"a": HOSTILE}
    assert YAML(typ="safe", pure=True).load(to_yaml({"b": HOSTILE, "a": "größer"})) == {
        "b": HOSTILE,
        "a": "größer",
    }
    assert to_yaml({"b": 1, "a": "größer"}) == "b: 1\na: größer\n"


@pytest.mark.parametrize(
    ("microseconds", "shown"),
    [
        (0, "0 us"), (0.01, "<0.1 us"), (1.94, "1.9 us"), (340.2, "340 us"), (1_234, "1.2 ms"), (12_340, "12 ms"),
        (201_000, "0.2 s"), (5_000_000, "5 s"), (90_000_000, "90 s"), (210_000_000, "3.5 min"),
    ],
)  # fmt: skip
def test_times_have_units_that_a_person_reads(microseconds: float, shown: str) -> None:
    assert text.duration(microseconds) == shown


def test_two_times_share_their_unit_if_they_can() -> None:
    assert text.durations(1.9, 3.1) == "1.9/3.1 us"
    assert text.durations(900, 1_200) == "900 us/1.2 ms"


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "0 B"), (900, "900 B"), (3 << 19, "1.5 MiB"), (5 << 40, "5 TiB")]
)
def test_sizes_have_units(count: int, shown: str) -> None:
    assert text.size(count) == shown


def test_columns_are_as_wide_as_what_is_seen() -> None:
    made = Table("A", "B")
    made.row("数字", 1)
    made.row("e\u0301", None)
    _, wide, accent = made.lines()
    assert wide == "数字  1"
    assert accent == "e\u0301     -"

"""A record is one line, whatever is in it, and a line that nobody takes is counted."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.gateway import logs
from headgate.gateway.streams import Output


def record(message: str, *arguments: Any, **extra: Any) -> logging.LogRecord:
    error = extra.pop("error", None)
    info = (type(error), error, error.__traceback__) if error else None
    return logging.getLogger("headgate.a").makeRecord(
        "headgate.a", logging.WARNING, "a.py", 1, message, arguments, info, extra=extra
    )


@given(st.text(), st.dictionaries(st.text(min_size=1), st.text(), max_size=3))
def test_a_record_is_one_line_that_obeys_to_nothing(message: str, extra: dict[str, str]) -> None:
    fields = {f"x_{key}": value for key, value in extra.items()}
    for formatter in (logs.JsonFormatter(), logs.TextFormatter()):
        line = formatter.format(record("%s", message, **fields))
        assert len(line.splitlines()) == 1
        assert not any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in line)
    told = json.loads(logs.JsonFormatter().format(record("%s", message, **fields)))
    assert told["message"] == message
    assert {key: told[key] for key in fields} == fields


def test_json_has_time_level_logger_message_fields_and_the_exception() -> None:
    try:
        raise ValueError("a\nb")
    except ValueError as error:
        told = json.loads(
            logs.JsonFormatter().format(record("no %s", "luck", endpoint="e", level="x", error=error))
        )
    assert told["time"].endswith("Z")
    assert (told["level"], told["logger"], told["message"]) == ("warning", "headgate.a", "no luck")
    assert told["endpoint"] == "e"
    assert told["exception"].endswith("ValueError: a\nb")


def test_text_is_for_reading() -> None:
    line = logs.TextFormatter().format(record("two\nlines \x1b[2J", endpoint="e"))
    assert line.split(" ", 1)[1] == 'warning a: two | lines \\x1b[2J endpoint="e"'


def test_a_record_whose_arguments_do_not_fit_is_told_all_the_same(
    capfd: pytest.CaptureFixture[str],
) -> None:
    logs.StreamHandler(Output(2), logs.JsonFormatter()).handle(record("%s and %s", "one"))
    assert "one" in json.loads(capfd.readouterr().err)["message"]


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    os.close(writer)
    os.close(reader)


def test_lines_that_found_no_room_are_counted_and_told_once_there_is_some() -> None:
    with pipe() as (reader, writer):
        handler = logs.StreamHandler(Output(writer), logs.JsonFormatter())
        for number in range(100):
            handler.handle(record("%s", f"{number} " + "x" * 4000))
        taken = os.read(reader, 1 << 20).decode()
        handler.handle(record("after"))
        told = [json.loads(line) for line in (taken + os.read(reader, 1 << 20).decode()).splitlines()]
    *early, after, note = told
    assert after["message"] == "after"
    assert note["lost"] == 100 - len(early) > 0
    assert note["level"] == "warning"


def test_a_line_that_is_cut_spoils_no_other() -> None:
    with pipe() as (reader, writer):
        output = Output(writer)
        assert not output.write("x" * (1 << 20))
        os.read(reader, 1 << 20)
        assert output.write("whole")
        assert os.read(reader, 1 << 20) == b"\nwhole\n"
        assert output.lost == 1


def test_a_descriptor_that_is_closed_or_has_no_reader_loses_lines_and_nothing_else() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    assert not Output(writer).write("a")
    os.close(writer)
    assert not Output(writer).write("a")


@pytest.fixture
def untouched() -> Iterator[None]:
    """What ``configure`` changes for the whole process is changed back."""
    root, ours = logging.getLogger(), logging.getLogger("headgate")
    before = list(root.handlers), root.level, ours.level, sys.unraisablehook, logs.threading.excepthook
    yield
    logging.captureWarnings(False)
    root.handlers[:], _, _, sys.unraisablehook, logs.threading.excepthook = before
    root.setLevel(before[1])
    ours.setLevel(before[2])


@pytest.mark.parametrize(
    ("level", "told"), [("debug", "diwe"), ("info", "iwe"), ("warning", "we"), ("error", "e")]
)
def test_the_level_is_the_least_that_is_told_of_us_and_others_tell_warnings(
    untouched: None, capfd: pytest.CaptureFixture[str], level: str, told: str
) -> None:
    assert not logs.configure("auto", level)
    for name, number in logs.LEVELS.items():
        logging.getLogger("headgate.x").log(number, name[0])
        logging.getLogger("another").log(number, f"{name[0]} of another")
    lines = [json.loads(line)["message"] for line in capfd.readouterr().err.splitlines()]
    assert "".join(line for line in lines if len(line) == 1) == told
    assert [line for line in lines if len(line) > 1] == ["w of another", "e of another"]


def test_warnings_and_what_ends_a_thread_are_records(
    untouched: None, capfd: pytest.CaptureFixture[str]
) -> None:
    logs.configure("json", "info")

    def fail() -> None:
        raise ValueError("unlucky")

    thread = logs.threading.Thread(target=fail, name="t")
    thread.start()
    thread.join()
    (line,) = capfd.readouterr().err.splitlines()
    assert "thread t ended" in json.loads(line)["message"]
    assert "unlucky" in json.loads(line)["exception"]

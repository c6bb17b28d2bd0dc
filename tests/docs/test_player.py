"""What plays the guides: it sees a command that fails, another output, a gateway that does not start, and leaves nothing behind."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from support.guide_player import Step, play
from support.models import ROOT
from support.pages import Block, Command, commands
from support.tools import need_network_namespace


def played(folder: Path, *steps: Step) -> str:
    need_network_namespace()
    return play(folder, steps, {**os.environ, "PYTHONPATH": f"{ROOT / 'python'}:{ROOT / 'tests'}"})


def run(text: str, *output: str) -> Step:
    return Step(Command("page.md:1", text, [*output]))


@pytest.mark.parametrize(
    ("shown", "got", "same"),
    [
        ([], "anything", True), (["a"], "a\n", True), (["a"], "a b", False), (["a...c"], "abc", True), (["a …"], "a b\nc", True),
        (["a", "...", "d"], "a\nb\nc\nd", True), (["a", "", "b"], "a\n\nb  \n", True), (["a.c"], "abc", False), (["b"], "a\nb", False),
    ],
)  # fmt: skip
def test_output_is_compared_as_it_is_shown(shown: list[str], got: str, same: bool) -> None:
    assert Command("page.md:1", "x", shown).is_answered_by(got) is same


def test_a_block_is_commands_and_what_they_print() -> None:
    text = "$ one\n> more\nout\n\n$ two\n"
    found = commands(Block("page.md", 10, "console", None, text))
    assert found == [Command("page.md:11", "one\nmore", ["out", ""]), Command("page.md:15", "two")]
    with pytest.raises(AssertionError, match=r"page\.md:11: .*begins with a command"):
        commands(Block("page.md", 10, "console", None, "out\n"))


def test_a_command_sees_files_that_were_written_and_a_network_of_its_own(tmp_path: Path) -> None:
    # Whoever listens on that port in the machine's own network.
    bound = "import socket; print(socket.create_server(('127.0.0.1', 8000)).getsockname()[1])"
    steps = [run("cat a/b", "hello"), run(f'{sys.executable} -c "{bound}"', "8000")]
    assert played(tmp_path, Step(file="a/b", text="hello"), *steps) == ""


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (run("false"), "exit code 1"),
        (run("echo b", "a"), "the page shows:\na\nit is:\nb\n"),
        (Step(Command("page.md:1", "sh -c 'echo no >&2; exit 3'"), stays=True), "not ready:\nno\n"),
        (
            Step(
                Command("page.md:1", "sh -c 'trap \"exit 9\" INT; echo Ctrl-C; sleep 60 & wait'"), stays=True
            ),
            "exit code 9",
        ),
    ],
)
def test_what_goes_wrong_is_told(tmp_path: Path, step: Step, told: str) -> None:
    found = played(tmp_path, step)
    assert found.startswith("page.md:1: ")
    assert told in found


def test_what_serves_is_ended_before_the_next_and_at_the_end(tmp_path: Path) -> None:
    serving = "sh -c 'trap \"rm here; exit 0\" INT; touch here; echo Ctrl-C; while :; do sleep 0.05; done'"
    serve = Step(Command("page.md:1", serving), stays=True)
    assert played(tmp_path, serve, run("test -e here"), serve, run("test -e here")) == ""
    assert not (tmp_path / "here").exists()

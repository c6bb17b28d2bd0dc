"""Names that the pages mention in code: commands and their options, settings, metrics, fields of documents, files of ours.

A name that is not there any more is what a page that nobody executes goes wrong with.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from markdown_it import MarkdownIt

from headgate.cli import main
from headgate.gateway.settings_table import SETTINGS
from support.models import ROOT
from support.pages import PAGES, name_of

OTHERS_FILES = {"onnx.proto"}
OTHERS_OPTIONS = {"--ulimit"}
#: Variables that are no settings.
VARIABLES = {"HEADGATE_TOKEN", "HEADGATE_CONTEXT", "HEADGATE_CONFIG", "HEADGATE_NO_SKIP"}
METRIC = re.compile(r"headgate_[a-z0-9_]+")
FIELD = re.compile(r"[a-z_]+(?:\.[a-z_*]+)+")


def codes(page: Path) -> Iterator[tuple[str, str]]:
    """Where each piece of inline code is, and the piece."""
    for token in MarkdownIt("commonmark").enable("table").parse(page.read_text()):
        for child in token.children or ():
            if child.type == "code_inline":
                yield f"{name_of(page)}:{(token.map or [0])[0] + 1}", child.content


ALL = [code for page in PAGES if page.name != "cli.md" for code in codes(page)]


def leaf(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that words lead to, and the words that are left."""
    command: click.Command = main
    context = click.Context(command)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(context, words[0])
        assert found is not None, f"{words[0]} is no command of {command.name}"
        command, words = found, words[1:]
    return command, words


def options(command: click.Command) -> set[str]:
    return {"--help", "-h"} | {
        word for one in command.params for word in (*one.opts, *one.secondary_opts) if word.startswith("-")
    }


def every_option(command: click.Command) -> set[str]:
    found = options(command)
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            found |= every_option(inner)
    return found


def test_commands_and_their_options() -> None:
    wrong = []
    for where, code in ALL:
        if not code.startswith("headgate ") or "COMMAND" in code:
            continue
        try:
            command, rest = leaf(shlex.split(code.partition("|")[0])[1:])
            unknown = [
                w
                for w in rest
                if w.startswith("-") and w.partition("=")[0] not in options(command) and w != "-"
            ]
            if unknown:
                wrong.append(f"{where}: `{code}`: {command.name} has no {', '.join(unknown)}")
        except (AssertionError, ValueError) as error:
            wrong.append(f"{where}: `{code}`: {error}")
    assert wrong == []


def test_options_that_stand_alone() -> None:
    known = every_option(main) | OTHERS_OPTIONS
    named = [
        (where, word)
        for where, code in ALL
        if code.startswith("--")
        for word in code.split()
        if word.startswith("--")
    ]
    assert [f"{where}: {word}" for where, word in named if word.partition("=")[0] not in known] == []


def test_variables() -> None:
    known = {setting.variable for setting in SETTINGS} | VARIABLES
    named = [(where, name) for where, code in ALL for name in re.findall(r"HEADGATE_[A-Z_]*[A-Z]", code)]
    assert [f"{where}: {name}" for where, name in named if name not in known] == []


def test_metrics() -> None:
    page = (ROOT / "docs" / "reference" / "metrics.md").read_text()
    known = set(re.findall(r"^\| `(headgate_\w+)`", page, re.MULTILINE))
    named = [
        (where, name)
        for where, code in ALL
        for name in METRIC.findall(code)
        if code.startswith("headgate_") and "::" not in code
    ]
    # A family may be named by its beginning: `headgate_loop_*`.
    missing = [
        f"{where}: {name}"
        for where, name in named
        if name not in known and not (name.endswith("_") and any(k.startswith(name) for k in known))
    ]
    assert missing == []


def test_fields_of_documents() -> None:
    page = (ROOT / "docs" / "reference" / "document.md").read_text()
    known = set(re.findall(r"^\| `([^`]+)`", page, re.MULTILINE))
    tops = {field.partition(".")[0] for field in known if "." in field}
    named = [(where, code) for where, code in ALL if FIELD.fullmatch(code) and code.partition(".")[0] in tops]
    assert [f"{where}: {name}" for where, name in named if name not in known] == []


@pytest.mark.parametrize("ending", [".py", ".rs", ".md", ".proto"])
def test_files(ending: str) -> None:
    """By the end of their path; a crate's files without ``src``."""
    listed = [
        path.relative_to(ROOT).as_posix()
        for folder in ("python", "rust", "tests", "tools", "docs", "proto", "benches", "examples")
        for path in (ROOT / folder).rglob(f"*{ending}")
    ]
    listed += [path.name for path in ROOT.glob(f"*{ending}")]
    known = {f"/{path}" for path in listed} | {f"/{path.replace('/src/', '/')}" for path in listed}
    named = [(where, code) for where, code in ALL if re.fullmatch(rf"[\w./-]+{re.escape(ending)}", code)]
    named = [(where, name) for where, name in named if name not in OTHERS_FILES]
    assert [
        f"{where}: {name}" for where, name in named if not any(path.endswith(f"/{name}") for path in known)
    ] == []

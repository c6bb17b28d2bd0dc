"""Every ``console`` block of README and the guides, executed as it is written, each page in a folder and a network of its own."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.guide_player import Step, play
from support.models import ROOT
from support.pages import PAGES, Block, Command, blocks, commands, name_of
from support.tools import need_digits, need_native, need_network_namespace, need_program


@dataclass(frozen=True)
class NotAsWritten:
    """A command that is not executed, and why; ``instead`` is what its beginning is replaced by."""

    page: str
    begins: str
    reason: str
    instead: str | None = None


NOT_AS_WRITTEN = [
    NotAsWritten(
        "README.md",
        "make serve",
        "it builds the extension; what it then runs is this",
        "python examples/digits/serve.py",
    ),
    NotAsWritten("README.md", "make test", "it runs this test"),
    NotAsWritten("docs/guides/first-hour.md", "python3 -m venv", "tests/e2e/test_wheel.py installs a wheel"),
    NotAsWritten("docs/guides/first-hour.md", "pip install", "it builds for minutes: see test_wheel.py"),
    NotAsWritten("docs/guides/first-hour.md", "python examples/digits/prepare.py", "`make` has trained them"),
    NotAsWritten(
        "docs/guides/first-hour.md",
        "sleep 5",
        "a busy machine takes longer",
        "until headgate get digits --state state -o json | grep -q '\"2\"'; do sleep 0.5; done",
    ),
    NotAsWritten("docs/guides/command-line.md", "ssh", "there is no other machine"),
    NotAsWritten("docs/guides/command-line.md", "sudo", "there is no other user"),
    NotAsWritten(
        "docs/guides/command-line.md", "headgate whoami", "the gateway of the example does not exist"
    ),
    NotAsWritten(
        "docs/guides/capacity.md",
        "make serve",
        "it builds the extension; what it then runs is this",
        "python examples/digits/serve.py",
    ),
    NotAsWritten(
        "docs/guides/capacity.md",
        "headgate bench find digits --slo p99=5ms",
        "it takes minutes, and a busy machine decides nothing",
        'f() { headgate bench find "$@" || test $? = 3; }; f digits --slo p90=2s --start 500/s --highest 500/s --budget 30s',
    ),
    NotAsWritten(
        "docs/guides/capacity.md",
        "headgate bench run",
        "a busy machine is late",
        'f() { headgate bench run "$@" || test $? = 3; }; f',
    ),
    NotAsWritten(
        "docs/guides/capacity.md",
        "headgate bench compare",
        "it takes minutes: see tests/e2e/test_bench_plan.py",
    ),
    NotAsWritten(
        "docs/guides/capacity.md",
        "headgate bench plan found",
        "of a search that decided nothing there is no plan",
        'f() { headgate bench plan "$@" || test $? = 3; }; f found',
    ),
    NotAsWritten("docs/guides/deployment.md", "python3 -m venv", "it writes to the machine's folders"),
    NotAsWritten("docs/guides/deployment.md", "install", "it writes to the machine's folders"),
    NotAsWritten("docs/guides/deployment.md", "systemctl", "there is no systemd here"),
    NotAsWritten("docs/guides/deployment.md", "/opt/headgate/bin/headgate", "nothing is installed there"),
    NotAsWritten("docs/guides/deployment.md", "sudo", "nothing is installed there"),
    NotAsWritten(
        "docs/guides/deployment.md", "make wheel", "it builds for minutes: see tests/e2e/test_wheel.py"
    ),
    NotAsWritten("docs/guides/deployment.md", "docker", "an image is built from registries"),
    NotAsWritten(
        "docs/guides/deployment.md",
        'nginx -p "$PWD" -c gate.conf',
        "in a namespace there is root alone, and nginx would become another user",
        "nginx -p \"$PWD\" -c gate.conf -g 'user root;'",
    ),
    NotAsWritten("docs/guides/monitoring.md", "systemctl", "there is no systemd here"),
    NotAsWritten("docs/guides/upgrading.md", "python3 -m venv", "there is no newer version"),
    NotAsWritten("docs/guides/upgrading.md", "systemctl", "there is no systemd here"),
]
SERVES = ("headgate serve", "make serve")
SHELLS = {"", "sh", "bash", "shell", "text"}
PROGRAMS = (
    "headgate ",
    "curl ",
    "make ",
    "pip ",
    "python",
    "docker",
    "systemctl",
    "ssh",
    "sudo",
    "eval ",
    "nginx ",
    "promtool ",
)
NEEDED = {"nginx ": "nginx-light", "promtool ": "prometheus"}
"""Programs that a page needs, with their Debian packages."""
GUIDES = [page for page in PAGES if any(block.language == "console" for block in blocks(page))]
QUIET = {"docs/guides/canary.md"}
"""Pages with a rollout: beside other tests the champion gets slower under way, and the rollout pauses for it, as it should."""


def exception_of(command: Command) -> NotAsWritten | None:
    page = command.where.partition(":")[0]
    known = (one for one in NOT_AS_WRITTEN if one.page == page)
    return next(
        (one for one in known if command.text == one.begins or command.text.startswith(one.begins + " ")),
        None,
    )


def steps_of(block: Block) -> list[Step]:
    if block.language != "console":
        return [] if block.file is None else [Step(file=block.file, text=block.text)]
    found = []
    for command in commands(block):
        known, stays = exception_of(command), command.text.startswith(SERVES)
        if known is None:
            found.append(Step(command, stays))
        elif known.instead is not None:
            text = command.text.replace(known.begins, known.instead, 1)
            found.append(Step(Command(command.where, text, command.output), stays))
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a clone has that is executed here, as far as a guide needs it."""
    need_native()
    made = tmp_path / "clone"
    shutil.copytree(need_digits(), made / "examples" / "digits", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "packaging", made / "packaging")
    programs = made / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, words in (("headgate", "-m headgate"), ("python", "")):
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
        (programs / name).chmod(0o755)
    return made


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.quiet] if name_of(page) in QUIET else [], id=name_of(page))
        for page in GUIDES
    ],
)
def test_the_commands_of_a_page_do_what_it_says(page: Path, folder: Path) -> None:
    need_network_namespace()
    steps = [step for block in blocks(page) for step in steps_of(block)]
    for begins, package in NEEDED.items():
        if any(step.command is not None and step.command.text.startswith(begins) for step in steps):
            need_program(begins.strip(), package)
    environment = {
        **os.environ,
        "HOME": str(folder),
        "PATH": f"{folder / '.venv' / 'bin'}:{os.environ['PATH']}:/usr/sbin",
        "PYTHONPATH": f"{ROOT / 'python'}:{ROOT / 'tests'}",
    }
    assert play(folder, steps, environment) == ""


def test_every_exception_is_needed() -> None:
    every = [
        command
        for page in GUIDES
        for block in blocks(page)
        if block.language == "console"
        for command in commands(block)
    ]
    used = {exception_of(command) for command in every}
    assert [one for one in NOT_AS_WRITTEN if one not in used] == []


def test_commands_of_readme_and_guides_stand_in_console_blocks() -> None:
    pages = [page for page in PAGES if name_of(page).startswith(("README", "docs/guides"))]
    hidden = [
        f"{block.page}:{block.line}"
        for page in pages
        for block in blocks(page)
        if block.language in SHELLS and any(line.startswith(PROGRAMS) for line in block.text.splitlines())
    ]
    assert hidden == []

"""Options before or after the command, and what a mistyped name is told."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from headgate.__main__ import _serves
from headgate.cli import COMMANDS, main
from unit.cli.fake_admin import RESULT, TRAFFIC, FakeAdmin, around, call, ok, problem

LIST = {"GET /v1/endpoints": ok({"endpoints": []})}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--state", "STATE", "get", "--json"],
        ["--json", "get", "--state", "STATE"],
        ["--json", "--state=STATE", "get"],
        ["-ojson", "--state", "STATE", "get"],
        ["-o", "json", "get", "--state", "STATE"],
        ["get", "-o", "json", "--state", "STATE"],
    ],
)
def test_options_stand_before_or_after_the_command(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "admin-token").write_text("headgate_a_b")
    given = [word.replace("STATE", str(tmp_path)) for word in arguments]
    result = CliRunner().invoke(main, given, obj=around(FakeAdmin(LIST)))
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {"endpoints": []}


@pytest.mark.parametrize(
    ("line", "serves"),
    [
        ("serve", True), ("serve a.yaml", True), ("--state S serve", True), ("--supervise serve", True),
        ("--state=S --http A serve a.yaml", True), ("get serve", False), ("", False), ("--help", False),
        ("traffic serve v2=5%", False), ("validate serve", False),
    ],
)  # fmt: skip
def test_a_serve_behind_options_takes_its_signals_at_once(line: str, serves: bool) -> None:
    assert _serves(line.split()) is serves


def test_options_of_one_command_stand_before_it_as_well() -> None:
    fake = FakeAdmin({"POST /v1/endpoints/get:rollback": ok(RESULT)})
    # The value of --reason is the name of a command, and so is the endpoint's.
    assert call(fake, "--reason", "get", "--dry-run", "rollback", "get", "--json").exit_code == 0
    assert (fake.body, dict(fake.last.url.params)) == ({"reason": "get"}, {"dry_run": "true"})


def test_options_stand_before_both_words_of_a_group_or_between_them() -> None:
    for arguments in (["--json", "token", "list"], ["token", "--json", "list"], ["token", "list", "--json"]):
        result = call(FakeAdmin({"GET /v1/tokens": ok({"tokens": []})}), *arguments)
        assert (result.exit_code, result.stdout) == (0, '{\n  "tokens": []\n}\n'), result.output


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["rolback", "digits"], "rollback"),
        (["--json", "gett"], "get"),
        (["--state", "get", "rolback"], "rollback"),
        (["token", "lst"], "list"),
        (["get", "--docment"], "--document"),
        (["--jsn", "get"], "--json"),
    ],
)
def test_a_mistyped_command_or_option_is_told_what_it_is_near_to(arguments: list[str], meant: str) -> None:
    result = call(FakeAdmin(), *arguments)
    assert result.exit_code == 2
    assert f"'{meant}'" in result.stderr


@pytest.mark.parametrize("name", list(COMMANDS))
def test_the_list_of_commands_says_what_their_own_help_says(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert COMMANDS[name].help == (command.help or "").split("\n\n", maxsplit=1)[0].replace("\n", " ")


def test_help_imports_no_command() -> None:
    code = "import sys; from headgate.cli import main; main(['--help'], standalone_mode=False); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *shown, modules = done.stdout.splitlines()
    assert any("rollback" in line and COMMANDS["rollback"].help in line for line in shown)
    assert {name for name in modules.split() if name.startswith("headgate.")} == {
        "headgate.cli",
        "headgate.cli.groups",
    }


def test_formats_exclude_each_other() -> None:
    assert call(FakeAdmin(LIST), "get", "--json", "-o", "yaml").exit_code == 2
    assert call(FakeAdmin(LIST), "get", "--json", "-o", "json").exit_code == 0
    assert call(FakeAdmin(LIST), "get", "-o", "xml").exit_code == 2


def test_names_are_printed_one_to_a_line() -> None:
    endpoints = [{"name": "a"}, {"name": "b"}]
    result = call(FakeAdmin({"GET /v1/endpoints": ok({"endpoints": endpoints})}), "get", "-o", "name")
    assert result.stdout == "a\nb\n"


def test_a_mistyped_endpoint_is_told_what_it_is_near_to() -> None:
    missing = problem(404, "model_not_found", "no endpoint is named 'digist'")
    known = ok({"endpoints": [{"name": "digits"}, {"name": "words"}]})
    fake = FakeAdmin({"POST /v1/endpoints/digist:rollback": missing, "GET /v1/endpoints": known})
    result = call(fake, "rollback", "digist")
    assert result.exit_code == 4
    assert result.stderr == "headgate: no endpoint is named 'digist'\n  did you mean digits?\n"


def test_a_mistyped_version_is_told_what_it_is_near_to() -> None:
    path = "/v1/endpoints/digits"
    versions = ok({"versions": {"candidate-7": {}, "champion-6": {}}})
    faults = [{"path": "weights.candidate-8", "message": "no version of that name"}]
    unknown = problem(422, "policy_invalid", "1 fault", faults=faults)
    fake = FakeAdmin(
        {f"GET {path}/traffic": ok(TRAFFIC, 41), f"PATCH {path}/traffic": unknown, f"GET {path}": versions}
    )
    result = call(fake, "traffic", "digits", "candidate-8=5%")
    assert result.exit_code == 4
    assert "did you mean candidate-7?" in result.stderr
    gone = problem(404, "version_not_found", "no version 'candidat-7'")
    fake = FakeAdmin({f"POST {path}:block": gone, f"GET {path}": versions})
    assert "did you mean candidate-7?" in call(fake, "block", "digits", "candidat-7").stderr


def test_if_the_names_cannot_be_read_nothing_is_suggested() -> None:
    missing = problem(404, "model_not_found", "no endpoint is named 'digist'")
    denied = problem(403, "permission_denied", "no")
    fake = FakeAdmin({"POST /v1/endpoints/digist:rollback": missing, "GET /v1/endpoints": denied})
    result = call(fake, "rollback", "digist")
    assert (result.exit_code, result.stderr) == (4, "headgate: no endpoint is named 'digist'\n")


def test_a_fault_is_said_once() -> None:
    faults = [{"path": "versions.v1", "message": "pinned"}, {"path": "versions.v2", "message": "missing"}]
    answer = problem(422, "policy_invalid", "digits.yaml has 2 faults:\n  versions.v1: pinned", faults=faults)
    result = call(FakeAdmin({"POST /v1/endpoints/digits:rollback": answer}), "rollback", "digits")
    assert result.stderr == (
        "headgate: digits.yaml has 2 faults:\n  versions.v1: pinned\n  versions.v2: missing\n"
    )


def test_a_defect_of_the_command_line_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADGATE_TRACEBACK", raising=False)
    result = call(FakeAdmin({"GET /v1/endpoints": ok({"other": []})}), "get")
    assert result.exit_code == 3
    assert len(result.stderr.splitlines()) == 1
    assert "HEADGATE_TRACEBACK=1" in result.stderr

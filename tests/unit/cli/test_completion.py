"""What a shell is offered; and that it is disturbed by nothing."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from click.shell_completion import BashComplete
from click.testing import CliRunner

from headgate.cli import COMMANDS, main
from unit.cli.fake_admin import FakeAdmin, around, call, ok, problem

KNOWN = {
    "GET /v1/endpoints": ok({"endpoints": [{"name": "digits"}, {"name": "words"}, {"name": "$(touch x)"}]}),
    "GET /v1/endpoints/digits": ok({"versions": {"v1": {}, "v2": {}}}),
}


def offered(fake: FakeAdmin, *words: str) -> list[str]:
    obj = around(fake, HEADGATE_TOKEN="headgate_a_b")
    *before, incomplete = words
    completer = BashComplete(main, {"obj": obj}, "headgate", "_HEADGATE_COMPLETE")
    return [item.value for item in completer.get_completions(before, incomplete)]


def test_commands_and_options_are_offered() -> None:
    assert offered(FakeAdmin(), "ro") == ["rollback", "rollout"]
    assert offered(FakeAdmin(), "") == list(COMMANDS)
    assert offered(FakeAdmin(), "context", "") == ["add", "list", "remove", "use"]
    assert "--dry-run" in offered(FakeAdmin(), "rollback", "--dr")
    assert offered(FakeAdmin(), "get", "-o", "y") == ["yaml"]
    assert offered(FakeAdmin(), "--state", "S", "ge") == ["get"]


def test_endpoints_and_versions_are_asked_of_the_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    assert offered(FakeAdmin(KNOWN), "rollback", "") == ["digits", "words"]
    assert offered(FakeAdmin(KNOWN), "get", "di") == ["digits"]
    assert offered(FakeAdmin(KNOWN), "block", "digits", "") == ["v1", "v2"]
    monkeypatch.setenv("COMP_WORDS", "headgate traffic --json digits --champion v")
    assert offered(FakeAdmin(KNOWN), "traffic", "--json", "digits", "--champion", "v") == ["v1", "v2"]


def test_nothing_is_offered_and_nothing_is_said_when_the_gateway_does_not_answer(
    capfd: pytest.CaptureFixture[str],
) -> None:
    denied = FakeAdmin({"GET /v1/endpoints": problem(403, "permission_denied", "no")})
    assert offered(denied, "get", "") == []
    assert offered(FakeAdmin({"GET /v1/endpoints": ok([])}), "get", "") == []
    assert offered(FakeAdmin(), "get", "") == []
    obj = around(FakeAdmin())
    completer = BashComplete(main, {"obj": obj}, "headgate", "_HEADGATE_COMPLETE")
    assert completer.get_completions(["get"], "") == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell_calls_headgate(shell: str) -> None:
    result = call(FakeAdmin(), "completion", shell)
    assert result.exit_code == 0
    assert f"_HEADGATE_COMPLETE={shell}_complete" in result.stdout


def test_fish_shows_a_description_to_its_end() -> None:
    script = CliRunner().invoke(main, ["completion", "fish"]).stdout
    assert 'string split --max 1 ","' in script


def test_bash_completes_with_the_script(tmp_path: Path) -> None:
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    (tmp_path / "headgate").write_text('#!/bin/sh\nprintf "plain,rollback\\n"\n')
    (tmp_path / "headgate").chmod(0o755)
    script = CliRunner().invoke(main, ["completion", "bash"]).stdout
    asked = f'PATH="{tmp_path}:$PATH"\n{script}\nCOMP_WORDS=(headgate ro)\nCOMP_CWORD=1\n_headgate_completion headgate\n'
    done = subprocess.run(
        ["bash", "--norc", "-c", asked + 'echo "${COMPREPLY[@]}"'], capture_output=True, text=True, check=True
    )
    assert done.stdout == "rollback\n"

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from headgate.cli import COMMANDS, main
from headgate.cli.session import CliEnvironment
from unit.cli.fake_admin import FakeAdmin, around, call, ok

LIST = {"GET /v1/endpoints": ok({"endpoints": []})}


def run(fake: FakeAdmin, *arguments: str, **variables: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, list(arguments), obj=around(fake, **variables))
    return result.exit_code, result.stderr


def test_without_anything_the_default_port_is_called() -> None:
    fake = FakeAdmin(LIST)
    assert call(fake, "get").exit_code == 0
    assert str(fake.last.url) == "http://127.0.0.1:8003/v1/endpoints"


def test_the_token_is_the_variable_or_the_file_in_the_state_folder(tmp_path: Path) -> None:
    (tmp_path / "admin-token").write_text("headgate_from_file\n")
    fake = FakeAdmin(LIST)
    assert run(fake, "get", HEADGATE_STATE=str(tmp_path))[0] == 0
    assert fake.last.headers["authorization"] == "Bearer headgate_from_file"
    assert run(fake, "get", HEADGATE_STATE=str(tmp_path), HEADGATE_TOKEN="headgate_from_variable")[0] == 0
    assert fake.last.headers["authorization"] == "Bearer headgate_from_variable"


def test_without_a_token_the_words_say_where_it_was_looked_for(tmp_path: Path) -> None:
    fake = FakeAdmin(LIST)
    code, words = run(fake, "get", "--state", str(tmp_path))
    assert code == 6
    assert str(tmp_path / "admin-token") in words
    assert "HEADGATE_TOKEN" in words
    assert fake.requests == []


def test_a_broken_addresses_file_falls_back_to_the_default(tmp_path: Path) -> None:
    (tmp_path / "admin-token").write_text("headgate_a_b")
    (tmp_path / "addresses.json").write_text('{"admin": "127.')
    fake = FakeAdmin(LIST)
    assert run(fake, "get", "--state", str(tmp_path))[0] == 0
    assert fake.last.url.port == 8003


def test_no_gateway_is_exit_code_3_with_the_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {"HEADGATE_TOKEN": "headgate_kid_secret", "HOME": "/nonexistent"}
    result = CliRunner().invoke(
        main, ["get", "--admin", f"127.0.0.1:{port}"], obj=CliEnvironment(variables=environment)
    )
    assert result.exit_code == 3
    assert "headgate serve" in result.stderr


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, text="<html>"),
        httpx.Response(404, json={"error": "Not Found"}),
        httpx.Response(502, text="bad gateway"),
    ],
)
def test_what_is_not_an_admin_port_is_exit_code_3(answer: httpx.Response) -> None:
    result = call(lambda _: answer, "get")
    assert result.exit_code == 3
    assert "admin port" in result.stderr


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_help_with_an_example(name: str) -> None:
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0
    assert "Example:" in result.stdout
    assert f"headgate {name}" in result.stdout


def test_an_unknown_command_or_option_is_wrong_usage() -> None:
    assert CliRunner().invoke(main, ["sevre"]).exit_code == 2
    assert CliRunner().invoke(main, ["get", "--colour"]).exit_code == 2


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed_so_that_the_token_goes_nowhere_else(status: int) -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(status, headers={"location": "http://10.0.0.1/"})

    assert call(answer, "get").exit_code == 3
    assert asked == ["http://127.0.0.1:8003/v1/endpoints"]


def program(*arguments: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    shell = f"{sys.executable} -m headgate {' '.join(arguments)}"
    return subprocess.run(
        ["bash", "-c", shell],
        env={"HOME": "/nonexistent", "PATH": "/usr/bin:/bin", **variables},
        capture_output=True,
        check=False,
    )


@pytest.mark.parametrize(
    "command", ["context list > /dev/full", "--help > /dev/full", "context list -o json > /dev/full"]
)
def test_a_disk_that_is_full_is_said_in_one_line(command: str) -> None:
    done = program(command)
    assert done.returncode not in (0, 1)
    assert b"Traceback" not in done.stderr


def test_a_reader_that_leaves_is_no_fault() -> None:
    assert program("completion zsh | true").stderr == b""


def test_a_terminal_that_lacks_a_character_gets_it_escaped(tmp_path: Path) -> None:
    document = tmp_path / "a→b.yaml"
    document.write_text("name: x\n")
    done = program("validate", f"'{document}'", PYTHONIOENCODING="latin-1")
    assert done.returncode == 2
    assert rb"a\u2192b.yaml" in done.stderr

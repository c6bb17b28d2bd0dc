from __future__ import annotations

import socket
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from headgate.cli import COMMANDS, main
from headgate.cli.session import Surroundings
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
        main, ["get", "--admin", f"127.0.0.1:{port}"], obj=Surroundings(variables=environment)
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

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from headgate.cli import COMMANDS, main
from headgate.cli.session import Surroundings, admin_url
from headgate.errors import InvalidArgument
from unit.cli.fake_admin import FakeAdmin, call, ok

LIST = {"GET /v1/endpoints": ok({"endpoints": []})}


def run(fake: FakeAdmin, *arguments: str, **variables: str) -> tuple[int, str]:
    around = Surroundings(variables=variables, transport=httpx.MockTransport(fake))
    result = CliRunner().invoke(main, list(arguments), obj=around)
    return result.exit_code, result.stderr


def test_the_option_goes_before_the_variable_and_that_before_what_the_gateway_left(tmp_path: Path) -> None:
    (tmp_path / "admin-token").write_text("headgate_a_b\n")
    (tmp_path / "addresses.json").write_text(json.dumps({"admin": "127.0.0.1:3"}))
    state, variable = ["--state", str(tmp_path)], {"HEADGATE_ADMIN": "http://127.0.0.1:2"}
    fake = FakeAdmin(LIST)
    for options, variables, port in [
        (["--admin", "http://127.0.0.1:1/"], variable, 1),
        ([], variable, 2),
        ([], {}, 3),
    ]:
        code, words = run(fake, "get", *state, *options, HOME="/nonexistent", **variables)
        assert code == 0, words
        assert fake.last.url.port == port


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
    assert code == 2
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
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("connection refused", request=request)

    result = call(refuse, "get")
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


def test_an_address_of_all_interfaces_is_called_on_loopback() -> None:
    assert admin_url("0.0.0.0:8003") == "http://127.0.0.1:8003"
    assert admin_url("[::]:8003") == "http://[::1]:8003"
    assert admin_url("https://gate.example/") == "https://gate.example"
    with pytest.raises(InvalidArgument, match="HOST:PORT"):
        admin_url("gate.example")


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_help_with_an_example(name: str) -> None:
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0
    assert "Example:" in result.stdout
    assert f"headgate {name}" in result.stdout


def test_an_unknown_command_or_option_is_wrong_usage() -> None:
    assert CliRunner().invoke(main, ["sevre"]).exit_code == 2
    assert CliRunner().invoke(main, ["get", "--colour"]).exit_code == 2

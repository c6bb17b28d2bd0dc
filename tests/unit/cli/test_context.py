"""Contexts: the commands and their file."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from headgate.cli import main
from headgate.cli.contexts import contexts_file
from unit.cli.fake_admin import FakeAdmin, around, ok

LIST = {"GET /v1/endpoints": ok({"endpoints": []})}


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    return {"XDG_CONFIG_HOME": str(tmp_path / "config")}


def run(
    variables: dict[str, str], *arguments: str, stdin: str | None = None, fake: FakeAdmin | None = None
) -> Result:
    return CliRunner().invoke(
        main, list(arguments), obj=around(fake or FakeAdmin(), **variables), input=stdin
    )


def add(home: dict[str, str], name: str = "far", admin: str = "https://gate.example") -> Result:
    return run(home, "context", "add", name, "--admin", admin, "--token", "-", stdin="headgate_far_secret\n")


def test_a_context_is_kept_where_only_its_owner_reads_it(home: dict[str, str]) -> None:
    before = os.umask(0)
    try:
        assert add(home).exit_code == 0
    finally:
        os.umask(before)
    path = contexts_file(home)
    assert path == Path(home["XDG_CONFIG_HOME"]) / "headgate" / "contexts.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    written = {
        "current": None,
        "contexts": {"far": {"admin": "https://gate.example", "token": "headgate_far_secret"}},
    }
    assert json.loads(path.read_text()) == written
    assert [one.name for one in path.parent.iterdir()] == ["contexts.json"]


def test_commands_call_the_one_in_use_with_its_token(home: dict[str, str]) -> None:
    add(home)
    fake = FakeAdmin(LIST)
    assert run(home, "context", "use", "far").exit_code == 0
    assert run(home, "get", fake=fake).exit_code == 0
    assert str(fake.last.url) == "https://gate.example/v1/endpoints"
    assert fake.last.headers["authorization"] == "Bearer headgate_far_secret"


def test_an_option_names_another_one_and_a_token_file_is_read_when_it_is_used(
    home: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("headgate_one_secret")
    options = ["--admin", "localhost:9", "--token-file", str(tmp_path / "token")]
    assert run(home, "context", "add", "near", *options).exit_code == 0
    (tmp_path / "token").write_text("headgate_two_secret")
    fake = FakeAdmin(LIST)
    assert run(home, "--context", "near", "get", fake=fake).exit_code == 0
    assert str(fake.last.url) == "http://127.0.0.1:9/v1/endpoints"
    assert fake.last.headers["authorization"] == "Bearer headgate_two_secret"


def test_they_are_listed_without_tokens_and_the_one_in_use_is_marked(home: dict[str, str]) -> None:
    add(home)
    add(home, "near", "127.0.0.1:7")
    run(home, "context", "use", "near")
    listed = run(home, "context", "list").stdout
    assert listed.splitlines()[1].split() == ["far", "https://gate.example", "kept", "here"]
    assert listed.splitlines()[2].split() == ["*", "near", "http://127.0.0.1:7", "kept", "here"]
    for form in ("table", "json", "yaml"):
        assert "secret" not in run(home, "context", "list", "-o", form).stdout
    assert run(home, "context", "list", "-o", "name").stdout == "far\nnear\n"


def test_one_that_is_removed_is_not_in_use_any_more(home: dict[str, str]) -> None:
    add(home)
    run(home, "context", "use", "far")
    assert run(home, "context", "remove", "far").exit_code == 0
    assert json.loads(contexts_file(home).read_text()) == {"current": None, "contexts": {}}
    for command in ("use", "remove"):
        assert run(home, "context", command, "far").exit_code == 4


def test_one_that_is_there_is_replaced_only_when_asked(home: dict[str, str]) -> None:
    add(home)
    assert add(home).exit_code == 5
    again = run(
        home, "context", "add", "far", "--admin", "127.0.0.1:1", "--token", "headgate_x_y", "--replace"
    )
    assert again.exit_code == 0
    assert json.loads(contexts_file(home).read_text())["contexts"]["far"]["token"] == "headgate_x_y"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["far", "--admin", "http://10.0.0.1:8003", "--token", "headgate_a_b"], 6),
        (["far", "--admin", "nowhere", "--token", "headgate_a_b"], 2),
        (["../x", "--admin", "127.0.0.1:1", "--token", "headgate_a_b"], 2),
        (["far", "--admin", "127.0.0.1:1", "--token", ""], 2),
        (["far", "--admin", "127.0.0.1:1"], 2),
        (["far", "--admin", "127.0.0.1:1", "--token", "a", "--token-file", "b"], 2),
        (["far"], 2),
    ],
)
def test_what_cannot_be_a_context_is_refused_and_nothing_is_written(
    home: dict[str, str], arguments: list[str], code: int
) -> None:
    result = run(home, "context", "add", *arguments)
    assert result.exit_code == code, result.output
    assert not contexts_file(home).exists()


def test_a_file_that_others_may_open_is_not_used(home: dict[str, str]) -> None:
    add(home)
    contexts_file(home).chmod(0o640)
    result = run(home, "get", fake=FakeAdmin(LIST))
    assert result.exit_code == 6
    assert "chmod 600" in result.stderr


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"contexts": []}', '{"contexts": {"a": {"admin": 1}}}', '{"contexts": {"a": {"b": "c"}}}'],
)
def test_a_file_that_is_not_ours_is_said_in_words(home: dict[str, str], text: str) -> None:
    path = contexts_file(home)
    path.parent.mkdir(parents=True)
    path.touch(0o600)
    path.write_text(text)
    result = run(home, "context", "list")
    assert result.exit_code == 2, result.output
    assert str(path) in result.stderr

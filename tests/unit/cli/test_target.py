"""Which gateway is called, and that a token goes nowhere but to the address it was made for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from headgate.cli.address import admin_address
from headgate.cli.contexts import Context, Contexts, contexts_file, write_contexts
from headgate.cli.target import GatewayOptions, find_target
from headgate.errors import HeadgateError, InvalidArgument, NotFound, PermissionDenied, Unauthenticated


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / "admin-token").write_text("headgate_state_secret\n")
    (folder / "addresses.json").write_text(json.dumps({"admin": "127.0.0.1:3"}))
    return folder


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """Variables of a person with two contexts, of which ``near`` is in use."""
    variables = {"HOME": str(tmp_path / "home")}
    far = Context("https://gate.example", token="headgate_far_secret")
    near = Context("http://127.0.0.1:7", token="headgate_near_secret")
    write_contexts(contexts_file(variables), Contexts("near", {"far": far, "near": near}))
    return variables


def found(options: GatewayOptions, variables: dict[str, str]) -> tuple[str, str]:
    target = find_target(options, variables)
    return str(target.address), target.token


def test_a_state_folder_gives_the_address_and_its_token(state: Path) -> None:
    expected = ("http://127.0.0.1:3", "headgate_state_secret")
    assert found(GatewayOptions(state=state), {}) == expected
    assert found(GatewayOptions(), {"HEADGATE_STATE": str(state)}) == expected
    assert found(GatewayOptions(state=state), {"HEADGATE_ADMIN": "127.0.0.1:2"}) == expected


def test_the_token_of_a_state_folder_goes_to_no_other_address(state: Path) -> None:
    for options, variables in [
        (GatewayOptions(admin="127.0.0.1:1", state=state), {}),
        (GatewayOptions(admin="localhost:4", state=state), {}),
        (GatewayOptions(admin="https://127.0.0.1:3", state=state), {}),
        (GatewayOptions(admin="https://gate.example", state=state), {}),
        (GatewayOptions(), {"HEADGATE_STATE": str(state), "HEADGATE_ADMIN": "127.0.0.1:2"}),
    ]:
        with pytest.raises(PermissionDenied, match="only to the address it was made for"):
            find_target(options, variables)


def test_a_state_folder_of_a_gateway_that_told_no_address_is_for_the_default_one(state: Path) -> None:
    (state / "addresses.json").unlink()
    assert found(GatewayOptions(state=state), {})[0] == "http://127.0.0.1:8003"
    with pytest.raises(PermissionDenied, match="made for"):
        find_target(GatewayOptions(admin="127.0.0.1:9", state=state), {})


def test_the_variable_with_the_token_goes_to_what_is_called_unless_the_other_variable_says_where(
    state: Path,
) -> None:
    token = {"HEADGATE_TOKEN": "headgate_var_secret"}
    assert found(GatewayOptions(admin="127.0.0.1:1"), token) == ("http://127.0.0.1:1", "headgate_var_secret")
    assert found(GatewayOptions(state=state), token) == ("http://127.0.0.1:3", "headgate_var_secret")
    both = {**token, "HEADGATE_ADMIN": "https://gate.example"}
    assert found(GatewayOptions(), both) == ("https://gate.example", "headgate_var_secret")
    assert found(GatewayOptions(state=state), both) == ("http://127.0.0.1:3", "headgate_state_secret")
    with pytest.raises(PermissionDenied, match="HEADGATE_TOKEN is for https://gate.example"):
        find_target(GatewayOptions(admin="127.0.0.1:1"), both)


def test_contexts_are_named_by_option_variable_or_in_use(home: dict[str, str], state: Path) -> None:
    near, far = (
        ("http://127.0.0.1:7", "headgate_near_secret"),
        ("https://gate.example", "headgate_far_secret"),
    )
    assert found(GatewayOptions(), home) == near
    assert found(GatewayOptions(context="far"), home) == far
    assert found(GatewayOptions(), {**home, "HEADGATE_CONTEXT": "far"}) == far
    assert found(GatewayOptions(state=state), home) == ("http://127.0.0.1:3", "headgate_state_secret")
    assert found(GatewayOptions(admin="https://gate.example"), {**home, "HEADGATE_CONTEXT": "far"}) == far


def test_variables_go_before_the_context_in_use_and_its_token_stays_at_home(home: dict[str, str]) -> None:
    assert found(GatewayOptions(), {**home, "HEADGATE_TOKEN": "headgate_var_secret"}) == (
        "http://127.0.0.1:7",
        "headgate_var_secret",
    )
    with pytest.raises(PermissionDenied, match="context near is for http://127.0.0.1:7"):
        find_target(GatewayOptions(), {**home, "HEADGATE_ADMIN": "127.0.0.1:8"})


@pytest.mark.parametrize(
    "other",
    [GatewayOptions(admin="127.0.0.1:1", context="far"), GatewayOptions(state=Path("x"), context="far")],
)
def test_a_context_names_everything(other: GatewayOptions, home: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument, match="--context"):
        find_target(other, home)


def test_a_context_that_is_not_there_says_which_are(home: dict[str, str]) -> None:
    with pytest.raises(NotFound, match="far, near"):
        find_target(GatewayOptions(context="nera"), home)


@pytest.mark.parametrize(
    "address", ["gate.example:8003", "10.0.0.1:8003", "[fe80::1]:8003", "http://192.168.0.9:1"]
)
def test_a_token_is_never_sent_in_clear_text_beyond_this_machine(address: str) -> None:
    with pytest.raises(PermissionDenied, match="https://"):
        find_target(GatewayOptions(admin=address), {"HEADGATE_TOKEN": "headgate_a_b"})


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1", "0.0.0.0:1", "[::]:1", ":1"]
)
def test_this_machine_takes_clear_text(address: str) -> None:
    assert find_target(GatewayOptions(admin=address), {"HEADGATE_TOKEN": "headgate_a_b"}).address.is_private


@pytest.mark.parametrize("token", ["two words", "line\nbreak", "ümlaut", "\x1b[31m", ""])
def test_what_cannot_be_a_token_is_not_sent_and_not_shown(token: str, state: Path) -> None:
    (state / "admin-token").write_text(token, encoding="utf-8")
    with pytest.raises(Unauthenticated) as refused:
        find_target(GatewayOptions(state=state), {})
    assert "printable ASCII" in refused.value.message
    assert not token or token not in refused.value.message


def test_addresses_are_written_in_several_ways() -> None:
    assert str(admin_address("0.0.0.0:8003")) == "http://127.0.0.1:8003"
    assert str(admin_address("[::]:8003")) == "http://[::1]:8003"
    assert str(admin_address("localhost:8003")) == "http://127.0.0.1:8003"
    assert str(admin_address("https://gate.example/")) == "https://gate.example"
    assert str(admin_address("https://gate.example:8443")) == "https://gate.example:8443"


@pytest.mark.parametrize(
    "text",
    [
        "gate.example",
        "https://",
        "https://gate.example/v1",
        "https://me@gate.example",
        "ftp://a:1",
        "a/b:1",
        "a@b:1",
    ],
)
def test_what_is_not_an_address_is_refused(text: str) -> None:
    with pytest.raises(HeadgateError, match="HOST|brackets"):
        admin_address(text)

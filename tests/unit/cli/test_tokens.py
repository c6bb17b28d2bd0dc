from __future__ import annotations

from unit.cli.fake_admin import FakeAdmin, call, ok

TOKEN = {
    "id": "3f9a1c",
    "name": "ci",
    "role": "operator",
    "created": "then",
    "expires": None,
    "last_used": None,
    "revoked": None,
}


def test_create_prints_the_secret_alone_on_stdout() -> None:
    fake = FakeAdmin({"POST /v1/tokens": (201, TOKEN | {"secret": "headgate_3f9a1c_xyz"}, {})})
    result = call(fake, "token", "create", "--name", "ci", "--role", "operator", "--expires", "90d")
    assert result.exit_code == 0, result.output
    assert result.stdout == "headgate_3f9a1c_xyz\n"
    assert "not shown again" in result.stderr
    assert fake.body == {"name": "ci", "role": "operator", "expires_in": "90d"}


def test_create_wants_a_role_that_exists() -> None:
    result = call(FakeAdmin(), "token", "create", "--name", "ci", "--role", "god")
    assert result.exit_code == 2
    assert "viewer" in result.stderr


def test_list_shows_no_secret() -> None:
    result = call(FakeAdmin({"GET /v1/tokens": ok({"tokens": [TOKEN]})}), "token", "list")
    assert result.stdout.splitlines()[1].split() == ["3f9a1c", "ci", "operator", "then", "-", "-", "-"]


def test_revoke_calls_delete() -> None:
    fake = FakeAdmin({"DELETE /v1/tokens/3f9a1c": ok(TOKEN | {"revoked": "now"})})
    result = call(fake, "token", "revoke", "3f9a1c")
    assert "revoked now" in result.stdout

"""The admin port refuses who is not known, what comes through a foreign name, and writes without a precondition."""

from __future__ import annotations

import json
import socket
import stat
from typing import Any

import httpx
import pytest

from support.gateway import AdminClient, GatewayProcess

TRAFFIC = "/v1/endpoints/digits/traffic"


def refusal(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of a refusal, which must be a problem of RFC 9457."""
    assert answer.headers["content-type"].startswith("application/problem+json"), answer.text
    body: dict[str, Any] = answer.json()
    assert body["status"] == answer.status_code
    assert body["detail"]
    return answer.status_code, str(body["code"])


def bare(gateway: GatewayProcess, **headers: str) -> httpx.Response:
    """A GET of the traffic with exactly these headers and no token."""
    return httpx.get(f"http://{gateway.addresses['admin']}{TRAFFIC}", headers=headers)


def test_the_token_is_for_its_owner_only(shared_digits: GatewayProcess) -> None:
    assert stat.S_IMODE((shared_digits.state / "admin-token").stat().st_mode) == 0o600


def test_nobody_without_a_token_is_let_in(shared_digits: GatewayProcess) -> None:
    answer = bare(shared_digits)
    assert refusal(answer) == (401, "unauthenticated")
    assert answer.headers["www-authenticate"].startswith("Bearer")
    token = (shared_digits.state / "admin-token").read_text().strip()
    for given in (
        "",
        "Bearer",
        "Bearer x",
        f"Bearer {token}x",
        f"Bearer {token[:-1]}",
        f"Basic {token}",
        token,
    ):
        assert refusal(bare(shared_digits, Authorization=given)) == (401, "unauthenticated"), given


def test_not_even_the_description_of_the_api_is_given_without_a_token(shared_digits: GatewayProcess) -> None:
    answer = httpx.get(f"http://{shared_digits.addresses['admin']}/openapi.json")
    assert refusal(answer) == (401, "unauthenticated")


@pytest.mark.parametrize(
    "host", ["gateway.example", "127.0.0.1.example:8003", "169.254.169.254", "localhost.evil"]
)
def test_a_foreign_host_is_misdirected(shared_digits: GatewayProcess, host: str) -> None:
    with shared_digits.admin() as admin:
        assert refusal(admin.http.get(TRAFFIC, headers={"Host": host})) == (421, "misdirected")


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "https://localhost"])
def test_a_foreign_origin_is_refused(shared_digits: GatewayProcess, origin: str) -> None:
    with shared_digits.admin() as admin:
        assert refusal(admin.http.get(TRAFFIC, headers={"Origin": origin})) == (403, "permission_denied")
        answer = admin.http.post("/v1/endpoints/digits:rollback", json={}, headers={"Origin": origin})
        assert refusal(answer) == (403, "permission_denied")
        assert "access-control-allow-origin" not in answer.headers


def on_the_wire(address: str, path: str, *fields: str) -> tuple[int, str, str]:
    """Status, code and words of the answer to a GET with exactly these fields."""
    host, _, port = address.rpartition(":")
    lines = [f"GET {path} HTTP/1.1", *fields, "Connection: close", "", ""]
    with socket.create_connection((host, int(port)), timeout=30) as client:
        client.sendall("\r\n".join(lines).encode())
        with client.makefile("rb") as answer:
            head, _, body = answer.read().partition(b"\r\n\r\n")
    found = json.loads(body)
    return int(head.split()[1]), found["code"], found.get("error") or found["detail"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (["Host: localhost", "Host: localhost"], "Host is given twice"),
        (["Host: localhost", "host: evil.example"], "Host is given twice"),
        (["Host: localhost, evil.example"], "Host is not a host and a port"),
        (["Host: me@localhost"], "Host is not a host and a port"),
        ([], "HTTP/1.1 needs a Host header"),
    ],
)
def test_the_admin_port_refuses_a_host_as_the_data_port_does(
    shared_digits: GatewayProcess, fields: list[str], words: str
) -> None:
    refused = (400, "invalid_argument", words)
    assert on_the_wire(shared_digits.http, "/v2/models", *fields) == refused
    assert on_the_wire(shared_digits.addresses["admin"], TRAFFIC, *fields) == refused


def test_an_escaped_slash_parts_no_path(shared_digits: GatewayProcess) -> None:
    token = (shared_digits.state / "admin-token").read_text().strip()
    fields = ("Host: localhost", f"Authorization: Bearer {token}")
    for escaped in ("%2F", "%2f", "%252F"):
        for path in (f"digits{escaped}traffic", f"..{escaped}endpoints{escaped}digits", f"{escaped}digits"):
            assert (
                on_the_wire(shared_digits.addresses["admin"], f"/v1/endpoints/{path}", *fields)[0] == 404
            ), path
            assert on_the_wire(shared_digits.http, f"/v2/models/{path}", *fields)[0] == 404, path


def test_a_write_must_say_that_it_is_json(shared_digits: GatewayProcess) -> None:
    with shared_digits.admin() as admin:
        for content_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
            answer = admin.http.post(
                "/v1/endpoints/digits:rollback", content=b"{}", headers={"Content-Type": content_type}
            )
            assert refusal(answer) == (400, "invalid_argument")
        assert admin.traffic("digits")["weights"] == {"2": "10%"}


def test_a_write_must_say_which_revision_it_means(digits: GatewayProcess) -> None:
    change = {"weights": {"2": "20%"}}
    with digits.admin() as admin:
        assert refusal(admin.http.patch(TRAFFIC, json=change)) == (428, "precondition_required")
        revision = admin.revision("digits")
        answer = admin.http.patch(TRAFFIC, json=change, headers={"If-Match": f'"{revision + 1}"'})
        assert refusal(answer) == (412, "revision_conflict")
        assert admin.revision("digits") == revision
        assert admin.http.patch(TRAFFIC, json=change, headers={"If-Match": str(revision)}).is_success


@pytest.mark.parametrize(("role", "writes"), [("viewer", False), ("operator", True)])
def test_a_role_allows_what_it_says(digits: GatewayProcess, role: str, writes: bool) -> None:
    with digits.admin() as admin:
        made = admin.http.post("/v1/tokens", json={"name": f"test-{role}", "role": role, "reason": "test"})
        assert made.status_code == 201, made.text
    with AdminClient(digits.addresses["admin"], made.json()["secret"]) as client:
        assert client.traffic("digits")["champion"] == "1"
        answer = client.http.post("/v1/endpoints/digits:rollback", json={"reason": "test"})
        assert answer.is_success is writes
        if not writes:
            assert refusal(answer) == (403, "permission_denied")
        assert refusal(client.http.get("/v1/tokens")) == (403, "permission_denied")


def test_a_key_makes_a_write_happen_once(digits: GatewayProcess) -> None:
    with digits.admin() as admin:
        revision = admin.revision("digits")
        headers = {"If-Match": f'"{revision}"', "Idempotency-Key": "once"}
        first = admin.http.patch(TRAFFIC, json={"weights": {"2": "20%"}}, headers=headers)
        second = admin.http.patch(TRAFFIC, json={"weights": {"2": "20%"}}, headers=headers)
        assert (first.status_code, first.json()) == (second.status_code, second.json())
        assert second.headers["idempotency-replayed"] == "true"
        other = admin.http.patch(TRAFFIC, json={"weights": {"2": "21%"}}, headers=headers)
        assert refusal(other) == (409, "conflict")
        assert admin.revision("digits") == revision + 1


def test_the_observe_port_is_open_and_only_reads(shared_digits: GatewayProcess) -> None:
    for path in ("/metrics", "/healthz", "/readyz"):
        assert shared_digits.observe(path).status_code == 200
    answer = httpx.post(f"http://{shared_digits.addresses['observe']}/metrics")
    assert answer.status_code == 405

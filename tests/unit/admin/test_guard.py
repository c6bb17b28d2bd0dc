"""Who gets in: Host, Origin, token, content type, sizes, paths."""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path

import pytest

from headgate.admin.guard import Guard, host_name, is_loopback
from headgate.control.domain.problems import STATUS
from headgate.errors import Misdirected, StorageFailed
from unit.admin_harness import port, problem
from unit.control_harness import document, run

E = "/v1/endpoints/digits"


@pytest.mark.parametrize(
    ("host", "passes"),
    [
        ("127.0.0.1:8003", True), ("localhost", True), ("LOCALHOST:1", True), ("[::1]:8003", True), ("127.9.9.9", True),
        ("gw.example.com", True), ("GW.example.com:8003", True), ("evil.example.com", False), ("", False),
        ("127.0.0.1.evil.com", False), ("localhost.evil.com", False), ("0.0.0.0:8003", False), ("10.0.0.5", False),
    ],
)  # fmt: skip
def test_host(tmp_path: Path, host: str, passes: bool) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            answer = await p.viewer.get("/v1/endpoints", headers={"host": host})
            if passes:
                assert answer.status_code == 200
            else:
                assert problem(answer) == (421, "misdirected")

    run(body)


@pytest.mark.parametrize("second", ["localhost", "evil.example.com"])
def test_two_hosts_are_refused(tmp_path: Path, second: str) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            twice = [
                ("host", "localhost"),
                ("host", second),
                ("authorization", p.viewer.headers["authorization"]),
            ]
            answer = await p.nobody.get("/v1/endpoints", headers=twice)
            assert problem(answer) == (400, "invalid_argument")

    run(body)


def test_an_ipv6_host_is_named_in_brackets_with_or_without_a_port() -> None:
    async def nothing(*_: object) -> None:
        raise AssertionError("never called")

    guard = Guard(nothing, None, ["[2001:DB8::1]", "[2001:db8::2]:9000"])  # type: ignore[arg-type]
    for host in ("[2001:db8::1]", "[2001:db8::1]:8003", "[2001:db8::2]:9000"):
        guard._check_host(host)
    for host in ("[2001:db8::2]", "[2001:db8::3]:8003"):
        with pytest.raises(Misdirected):
            guard._check_host(host)


def test_host_names() -> None:
    assert host_name("[::1]:8003") == "::1"
    assert host_name("a.b:1") == "a.b"
    assert not is_loopback("localhost.")
    assert not is_loopback("")


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example.com", "null", "http://127.0.0.1:9999", "file://", "127.0.0.1:8003", "http://["],
)
def test_a_foreign_origin_is_refused(tmp_path: Path, origin: str) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            assert problem(await p.admin.get("/v1/endpoints", headers={"origin": origin})) == (
                403,
                "permission_denied",
            )
            own = await p.admin.get("/v1/endpoints", headers={"origin": "http://127.0.0.1:8003"})
            assert own.status_code == 200
            assert not any(name.startswith("access-control") for name in own.headers)

    run(body)


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Basic abc", "Bearer headgate_x_y", "Bearer x", "Bearer headgate__"]
)
def test_no_good_token(tmp_path: Path, header: str) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            for path in ("/v1/endpoints", "/openapi.json", "/nowhere", "/v1/events"):
                answer = await p.nobody.get(path, headers={"authorization": header} if header else {})
                assert problem(answer) == (401, "unauthenticated")
                assert answer.headers["www-authenticate"] == "Bearer"

    run(body)


def test_tokens_are_made_listed_revoked_and_expire(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            made = await p.admin.post("/v1/tokens", json={"name": "ci", "role": "viewer", "expires_in": "1h"})
            assert made.status_code == 201
            secret, kid = made.json()["secret"], made.json()["id"]
            assert re.fullmatch(rf"headgate_{kid}_[0-9A-Za-z]{{43}}", secret)
            use = {"authorization": f"Bearer {secret}"}
            assert (await p.nobody.get("/v1/whoami", headers=use)).json()["token"] == kid
            cut = {"authorization": f"Bearer {secret[:-1]}"}
            assert problem(await p.nobody.get("/v1/whoami", headers=cut)) == (401, "unauthenticated")
            listed = (await p.admin.get("/v1/tokens")).json()["tokens"]
            mine = next(one for one in listed if one["id"] == kid)
            assert mine["last_used"] == "2027-03-01T03:12:04Z"
            assert secret not in (await p.admin.get("/v1/tokens")).text
            p.gate.clock.forward(3601)
            assert problem(await p.nobody.get("/v1/whoami", headers=use)) == (401, "unauthenticated")
            other = (await p.admin.post("/v1/tokens", json={"name": "x", "role": "operator"})).json()
            use = {"authorization": f"Bearer {other['secret']}"}
            assert (await p.nobody.get("/v1/whoami", headers=use)).status_code == 200
            assert (await p.admin.delete(f"/v1/tokens/{other['id']}")).json()["revoked"]
            assert problem(await p.nobody.get("/v1/whoami", headers=use)) == (401, "unauthenticated")
            for wrong in ({"name": "x", "role": "root"}, {"name": "", "role": "viewer"}, {"name": "x"}):
                assert problem(await p.admin.post("/v1/tokens", json=wrong)) == (400, "invalid_argument")
            for ours in ("headgate", "serve", "first", "Serve", " first "):
                taken = await p.admin.post("/v1/tokens", json={"name": ours, "role": "viewer"})
                assert problem(taken) == (400, "invalid_argument")
            keyed = await p.admin.post(
                "/v1/tokens", json={"name": "k", "role": "viewer"}, headers={"idempotency-key": "k"}
            )
            assert problem(keyed) == (400, "invalid_argument")

    run(body)


def test_the_gateways_own_names_are_taken(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            for name in ("first", "headgate", "offline", "serve"):
                answer = await p.admin.post("/v1/tokens", json={"name": name, "role": "viewer"})
                assert problem(answer) == (400, "invalid_argument"), name

    run(body)


def test_the_first_token(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            for token in p.tokens.list():
                p.tokens.revoke(token["id"], "test", force=True)
            secret = p.tokens.ensure_first(tmp_path)
            assert secret is not None
            path = tmp_path / "admin-token"
            assert path.read_text() == secret + "\n"
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert p.tokens.ensure_first(tmp_path) is None
            use = {"authorization": f"Bearer {secret}"}
            assert (await p.nobody.get("/v1/whoami", headers=use)).json()["role"] == "admin"
            stored = b"".join(one.read_bytes() for one in (tmp_path / "state").glob("headgate.db*"))
            assert secret.encode() not in stored

    run(body)


def test_a_first_token_that_nobody_can_know_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            for token in p.tokens.list():
                p.tokens.revoke(token["id"], "test", force=True)

            def killed(*_: object) -> None:
                raise StorageFailed("the process ended here")

            with monkeypatch.context() as patched:
                patched.setattr(p.gate.store.tokens, "add", killed)
                with pytest.raises(StorageFailed):
                    p.tokens.ensure_first(tmp_path)
            written = (tmp_path / "admin-token").read_text()
            lost = p.tokens.ensure_first(tmp_path)
            assert lost is not None
            assert written != lost + "\n"
            (tmp_path / "admin-token").unlink()
            secret = p.tokens.ensure_first(tmp_path)
            assert secret not in (None, lost)
            p.tokens.authenticate(secret or "")
            (tmp_path / "admin-token").unlink()
            assert p.tokens.ensure_first(tmp_path) is None

    run(body)


@pytest.mark.parametrize("digits", [19, 101, 5000])
def test_a_revision_beyond_every_number_is_not_there(tmp_path: Path, digits: int) -> None:
    async def body() -> None:
        written = "9" * digits
        async with port(tmp_path) as p:
            await p.gate.apply(document())
            assert problem(await p.viewer.get(f"{E}/revisions/{written}"))[0] == 404
            headers = {"if-match": "1", "content-type": "application/json"}
            content = f'{{"revision": {written}}}'.encode()
            answer = await p.operator.post(f"{E}:restore", content=content, headers=headers)
            assert problem(answer)[0] in (400, 404)

    run(body)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", "application/yaml"])
def test_writes_need_json(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            answer = await p.admin.post(f"{E}:rollback", content=b"{}", headers={"content-type": kind})
            assert problem(answer) == (400, "invalid_argument")
            assert "Content-Type" in answer.json()["detail"]

    run(body)


def test_bodies_and_queries_are_checked(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            await p.operator.put(
                E, content=document(), headers={"content-type": "application/yaml", "if-none-match": "*"}
            )
            kind = {"content-type": "application/json; charset=utf-8"}
            for wrong in (
                b"{",
                b"[]",
                b'{"reson": "x"}',
                b'{"reason": 1}',
                b'{"reason": "a", "reason": "b"}',
                b"\xff",
            ):
                answer = await p.operator.post(f"{E}:rollback", content=wrong, headers=kind)
                assert problem(answer) == (400, "invalid_argument"), wrong
            answer = await p.operator.post(f"{E}:rollback", json={"reason": "x" * 1001})
            assert problem(answer) == (400, "invalid_argument")
            for reason in ("two\nlines", "\x1b[31mred", "\u202eright to left", "a\x00b"):
                answer = await p.operator.post(f"{E}:rollback", json={"reason": reason})
                assert problem(answer) == (400, "invalid_argument"), reason
            answer = await p.operator.post(f"{E}:rollback", json={}, params={"dryrun": "true"})
            assert problem(answer) == (400, "invalid_argument")
            answer = await p.operator.post(f"{E}:rollback?dry_run=yes", json={})
            assert problem(answer) == (400, "invalid_argument")
            for limit in ("0", "501", "x", "-1"):
                answer = await p.viewer.get(f"{E}/revisions", params={"limit": limit})
                assert problem(answer) == (400, "invalid_argument")

    run(body)


@pytest.mark.parametrize(
    "query",
    [
        "source=%00",
        "source=/a%00b",
        "source=/" + "x" * 300,
        "source=/" + "x/" * 3000,
        "source=relative",
        "reason=%00",
        "%00=1",
        "dry_run=true%00",
    ],
)
def test_queries_that_lead_nowhere_are_refused(query: str, tmp_path: Path) -> None:
    async def body() -> None:
        (tmp_path / "loop").symlink_to(tmp_path / "loop")
        async with port(tmp_path) as p:
            headers = {"content-type": "application/yaml", "if-none-match": "*"}
            for one in (query, f"source={tmp_path}/loop/x"):
                for dry_run in ("", "&dry_run=true"):
                    text = document()
                    answer = await p.operator.put(f"{E}?{one}{dry_run}", content=text, headers=headers)
                    assert problem(answer) == (400, "invalid_argument"), one

    run(body)


def test_numbers_and_texts_beyond_reason_are_refused(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            headers = {"content-type": "application/yaml", "if-none-match": "*"}
            await p.operator.put(E, content=document(), headers=headers)
            here = {"if-match": '"1"'}
            kind = {"content-type": "application/json"}
            for path in (
                f"{E}%00",
                f"{E}/revisions/1%00",
                "/v1/models/digits/v%00",
                "/v1/operations/%00",
                "/v1/tokens/a%00",
            ):
                assert problem(await p.admin.get(path)) == (400, "invalid_argument"), path
            for call in (
                p.viewer.get("/v1/events", params={"endpoint": "\0", "follow": "false"}),
                p.viewer.get("/v1/audit", params={"endpoint": "\0"}),
                p.viewer.get(f"{E}/drift", params={"window": "999999999999d"}),
                p.viewer.get(f"{E}/drift", params={"window": "\0"}),
                p.operator.patch(
                    f"{E}/traffic", content=b'{"weights": {"\\ud800": "5%"}}', headers=here | kind
                ),
                p.operator.patch(f"{E}/traffic", content=b'{"champion": "\\ud800"}', headers=here | kind),
            ):
                answer = await call
                assert answer.status_code in (400, 403), (answer.request.url, answer.text)
            for n in (10**12, 2**63, 10**30):
                answer = await p.operator.post(f"{E}:restore", json={"revision": n}, headers=here)
                assert answer.status_code in (400, 404), answer.text
                assert (await p.viewer.get(f"{E}/revisions/{n}")).status_code in (400, 404)
                answer = await p.viewer.post(f"{E}:explain", json={"key": "a", "revision": n})
                assert answer.status_code in (400, 404), answer.text
            for expires in ("999999999999d", "3651d", "0s", "1ms", "1.5ns", "-1d", "\0", "9" * 400 + "d"):
                new = {"name": "ci", "role": "viewer", "expires_in": expires}
                answer = await p.admin.post("/v1/tokens", json=new)
                assert problem(answer) == (400, "invalid_argument"), expires
            assert len((await p.admin.get("/v1/tokens")).json()["tokens"]) == 3
            new = {"name": "ci", "role": "viewer", "expires_in": "3650d"}
            assert (await p.admin.post("/v1/tokens", json=new)).status_code == 201

    run(body)


def test_large_bodies_are_refused(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            headers = {"content-type": "application/yaml", "if-none-match": "*"}
            answer = await p.operator.put(E, content=b"#" * (1024 * 1024 + 1), headers=headers)
            assert problem(answer) == (413, "payload_too_large")

            async def endless() -> object:
                for _ in range(20):
                    yield b"#" * 100_000

            answer = await p.operator.put(E, content=endless(), headers=headers)
            assert problem(answer) == (413, "payload_too_large")

    run(body)


def test_paths_and_methods(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            for path in (
                "/",
                "/v1",
                "/v2/models",
                "/v1/endpoints/",
                f"{E}:explode",
                f"{E}/x",
                "/v1/endpoints/a%2Fb",
            ):
                assert problem(await p.admin.get(path)) == (404, "not_found"), path
            answer = await p.admin.post("/v1/endpoints", json={})
            assert problem(answer) == (405, "unsupported")
            assert answer.headers["allow"] == "GET, HEAD"
            answer = await p.admin.post(E, json={})
            assert answer.headers["allow"] == "DELETE, GET, HEAD, PUT"
            assert problem(await p.admin.get(f"{E}:rollback")) == (405, "unsupported")
            assert (await p.admin.head("/v1/endpoints")).status_code == 200

    run(body)


def test_a_defect_is_a_problem_without_its_text(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:

            def broken() -> object:
                raise RuntimeError("secret detail")

            p.gate.control.list = broken  # type: ignore[assignment,method-assign]
            answer = await p.viewer.get("/v1/endpoints")
            assert problem(answer) == (500, "internal")
            assert "secret detail" not in answer.text

    run(body)
    assert "secret detail" in caplog.text


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_a_process_without_descriptors_is_no_defect_and_no_fault_of_the_client(
    tmp_path: Path, number: int
) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:

            def exhausted() -> object:
                raise OSError(number, os.strerror(number), "a_module.py")

            p.gate.control.list = exhausted  # type: ignore[assignment,method-assign]
            answer = await p.viewer.get("/v1/endpoints")
            assert problem(answer) == (503, "storage_failed")
            assert "descriptors" in answer.text
            assert answer.headers["retry-after"]

    run(body)


def test_statuses_are_those_of_the_closed_table() -> None:
    source = Path(__file__).parents[3] / "rust" / "core" / "src" / "error.rs"
    rows = re.findall(r'= \("(\w+)", (?:Some\((\d+)\)|None), ', source.read_text())
    assert len(rows) > 20
    assert {name: int(status) for name, status in rows if status} == STATUS

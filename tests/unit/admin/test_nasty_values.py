"""Every parameter, field and path segment of every call with values that nobody means: answered at once, and never by a 5xx."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from headgate.admin.table import ApiCall, Handlers, calls
from unit.admin_harness import Port, port
from unit.control_harness import document, run

ESCAPED = [
    "%00",
    "a%00b",
    "%ED%A0%80",
    "%FF",
    "%0a",
    "%2e%2e",
    "%F0%9F%92%A5",
    "x" * 5000,
    "-1",
    "1e400",
    "9" * 30,
    "%2B1",
    "NaN",
    "true",
    "",
    "%20",
    "999999999999d",
    "/%00",
    "/" + "y" * 300,
    "/proc/self/fd/0/x",
]
VALUES: list[Any] = [
    "\0",
    "a\0b",
    "\ud800",
    "\u202e",
    "x" * 200_000,
    -1,
    10**30,
    float("inf"),
    float("nan"),
    1.5,
    True,
    [],
    {},
    {"\0": "\0"},
    {"\ud800": "5%"},
    {"v2": "\ud800"},
    {"v2": "9" * 50 + "%"},
    {"v" * 100_000: "1%"},
    [[[[]]]],
    "999999999999d",
    "9" * 5000 + "d",
]


def requests(call: ApiCall, turn: int) -> Iterator[tuple[str, Any]]:
    """Paths with their query, and bodies: one of the values in one place each; some of them, others at another turn."""
    good = {"{endpoint}": "digits", "{n}": "1", "{version}": "v1", "{name}": "careful", "{id}": "none"}
    body: dict[str, Any] | None = None if call.body is None else {}
    # A stream that is followed has no end.
    ends = "&follow=false" if "follow" in call.query else ""
    for nasty in ["%00", *ESCAPED[turn % 5 :: 5]]:
        for name in call.query:
            if name != "follow":
                yield f"{filled(call.path, good)}?{name}={nasty}{ends}", body
        for segment in good:
            if segment in call.path:
                yield filled(call.path, {**good, segment: nasty}), body
    for name in () if call.body is None else call.body.model_fields:
        yield from ((filled(call.path, good), {name: value}) for value in VALUES[turn % 3 :: 3])


def filled(path: str, names: dict[str, str]) -> str:
    for segment, name in names.items():
        path = path.replace(segment, name)
    return path


async def answer(p: Port, call: ApiCall, path: str, body: Any) -> httpx.Response:
    headers = {"if-match": "*"} if call.matches else {}
    content = b"" if body is None else json.dumps(body).encode()
    if call.takes != "nothing":
        kind = "yaml" if call.takes == "document" else "json"
        headers["content-type"] = f"application/{kind}"
    if call.takes == "document":
        content = document().encode()
    request = p.admin.build_request(call.method, "http://127.0.0.1:8003/", headers=headers, content=content)
    # As it is: a client would escape it once more, or take it away.
    request.url = RawUrl(path)
    return await p.admin.send(request)


class RawUrl(httpx.URL):
    """An address whose path and query are sent as they stand here."""

    def __init__(self, raw: str) -> None:
        super().__init__("http://127.0.0.1:8003/")
        self._raw = raw.encode()

    @property
    def raw_path(self) -> bytes:
        return self._raw

    @property
    def path(self) -> str:
        return self._raw.partition(b"?")[0].decode()

    @property
    def query(self) -> bytes:
        return self._raw.partition(b"?")[2]


def test_no_value_is_a_fault_of_the_gateway(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            count = 0
            table = calls(Handlers.of(p.gate.control, p.tokens))
            for turn, call in enumerate(table):
                for path, sent in requests(call, turn):
                    found = await answer(p, call, path, sent)
                    told = (call.method, path[:200], str(sent)[:200], found.status_code, found.text[:500])
                    assert found.status_code < 500, told
                    assert len(found.content) < 100_000, told
                    count += 1
                if call.path.endswith("{endpoint}"):
                    await p.gate.apply(document())
            assert count > 300

    run(body)

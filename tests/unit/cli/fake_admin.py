"""An admin API for the command line's tests: canned answers by method and path, every request kept.

It checks no rule of the real one; that is what tests/e2e does. Next: the tests beside it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from click.testing import CliRunner, Result

from headgate.cli import main
from headgate.cli.session import CliEnvironment
from headgate.cli.transport import Request, Response

TRAFFIC: dict[str, Any] = {
    "endpoint": "digits",
    "revision": 41,
    "champion": "v1",
    "last_good": "v1",
    "rollback_to": "v1",
    "weights": {"v2": "10%"},
    "sticky": "x-user-id",
    "salt": "digits/abc/1",
    "attempt": 1,
    "table": [["v2", 0, 999]],
    "since": "2027-03-01T03:12:04Z",
    "share": {"keys": {"v1": "90%", "v2": "10%"}, "requests": None},
    "rules": [{"when": 'header.x-tester is "1"', "to": "v2", "state": "on"}],
    "shadows": [{"to": "v3", "share": "10%", "state": "off"}, {"to": "v4", "share": "5%", "state": "on"}],
    "capture": {"share": "1%", "state": "on"},
    "declared": {
        "champion": "v1",
        "weights": {"v2": "10%"},
        "sticky": "header.x-user-id",
        "shadows": {"v3": "10%", "v4": "5%"},
        "capture": "1%",
    },
    "notes": [],
}

PLAN: dict[str, Any] = {
    "endpoint": "digits",
    "base_revision": 41,
    "revision": 42,
    "changes": True,
    "text": "Change the traffic of digits: champion v1, v2 14%. 400 of 10 000 slots (4 % of keys, 3.9 % of requests in 5 min) move from "
    "v1 to v2. v2 is warm (1 MiB). Undo: restore revision 41.",
    "champion": {"from": "v1", "to": "v1"},
    "moves": {"v1→v2": 400},
    "share_of_keys": "4%",
    "share_of_requests": "3.9%",
    "rollback_to": "v1",
    "load": ["v2"],
    "unload": [],
    "needs": {"v2": {"state": "warm", "sessions": 1, "file_bytes": 26_112, "memory_bytes": 1 << 20}},
    "block": [],
    "undo": [
        {
            "action": "restore",
            "method": "POST",
            "path": "/v1/endpoints/digits:restore",
            "query": {},
            "body": {"revision": 41},
        }
    ],
    "notes": ["live champion is v8, your document says v7: kept (--take-traffic to move)"],
    "diff": "-a\n+b\n",
}

RESULT: dict[str, Any] = {
    "endpoint": "digits",
    "revision": 42,
    "status": "applied",
    "kind": "traffic",
    "durable": True,
    "message": "v1, 5% to v2",
    "traffic": {"champion": "v1", "weights": {"v2": "5%"}, "shadows_off": ["v3"], "capture_off": False},
    "plan": PLAN,
}

Answer = tuple[int, Any, dict[str, str]]


def ok(body: Any, revision: int | None = None) -> Answer:
    """A 200 with a body, and with an ETag when the revision is given."""
    return 200, body, {} if revision is None else {"etag": f'"{revision}"'}


def problem(status: int, code: str, detail: str, **more: Any) -> Answer:
    """An ``application/problem+json`` answer."""
    body = {"type": "about:blank", "title": code, "status": status, "code": code, "detail": detail, **more}
    return status, body, {"content-type": "application/problem+json"}


@dataclass
class FakeAdmin:
    """Answers ``"GET /v1/endpoints"`` and so on; an unknown call fails the test."""

    answers: dict[str, Answer] = field(default_factory=dict)
    requests: list[httpx.Request] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        status, body, headers = self.answers[f"{request.method} {request.url.path}"]
        return httpx.Response(status, json=body, headers=headers)

    @property
    def last(self) -> httpx.Request:
        """The newest request."""
        return self.requests[-1]

    @property
    def body(self) -> Any:
        """The newest request's JSON."""
        return json.loads(self.last.content)


class FakeTransport:
    """The command line's transport in front of ``answer``; requests become those of httpx, which are easy to look at."""

    def __init__(self, answer: Callable[[httpx.Request], httpx.Response], base: str) -> None:
        self._answer = answer
        self._base = base

    def send(self, request: Request) -> Response:
        """One exchange."""
        made = httpx.Request(
            request.method,
            f"{self._base}{request.target}",
            headers=dict(request.headers),
            content=request.body,
        )
        answer = self._answer(made)
        return Response(answer.status_code, dict(answer.headers), answer.content)

    @contextmanager
    def stream(self, request: Request) -> Iterator[Any]:
        """The whole answer as a stream."""
        answer = self.send(request)
        yield Streamed(answer.status, io.BytesIO(answer.body))

    def close(self) -> None:
        """Nothing is kept."""


@dataclass
class Streamed:
    """An answer whose bytes lie ready."""

    status: int
    content: io.BytesIO

    def readline(self, limit: int, /) -> bytes:
        """The next line."""
        return self.content.readline(limit)

    def read(self, amount: int, /) -> bytes:
        """What follows."""
        return self.content.read(amount)


def around(answer: Callable[[httpx.Request], httpx.Response], **variables: str) -> CliEnvironment:
    """What the command line finds around itself: these variables, and ``answer`` wherever it calls."""
    return CliEnvironment(
        variables={"HOME": "/nonexistent", **variables},
        make_transport=lambda address: FakeTransport(answer, str(address)),
    )


def call(
    answer: Callable[[httpx.Request], httpx.Response],
    *arguments: str,
    stdin: bytes | None = None,
    **variables: str,
) -> Result:
    """Runs a client command against ``answer`` with a token in its environment."""
    obj = around(answer, HEADGATE_TOKEN="headgate_kid_secret", **variables)
    return CliRunner().invoke(main, list(arguments), obj=obj, input=stdin, prog_name="headgate")

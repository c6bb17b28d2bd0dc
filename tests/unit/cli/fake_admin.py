"""An admin API for the command line's tests: canned answers by method and path, every request kept.

It checks no rule of the real one; that is what tests/e2e does. Next: the tests beside it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
from click.testing import CliRunner, Result

from headgate.cli import main
from headgate.cli.session import Surroundings

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
    "declared": {"champion": "v1", "weights": {"v2": "10%"}, "sticky": "header.x-user-id"},
    "notes": [],
}

PLAN: dict[str, Any] = {
    "endpoint": "digits",
    "base_revision": 41,
    "revision": 42,
    "changes": True,
    "champion": {"from": "v1", "to": "v1"},
    "moves": {"v1→v2": 400},
    "share_of_keys": "4%",
    "rollback_to": "v1",
    "load": ["v2"],
    "unload": [],
    "block": [],
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
    "traffic": {"champion": "v1", "weights": {"v2": "5%"}},
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


def call(admin: Callable[[httpx.Request], httpx.Response], *arguments: str, **variables: str) -> Result:
    """Runs a client command against ``admin`` with a token in its environment."""
    environment = {"HEADGATE_TOKEN": "headgate_kid_secret", "HOME": "/nonexistent", **variables}
    around = Surroundings(variables=environment, transport=httpx.MockTransport(admin))
    return CliRunner().invoke(main, list(arguments), obj=around)

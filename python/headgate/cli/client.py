"""Calls the admin API: one HTTP request each, errors as the classes of headgate.errors.

It prints nothing and decides no exit code; see session.py. It never retries: a write that may have happened
is for the caller to look at. The calls and shapes are those of docs/design/admin-api.md. Next: session.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

import httpx

from headgate.errors import HeadgateError, from_code

_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 900.0
"""A write answers once its models are loaded and warm, which takes minutes for large ones."""


class UnreachableError(HeadgateError):
    """No gateway answers at the admin address, or what answers is not one."""

    code: ClassVar[str] = "unreachable"


@dataclass(frozen=True)
class Answer:
    """A successful answer: the decoded body, and the revision of its ``ETag`` where it has one."""

    body: Any
    revision: int | None
    status: int


@dataclass(frozen=True)
class Target:
    """Where to call and as whom."""

    url: str
    """Scheme, host and port, such as ``http://127.0.0.1:8003``."""
    token: str
    transport: httpx.BaseTransport | None = None
    """Replaces the network; tests use it."""


class AdminClient:
    """The admin API of one gateway; use it as a context manager."""

    def __init__(self, target: Target) -> None:
        self._url = target.url
        self._http = httpx.Client(
            base_url=f"{target.url}/v1",
            headers={"authorization": f"Bearer {target.token}"},
            timeout=httpx.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS),
            transport=target.transport,
            # The token goes to the address that was named, never through a proxy of the environment.
            trust_env=False,
        )

    def __enter__(self) -> AdminClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, params: Mapping[str, Any] | None = None) -> Answer:
        """``GET /v1{path}``; parameters that are ``None`` are left out."""
        return self._call("GET", path, params=params)

    def post(
        self,
        path: str,
        body: Mapping[str, Any],
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> Answer:
        """``POST /v1{path}`` with a JSON body; fields that are ``None`` are left out."""
        return self._call("POST", path, params=params, headers=headers, body=body)

    def patch(
        self,
        path: str,
        body: Mapping[str, Any],
        headers: Mapping[str, str],
        params: Mapping[str, Any] | None = None,
    ) -> Answer:
        """``PATCH /v1{path}`` with a JSON body; fields that are ``None`` are left out."""
        return self._call("PATCH", path, params=params, headers=headers, body=body)

    def put_document(
        self, endpoint: str, document: bytes, headers: Mapping[str, str], params: Mapping[str, Any]
    ) -> Answer:
        """``PUT /v1/endpoints/{endpoint}`` with a YAML document, byte for byte."""
        sent = {**headers, "content-type": "application/yaml"}
        return self._call(
            "PUT", f"/endpoints/{segment(endpoint)}", params=params, headers=sent, content=document
        )

    def delete(
        self, path: str, headers: Mapping[str, str] | None = None, params: Mapping[str, Any] | None = None
    ) -> Answer:
        """``DELETE /v1{path}``."""
        return self._call("DELETE", path, params=params, headers=headers)

    def _call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content: bytes | None = None,
    ) -> Answer:
        sent = dict(headers or {})
        if body is not None:
            sent["content-type"] = "application/json"
            content = json.dumps({key: value for key, value in body.items() if value is not None}).encode()
        wanted = {key: value for key, value in (params or {}).items() if value is not None}
        try:
            response = self._http.request(method, path, params=wanted, headers=sent, content=content)
        except httpx.ConnectError as error:
            raise UnreachableError(
                f"no gateway answers at {self._url} ({error}); start one with `headgate serve`, or name another with "
                "--admin URL"
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise UnreachableError(f"{self._url} did not answer: {error or type(error).__name__}") from error
        return self._answer(response)

    def _answer(self, response: httpx.Response) -> Answer:
        try:
            body = response.json()
        except ValueError as error:
            raise UnreachableError(
                f"{self._url} answered {response.status_code} without JSON; is it the admin port of a gateway?"
            ) from error
        if response.is_success:
            etag = response.headers.get("etag", "").strip('"')
            return Answer(body, int(etag) if etag.isdecimal() else None, response.status_code)
        if not isinstance(body, dict) or "code" not in body:
            raise UnreachableError(
                f"{self._url} answered {response.status_code} in an unknown form; is it the admin port of a gateway?"
            )
        facts = dict(body.get("facts") or {})
        if "faults" in body:
            facts["faults"] = body["faults"]
        raise from_code(body["code"], body.get("detail") or body.get("title") or body["code"], facts)


def segment(name: str) -> str:
    """A name as one segment of a path."""
    return quote(name, safe="")


def if_match(revision: int | None) -> dict[str, str]:
    """The precondition of a write on an endpoint that exists at ``revision``, or at any when it is not
    known.
    """
    return {"if-match": "*" if revision is None else f'"{revision}"'}


def read_addresses(state: Path) -> dict[str, str]:
    """The bound addresses that a gateway left in its state folder; empty when there are none."""
    try:
        found = json.loads((state / "addresses.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        # Absent, unreadable for this user, or cut off by a crash: then the default address is as good a guess.
        return {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}

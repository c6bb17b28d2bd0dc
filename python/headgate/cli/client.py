"""Calls the admin API: one HTTP request each, errors as the classes of headgate.errors.

It prints nothing and decides no exit code; see session.py. It never repeats a write: what may have happened is for the caller to
look at. The calls and shapes are those of docs/design/admin-api.md. Next: session.py.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from headgate.cli.exits import UnreachableError
from headgate.cli.target import Target
from headgate.cli.transport import HttpTransport, Request, Response, Stream, Transport
from headgate.errors import HeadgateError, from_code

_WRITE_SECONDS = 900.0
"""A write answers once its models are loaded and warm, which takes minutes for large ones."""
_READ_SECONDS = 60.0
_POLL_SECONDS = 0.5
_ERROR_BYTES = 1 << 20


@dataclass(frozen=True)
class Answer:
    """A successful answer: the decoded body, and the revision of its ``ETag`` where it has one."""

    body: Any
    revision: int | None
    status: int


@dataclass(frozen=True)
class Timing:
    """How long an answer may take, and how time passes meanwhile; tests replace it."""

    connect_seconds: float = 5.0
    read_seconds: float = _READ_SECONDS
    write_seconds: float = _WRITE_SECONDS
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic


class AdminClient:
    """The admin API of one gateway; use it as a context manager."""

    def __init__(self, target: Target, transport: Transport | None = None, timing: Timing = Timing()) -> None:
        self.address = target.address
        self._headers = {"authorization": f"Bearer {target.token}", "accept": "application/json"}
        self._transport = transport or HttpTransport(target.address, timing.connect_seconds)
        self._timing = timing

    def __enter__(self) -> AdminClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._transport.close()

    def get(self, path: str, params: Mapping[str, Any] | None = None) -> Answer:
        """``GET /v1{path}``; parameters that are ``None`` are left out."""
        return self._call("GET", path, params)

    def ask(self, path: str, body: Mapping[str, Any]) -> Answer:
        """``POST /v1{path}`` of a call that changes nothing."""
        return self._call("POST", path, None, _JSON, _encoded(body))

    def post(
        self,
        path: str,
        body: Mapping[str, Any],
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> Answer:
        """``POST /v1{path}`` with a JSON body; fields that are ``None`` are left out."""
        return self._write("POST", path, params, {**(headers or {}), **_JSON}, _encoded(body))

    def patch(
        self,
        path: str,
        body: Mapping[str, Any],
        headers: Mapping[str, str],
        params: Mapping[str, Any] | None = None,
    ) -> Answer:
        """``PATCH /v1{path}`` with a JSON body; fields that are ``None`` are left out."""
        return self._write("PATCH", path, params, {**headers, **_JSON}, _encoded(body))

    def put_document(
        self, path: str, document: bytes, headers: Mapping[str, str], params: Mapping[str, Any]
    ) -> Answer:
        """``PUT /v1{path}`` with a YAML document, byte for byte."""
        sent = {**headers, "content-type": "application/yaml"}
        return self._write("PUT", path, params, sent, document)

    def delete(
        self, path: str, headers: Mapping[str, str] | None = None, params: Mapping[str, Any] | None = None
    ) -> Answer:
        """``DELETE /v1{path}``."""
        return self._write("DELETE", path, params, headers or {}, None)

    @contextmanager
    def stream(
        self, path: str, params: Mapping[str, Any], headers: Mapping[str, str], pause_seconds: float
    ) -> Iterator[Stream]:
        """``GET /v1{path}`` of an answer that goes on; ``pause_seconds`` is the longest time without a byte."""
        sent = {**self._headers, **headers, "accept": "text/event-stream"}
        request = Request("GET", _target(path, params), sent, None, pause_seconds)
        with self._transport.stream(request) as stream:
            if stream.status != 200:
                self._refuse(Response(stream.status, {}, stream.read(_ERROR_BYTES)))
            yield stream

    def operation(self, operation_id: str, wait_seconds: float = 0.0) -> dict[str, Any]:
        """An operation, once it has ended or ``wait_seconds`` have passed."""
        end = self._timing.clock() + wait_seconds
        while True:
            found: dict[str, Any] = self.get(f"/operations/{segment(operation_id)}").body
            if found["status"] != "running" or self._timing.clock() >= end:
                return found
            self._timing.sleep(_POLL_SECONDS)

    def _write(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None,
        headers: Mapping[str, str],
        content: bytes | None,
    ) -> Answer:
        """A write; one that takes longer goes on as an operation, which is followed for ``write_seconds``."""
        answer = self._call(method, path, params, {"prefer": "respond-async", **headers}, content)
        if answer.status != 202:
            return answer
        ended = self.operation(answer.body["id"], self._timing.write_seconds)
        if ended["status"] == "running":
            raise UnreachableError(
                f"the change of {ended['endpoint']} goes on; follow it with `headgate operations {ended['id']} --wait`"
            )
        if ended["problem"] is not None:
            raise problem_error(ended["problem"])
        return Answer(ended["result"], ended["result"].get("revision"), 200)

    def _call(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> Answer:
        seconds = self._timing.read_seconds if method == "GET" else self._timing.write_seconds
        sent = {**self._headers, **(headers or {})}
        response = self._transport.send(Request(method, _target(path, params), sent, content, seconds))
        if not 200 <= response.status < 300:
            self._refuse(response)
        etag = response.headers.get("etag", "").strip('"')
        return Answer(self._json(response), int(etag) if _is_number(etag) else None, response.status)

    def _json(self, response: Response) -> Any:
        try:
            return json.loads(response.body)
        except (ValueError, RecursionError) as error:
            raise UnreachableError(
                f"{self.address} answered {response.status} without JSON; is it the admin port of a gateway?"
            ) from error

    def _refuse(self, response: Response) -> None:
        body = self._json(response)
        if not isinstance(body, dict) or not isinstance(body.get("code"), str):
            raise UnreachableError(
                f"{self.address} answered {response.status} in an unknown form; is it the admin port of a gateway?"
            )
        raise problem_error(body)


def problem_error(body: Mapping[str, Any]) -> HeadgateError:
    """The error that a problem of the API describes."""
    facts = dict(body.get("facts") or {})
    if "faults" in body:
        facts["faults"] = body["faults"]
    return from_code(body["code"], str(body.get("detail") or body.get("title") or body["code"]), facts)


def segment(name: str) -> str:
    """A name as one segment of a path."""
    return quote(name, safe="")


def if_match(revision: int | None) -> dict[str, str]:
    """The precondition of a write on an endpoint that exists at ``revision``, or at any when it is not
    known.
    """
    return {"if-match": "*" if revision is None else f'"{revision}"'}


_JSON = {"content-type": "application/json"}


def _encoded(body: Mapping[str, Any]) -> bytes:
    return json.dumps({key: value for key, value in body.items() if value is not None}).encode()


def _target(path: str, params: Mapping[str, Any] | None) -> str:
    query = urlencode(
        {key: value for key, value in (params or {}).items() if value is not None}, quote_via=quote
    )
    return f"/v1{path}?{query}" if query else f"/v1{path}"


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 20

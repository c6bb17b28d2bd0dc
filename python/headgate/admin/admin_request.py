"""What one request says, checked: body, query, preconditions, idempotency key, caller.

Not here: what happens then (``endpoints``, ``rest``). Next: ``table``.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from headgate.admin.guard import PRINCIPAL
from headgate.admin.tokens import Principal
from headgate.control import ABSENT, ANY, EXISTS, Call, IdempotencyKey, Precondition
from headgate.errors import InvalidArgument, PayloadTooLarge, PreconditionRequired, UnsupportedMediaType

MAX_BODY_BYTES = 1024 * 1024
_MAX_REASON = 1000
_SHOWN = 200
"""Characters of a name that a message repeats."""
_REVISION = re.compile(r'"?([1-9]\d{0,9})"?', re.ASCII)
_KEY = re.compile(r"[!-~]{1,200}", re.ASCII)
JSON_TYPES = frozenset({"application/json"})
DOCUMENT_TYPES = JSON_TYPES | {"application/yaml", "application/x-yaml"}
B = TypeVar("B", bound=BaseModel)


@dataclass(frozen=True)
class AdminRequest:
    """A request whose body has been read and whose role has been checked."""

    http: Request
    principal: Principal
    body: bytes

    @property
    def endpoint(self) -> str:
        """The endpoint in the path."""
        return str(self.http.path_params["endpoint"])

    def path(self, name: str) -> str:
        """Another parameter of the path."""
        return str(self.http.path_params[name])

    def query(self, name: str) -> str | None:
        """A parameter of the query, given at most once."""
        values = self.http.query_params.getlist(name)
        if len(values) > 1:
            raise InvalidArgument(f"query {name}: it is given {len(values)} times; give it once")
        return values[0] if values else None

    def flag(self, name: str, *, default: bool = False) -> bool:
        """A parameter that is true or false; ``default`` when absent."""
        value = self.query(name)
        if value not in (None, "true", "false"):
            raise InvalidArgument(f"query {name}: {value!r} is neither true nor false")
        return default if value is None else value == "true"

    def number(self, name: str, low: int, high: int) -> int | None:
        """A whole number of the query."""
        value = self.query(name)
        if value is None:
            return None
        if not re.fullmatch(r"\d{1,18}", value, re.ASCII) or not low <= int(value) <= high:
            raise InvalidArgument(f"query {name}: {value!r} is not a whole number from {low} to {high}")
        return int(value)

    def read(self, model: type[B]) -> B:
        """The body as ``model``; an empty one is ``{}``."""
        try:
            return model.model_validate(_strict_json(self.body or b"{}"))
        except ValidationError as error:
            raise InvalidArgument("the body does not fit: " + "; ".join(_words(error))) from None

    def call(self, reason: str | None = None, precondition: Precondition = ANY) -> Call:
        """The circumstances for control."""
        why = reason if reason is not None else self.query("reason")
        why = why or ""
        if len(why) > _MAX_REASON:
            raise InvalidArgument(f"reason: it has {len(why)} characters; {_MAX_REASON} are kept at most")
        if not why.isprintable():
            raise InvalidArgument(
                f"reason: {why!r} has characters that cannot be printed; write one line of text"
            )
        return Call(
            principal=self.principal.name,
            role=self.principal.role,
            token=self.principal.id,
            reason=why,
            precondition=precondition,
            dry_run=self.flag("dry_run"),
            key=self._idempotency_key(),
        )

    def plans_before(self) -> frozenset[str]:
        """The plans that a dry run takes as stored."""
        written = self.query("with_plans")
        if written is not None and not self.flag("dry_run"):
            raise InvalidArgument(
                "query with_plans: it goes with dry_run=true; a write needs its plan stored"
            )
        return frozenset(written.split(",") if written else ())

    def precondition(self, *, creates: bool) -> Precondition:
        """If-Match, or If-None-Match where the call may create; :class:`PreconditionRequired` without."""
        headers = self.http.headers
        match, none_match = headers.get("if-match"), headers.get("if-none-match")
        if match is not None and none_match is not None:
            raise InvalidArgument("send either If-Match or If-None-Match, not both")
        if none_match is not None and creates:
            if none_match.strip() != "*":
                raise InvalidArgument("If-None-Match: only * has a meaning here")
            return ABSENT
        if match is None:
            if self.flag("dry_run"):
                return ANY
            how = 'If-Match: "<revision>"' + (", or If-None-Match: * to create" if creates else "")
            raise PreconditionRequired(f"send {how}, so that nobody's change is overwritten unseen")
        if match.strip() == "*":
            return EXISTS
        found = _REVISION.fullmatch(match.strip())
        if found is None:
            raise InvalidArgument(
                f'If-Match: {match!r} is not a revision; send the ETag that was read, as "41"'
            )
        return Precondition.at(int(found[1]))

    def wants_operation(self) -> bool:
        """``Prefer: respond-async``."""
        said = ",".join(self.http.headers.getlist("prefer")).lower()
        return "respond-async" in {part.strip() for part in re.split("[,;]", said)}

    def _idempotency_key(self) -> IdempotencyKey | None:
        key = self.http.headers.get("idempotency-key")
        if key is None:
            return None
        if not _KEY.fullmatch(key):
            raise InvalidArgument(
                "Idempotency-Key: it needs 1 to 200 printable ASCII characters without spaces"
            )
        url = self.http.url
        parts = [
            url.query,
            self.http.headers.get("content-type", ""),
            self.http.headers.get("if-match", ""),
        ]
        told = "\n".join(parts).encode() + b"\n" + self.body
        route = f"{self.http.method} {url.path}"
        return IdempotencyKey(self.principal.id, route, key, hashlib.sha256(told).hexdigest())


def principal_of(request: Request) -> Principal:
    """Whom the guard let in."""
    principal = request.scope[PRINCIPAL]
    if not isinstance(principal, Principal):
        raise TypeError("the guard leaves a principal in the scope before any route is reached")
    return principal


async def read_body(request: Request) -> bytes:
    """The body, at most 1 MiB."""
    too_large = PayloadTooLarge(f"the body is larger than {MAX_BODY_BYTES} bytes, the most this API takes")
    claimed = request.headers.get("content-length", "")
    if claimed.isdigit() and int(claimed) > MAX_BODY_BYTES:
        raise too_large
    data = bytearray()
    try:
        async for chunk in request.stream():
            data += chunk
            if len(data) > MAX_BODY_BYTES:
                raise too_large
    except ClientDisconnect:
        raise InvalidArgument("the body did not arrive whole") from None
    return bytes(data)


def check_content_type(request: Request, allowed: frozenset[str]) -> str:
    """The media type without parameters. Anything a page of another site can send unasked is refused."""
    value = request.headers.get("content-type", "")
    found = value.partition(";")[0].strip().lower()
    if found not in allowed:
        raise InvalidArgument(f"Content-Type {value!r}: send {' or '.join(sorted(allowed))}")
    return found


def check_content_coding(request: Request) -> None:
    """Bodies of this API are small: they come as they are, in no content coding."""
    for value in request.headers.getlist("content-encoding"):
        if {part.strip().lower() for part in value.split(",")} - {"", "identity"}:
            raise UnsupportedMediaType(f"Content-Encoding {value!r} is not supported; send the body as it is")


def _strict_json(data: bytes) -> Any:
    if data.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)):
        raise InvalidArgument(
            "the body begins with a byte order mark; JSON is sent as UTF-8 and without a mark"
        )
    try:
        return json.loads(data, object_pairs_hook=_no_twice)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"the body is not JSON: {error}") from None


def _no_twice(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the key {name!r} is given twice")
        found[name] = value
    return found


def _words(error: ValidationError) -> list[str]:
    words = []
    for fault in error.errors(include_url=False, include_context=False, include_input=False):
        path = ".".join(str(part)[:_SHOWN] for part in fault["loc"]) or "body"
        message = "unknown field" if fault["type"] == "extra_forbidden" else fault["msg"]
        words.append(f"{path}: {message}")
    return words

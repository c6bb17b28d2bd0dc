"""The calls about replays of captured requests.

Not here: what is compared (``rust/server/src/replay``), which role they need (``table``). Next: ``rest``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError
from starlette.responses import JSONResponse, Response

from headgate.admin.admin_request import AdminRequest
from headgate.admin.bodies import NewReplay
from headgate.control import Control
from headgate.control.writes.replays import ReplayRequest
from headgate.documents import parse_duration
from headgate.documents.faults import quoted
from headgate.documents.fields import MAX_TIMEOUT_MS
from headgate.documents.traffic import Compare
from headgate.documents.values import format_duration
from headgate.errors import InvalidArgument, NotFound
from headgate.store.clock import unstamp

_COMPARE: TypeAdapter[dict[str, Compare]] = TypeAdapter(dict[str, Compare])


class ReplayCalls:
    """Handlers around one control plane."""

    def __init__(self, control: Control) -> None:
        """The control plane that answers."""
        self._replays = control.replays

    async def start(self, request: AdminRequest) -> Response:
        """Begins one."""
        body = request.read(NewReplay)
        wanted = ReplayRequest(
            version=body.version,
            against=body.against,
            since_us=_microseconds("since", body.since),
            until_us=_microseconds("until", body.until),
            max_requests=body.max_requests,
            compare=_compare(body.compare),
            timeout_ms=_timeout(body.timeout),
        )
        call = request.call(body.reason)
        if call.key is not None:
            raise InvalidArgument("Idempotency-Key: a replay changes nothing that is served; send none")
        operation = await self._replays.start(request.endpoint, wanted, call)
        return JSONResponse(operation, 202, {"location": f"/v1/operations/{operation['id']}"})

    async def list(self, request: AdminRequest) -> Response:
        """The newest first."""
        return JSONResponse({"replays": await self._replays.list(request.endpoint)})

    async def get(self, request: AdminRequest) -> Response:
        """One."""
        return JSONResponse(await self._replays.get(request.endpoint, _number(request)))

    async def cancel(self, request: AdminRequest) -> Response:
        """Ends one."""
        report = await self._replays.cancel(request.endpoint, _number(request), request.call())
        # As every write: an answer that was given before is the same, and a header says so.
        headers = {"idempotency-replayed": "true"} if report.pop("replayed", False) else {}
        return JSONResponse(report, headers=headers)


def _number(request: AdminRequest) -> int:
    written = request.path("id")
    if not (written.isascii() and written.isdigit() and len(written) <= 18):
        raise NotFound(f"{quoted(written)} is no replay; they have numbers")
    return int(written)


def _microseconds(name: str, written: str | None) -> int | None:
    if written is None:
        return None
    try:
        return round(unstamp(written).timestamp() * 1_000_000)
    except (ValueError, OverflowError):
        raise InvalidArgument(
            f'{name}: {quoted(written)} is no time with a zone: write it as "2027-03-01T03:12:04Z"'
        ) from None


def _timeout(written: str | None) -> int | None:
    if written is None:
        return None
    try:
        milliseconds = parse_duration(written)
    except ValueError as error:
        raise InvalidArgument(f"timeout: {error}") from None
    if not 1 <= milliseconds <= MAX_TIMEOUT_MS:
        most = format_duration(MAX_TIMEOUT_MS)
        raise InvalidArgument(f"timeout: it must be 1ms to {most}, not {quoted(written)}")
    return milliseconds


def _compare(written: Mapping[str, Any] | None) -> dict[str, Any]:
    """As a shadow's in a document."""
    try:
        read = _COMPARE.validate_python(dict(written or {}))
    except ValidationError as error:
        faults = [
            f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in error.errors()
        ]
        raise InvalidArgument("compare: " + "; ".join(faults)) from None
    forms = {name: one.model_dump(exclude_none=True) for name, one in read.items()}
    for name, form in forms.items():
        if len(form) != 1:
            has = " and ".join(form) or "nothing"
            raise InvalidArgument(f"compare: {name} has {has}; write exact, label, within, threshold or top")
    return forms

"""The calls about rollouts of an endpoint, and about the documents that they draw on: plans and the defaults.

Not here: what a rollout decides (``control.domain.rollout``), which role a call needs (``table``). Next: ``rest``.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import Any

from starlette.responses import JSONResponse, Response

from headgate.admin.admin_request import AdminRequest
from headgate.admin.answers import NO_STORE, answered, etag
from headgate.admin.bodies import ApproveRollout, PromoteRollout, ReasonBody, RetryRollout, StartRollout
from headgate.control import ANY, Call, Control, Result
from headgate.control.domain.results import PlanDocumentView, PlanResult
from headgate.errors import NotFound


class RolloutHandlers:
    """Handlers around one control plane."""

    def __init__(self, control: Control) -> None:
        """The control plane that answers."""
        self._control = control

    # === reads ===

    async def view(self, request: AdminRequest) -> Response:
        """The rollout that is under way, or the last one."""
        name = request.endpoint
        found = await self._control.rollout_view(name)
        if found is None:
            raise NotFound(f"{name} has had no rollout: start one (headgate rollout start {name} VERSION)")
        return JSONResponse(found, headers=etag(found["revision"]))

    async def history(self, request: AdminRequest) -> Response:
        """The rollouts that the kept revisions tell of, newest first."""
        return JSONResponse({"rollouts": await self._control.rollouts(request.endpoint)})

    # === writes ===

    async def start(self, request: AdminRequest) -> Response:
        """Begins one."""
        body = request.read(StartRollout)
        call = request.call(body.reason, request.precondition(creates=False))
        work = self._control.rollout_start(request.endpoint, body.version, body.plan, call=call)
        return await self._answer(request, call, "rollout_start", work)

    async def retry(self, request: AdminRequest) -> Response:
        """Begins one of a digest that was rejected."""
        body = request.read(RetryRollout)
        call = request.call(body.reason, request.precondition(creates=False))
        work = self._control.rollout_retry(request.endpoint, body.version, body.plan, call=call)
        return await self._answer(request, call, "rollout_start", work)

    async def promote(self, request: AdminRequest) -> Response:
        """The next step, or the end."""
        body = request.read(PromoteRollout)
        call = request.call(body.reason, request.precondition(creates=False))
        work = self._control.rollout_promote(request.endpoint, full=bool(body.full), call=call)
        return await self._answer(request, call, "rollout_promote", work)

    async def pause(self, request: AdminRequest) -> Response:
        """Holds it."""
        call = request.call(request.read(ReasonBody).reason, request.precondition(creates=False))
        work = self._control.rollout_pause(request.endpoint, call=call)
        return await self._answer(request, call, "rollout_pause", work)

    async def resume(self, request: AdminRequest) -> Response:
        """Has it go on."""
        call = request.call(request.read(ReasonBody).reason, request.precondition(creates=False))
        work = self._control.rollout_resume(request.endpoint, call=call)
        return await self._answer(request, call, "rollout_resume", work)

    async def approve(self, request: AdminRequest) -> Response:
        """Says yes to its next step that needs it, with the role of the caller's token."""
        body = request.read(ApproveRollout)
        call = request.call(body.reason, request.precondition(creates=False))
        role = request.principal.role
        work = self._control.rollout_approve(request.endpoint, role, digest=body.digest, call=call)
        return await self._answer(request, call, "rollout_approve", work)

    async def abort(self, request: AdminRequest) -> Response:
        """Emergency: everything as it was before it."""
        call = request.call(request.read(ReasonBody).reason, ANY)
        work = self._control.rollout_abort(request.endpoint, call=call)
        return await self._answer(request, call, "rollout_abort", work)

    async def _answer(
        self, request: AdminRequest, call: Call, kind: str, work: Coroutine[Any, Any, Result]
    ) -> Response:
        return await answered(self._control, request, call, kind, work)

    # === plans and defaults ===

    async def plans(self, _asked: AdminRequest) -> Response:
        """The stored plans."""
        return JSONResponse({"plans": self._control.plans()})

    async def plan(self, request: AdminRequest) -> Response:
        """One plan."""
        return _document(self._control.plan(request.path("name")))

    async def put_plan(self, request: AdminRequest) -> Response:
        """Stores one."""
        name = request.path("name")
        call = request.call(precondition=request.precondition(creates=True))
        beside = request.plans_before()
        work = self._control.put_plan(
            request.body, expected=("RolloutPlan", name), call=call, with_plans=beside
        )
        return _put(await work)

    async def delete_plan(self, request: AdminRequest) -> Response:
        """Removes one that nothing names."""
        call = request.call(precondition=request.precondition(creates=False))
        return _stored(await self._control.delete_plan(request.path("name"), call=call))

    async def defaults(self, _asked: AdminRequest) -> Response:
        """The defaults."""
        return _document(self._control.defaults())

    async def put_defaults(self, request: AdminRequest) -> Response:
        """Stores them."""
        call = request.call(precondition=request.precondition(creates=True))
        before = request.plans_before()
        work = self._control.put_plan(request.body, expected=("Defaults", ""), call=call, with_plans=before)
        return _put(await work)

    async def delete_defaults(self, request: AdminRequest) -> Response:
        """Removes them."""
        call = request.call(precondition=request.precondition(creates=False))
        return _stored(await self._control.delete_defaults(call=call))


def _document(view: PlanDocumentView) -> Response:
    return JSONResponse(view, headers=etag(view["n"]))


def _put(result: PlanResult) -> Response:
    """201 for a document that is new. The ETag is the number that the next write names."""
    created = result["status"] == "applied" and result["n"] == 1
    return _stored(result, 201 if created else 200, etag(result["n"]))


def _stored(result: PlanResult, status: int = 200, headers: Mapping[str, str] = NO_STORE) -> Response:
    body = {name: value for name, value in result.items() if name != "replayed"}
    replayed = {"idempotency-replayed": "true"} if result.get("replayed", False) else {}
    return JSONResponse(body, status, {**headers, **replayed})

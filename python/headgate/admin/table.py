"""Every call of the admin API in one table: path, role, query, body, answer. Routing and ``/openapi.json`` are made of it.

Not here: the handlers (``endpoints``, ``rest``). Next: ``app``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import BaseModel
from starlette.types import ASGIApp

from headgate.admin import bodies
from headgate.admin.admin_request import AdminRequest
from headgate.admin.endpoints import Endpoints
from headgate.admin.replays import ReplayCalls
from headgate.admin.rest import Rest
from headgate.admin.rollouts import RolloutHandlers
from headgate.admin.tokens import Role, Tokens, TokenView
from headgate.control import Control
from headgate.control.domain import results
from headgate.control.reads import views
from headgate.control.reads.rollout_views import RolloutSummary, RolloutView
from headgate.control.reads.shadow_views import ShadowsView
from headgate.control.reads.trials import TrialsView
from headgate.documents import Defaults, RolloutPlan

Handler = Callable[[AdminRequest], Awaitable[ASGIApp]]
Takes = Literal["nothing", "json", "document"]


@dataclass(frozen=True)
class ApiCall:
    """One call. ``answer`` is a schema source: a TypedDict, ``{"field": [TypedDict]}``, or a media type; ``body`` is the document's model
    where a document is taken, that of an endpoint when absent.
    """

    method: str
    path: str
    role: Role
    handler: Handler
    answer: Any
    summary: str
    body: type[BaseModel] | None = None
    takes: Takes = "nothing"
    query: tuple[str, ...] = ()
    matches: bool = False
    creates: bool = False
    later: bool = False
    status: int = 200

    @property
    def writes(self) -> bool:
        """Whether it takes an idempotency key."""
        return self.answer in (results.Result, results.PlanResult)

    @property
    def changes(self) -> bool:
        """Whether it may change anything, tokens included: such a call leaves a row in the audit."""
        return self.method != "GET" and self.answer is not views.Explanation

    @property
    def action(self) -> str:
        """What the audit calls it."""
        _, colon, verb = self.path.rpartition(":")
        if colon:
            return f"rollout_{verb}" if self.path.startswith(f"{_E}/rollout:") else verb
        return _ACTIONS.get((self.method, self.path), f"{self.method} {self.path}")


_E = "/v1/endpoints/{endpoint}"
_ACTIONS = {
    ("PUT", _E): "apply",
    ("DELETE", _E): "remove",
    ("PATCH", f"{_E}/traffic"): "traffic",
    ("POST", f"{_E}/rollout"): "rollout_start",
    ("PUT", "/v1/plans/{name}"): "plan_put",
    ("DELETE", "/v1/plans/{name}"): "plan_delete",
    ("PUT", "/v1/defaults"): "plan_put",
    ("DELETE", "/v1/defaults"): "plan_delete",
    ("POST", f"{_E}/replays"): "replay",
    ("DELETE", f"{_E}/replays/{{id}}"): "replay_cancel",
    ("POST", "/v1/tokens"): "token_create",
    ("DELETE", "/v1/tokens/{id}"): "token_revoke",
}
"""Beside the verbs that stand behind a colon."""
_WRITE = ("reason", "dry_run")


def _read(path: str, handler: Handler, answer: Any, summary: str, *query: str) -> ApiCall:
    return ApiCall("GET", path, "viewer", handler, answer, summary, query=query)


def _act(verb: str, handler: Handler, summary: str, body: type[BaseModel], **more: Any) -> ApiCall:
    return ApiCall(
        "POST", f"{_E}:{verb}", "operator", handler, results.Result, summary, body, "json", _WRITE, **more
    )


@dataclass(frozen=True)
class Handlers:
    """Who answers the calls."""

    endpoints: Endpoints
    replays: ReplayCalls
    rollouts: RolloutHandlers
    rest: Rest

    @classmethod
    def of(cls, control: Control, tokens: Tokens) -> Self:
        """Those around one control plane and its tokens."""
        return cls(Endpoints(control), ReplayCalls(control), RolloutHandlers(control), Rest(control, tokens))


def calls(handlers: Handlers) -> list[ApiCall]:
    """The table."""
    return [
        *_endpoint_calls(handlers.endpoints),
        *_action_calls(handlers.endpoints),
        *_replay_calls(handlers.replays),
        *_rollout_calls(handlers.rollouts),
        *_plan_calls(handlers.rollouts),
        *_other_calls(handlers.rest),
        *_caller_calls(handlers.rest),
    ]


def _endpoint_calls(e: Endpoints) -> list[ApiCall]:
    history = {"revisions": [views.RevisionSummary]}
    return [
        _read("/v1/endpoints", e.list, {"endpoints": [views.EndpointSummary]}, "All endpoints."),
        _read(_E, e.get, views.EndpointView, "One endpoint."),
        ApiCall(
            "PUT",
            _E,
            "operator",
            e.put,
            results.Result,
            "Applies a document: a three-way merge, or creation.",
            takes="document",
            query=(*_WRITE, "take_traffic", "source", "with_plans"),
            matches=True,
            creates=True,
            later=True,
        ),
        ApiCall(
            "DELETE",
            _E,
            "admin",
            e.delete,
            results.Result,
            "Takes an endpoint away; refused under traffic, history stays.",
            query=(*_WRITE, "force"),
            matches=True,
        ),
        _read(f"{_E}/traffic", e.traffic, views.TrafficView, "Live traffic."),
        ApiCall(
            "PATCH",
            f"{_E}/traffic",
            "operator",
            e.patch,
            results.Result,
            "Overrides weights or champion, and switches shadows and the capture.",
            bodies.TrafficPatch,
            "json",
            _WRITE,
            matches=True,
            later=True,
        ),
        _read(f"{_E}/revisions", e.revisions, history, "History, newest first.", "limit", "before"),
        _read(f"{_E}/revisions/{{n}}", e.revision, views.RevisionView, "One revision with its differences."),
        _read(f"{_E}/trial", e.trial, TrialsView, "The evidence of the trial: what its versions did."),
        _read(f"{_E}/drift", e.drift, dict[str, Any], "The drift report.", "window"),
        _read(f"{_E}/shadows", e.shadows, ShadowsView, "What shadows answered beside the champion."),
    ]


def _action_calls(e: Endpoints) -> list[ApiCall]:
    explain = ApiCall(
        "POST",
        f"{_E}:explain",
        "viewer",
        e.explain,
        views.Explanation,
        "Which version a request gets and why.",
        bodies.ExplainRequest,
        "json",
    )
    return [
        _act("rollback", e.rollback, "Emergency: 100 % on the last good champion.", bodies.ReasonBody),
        _act("abort", e.abort, "Emergency: every slot back to the champion.", bodies.ReasonBody),
        _act("block", e.block, "Emergency: no traffic for a version.", bodies.Subject),
        _act("freeze", e.freeze, "Emergency: only emergency calls from now on.", bodies.ReasonBody),
        _act("unblock", e.unblock, "Lifts a block.", bodies.Subject, matches=True, later=True),
        _act("unfreeze", e.unfreeze, "Lifts a freeze.", bodies.ReasonBody, matches=True),
        _act(
            "restore",
            e.restore,
            "Goes to an old revision, of a removed endpoint too.",
            bodies.RestoreTo,
            matches=True,
            creates=True,
            later=True,
        ),
        explain,
    ]


def _replay_calls(r: ReplayCalls) -> list[ApiCall]:
    path, report = f"{_E}/replays", dict[str, Any]
    return [
        ApiCall(
            "POST",
            path,
            "operator",
            r.start,
            results.OperationView,
            "Puts captured requests to a version, and compares its answers with those that were given.",
            bodies.NewReplay,
            "json",
            status=202,
        ),
        _read(path, r.list, {"replays": [report]}, "Replays since the start of the gateway, newest first."),
        _read(f"{path}/{{id}}", r.get, report, "One replay."),
        ApiCall(
            "DELETE", f"{path}/{{id}}", "operator", r.cancel, report, "Ends a replay.", query=("reason",)
        ),
    ]


def _rollout_calls(r: RolloutHandlers) -> list[ApiCall]:
    path = f"{_E}/rollout"

    def act(verb: str, handler: Handler, summary: str, body: type[BaseModel], **more: Any) -> ApiCall:
        place = f"{path}:{verb}" if verb else path
        return ApiCall(
            "POST", place, "operator", handler, results.Result, summary, body, "json", _WRITE, **more
        )

    moves: dict[str, Any] = {"matches": True, "later": True}
    again = "Starts a rollout of a digest that was rejected."
    return [
        _read(path, r.view, RolloutView, "The rollout that is under way, or the last one."),
        _read(f"{path}s", r.history, {"rollouts": [RolloutSummary]}, "Rollouts, newest first."),
        act("", r.start, "Starts a rollout; its first step moves traffic.", bodies.StartRollout, **moves),
        act("retry", r.retry, again, bodies.RetryRollout, **moves),
        act("promote", r.promote, "Goes to the next step, or to the end.", bodies.PromoteRollout, **moves),
        act("pause", r.pause, "Holds the rollout where it is.", bodies.ReasonBody, matches=True),
        act("resume", r.resume, "Has a paused rollout go on.", bodies.ReasonBody, **moves),
        act("approve", r.approve, "Approves the next step that needs it.", bodies.ApproveRollout, **moves),
        act("abort", r.abort, "Emergency: everything as it was before the rollout.", bodies.ReasonBody),
    ]


def _plan_calls(r: RolloutHandlers) -> list[ApiCall]:
    plan, defaults = "/v1/plans/{name}", "/v1/defaults"

    def put(path: str, handler: Handler, summary: str, body: type[BaseModel], *query: str) -> ApiCall:
        takes: dict[str, Any] = {"query": (*_WRITE, *query), "matches": True, "creates": True}
        return ApiCall(
            "PUT", path, "operator", handler, results.PlanResult, summary, body, "document", **takes
        )

    def delete(path: str, handler: Handler, summary: str) -> ApiCall:
        return ApiCall(
            "DELETE", path, "operator", handler, results.PlanResult, summary, query=_WRITE, matches=True
        )

    plans = {"plans": [results.PlanDocumentView]}
    return [
        _read("/v1/plans", r.plans, plans, "The stored rollout plans."),
        _read(plan, r.plan, results.PlanDocumentView, "One plan."),
        put(plan, r.put_plan, "Stores a plan; rollouts under way keep theirs.", RolloutPlan, "with_plans"),
        delete(plan, r.delete_plan, "Removes a plan that nothing names."),
        _read(defaults, r.defaults, results.PlanDocumentView, "What documents leave out."),
        put(defaults, r.put_defaults, "Stores the defaults.", Defaults, "with_plans"),
        delete(defaults, r.delete_defaults, "Removes the defaults."),
    ]


def _other_calls(r: Rest) -> list[ApiCall]:
    return [
        _read("/v1/models", r.models, views.Models, "Every version with its digest, and what was refused."),
        ApiCall(
            "DELETE",
            "/v1/models/{endpoint}/{version}",
            "admin",
            r.unpin,
            results.PinView,
            "Lets a version's name stand for other bytes; refused while the endpoint has the version.",
            query=("reason",),
        ),
        _read(
            "/v1/events",
            r.events,
            "text/event-stream",
            "Events as they happen.",
            "endpoint",
            "follow",
            "limit",
        ),
        ApiCall(
            "GET",
            "/v1/audit",
            "operator",
            r.audit,
            {"entries": [views.AuditView]},
            "Who did what, newest first.",
            query=("endpoint", "limit", "before"),
        ),
        _read(
            "/v1/operations",
            r.operations,
            {"operations": [results.OperationView]},
            "Changes that outlived their requests, newest first.",
            "limit",
        ),
        _read(
            "/v1/operations/{id}", r.operation, results.OperationView, "A change that outlived its request."
        ),
    ]


def _caller_calls(r: Rest) -> list[ApiCall]:
    made = {"fields": TokenView, "secret": str}
    token = "/v1/tokens/{id}"  # noqa: S105 - a path
    return [
        ApiCall("GET", "/v1/tokens", "admin", r.tokens, {"tokens": [TokenView]}, "All tokens."),
        ApiCall(
            "POST",
            "/v1/tokens",
            "admin",
            r.create_token,
            made,
            "A new token; its secret is shown this once.",
            bodies.NewToken,
            "json",
            status=201,
        ),
        ApiCall(
            "DELETE",
            token,
            "admin",
            r.revoke_token,
            TokenView,
            "Ends a token; the last admin token only when forced.",
            query=("reason", "force"),
        ),
        _read("/v1/whoami", r.whoami, {"name": str, "role": str, "token": str}, "Who the caller is."),
    ]

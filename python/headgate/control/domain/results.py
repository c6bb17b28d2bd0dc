"""The shapes that writes answer with: JSON-ready, and the source of the schemas in ``/openapi.json``.

Not here: how they are filled (``plan``, ``writes``). Next: ``plan``. The meanings: ``docs/design/admin-api.md`` section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from headgate.control.domain.revision import Kind

ChampionMove = TypedDict("ChampionMove", {"from": str | None, "to": str})
"""The champion before and after, equal where it stays; ``from`` is null at creation."""


class UndoCall(TypedDict):
    """One call of the admin API, as ``POST /v1/endpoints/digits:restore`` with ``{"revision": 41}``."""

    action: str
    method: Literal["POST", "PUT", "PATCH", "DELETE"]
    path: str
    query: dict[str, str]
    body: dict[str, Any]


class VersionNeeds(TypedDict):
    """What a version takes that is loaded or gets requests that it had not. ``state`` is where it is now (``unloaded``, ``cold``,
    ``loading``, ``warm``, ``draining``); what is null is not known.
    """

    state: str | None
    sessions: int
    file_bytes: int | None
    memory_bytes: int | None


class Plan(TypedDict):
    """What a write would do, or did; ``text`` says it in words. ``rollback_to`` is where a rollback goes afterwards, null at removal.

    ``preview`` is there in a dry run of a rollout's start: its steps, in lines, which ``text`` ends with.

    ``undo`` lists the calls that bring document, champion, slots, salt, blocks and freeze back; ``text`` says what they do not.
    """

    endpoint: str
    base_revision: int | None
    revision: int
    changes: bool
    text: str
    champion: ChampionMove
    moves: dict[str, int]
    share_of_keys: str
    share_of_requests: str | None
    rollback_to: str | None
    load: list[str]
    unload: list[str]
    needs: dict[str, VersionNeeds]
    block: list[str]
    notes: list[str]
    undo: list[UndoCall]
    diff: str
    preview: NotRequired[list[str]]


class LiveView(TypedDict):
    """The short form of live traffic; ``shadows_off`` and ``capture_off`` say what is switched off."""

    champion: str
    weights: dict[str, str]
    shadows_off: list[str]
    capture_off: bool


class Result(TypedDict):
    """The answer of every write; ``planned`` is the status of a dry run. ``revision`` is null while it is not ``durable``."""

    endpoint: str
    revision: int | None
    status: Literal["applied", "unchanged", "already", "planned"]
    kind: Kind
    durable: bool
    message: str
    traffic: LiveView
    plan: Plan
    replayed: NotRequired[bool]


class OperationView(TypedDict):
    """A change that outlives its request."""

    id: str
    endpoint: str
    kind: str
    status: Literal["running", "done", "failed"]
    started: str
    finished: str | None
    result: dict[str, Any] | None
    problem: dict[str, Any] | None


class PlanDocumentView(TypedDict):
    """A stored plan, or the defaults (whose name is empty). ``n`` counts how often it was written, and is what ``If-Match`` names."""

    kind: Literal["RolloutPlan", "Defaults"]
    name: str
    n: int
    digest: str
    who: str
    written: str
    document: dict[str, Any]


class PlanResult(PlanDocumentView):
    """The answer of a write of a stored plan or of the defaults; ``planned`` is the status of a dry run. ``changes`` says whether the
    document differs from what was stored, ``diff`` how (unified), and ``used_by`` who names the plan.
    """

    status: Literal["applied", "unchanged", "planned"]
    changes: bool
    message: str
    diff: str
    used_by: list[str]
    replayed: NotRequired[bool]


class PinView(TypedDict):
    """A version's name and the digest that it stood for until now."""

    endpoint: str
    version: str
    digest: str
    pinned: str


@dataclass(frozen=True)
class Readiness:
    """Whether the gateway should get traffic; ``reasons`` say why not."""

    ready: bool
    reasons: list[str]

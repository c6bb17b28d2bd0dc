"""The shapes that writes answer with: JSON-ready, and the source of the schemas in ``/openapi.json``.

Not here: how they are filled (``plan``, ``writes``). Next: ``plan``. The meanings: ``docs/design/admin-api.md`` section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

Kind = Literal[
    "apply", "traffic", "abort", "rollback", "restore", "block", "unblock", "freeze", "unfreeze", "remove"
]

ChampionMove = TypedDict("ChampionMove", {"from": str | None, "to": str})
"""The champion before and after, equal where it stays; ``from`` is null at creation."""


class Plan(TypedDict):
    """What a write would do, or did; ``rollback_to`` is where a rollback goes afterwards, null at removal."""

    endpoint: str
    base_revision: int | None
    revision: int
    changes: bool
    champion: ChampionMove
    moves: dict[str, int]
    share_of_keys: str
    rollback_to: str | None
    load: list[str]
    unload: list[str]
    block: list[str]
    notes: list[str]
    diff: str


class LiveView(TypedDict):
    """The short form of live traffic."""

    champion: str
    weights: dict[str, str]


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

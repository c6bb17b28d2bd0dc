"""The shapes that reads answer with: JSON-ready, and the source of the schemas in ``/openapi.json``.

Not here: how they are filled (``endpoints``), what writes answer with (``domain.results``). The meanings:
``docs/design/admin-api.md`` section 3.
"""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import TypedDict

from headgate.control.domain.copies import CopyState
from headgate.control.domain.revision import Kind
from headgate.control.reads.trials import TrialView

State = Literal["ready", "loading", "failed", "unloaded"]
Status = Literal["proposed", "applied", "failed", "superseded"]


class DeclaredView(TypedDict):
    """What a document says about traffic."""

    champion: str
    weights: dict[str, str]
    sticky: str | None
    shadows: dict[str, str]
    capture: str | None


class BlockView(TypedDict):
    """A digest that may get no traffic."""

    digest: str
    version: str | None
    since: str
    who: str
    reason: str


class FrozenView(TypedDict):
    """Who froze an endpoint."""

    since: str
    who: str
    reason: str


class ShareView(TypedDict):
    """Share of keys by slots; share of requests by those that were answered in the last minutes."""

    keys: dict[str, str]
    requests: dict[str, str] | None


class RuleView(TypedDict):
    """One rule: its conditions in words, the version, and whether it is in effect."""

    when: str
    to: str
    state: Literal["on", "blocked", "left_out"]


class ShadowView(TypedDict):
    """One declared shadow: the share of requests that it gets copies of, and whether it does."""

    to: str
    share: str
    state: CopyState


class CaptureView(TypedDict):
    """The declared capture: the share of requests that are captured, and whether they are."""

    share: str
    state: CopyState


class TrafficView(TypedDict):
    """Live traffic; ``table`` holds runs of slots in the order they were given away, ``rollback_to`` is where a rollback goes,
    null where nothing it may go to can be loaded.
    """

    endpoint: str
    revision: int
    champion: str
    last_good: str
    rollback_to: str | None
    weights: dict[str, str]
    sticky: str | None
    salt: str
    attempt: int
    table: list[tuple[str, int, int]]
    since: str
    share: ShareView
    rules: list[RuleView]
    shadows: list[ShadowView]
    capture: CaptureView | None
    declared: DeclaredView
    notes: list[str]


class MemoryView(TypedDict):
    """Where a model is and what it takes there, in bytes (0 where nobody knows); ``draining`` is in memory until its last run
    has ended.
    """

    state: Literal["cold", "loading", "warm", "draining"]
    bytes: int
    pinned: bool


class BreakerView(TypedDict):
    """Whether a version is left alone for failing, how often it has been, and which version answers its slots meanwhile."""

    open: bool
    trips: int
    answered_by: str | None


class RunsView(TypedDict):
    """Runs that were cancelled so far, and those of them that are in progress and do not end."""

    cancelled: int
    stuck: int


class ProbesView(TypedDict):
    """Runs of a known input after a failed run, which tell whose mistake that was."""

    runs: int
    failed: int


class RecentView(TypedDict):
    """What a version did in the last ``seconds``: requests it answered and its share of them, those that failed, by code too,
    times from the request's first byte to the answer's last, and rows that came by and that were sketched.
    """

    seconds: int
    requests: int
    share: str
    errors: int
    codes: dict[str, int]
    request_us: dict[str, float | None]
    rows: dict[str, int]


class PlacedBy(TypedDict):
    """What the data plane decided a version's place from last: its newest runs."""

    why: str
    runs: int
    p99_us: float
    busy: float
    """The share of the IO threads' time that the runs took there."""
    batch_rows: float | None


class VersionView(TypedDict):
    """One version of an endpoint, with what the data plane says about it."""

    digest: str
    kind: Literal["artifact", "constant"]
    role: Literal["champion", "challenger", "last_good", "shadow", "idle"]
    state: Literal["ready", "loading", "failed", "blocked", "unloaded"]
    in_document: bool
    placement: str | None
    placement_fixed: bool | None
    placed_by: PlacedBy | None
    device: str | None
    shedding: bool | None
    batches: dict[str, Any] | None
    run_us: dict[str, float | None] | None
    requests: int | None
    recent: RecentView | None
    signature: dict[str, Any] | None
    load_ms: float | None
    memory: MemoryView | None
    breaker: BreakerView | None
    runs: RunsView | None
    probes: ProbesView | None
    message: str | None


class EndpointSummary(TypedDict):
    """One line of the list of endpoints."""

    name: str
    revision: int
    state: State
    champion: str
    weights: dict[str, str]
    frozen: bool
    blocked: int
    since: str
    notes: list[str]
    alarms: list[str]
    rollout: str | None
    """The rollout that is under way, in a line."""


class CaptureFailure(TypedDict):
    """Why nothing is captured at present, and since when."""

    reason: str
    since: str


class CaptureStatus(TypedDict):
    """What is captured of an endpoint: ``share``, ``keep_ms`` and ``max_bytes`` are None while it is off. Rows that were written and
    requests that were dropped, by reason, since the start; files on the disk.
    """

    share: str | None
    keep_ms: int | None
    max_bytes: int | None
    rows: int
    dropped: dict[str, int]
    errors: int
    failure: CaptureFailure | None
    disk_files: int
    disk_bytes: int


class EndpointView(TypedDict):
    """Everything about one endpoint; ``document`` is the text as it was applied, ``trial`` the totals of the trial that is on, ``rollout``
    the rollout that is under way or the last one, in a line.
    """

    name: str
    revision: int
    state: State
    document: str
    document_digest: str
    source: str | None
    declared: DeclaredView
    traffic: TrafficView
    trial: TrialView | None
    rollout: str | None
    versions: dict[str, VersionView]
    blocks: list[BlockView]
    frozen: FrozenView | None
    notes: list[str]
    alarms: list[str]
    capture: CaptureStatus | None
    columns: dict[str, list[str]]
    timeout_ms: int
    baseline: str | None


class CopyView(TypedDict):
    """Whether a request is copied: to a shadow, or by the capture (``version`` is None). ``chosen`` is None if each request is drawn
    for itself."""

    version: str | None
    share: str
    chosen: bool | None
    why: str


class Explanation(TypedDict):
    """Which version a request gets and why."""

    endpoint: str
    revision: int
    sticky: str | None
    key: str | None
    rule: int | None
    slot: int | None
    salt: str
    version: str | None
    by: Literal["direct", "rule", "slot", "champion", "draw"]
    why: str
    notes: list[str]
    shares: dict[str, str]
    shadows: list[CopyView]
    capture: CopyView | None


class RevisionSummary(TypedDict):
    """One line of the history; ``rollout`` is its rollout in a line, of a revision that moved it."""

    revision: int
    parent: int | None
    kind: Kind
    status: Status
    who: str
    when: str
    reason: str
    document_digest: str
    champion: str
    weights: dict[str, str]
    shadows_off: list[str]
    capture_off: bool
    message: str | None
    rollout: str | None


class RevisionView(RevisionSummary):
    """One revision in full, with its differences from its parent."""

    document: str
    source: str | None
    source_digest: str | None
    salt: str
    attempt: int
    last_good: str
    table: list[tuple[str, int, int]]
    blocks: list[BlockView]
    frozen: bool
    diff: str
    moves: dict[str, int]


class ModelView(TypedDict):
    """A version's name and the digest it stands for; ``size`` in bytes, null for a constant."""

    endpoint: str
    version: str
    digest: str
    pinned: str
    in_use: bool
    size: int | None


class RefusalView(TypedDict):
    """A model, or a folder that should hold one, that was refused: other bytes than the version stands for, or what does not load.

    ``pinned`` (these bytes go on serving) and ``found`` are digests, and null unless a version came with other bytes.
    """

    endpoint: str | None
    version: str | None
    folder: str | None
    pinned: str | None
    found: str | None
    count: int
    message: str


class Models(TypedDict):
    """Everything the registry knows."""

    models: list[ModelView]
    refusals: list[RefusalView]


class AuditView(TypedDict):
    """Who did what and how it ended."""

    id: int
    when: str
    who: str
    role: str
    action: str
    endpoint: str | None
    revision: int | None
    outcome: str
    reason: str
    detail: dict[str, Any]


class EventView(TypedDict):
    """One event; ``id`` is null when it could not be stored."""

    id: int | None
    type: str
    when: str
    endpoint: str | None
    revision: int | None
    who: str
    reason: str
    data: dict[str, Any]

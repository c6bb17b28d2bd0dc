"""The shapes of the report on an endpoint's shadows, as the data plane tells it: the source of its schema in ``/openapi.json``.

Nothing is computed here: intervals and the noise floor are the data plane's. The meanings: ``docs/design/admin-api.md`` section 3.
"""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import TypedDict

Interval = tuple[float, float] | None
"""At 95 %; null without pairs."""


class ChampionFailures(TypedDict):
    """Requests that the champion failed on, and what the shadow did with them; they are in no comparison."""

    requests: int
    by_code: dict[str, int]
    shadow_answered: int
    shadow_failed: int
    inputs_lost: int


class NanCounts(TypedDict):
    """Pairs in whose outputs a NaN stands; ``both`` is counted in the other two as well."""

    champion: int
    shadow: int
    both: int


class PairCounts(TypedDict):
    """What was compared: pairs and their rows, and those that differ."""

    pairs: int
    differing: int
    rows: int
    differing_rows: int


LabelMove = TypedDict("LabelMove", {"from": str, "to": str, "rows": int})
"""Rows that the champion gives one label and the shadow another."""


class LabelCounts(TypedDict):
    """The rows of each label."""

    champion: dict[str, int]
    shadow: dict[str, int]


class OtherLabels(TypedDict):
    """The rows of labels that are not listed."""

    champion: int
    shadow: int


class Direction(TypedDict):
    """Which way labels move; ``mcnemar_p`` says how probable such a difference is if neither way is preferred (two labels only)."""

    moves: list[LabelMove]
    other_rows: int
    labels: LabelCounts
    other_labels: OtherLabels
    mcnemar_p: float | None


class OutputReport(PairCounts):
    """One compared output: how it is compared, and which way its labels move."""

    compare: dict[str, Any]
    direction: Direction | None


class Disagreement(TypedDict):
    """The share of pairs that differ; ``bounds`` are where it would be if all that was dropped had agreed or differed.

    ``undecided``: so much was dropped that the share says nothing.
    """

    share: float | None
    interval: Interval
    bounds: tuple[float, float] | None
    drop_share: float
    undecided: bool


class NoiseFloor(TypedDict):
    """How often the champion differs from itself when it runs in the shadow's place; ``reason`` says why there are no pairs."""

    pairs: int
    differing: int
    share: float | None
    interval: Interval
    skipped: int
    errors: int
    reason: str | None


class Excess(TypedDict):
    """The disagreement beyond the noise floor."""

    share: float | None
    interval: Interval


class SlicePart(TypedDict):
    """The pairs of one part of a slice."""

    pairs: int
    differing: int
    share: float | None
    interval: Interval


class SliceValue(SlicePart):
    """The pairs of one value; null is a request without the field."""

    value: str | None


class Slice(TypedDict):
    """The pairs by the values of one header or parameter; ``other`` are those of further values."""

    field: str
    values: list[SliceValue]
    other: SlicePart


class Tensor(TypedDict):
    """A tensor of an example; ``left_out`` says why ``data`` is null or short."""

    datatype: str
    shape: list[int]
    data: list[Any] | None
    left_out: str | None


class Example(TypedDict):
    """One kept pair that differs."""

    at: str
    request_id: str | None
    row: int
    differs: list[str]
    inputs: dict[str, Tensor]
    champion: dict[str, Tensor]
    shadow: dict[str, Tensor]


class Examples(TypedDict):
    """The kept pairs, newest first, and how many are kept at most."""

    keep: int
    kept: list[Example]


class RunSeconds(TypedDict):
    """Run times of the shadow; never ``comparable`` with the champion's, because shadows run at low priority."""

    p50: float | None
    p95: float | None
    runs: int
    comparable: bool
    note: str


class Queue(TypedDict):
    """The copies that wait."""

    length: int
    bytes: int
    max_length: int
    max_bytes: int


class ShadowCounts(TypedDict, total=False):
    """What was counted since ``since``; it stays readable in every state. A shadow that never ran has none of it.

    ``drawn`` = ``pairs`` + ``dropped`` + ``errors`` + ``champion_failed`` + what waits (``queue``) or runs (``in_progress``).
    """

    since: str
    drawn: int
    pairs: int
    dropped: dict[str, int]
    last_mismatch: str | None
    errors: dict[str, int]
    timeouts: int
    champion_failed: ChampionFailures
    nan: NanCounts
    compared: PairCounts
    outputs: dict[str, OutputReport]
    disagreement: Disagreement
    noise_floor: NoiseFloor
    excess: Excess
    slices: list[Slice]
    examples: Examples
    run_seconds: RunSeconds
    queue: Queue
    in_progress: int
    cpu_seconds: float


class ShadowReport(ShadowCounts):
    """One shadow: what it is, whether it runs, and what was counted."""

    to: str
    share: float
    by: Literal["request", "sticky"]
    state: Literal["running", "off", "not_loaded", "incompatible", "champion"]
    reason: str | None


class ShadowCpu(TypedDict):
    """What the shadows of all endpoints may take of the processor, and take."""

    budget_cores: float
    used_cores: float
    waiting: bool
    threads: int
    stuck: int


class ShadowMemory(TypedDict):
    """The copies that all shadows hold."""

    bytes: int
    max_bytes: int


class ShadowsView(TypedDict):
    """The shadows of one endpoint, in the document's order."""

    endpoint: str
    champion: str
    cpu: ShadowCpu
    memory: ShadowMemory
    shadows: list[ShadowReport]

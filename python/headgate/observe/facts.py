"""What the control plane says of itself at one scrape, and the form in which a metric is declared.

Not here: the metrics (``declared``, ``rollout_metrics``). Next: ``declared``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from prometheus_client.metrics_core import Metric

from headgate.background import LoopStatus


class ConnectionCounts(Protocol):
    """The connections of a listener of the control plane."""

    @property
    def closed(self) -> Mapping[Any, int]:
        """How many were closed, by reason."""

    def __len__(self) -> int:
        """How many are open."""


class WebhookFacts(Protocol):
    """Messages to webhooks: counts since the start, and what waits, by endpoint and receiver; drops by reason as well."""

    @property
    def delivered(self) -> Mapping[tuple[str, str], int]:
        """Messages that receivers took."""

    @property
    def failed(self) -> Mapping[tuple[str, str], int]:
        """Attempts that failed."""

    @property
    def waiting(self) -> Mapping[tuple[str, str], int]:
        """Messages that wait."""

    @property
    def oldest(self) -> Mapping[tuple[str, str], float]:
        """The age of the oldest of them in seconds."""

    @property
    def dropped(self) -> Mapping[tuple[str, str, str], int]:
        """Messages that were dropped without having been delivered."""


@dataclass(frozen=True)
class Facts:
    """What the control plane says of itself at one scrape."""

    endpoints: Sequence[Mapping[str, Any]]
    """``EndpointSummary`` objects of the admin API."""
    refusals: Sequence[Mapping[str, Any]]
    """``Refusal`` objects of the admin API."""
    ready: bool
    read_failures: int
    """How often these facts could not be read since the start."""
    listeners: Mapping[str, ConnectionCounts]
    """The control plane's ports by name."""
    restarts: int = 0
    """How often the supervisor began a new process."""
    loops: Mapping[str, LoopStatus] = field(default_factory=dict)
    """The loops that run beside the calls, by name."""
    damage: int = 0
    """What is wrong with the database as a whole."""
    audit_lost: int = 0
    """Rows of the audit that found its queue full."""
    removed: Mapping[str, int] = field(default_factory=dict)
    """What was removed since the start: rows for their age, files that nobody referenced; by kind, and the files' ``bytes``."""
    rollouts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """``RolloutView`` objects of the admin API by endpoint: what is under way, else the last one that ended."""
    rollout_ends: Mapping[tuple[str, str, str], int] = field(default_factory=dict)
    """How many rollouts ended since the start, by endpoint, phase and reason."""
    rollout_pauses: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """How often rollouts were paused since the start, by endpoint and reason."""
    drift: Mapping[tuple[str, str, str], int] = field(default_factory=dict)
    """Features by endpoint, version and verdict, of the endpoints with a baseline."""
    webhooks: WebhookFacts | None = None
    """What became of messages to webhooks."""


Samples = Iterable[tuple[Mapping[str, str], float]]


@dataclass(frozen=True)
class Declared:
    """One metric family; a counter's ``name`` is written with its ``_total``."""

    name: str
    kind: Literal["gauge", "counter"]
    help: str
    samples: Callable[[Facts], Samples]

    def family(self, facts: Facts) -> Metric:
        """The family with its present samples."""
        metric = Metric(self.name.removesuffix("_total"), self.help, self.kind)
        for labels, value in self.samples(facts):
            metric.add_sample(self.name, dict(labels), value)
        return metric

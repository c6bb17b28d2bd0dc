"""What a plan says beside the two states: requests lately, memory, sizes of files. Values.

Not here: where they come from (``writes.plan_facts``), the sentences (``plan_text``). Next: ``step``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class RecentRequests:
    """The requests that each version of an endpoint answered in the newest ``seconds``; 0 seconds: not known."""

    seconds: int = 0
    answered: Mapping[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.answered.values())


@dataclass(frozen=True)
class VersionMemory:
    """Where a version is (``cold``, ``loading``, ``warm``, ``draining``) and the bytes that it takes there; None: not known."""

    state: str
    bytes: int | None


@dataclass(frozen=True)
class PlanFacts:
    """The facts about one endpoint: memory by version, the size of an artifact's files by digest. What is absent is not known."""

    recent: RecentRequests = RecentRequests()
    memory: Mapping[str, VersionMemory] = field(default_factory=dict)
    file_bytes: Mapping[str, int] = field(default_factory=dict)

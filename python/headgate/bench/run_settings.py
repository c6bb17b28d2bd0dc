"""The ``run:`` settings that a sweep tries.

Durations are microseconds, as in documents. Not here: how good a setting is (``sweep``), a document with one (``document_settings``).
Next: sweep.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from headgate.documents.model import Run
from headgate.documents.values import format_delay

Placement = Literal["auto", "inline", "pool"]
MOST_BATCH = 64
"""The largest batch that is tried: more rows wait longer than an objective of a CPU allows."""


@dataclass(frozen=True)
class Choice:
    """The settings that a sweep decides; ``instances`` None is as many as there are pool threads, ``threads`` 0 is ``auto``."""

    placement: Placement = "auto"
    instances: int | None = None
    threads: int = 1
    max_batch: int = 1
    max_delay_us: int = 0

    @property
    def written(self) -> dict[str, Any]:
        """What a document has to say for it; settings that are as without writing are left out."""
        found: dict[str, Any] = {}
        if self.placement != "auto":
            found["placement"] = self.placement
        if self.instances is not None:
            found["instances"] = self.instances
        if self.threads != 1:
            found["threads"] = self.threads or "auto"
        if self.max_batch != 1:
            found["max_batch"] = self.max_batch
        if self.max_delay_us:
            found["max_delay"] = format_delay(self.max_delay_us)
        return found

    def __str__(self) -> str:
        said = ", ".join(f"{name} {value}" for name, value in self.written.items())
        return said or "nothing written"


def choice_of(run: Run | None) -> Choice:
    """The settings of a version as its document has them."""
    if run is None:
        return Choice()
    return Choice(run.placement, run.instances, run.threads, run.max_batch, run.max_delay)


def candidates(cores: int, batches: bool, base_us: dict[int, int]) -> Iterator[Choice]:
    """Every setting worth a simulation: inline, or a pool of 1 to ``cores`` instances whose threads fit the cores, with and without
    batches and their delay.

    ``base_us`` is what a run takes without its rows, by the threads that were calibrated: half of it is the longest delay that can pay.
    """
    for threads, base in sorted(base_us.items()):
        yield Choice("inline", None, threads)
        for instances in range(1, max(cores // max(threads, 1), 1) + 1):
            yield Choice("pool", instances, threads)
            size = 2
            while batches and size <= MOST_BATCH:
                yield Choice("pool", instances, threads, size)
                if base // 2 > 0:
                    yield Choice("pool", instances, threads, size, base // 2)
                size *= 2


def calibrating(choice: Choice, threads: int) -> Choice:
    """The setting that a calibration runs under: one instance, nothing batched, so that a request is a run."""
    return replace(choice, placement="pool", instances=1, threads=threads, max_batch=1, max_delay_us=0)

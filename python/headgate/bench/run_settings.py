"""The ``run:`` settings that a sweep tries, how a document is patched with one, and the difference as a patch.

Durations are microseconds, as in documents. Not here: how good a setting is (``sweep``). Next: sweep.py.
"""

from __future__ import annotations

import difflib
import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError

from headgate.documents.model import Run
from headgate.documents.values import format_delay
from headgate.errors import InvalidArgument

Placement = Literal["auto", "inline", "pool"]
MOST_BATCH = 64
"""The largest batch that is tried: more rows wait longer than an objective of a CPU allows."""

_WIDE = 4096
"""The width of a line that the writer does not break."""


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


def patched(document: str, endpoint: str, version: str, choice: Choice) -> str:
    """The text of the document with these settings, comments and order kept.

    :class:`InvalidArgument` if it has no such endpoint or version, or cannot be rewritten.
    """
    writer = _yaml()
    try:
        parts: list[Any] = list(writer.load_all(document))
    except YAMLError as error:
        raise InvalidArgument(f"the document cannot be rewritten: {error}") from None
    found = [part for part in parts if isinstance(part, CommentedMap) and str(part.get("name")) == endpoint]
    if len(found) != 1 or not isinstance(found[0].get("versions"), CommentedMap):
        raise InvalidArgument(f"the document has no endpoint {endpoint} whose settings could be changed")
    versions = found[0]["versions"]
    key = next((key for key in versions if str(key) == version), None)
    if key is None:
        raise InvalidArgument(f"the endpoint {endpoint} of the document has no version {version}")
    if not isinstance(versions[key], CommentedMap):
        versions[key] = CommentedMap({"model": versions[key]})
    _set_run(versions[key], choice)
    out = io.StringIO()
    writer.dump_all(parts, out)
    return out.getvalue()


def _set_run(version: CommentedMap, choice: Choice) -> None:
    run = version.get("run")
    if not isinstance(run, CommentedMap):
        run = CommentedMap()
    for name in ("placement", "instances", "threads", "max_batch", "max_delay"):
        run.pop(name, None)
    if run.get("buckets") is not None and (choice.max_batch == 1 or run["buckets"][-1] != choice.max_batch):
        run.pop("buckets")
    run.update(choice.written)
    if run:
        version["run"] = run
    else:
        version.pop("run", None)


def difference(before: str, after: str, name: str) -> str:
    """A unified diff that ``patch -p0`` takes; an empty text if nothing differs."""
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), fromfile=name, tofile=name
    )
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
    )


def _yaml() -> YAML:
    writer = YAML(typ="rt")
    writer.preserve_quotes = True
    writer.width = _WIDE
    return writer

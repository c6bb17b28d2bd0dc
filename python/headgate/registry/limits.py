"""Whether a model may be taken in, judged by the sizes of its files before any is copied.

Not here: whether it is a model at all (``external``). Next: ``store``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from headgate.errors import ModelLoadFailed, StorageFailed
from headgate.registry import source as sources
from headgate.registry.manifest import MODEL
from headgate.registry.source import Source

MAX_MODEL_BYTES = 2**31 - 1
"""The largest ``model.onnx``: protobuf reads no more; bigger models keep their tensors in external data."""

_ROOM_LEFT_BYTES = 64 << 20
"""What a copy leaves free: the database needs room for the change itself."""


@dataclass(frozen=True)
class Limits:
    """What a state folder takes in."""

    memory_budget_bytes: int | None = None

    def check_model(self, source: Source) -> None:
        """:class:`ModelLoadFailed` for a ``model.onnx`` that is larger than any may be."""
        size = sources.size_of(source, MODEL)
        if size > MAX_MODEL_BYTES:
            raise ModelLoadFailed(
                f"{MODEL} has {size} bytes, which is more than 2 GiB: save it with external data"
            )

    def check_memory(self, source: Source) -> None:
        """:class:`ModelLoadFailed` for one that never fits into the memory budget. The data plane reckons with the same size."""
        size, budget = sources.size_of(source, MODEL), self.memory_budget_bytes
        if budget is not None and size > budget:
            raise ModelLoadFailed(
                f"{MODEL} has {size} bytes, and --memory-budget is {budget}: it can never be loaded; give the gateway more"
            )

    def check_room(self, source: Source, names: Iterable[str], folder: Path) -> None:
        """:class:`StorageFailed` when the disk of ``folder`` has no room for a copy of these files."""
        size = sum(sources.size_of(source, name) for name in names)
        try:
            disk = os.statvfs(folder)
        except OSError as error:
            raise StorageFailed(f"{folder} cannot be used: {error}") from error
        free = disk.f_bavail * disk.f_frsize - _ROOM_LEFT_BYTES
        if size > free:
            raise StorageFailed(
                f"there is no room to copy a model: {source.folder} has {size} bytes to copy, and {max(free, 0)} are free for it "
                f"below {folder.parent.parent}"
            )

"""The settings of a gateway as its data plane takes them (``rust/server/src/config.rs``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import headgate
from headgate.gateway.settings import SMALL_PART, Settings
from headgate.store import FEEDBACK

#: The folder of captured requests in the state folder.
CAPTURES = "captures"


def native_config(
    settings: Settings, library: str | None, device_libraries: Sequence[Path], connections: int
) -> dict[str, Any]:
    """The data plane's configuration; ``docs/design/boundary.md`` describes each field."""
    return {
        "http": str(settings.http),
        "grpc": str(settings.grpc),
        "allow_repository_control": settings.allow_repository_control,
        "io_threads": settings.io_threads,
        "pool_threads": settings.pool_threads,
        "library": library,
        "device_libraries": [str(path) for path in device_libraries],
        "memory_budget_bytes": settings.memory_budget_bytes,
        "large_request_bytes": settings.request_memory_bytes - settings.request_memory_bytes // SMALL_PART,
        "small_request_bytes": settings.request_memory_bytes // SMALL_PART,
        "load_wait_ms": settings.load_wait_ms,
        "load_timeout_ms": settings.load_timeout_ms,
        "max_body_bytes": settings.max_body_bytes,
        "gzip_above_bytes": settings.gzip_above_bytes,
        "access_log": None if settings.access_log is None else str(settings.access_log),
        "access_log_share": settings.access_log_share,
        "max_connections": connections,
        "idle_ms": 75_000,
        "drain_idle_ms": settings.drain_idle_ms,
        "head_timeout_ms": 10_000,
        "body_timeout_ms": 30_000,
        "shadow_cpu": settings.shadow_cpu,
        "shadow_memory_bytes": settings.shadow_memory_bytes,
        "sketch_memory_bytes": settings.sketch_memory_bytes,
        "sketches": settings.sketches,
        "capture_folder": str(settings.state / CAPTURES),
        "capture_bytes": settings.capture_bytes,
        "feedback_folder": str(settings.state / FEEDBACK),
        "version": headgate.__version__,
    }

"""The data plane inside the test's own process: ``headgate._native.Gateway`` without the control plane.

Used where a test needs short time-outs, or looks at the process itself (threads, descriptors, fork, the GIL).
"""

from __future__ import annotations

import hashlib
import json
import select
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from headgate import runtime_library

EVENT_SECONDS = 60.0


def config(**changes: Any) -> bytes:
    """A configuration for a gateway on a port that the system chooses; ``changes`` replace single values."""
    values: dict[str, Any] = {
        "http": "127.0.0.1:0",
        "io_threads": 2,
        "pool_threads": 2,
        "library": str(runtime_library.find().path),
        "max_body_bytes": 64 << 20,
        "max_connections": 10_000,
        "idle_ms": 75_000,
        "head_timeout_ms": 10_000,
        "body_timeout_ms": 30_000,
        "sketch_memory_bytes": 256 << 20,
        "sketches": True,
        "version": "test",
    }
    return json.dumps(values | changes).encode()


def digest(model: Path) -> str:
    """What a model file is called; models of the same digest are one."""
    return f"sha256:{hashlib.sha256(model.read_bytes()).hexdigest()}"


def endpoint(name: str, model: Path, revision: int = 1) -> bytes:
    """The state of an endpoint with one version, ``v1``, served from a model file."""
    return json.dumps(
        {
            "name": name,
            "revision": revision,
            "spec": {
                "versions": {"v1": {"digest": digest(model)}},
                "traffic": {"champion": "v1"},
                "limits": {"timeout": 30_000},
            },
            "traffic": {"champion": "v1", "last_good": "v1"},
            "load": {"versions": ["v1"], "artifacts": {"v1": str(model)}},
        }
    ).encode()


def settle(gateway: Any, ticket: int) -> dict[str, Any]:
    """Waits for the event of a ticket and returns it."""
    with select.epoll() as poll:
        poll.register(gateway.event_fd(), select.EPOLLIN)
        while poll.poll(EVENT_SECONDS):
            for event in json.loads(gateway.events()):
                if event["ticket"] == ticket:
                    return dict(event)
    raise AssertionError(f"no event for ticket {ticket} within {EVENT_SECONDS} s")


def serve(gateway: Any, name: str, model: Path) -> None:
    """Applies an endpoint and waits until it is live."""
    event = settle(gateway, gateway.apply(endpoint(name, model)))
    assert event["event"] == "applied", event


@contextmanager
def running(**changes: Any) -> Iterator[tuple[Any, str]]:
    """A started gateway and the address of its data port; stopped at the end."""
    from headgate import _native

    gateway = _native.Gateway(config(**changes))
    address = json.loads(gateway.start())["http"]
    try:
        yield gateway, address
    finally:
        gateway.stop(0, 5_000)

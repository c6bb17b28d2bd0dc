"""A whole gateway process on the fake data plane, in the test's own event loop: real sockets, store,
control, admin.

Not here: the signals of a real process and real inference; those are in tests/e2e. Next: test_process.py.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import httpx

from headgate.cli.serve import read_settings
from headgate.gateway.process import DataPlaneSource, Process
from headgate.gateway.settings import Settings
from support.gateway import ANY_PORT
from unit.control_harness import until
from unit.fake_native import FakeNative


class Plane(FakeNative):
    """The fake data plane with a life: what was called, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Any] = []
        self.drained = threading.Event()
        self.drained.set()

    def start(self) -> bytes:
        self.calls.append("start")
        return json.dumps({"http": "127.0.0.1:18000"}).encode()

    def not_ready_reasons(self) -> list[str]:
        return []

    def set_ready(self, ready: bool) -> None:
        self.calls.append(("ready", ready))

    def stop(self, drain_delay_ms: int, grace_ms: int) -> bool:
        self.calls.append(("stop", drain_delay_ms, grace_ms))
        assert self.drained.wait(20)
        return True

    def exposition(self, open_metrics: bool, compact: bool) -> bytes:
        return b""

    def apply(self, endpoint: bytes) -> int:
        self.calls.append(("apply", json.loads(endpoint)["name"]))
        return super().apply(endpoint)


class Module(ModuleType):
    """What ``headgate._native`` is to the gateway."""

    def __init__(self, plane: Plane) -> None:
        super().__init__("fake")
        self.plane = plane
        self.configs: list[dict[str, Any]] = []
        self.set_weights = plane.set_weights
        self.explain_route = plane.explain_route
        self.fit_baseline = plane.fit_baseline

    def Gateway(self, config: bytes) -> Plane:  # noqa: N802 (the name of the class it stands for)
        self.configs.append(json.loads(config))
        return self.plane


class Said(logging.Handler):
    """Keeps the messages of the package's log while it is attached."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())

    def __enter__(self) -> Self:
        log = logging.getLogger("headgate")
        log.setLevel(logging.INFO)
        log.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("headgate").removeHandler(self)


class Announcer:
    """Keeps what the program and the person would be told."""

    def __init__(self) -> None:
        self.addresses: dict[str, str] = {}
        self.tokens: list[str] = []
        self.ready: Callable[[], None] = lambda: None

    def bound(self, addresses: dict[str, str]) -> None:
        self.addresses = addresses
        self.ready()

    def first_token(self, token: str, path: Path) -> None:
        assert path.read_text().strip() == token
        self.tokens.append(token)


class Running:
    """One process in the test's own event loop."""

    def __init__(self, settings: Settings, plane: Plane | None = None) -> None:
        self.plane = plane or Plane()
        self.announcer = Announcer()
        self.module = Module(self.plane)
        self.process = Process(settings, DataPlaneSource(self.module, None), self.announcer)
        self.task: asyncio.Task[None] | None = None
        self._log = Said()
        self.said = self._log.texts
        """The messages of the log."""

    def begin(self) -> asyncio.Task[None]:
        """Starts, without waiting for anything."""

        async def run() -> None:
            with self._log:
                await self.process.run()

        self.task = asyncio.create_task(run())
        return self.task

    async def __aenter__(self) -> Running:
        task = self.begin()
        await until(lambda: bool(self.announcer.addresses) or task.done())
        if task.done():
            task.result()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.process.stop()
        assert self.task is not None
        async with asyncio.timeout(20):
            await self.task

    def live_weights(self, endpoint: str = "digits") -> dict[str, int]:
        """The slots that the data plane gives to each challenger."""
        weights: dict[str, int] = {}
        for version, first, last in self.plane.served[endpoint]["table"]["given"]:
            weights[version] = weights.get(version, 0) + abs(last - first) + 1
        return weights

    async def get(self, port: str, path: str) -> httpx.Response:
        async with httpx.AsyncClient() as http:
            headers = {"authorization": f"Bearer {self.announcer.tokens[0]}"} if self.announcer.tokens else {}
            return await http.get(f"http://{self.announcer.addresses[port]}{path}", headers=headers)


def settings(folder: Path, *documents: Path, **given: str) -> Settings:
    return read_settings({**ANY_PORT, "state": str(folder / "state"), **given}, documents, {})


def written(folder: Path, text: str) -> Path:
    path = folder / "digits.yaml"
    path.write_text(text)
    return path


def play(work: Callable[[], Awaitable[None]]) -> None:
    async def body() -> None:
        await work()

    asyncio.run(body())

"""A control plane on a fake data plane in a temporary state folder, for the tests of control and admin."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest

from headgate.control import Call, Control, Precondition, Settings
from headgate.errors import StorageFailed
from headgate.registry import ArtifactStore
from headgate.store import Store, open_store
from unit.fake_native import FakeNative

T = TypeVar("T")
_BROKEN_DISK_SECONDS = 0.1
"""What a disk that does not write leaves unsaved is given up soon."""
_WORKING_DISK_SECONDS = 60.0
"""A disk that writes is waited for as long as a busy machine needs."""
START = datetime(2027, 3, 1, 3, 12, 4, tzinfo=UTC)


class Clock:
    """Time that moves when a test says so."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@dataclass
class Gate:
    """One gateway without its sockets."""

    store: Store
    native: FakeNative
    control: Control
    clock: Clock
    state: Path
    writes: bool = True
    """Whether the disk takes writes."""

    async def apply(self, text: str, **call: Any) -> dict[str, Any]:
        name = text.split("name: ", 1)[1].split("\n", 1)[0].strip()
        take = call.pop("take_traffic", False)
        document = await self.control.parse(name, text.encode())
        return dict(await self.control.apply(document, call=Call("ann", **call), take_traffic=take))

    def live(self, endpoint: str = "digits") -> tuple[str, list[list[Any]], str]:
        """What the data plane serves: champion, runs, salt."""
        served = self.native.served[endpoint]
        return served["champion"], served["table"]["given"], served["table"]["salt"]

    def full_disk(self) -> Callable[[], None]:
        """Every write to the store fails until the result is called."""
        self._breaks()
        write = self.store.transactions.write

        def fail() -> Any:
            raise StorageFailed("the state could not be written: database or disk is full")

        self.store.transactions.write = fail  # type: ignore[method-assign]

        def heal() -> None:
            self.writes = True
            self.store.transactions.write = write  # type: ignore[method-assign]

        return heal

    def _breaks(self) -> None:
        """A call does not wait long for a disk that does not write, unless the test says how long; nor does the stop."""
        self.writes = False
        settings = self.control.settings
        if settings.durable_seconds == _WORKING_DISK_SECONDS:
            self.control.settings = self.control._context.settings = replace(
                settings, durable_seconds=_BROKEN_DISK_SECONDS
            )

    async def once_healed(self, call: Callable[[], Awaitable[T]]) -> T:
        """A call on a disk that is whole again. A write that began before that fails once, and the call may have joined it."""
        try:
            return await call()
        except StorageFailed:
            return await call()

    async def flush_healed(self) -> None:
        """Writes everything to a disk that is whole again."""
        await self.once_healed(self.control.flush)

    def hung_disk(self) -> Callable[[], None]:
        """Every write to the store waits, as behind an fsync that does not return, until the result is called."""
        self._breaks()
        writer = self.store.transactions._writer
        assert writer.acquire(timeout=60)

        def heal() -> None:
            self.writes = True
            writer.release()

        return heal


@asynccontextmanager
async def gateway(
    folder: Path, native: FakeNative | None = None, clock: Clock | None = None, **settings: Any
) -> AsyncIterator[Gate]:
    """Starts on the state folder and stops at the end; the data plane is a new one, as after a restart."""
    clock, native, state = clock or Clock(), native or FakeNative(), folder / "state"
    store = open_store(state, clock=clock)
    usual = {"refused_pause_seconds": 0.01, "durable_seconds": _WORKING_DISK_SECONDS}
    control = Control(store, native, ArtifactStore(state), Settings(**{**usual, **settings}))
    # Tests take the turns of rollouts themselves: a look of the loop would come between their calls on a busy machine.
    control._rollouts.begin = lambda _: None  # type: ignore[method-assign,assignment]
    gate = Gate(store, native, control, clock, state)
    loop = asyncio.get_running_loop()
    loop.add_reader(native.event_fd(), control.pump)
    try:
        await control.start()
        yield gate
    finally:
        await control.close(_WORKING_DISK_SECONDS if gate.writes else _BROKEN_DISK_SECONDS)
        loop.remove_reader(native.event_fd())
        store.close()
        native.close()


def document(traffic: str = "{champion: v1}", versions: str = "v1 v2 v3", name: str = "digits") -> str:
    """A document of constants, so that nothing needs a file."""
    lines = [
        f"  {version}: {{constant: {{score: {index + 0.5}}}}}"
        for index, version in enumerate(versions.split())
    ]
    return "\n".join(
        [
            "apiVersion: headgate/v1",
            "kind: Endpoint",
            f"name: {name}",
            "versions:",
            *lines,
            f"traffic: {traffic}",
            "",
        ]
    )


async def until(true: Callable[[], bool]) -> None:
    """Lets the loop run until something is true; order comes from the loop, not from time."""
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.001)


def run(work: Callable[[], Awaitable[None]]) -> None:
    """One event loop for one test."""

    async def body() -> None:
        await work()

    asyncio.run(body())


def at(n: int) -> Precondition:
    return Precondition.at(n)


def holding(
    monkeypatch: pytest.MonkeyPatch, place: Any, name: str
) -> tuple[threading.Event, threading.Event]:
    """The first call of a function waits: an event when it has come, and one that lets it go on."""
    reached, go = threading.Event(), threading.Event()
    real = getattr(place, name)

    def held(*given: Any, **named: Any) -> Any:
        if not reached.is_set():
            reached.set()
            assert go.wait(60)
        return real(*given, **named)

    monkeypatch.setattr(place, name, held)
    return reached, go

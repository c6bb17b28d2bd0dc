"""Control plane and data plane in the test's process, with a client that asks as long as it runs: what rollouts are tried on.

An unclean end is one after which nothing was written. Read next: ``test_rollout``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from headgate import _native, runtime_library
from headgate.control import Call, Control, Native, Settings
from headgate.control.domain.rollout.state import RolloutState
from headgate.control.writes import rollouts
from headgate.registry import ArtifactStore
from headgate.store import Store, open_store
from support import native as plane

SECONDS = 120.0
ANN = Call("ann", reason="it is better")
Values = Callable[[int], list[float]]
"""The elements of X in the request with that number."""


def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rollouts are looked at ten times as often as in a gateway: what a look decides is the same."""
    monkeypatch.setattr(rollouts, "LOOK_SECONDS", rollouts.LOOK_SECONDS / 10)


def nines(_: int) -> list[float]:
    return [9.0] * 4


class Clock:
    """The control plane's: the wall clock, ahead by as much as a test says."""

    def __init__(self) -> None:
        self._ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self._ahead

    def forward(self, seconds: float) -> None:
        self._ahead += timedelta(seconds=seconds)


@dataclass
class Running:
    """A gateway without its admin port. Its client asks while ``sends`` is set."""

    control: Control
    store: Store
    address: str
    clock: Clock
    values: Values = nines
    sends: asyncio.Event = field(default_factory=asyncio.Event)
    asked: int = 0
    answered: int = 0
    refused: int = 0

    async def view(self) -> Any:
        return await self.control.rollout_view("scale")

    async def until(self, true: Callable[[Any], bool]) -> Any:
        """The first view of the rollout that is as wanted."""
        view: Any = None
        try:
            async with asyncio.timeout(SECONDS):
                while not true(view := await self.view()):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            loops = self.control.background.status()["advance_rollouts"]
            raise AssertionError(
                f"{json.dumps(view, indent=1)[:3000]} {loops} {self.asked} {self.refused}"
            ) from None
        return view

    async def until_held(self) -> Any:
        """The view once it neither begins nor goes on: paused or over."""
        return await self.until(lambda view: view["phase"] != "progressing")

    async def looked(self) -> Any:
        """The view after one more look at least."""
        before = self.clock()
        rollout = self.rollout()
        async with asyncio.timeout(SECONDS):
            while (look := self.control._rollouts.look_of("scale", rollout)) is None or look.at_ms < (
                before.timestamp() * 1000
            ):
                await asyncio.sleep(0.01)
        return await self.view()

    def rollout(self) -> RolloutState:
        """Its state as it is written."""
        current = self.control.current("scale")
        assert current is not None
        assert current.traffic.rollout is not None
        return current.traffic.rollout

    def served(self) -> dict[str, int]:
        """The slots of each version."""
        current = self.control.current("scale")
        assert current is not None
        return {
            current.traffic.champion: 10_000 - sum(current.traffic.weights().values()),
            **current.traffic.weights(),
        }

    def blocked(self) -> list[str | None]:
        current = self.control.current("scale")
        assert current is not None
        return [block.version for block in current.traffic.blocked]


@asynccontextmanager
async def running(
    folder: Path, *, clean: bool = True, values: Values = nines, **config: Any
) -> AsyncIterator[Running]:
    """Serves the folder's state; without ``clean`` the process ends as if it were killed. ``config`` is the data plane's."""
    captures = folder / "state" / "captures"
    given = {"shadow_cpu": 1.0, "capture_folder": str(captures), "capture_bytes": 1 << 30, **config}
    with plane.running(**given) as (gateway, address):
        clock = Clock()
        store = open_store(folder / "state", clock=clock)
        native = Native(gateway, _native, str(runtime_library.find().path))
        control = Control(store, native, ArtifactStore(folder / "state"), Settings(root=folder))
        loop = asyncio.get_running_loop()
        loop.add_reader(native.event_fd(), control.pump)
        await control.start()
        found = Running(control, store, address, clock, values)
        found.sends.set()
        client = asyncio.create_task(_ask(found))
        try:
            yield found
        finally:
            client.cancel()
            await asyncio.gather(client, return_exceptions=True)
            if clean:
                await control.close()
            else:
                # What a kill leaves: nothing more is written.
                store.transactions.write = _dead  # type: ignore[method-assign]
                await control.stop(0.1)
            loop.remove_reader(native.event_fd())
            store.close()


def _dead() -> Any:
    raise SystemError("the process is dead")


async def _ask(running: Running) -> None:
    """Requests of many users, one after another."""
    async with httpx.AsyncClient(base_url=f"http://{running.address}") as client:
        while True:
            await running.sends.wait()
            user, data = f"user-{running.asked}", running.values(running.asked)
            body = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 4], "data": data}]}
            answer = await client.post("/v2/models/scale/infer", json=body, headers={"x-user-id": user})
            running.asked += 1
            # Before the first answer nothing is served.
            running.answered += answer.status_code == 200
            running.refused += running.answered > 0 and answer.status_code != 200


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def body() -> None:
        await work()

    asyncio.run(body())

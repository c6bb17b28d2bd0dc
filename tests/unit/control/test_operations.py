"""Operations whose end is written while somebody asks for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from headgate.control.domain.results import Result
from headgate.control.writes.context import Context
from headgate.control.writes.operations import Operations
from headgate.store import OperationRecord


class SlowStore:
    """A store whose writes wait for ``disk``; what is read before a write is done is older than it."""

    def __init__(self) -> None:
        self.written: dict[str, OperationRecord] = {}
        self.disk = asyncio.Event()
        self.disk.set()
        self.store = SimpleNamespace(
            put_operation=lambda record: self.written.update({record.id: record}),
            operations=lambda limit: [*self.written.values()][:limit],
        )
        self.settings = SimpleNamespace(durable_seconds=60.0, retry_seconds=0.0)

    def now(self) -> str:
        return "2027-03-01T03:12:04.000000Z"

    async def write(self, work: Callable[[], None]) -> None:
        await self.disk.wait()
        work()

    async def io(self, read: Callable[[], Any]) -> Any:
        found = read()
        # The write that waits is done before the reader goes on.
        self.disk.set()
        for _ in range(10):
            await asyncio.sleep(0)
        return found


def test_an_end_that_was_told_is_not_taken_back() -> None:
    async def body() -> None:
        context = SlowStore()
        operations = Operations(cast(Context, context))
        end: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

        async def work() -> Result:
            return await end

        begun = await operations.adopt(asyncio.create_task(work()), "digits", "apply")
        context.disk.clear()
        end.set_result(cast(Result, {}))
        while (await operations.get(begun["id"]))["status"] == "running":
            await asyncio.sleep(0)
        listed = await operations.list(10)
        assert [one["status"] for one in listed] == ["done"]
        assert context.written[begun["id"]].status == "done"
        await operations.close(60)

    asyncio.run(body())

"""Loops beside the calls: a turn that fails ends nothing, and what became of each turn can be read."""

from __future__ import annotations

import asyncio

import pytest

from headgate import background
from headgate.background import Background
from headgate.errors import StorageFailed
from unit.control_harness import run, until


def test_a_loop_outlives_failures_and_defects_and_counts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "_PAUSE_AFTER_DEFECT_SECONDS", 0.0)
    turns: list[int] = []

    async def turn() -> None:
        turns.append(len(turns))
        if len(turns) == 2:
            raise StorageFailed("the disk is full")
        if len(turns) == 3:
            raise RuntimeError("a defect")
        if len(turns) == 5:
            await asyncio.Event().wait()

    async def body() -> None:
        loops = Background(lambda: 100.0 + len(turns))
        loops.run("work", turn)
        await until(lambda: len(turns) == 5)
        status = loops.status()["work"]
        assert (status.last_success, status.last_failure, status.failures) == (104.0, 103.0, 2)
        assert status.last_error == "RuntimeError('a defect')"
        await loops.close()
        await loops.close()
        assert len(turns) == 5

    run(body)


def test_a_failure_that_comes_back_is_logged_once_until_a_turn_is_good(
    caplog: pytest.LogCaptureFixture,
) -> None:
    turns: list[int] = []

    async def turn() -> None:
        turns.append(len(turns))
        if len(turns) == 9:
            await asyncio.Event().wait()
        if len(turns) != 5:
            raise StorageFailed("the disk is full" if len(turns) != 8 else "the disk is gone")

    async def body() -> None:
        loops = Background(lambda: 1.0)
        loops.run("work", turn)
        await until(lambda: len(turns) == 9)
        assert loops.status()["work"].failures == 7
        await loops.close()

    run(body)
    assert [one.getMessage() for one in caplog.records] == [
        "work: the disk is full",
        "work: the disk is full",
        "work: the disk is gone",
    ]


def test_one_loop_that_waits_keeps_no_other_from_its_work() -> None:
    done: list[str] = []

    async def stuck() -> None:
        await asyncio.Event().wait()

    async def works() -> None:
        done.append("turn")
        await asyncio.sleep(0)

    async def body() -> None:
        loops = Background(lambda: 1.0)
        loops.run("stuck", stuck)
        loops.run("works", works)
        await until(lambda: len(done) > 2)
        assert loops.status()["stuck"].last_success == 0.0
        await loops.close()

    run(body)

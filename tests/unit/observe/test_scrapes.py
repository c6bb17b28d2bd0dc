from __future__ import annotations

import asyncio

import pytest

from headgate.observe.scrapes import Form, Scrapes

FULL, COMPACT = Form(open_metrics=False, compact=False), Form(open_metrics=False, compact=True)


class Renderer:
    """Pages that are made when the test says so."""

    def __init__(self) -> None:
        self.begun: list[Form] = []
        self.at_work = 0
        self.go = asyncio.Event()
        self.fails = False

    async def __call__(self, form: Form) -> bytes:
        self.at_work += 1
        assert self.at_work == 1, "one rendering at a time"
        self.begun.append(form)
        try:
            await self.go.wait()
            if self.fails:
                raise RuntimeError("no page")
            return f"page {len(self.begun)}".encode()
        finally:
            self.at_work -= 1


def test_a_page_is_made_once_for_all_who_ask_meanwhile_and_served_for_a_second() -> None:
    async def work() -> None:
        now, renderer = [0.0], Renderer()
        scrapes = Scrapes(renderer, 1.0, lambda: now[0])
        asked = [asyncio.create_task(scrapes.page(FULL)) for _ in range(6)]
        await asyncio.sleep(0)
        # One that leaves takes nothing from the others.
        asked.pop().cancel()
        now[0] = 5.0
        renderer.go.set()
        assert await asyncio.gather(*asked) == [b"page 1"] * 5
        now[0] = 5.9
        assert await scrapes.page(FULL) == b"page 1"
        now[0] = 6.0
        assert await scrapes.page(FULL) == b"page 2"
        assert renderer.begun == [FULL, FULL]

    asyncio.run(work())


def test_two_forms_are_made_one_after_the_other() -> None:
    async def work() -> None:
        renderer = Renderer()
        scrapes = Scrapes(renderer, 1.0, lambda: 0.0)
        asked = [asyncio.create_task(scrapes.page(form)) for form in (FULL, COMPACT, FULL)]
        await asyncio.sleep(0)
        renderer.go.set()
        assert await asyncio.gather(*asked) == [b"page 1", b"page 2", b"page 1"]

    asyncio.run(work())


def test_a_page_that_could_not_be_made_is_made_for_the_next_one() -> None:
    async def work() -> None:
        renderer = Renderer()
        renderer.go.set()
        renderer.fails = True
        scrapes = Scrapes(renderer, 1.0, lambda: 0.0)
        with pytest.raises(RuntimeError, match="no page"):
            await scrapes.page(FULL)
        renderer.fails = False
        assert await scrapes.page(FULL) == b"page 2"

    asyncio.run(work())

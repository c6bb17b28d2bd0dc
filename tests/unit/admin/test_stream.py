"""The event stream: order, replay, ends."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette

from headgate.admin.open_streams import OpenStreams
from headgate.control.writes.feed import BACKLOG, Feed
from headgate.store import EventRecord, RetentionLimits
from unit.admin_harness import port, problem
from unit.control_harness import document, run, until


class Reader:
    """One client of ``/v1/events``, below httpx, which would wait for the end."""

    def __init__(self, app: Starlette, token: str, query: str = "", last: str | None = None) -> None:
        headers = [(b"host", b"localhost"), (b"authorization", token.encode())]
        if last is not None:
            headers.append((b"last-event-id", last.encode()))
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "method": "GET", "path": "/v1/events", "raw_path": b"/v1/events",
            "query_string": query.encode(), "headers": headers, "scheme": "http", "http_version": "1.1",
            "server": ("localhost", 8003), "client": ("127.0.0.1", 1), "root_path": "",
        }  # fmt: skip
        self.text = ""
        self.ended = False
        self.leave = asyncio.Event()
        self.task = asyncio.ensure_future(app(scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        await self.leave.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.body":
            self.text += message["body"].decode()
            self.ended = not message.get("more_body", False)

    def events(self) -> list[dict[str, Any]]:
        lines = [line for line in self.text.split("\n") if line.startswith("data: ")]
        return [json.loads(line.removeprefix("data: ")) for line in lines]

    def types(self) -> list[str]:
        return [event["type"] for event in self.events()]


def test_events_come_as_they_happen_and_end_with_the_gateway(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            reader = Reader(p.app, p.viewer.headers["authorization"])
            await until(lambda: ": open" in reader.text)
            await p.gate.apply(document("{champion: v1, weights: {v2: 10%}}"))
            await p.gate.control.rollback("digits")
            await until(lambda: len(reader.events()) == 2)
            first, second = reader.events()
            assert (first["type"], first["endpoint"], first["revision"], first["who"]) == (
                "applied",
                "digits",
                1,
                "ann",
            )
            assert second["data"]["kind"] == "rollback"
            assert f"id: {second['id']}\nevent: applied\ndata: " in reader.text
            await p.gate.control.close()
            await asyncio.wait_for(reader.task, 60)
            assert reader.ended

    run(body)


def test_last_event_id_brings_what_was_missed(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            token = p.viewer.headers["authorization"]
            await p.gate.apply(document(name="other"))
            await p.gate.apply(document())
            everything = Reader(p.app, token, last="0")
            await until(lambda: len(everything.events()) == 3)
            assert everything.types() == ["started", "applied", "applied"]
            since = Reader(p.app, token, last=str(everything.events()[1]["id"]))
            await until(lambda: len(since.events()) == 1)
            only = Reader(p.app, token, query="endpoint=digits", last="0")
            await until(lambda: len(only.events()) == 1)
            assert only.events()[0]["endpoint"] == "digits"
            await p.gate.control.patch_traffic("digits", weights={"v2": "1%"})
            for reader in (everything, since, only):
                await until(
                    lambda reader=reader: (
                        reader.types()[-1:] == ["applied"] and reader.events()[-1]["revision"] == 2
                    )
                )
                reader.leave.set()
                await asyncio.wait_for(reader.task, 60)
            ids = [event["id"] for event in everything.events()]
            assert ids == sorted(set(ids))
            bad = await p.viewer.get("/v1/events", headers={"last-event-id": "x"})
            assert problem(bad) == (400, "invalid_argument")

    run(body)


def test_an_id_whose_successors_were_dropped_is_told(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            for name in ("one", "two", "three"):
                await p.gate.apply(document(name=name))
            p.gate.store.drop_journal("events", RetentionLimits(1))
            floor = p.gate.store.floor("events")
            for query in ({}, {"follow": "false"}):
                gone = await p.viewer.get("/v1/events", params=query, headers={"last-event-id": "1"})
                assert problem(gone) == (404, "not_found")
                assert gone.json()["facts"] == {"floor": floor}
            for last in ("0", str(floor)):
                kept = await p.viewer.get(
                    "/v1/events", params={"follow": "false"}, headers={"last-event-id": last}
                )
                assert kept.text.count("event: ") == 1

    run(body)


def test_without_following_the_stream_ends_with_what_is_stored(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            token = p.viewer.headers["authorization"]
            await p.gate.apply(document(name="other"))
            await p.gate.apply(document())
            for query, last, expected in [
                ("follow=false", None, ["started", "applied", "applied"]),
                ("follow=false&endpoint=digits", "0", ["applied"]),
                ("follow=false", "1000", []),
                ("follow=false&limit=1", None, ["applied"]),
                ("follow=false&limit=2", "0", ["applied", "applied"]),
            ]:
                reader = Reader(p.app, token, query=query, last=last)
                await asyncio.wait_for(reader.task, 60)
                assert (reader.types(), reader.ended) == (expected, True)
            for wrong in ("follow=no", "limit=1", "follow=false&limit=0", "follow=false&limit=10001"):
                assert problem(await p.viewer.get(f"/v1/events?{wrong}")) == (400, "invalid_argument"), wrong

    run(body)


def test_a_token_that_is_revoked_ends_its_streams_and_no_others(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            mine = [
                Reader(p.app, p.viewer.headers["authorization"], query=query) for query in ("", "endpoint=x")
            ]
            other = Reader(p.app, p.operator.headers["authorization"])
            for reader in (*mine, other):
                await until(lambda reader=reader: ": open" in reader.text)  # type: ignore[misc]
            viewer = (await p.viewer.get("/v1/whoami")).json()["token"]
            assert (await p.admin.delete(f"/v1/tokens/{viewer}")).status_code == 200
            for reader in mine:
                await asyncio.wait_for(reader.task, 60)
                assert reader.ended
            assert not other.task.done()
            other.leave.set()
            await asyncio.wait_for(other.task, 60)

    run(body)


@pytest.mark.parametrize("forgotten", ["expired", "revoked on the state folder"])
def test_a_token_that_is_good_no_more_ends_its_streams_at_the_next_keep_alive(
    tmp_path: Path, forgotten: str
) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            token, secret = p.tokens.create(name="ann", role="viewer", expires_seconds=60)
            p.tokens.authenticate(secret)
            streams = OpenStreams(p.tokens, keep_alive_seconds=0.001)
            reader = Reader(
                streams.answer(token["id"], p.gate.control.events(None), None),  # type: ignore[arg-type]
                "",
            )
            await until(lambda: ": open" in reader.text)
            assert not reader.task.done()
            if forgotten == "expired":
                p.gate.clock.forward(61)
            else:
                p.tokens.revoke(token["id"], "offline")
            await asyncio.wait_for(reader.task, 60)
            assert reader.ended
            assert streams._open == {}

    run(body)


def test_ticks_come_when_they_are_due_among_events_and_leave_the_last_id(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            due: asyncio.Queue[None] = asyncio.Queue()
            token, _ = p.tokens.create(name="ann", role="viewer", expires_seconds=60)
            streams = OpenStreams(p.tokens, next_tick=due.get)
            reader = Reader(
                streams.answer(token["id"], p.gate.control.events(0), None),  # type: ignore[arg-type]
                "",
            )
            await until(lambda: reader.types() == ["started"])
            due.put_nowait(None)
            await until(lambda: reader.types() == ["started", "tick"])
            await p.gate.apply(document())
            await until(lambda: reader.types() == ["started", "tick", "applied"])
            due.put_nowait(None)
            due.put_nowait(None)
            await until(lambda: reader.types() == ["started", "tick", "applied", "tick", "tick"])
            assert reader.text.count("id: ") == 2
            assert '\n\nevent: tick\ndata: {"type": "tick"}\n\n' in reader.text
            reader.leave.set()
            await asyncio.wait_for(reader.task, 60)

    run(body)


def test_an_alarm_that_cannot_be_stored_is_told_without_an_id(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            await p.gate.apply(document("{champion: v1, weights: {v2: 10%}}"))
            reader = Reader(p.app, p.viewer.headers["authorization"])
            await until(lambda: ": open" in reader.text)
            p.gate.full_disk()
            await p.gate.control.rollback("digits")
            await until(lambda: len(reader.events()) == 2)
            assert [(event["type"], event["id"]) for event in reader.events()] == [
                ("alarm", None),
                ("applied", None),
            ]
            assert "id: " not in reader.text
            reader.leave.set()
            await reader.task

    run(body)


def test_a_reader_that_falls_behind_is_cut_off() -> None:
    async def body() -> None:
        feed = Feed()

        async def nothing(_cursor: int) -> list[EventRecord]:
            return []

        async def newest() -> int:
            return 0

        events = feed.read(0, nothing, newest)
        first = asyncio.ensure_future(anext(events))
        await until(lambda: bool(feed._readers))
        for number in range(1, BACKLOG + 10):
            feed.publish(EventRecord("applied", "", "e", number, "", "", {}, number))
        seen = [await first, *[event async for event in events]]
        assert len(seen) == BACKLOG
        assert seen[-1].generation == BACKLOG

    run(body)

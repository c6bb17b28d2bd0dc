"""What clients may do to a control-plane port, on real sockets and under a clock that the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from headgate.gateway.connections import Connections, Limits, Reason
from headgate.gateway.listeners import Listener
from headgate.gateway.sockets import bind
from headgate.gateway.units import Address

GET = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"
PUT = b"POST /body HTTP/1.1\r\nHost: here\r\nContent-Length: 100\r\n\r\n"
LONG = 8 << 20
LIMITS = Limits(connections=3, unsent_bytes=LONG)


@dataclass
class Port:
    """A listener, the time it believes in, and clients of it."""

    listener: Listener
    now: list[float]
    connections: Connections
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def client(self, send: bytes = b"") -> asyncio.StreamReader:
        """Connects and sends; returns once the listener has taken it."""
        before = len(self.connections), self.connections.closed[Reason.CROWDED]
        host, port = self.listener.address.rsplit(":", 1)
        reader, writer = await asyncio.open_connection(host, int(port), limit=4096)
        self.writers.append(writer)
        await until(lambda: (len(self.connections), self.connections.closed[Reason.CROWDED]) != before)
        writer.write(send)
        return reader

    async def asked(self) -> asyncio.StreamReader:
        """A client that was answered once and is idle."""
        reader = await self.client(GET)
        assert b"hello" in await whole(reader)
        return reader

    def after(self, seconds: float) -> dict[Reason, int]:
        """What was closed once so much time has passed."""
        self.now[0] += seconds
        self.connections.sweep()
        return dict(self.connections.closed)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0)


async def whole(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return head + await reader.readexactly(length)


async def closed(reader: asyncio.StreamReader) -> bool:
    async with asyncio.timeout(30):
        try:
            while await reader.read(1 << 20):
                pass
        except ConnectionError:
            return True
    return reader.at_eof()


async def hello(_: Request) -> Response:
    return PlainTextResponse("hello")


async def body(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


async def long(_: Request) -> Response:
    return PlainTextResponse(b"0" * LONG)


async def endless(_: Request) -> Response:
    async def chunks():
        yield b"first\n"
        await asyncio.Event().wait()

    return StreamingResponse(chunks())


APP = Starlette(
    routes=[
        Route("/", hello, methods=["GET", "POST"]),
        Route("/body", body, methods=["POST"]),
        Route("/long", long),
        Route("/endless", endless),
    ]
)


def serve(work: Callable[[Port], Awaitable[None]], limits: Limits = LIMITS) -> None:
    async def run() -> None:
        now = [1000.0]
        connections = Connections(limits, lambda: now[0])
        listener = Listener(APP, bind(Address("127.0.0.1", 0), "observe"), connections)
        await listener.start()
        port = Port(listener, now, connections)
        try:
            await work(port)
        finally:
            for writer in port.writers:
                writer.close()
            await listener.stop()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("sent", "seconds", "reason"),
    [
        (b"", LIMITS.idle_seconds, Reason.IDLE),
        (b"GET / HT", LIMITS.head_seconds, Reason.HEAD),
        (PUT + b"half of it", LIMITS.body_seconds, Reason.BODY),
        # Answered at once, and never read: its rest counts as well.
        (PUT.replace(b"/body", b"/"), LIMITS.body_seconds, Reason.BODY),
    ],
    ids=["silent", "slow head", "slow body", "body of an answered request"],
)
def test_a_client_that_is_waited_for_too_long_is_closed(sent: bytes, seconds: float, reason: Reason) -> None:
    async def work(port: Port) -> None:
        reader = await port.client(sent)
        # What was sent has arrived when something sent after it is answered.
        await port.asked()
        assert port.after(seconds - 0.5) == {}
        port.now[0] += 0.5
        port.connections.sweep()
        assert port.connections.closed[reason] > 0
        assert await closed(reader)

    serve(work)


@pytest.mark.parametrize("path", ["/body", "/endless"])
def test_a_body_that_is_too_slow_is_answered_before_the_close(path: str) -> None:
    async def work(port: Port) -> None:
        begun = path == "/endless"
        sent = PUT.replace(b"POST /body", b"GET " + path.encode()) if begun else PUT
        reader = await port.client(sent + b"half of it")
        if begun:
            await reader.readuntil(b"first")
        await port.asked()
        assert port.after(LIMITS.body_seconds)[Reason.BODY] == 1
        answer = b"" if begun else await whole(reader)
        # Of an answer that has begun nothing else can be said.
        assert begun or (answer.startswith(b"HTTP/1.1 408 ") and b"connection: close" in answer)
        assert await closed(reader)
        # The client that was told hears the end as well, and is waited for no longer than a moment.
        port.writers[0].write(b"more of it")
        port.after(1.0)
        assert port.connections.closed[Reason.BODY] == 1
        await until(lambda: all(one.transport.is_closing() is False for one in port.connections._open))
        assert len(port.connections) == 1

    serve(work)


def test_a_body_that_is_too_large_is_answered_while_its_client_still_sends() -> None:
    async def work(port: Port) -> None:
        length = 4 * LIMITS.body_bytes
        head = PUT.replace(b"Content-Length: 100", b"Content-Length: %d" % length)
        reader = await port.client(head)
        port.writers[0].write(bytes(length))
        answer = await whole(reader)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"connection: close" in answer
        assert await closed(reader)
        assert port.connections.closed == {Reason.BODY_BYTES: 1}
        port.writers[0].close()
        await until(lambda: len(port.connections) == 0)

    serve(work)


def test_requests_in_one_write_are_all_answered_in_a_drain_and_the_last_one_says_so() -> None:
    async def work(port: Port) -> None:
        port.listener.drain()
        reader = await port.client(3 * GET)
        ends = [b"connection: close" in await whole(reader) for _ in range(3)]
        assert ends == [False, False, True]
        assert await closed(reader)

    serve(work)


@pytest.mark.parametrize(
    "sent",
    [
        b"no HTTP at all\r\n\r\n",
        PUT.replace(b"/body", b"/").replace(b"Content-Length: 100", b"Transfer-Encoding: chunked")
        + b"no size\r\n",
        b"GET /endless HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n",
        GET.replace(b"Host", b"Upgrade: websocket\r\nConnection: Upgrade, close\r\nHost"),
    ],
    ids=["no head", "no chunk", "no chunk of a stream", "upgrade"],
)
def test_what_a_client_gets_wrong_writes_no_log(sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def work(port: Port) -> None:
        assert await closed(await port.client(sent))
        await until(lambda: len(port.connections) == 0)

    serve(work)
    assert caplog.records == []


def test_bytes_that_trickle_in_win_no_time_for_a_head() -> None:
    async def work(port: Port) -> None:
        reader = await port.client(GET[:4])
        for byte in GET[4:12]:
            await port.asked()
            port.after(1.0)
            port.writers[0].write(bytes([byte]))
        await port.asked()
        port.after(2.0)
        assert port.connections.closed[Reason.HEAD] == 1
        assert await closed(reader)

    serve(work, Limits())


def test_a_connection_that_was_answered_and_idles_is_closed_later() -> None:
    async def work(port: Port) -> None:
        reader = await port.asked()
        assert port.after(LIMITS.idle_seconds - 1) == {}
        port.writers[0].write(GET)
        assert b"hello" in await whole(reader)
        assert port.after(LIMITS.idle_seconds - 1) == {}
        assert port.after(1) == {Reason.IDLE: 1}
        assert await closed(reader)

    serve(work)


def test_an_answer_that_nobody_reads_is_given_up() -> None:
    async def work(port: Port) -> None:
        reader = await port.client(GET.replace(b"GET /", b"GET /long"))
        await until(lambda: any(one.unsent for one in port.connections._open))
        await port.asked()
        assert port.after(LIMITS.unread_seconds - 1) == {}
        assert port.after(1) == {Reason.UNREAD: 1}
        # What the sockets held may come, the whole answer does not.
        assert await closed(reader)

    serve(work)


def test_unread_answers_have_one_bound_together() -> None:
    async def work(port: Port) -> None:
        for count in (1, 2):
            await port.client(GET.replace(b"GET /", b"GET /long"))
            await until(lambda count=count: sum(one.unsent > 0 for one in port.connections._open) == count)
            port.now[0] += 1
        assert port.after(2) == {}
        assert port.after(2) == {Reason.UNREAD: 1}
        assert port.after(1) == {Reason.UNREAD: 1}

    serve(work)


def test_many_requests_at_once_are_answered_one_after_the_other() -> None:
    async def work(port: Port) -> None:
        reader = await port.client(GET * 2_000)
        for _ in range(2_000):
            assert b"hello" in await whole(reader)

    serve(work)


def test_many_requests_of_a_client_that_reads_nothing_end_with_it() -> None:
    async def work(port: Port) -> None:
        reader = await port.client(GET.replace(b"GET /", b"GET /long") * 1_000)
        await until(lambda: any(one.unsent for one in port.connections._open))
        await port.asked()
        assert port.after(LIMITS.unread_seconds) == {Reason.UNREAD: 1}
        assert await closed(reader)

    serve(work)


def test_a_new_connection_always_gets_in_and_the_oldest_silent_one_goes() -> None:
    async def work(port: Port) -> None:
        silent = []
        for _ in range(2):
            silent.append(await port.client())
            port.now[0] += 2
        idle = await port.asked()
        for reader in silent:
            port.now[0] += 2
            assert b"hello" in await whole(await port.client(GET))
            assert await closed(reader)
        # No silent one is left: the one that has been idle longest goes.
        port.now[0] += 2
        await port.asked()
        assert await closed(idle)
        assert port.connections.closed == {Reason.CROWDED: 3}

    serve(work)


@pytest.mark.parametrize("sent", [PUT, GET.replace(b"GET /", b"GET /endless")], ids=["bodies", "streams"])
def test_slow_bodies_and_streams_make_room_before_somebody_who_has_just_come(sent: bytes) -> None:
    async def work(port: Port) -> None:
        slow = []
        for _ in range(2):
            slow.append(await port.client(sent))
            if b"endless" in sent:
                await slow[-1].readuntil(b"first")
            port.now[0] += 2
        fresh = await port.client()
        await until(lambda: len(port.connections) == 3)
        other = await port.client(GET)
        assert b"hello" in await whole(other)
        assert await closed(slow[0])
        port.writers[2].write(GET)
        assert b"hello" in await whole(fresh)

    serve(work)


def test_the_port_stops_while_clients_do_all_of_this() -> None:
    async def work(port: Port) -> None:
        await port.client()
        await port.client(PUT)
        await port.client(GET.replace(b"GET /", b"GET /long"))

    serve(work)

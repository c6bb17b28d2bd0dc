from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from headgate.errors import Conflict
from headgate.gateway.listeners import Listener
from headgate.gateway.sockets import bind
from headgate.gateway.units import Address

ANY_PORT = Address("127.0.0.1", 0)


async def hello(_: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


async def endless(_: Request) -> StreamingResponse:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"first\n"
        await asyncio.Event().wait()

    return StreamingResponse(chunks())


APP = Starlette(routes=[Route("/", hello), Route("/endless", endless)])


def test_it_answers_at_the_port_that_the_system_chose_and_leaves_signals_alone() -> None:
    async def work() -> None:
        handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
        listener = Listener(APP, bind(ANY_PORT, "observe"))
        await listener.start()
        assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers
        async with httpx.AsyncClient(base_url=f"http://{listener.address}") as http:
            assert (await http.get("/")).text == "hello"
        await listener.stop()
        await listener.stop()

    asyncio.run(work())


def test_a_stream_that_never_ends_is_cut_off() -> None:
    async def work() -> None:
        listener = Listener(APP, bind(ANY_PORT, "admin"))
        await listener.start()
        async with (
            httpx.AsyncClient(base_url=f"http://{listener.address}") as http,
            http.stream("GET", "/endless") as answer,
        ):
            lines = answer.aiter_lines()
            assert await anext(lines) == "first"
            async with asyncio.timeout(20):
                await listener.stop()

    asyncio.run(work())


def test_a_taken_port_is_a_conflict_that_names_the_option() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(Conflict, match=r"--admin HOST:PORT"):
            bind(Address("127.0.0.1", taken.getsockname()[1]), "admin")


def test_an_address_of_another_machine_is_a_conflict() -> None:
    with pytest.raises(Conflict, match="192.0.2.1"):
        bind(Address("192.0.2.1", 0), "http")


def test_ipv6_is_written_with_brackets() -> None:
    listener = Listener(APP, bind(Address("::1", 0), "observe"))
    assert listener.address.startswith("[::1]:")
    asyncio.run(listener.stop())


@asynccontextmanager
async def connected(listener: Listener) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, port = listener.address.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.close()
        await writer.wait_closed()


async def takes_connections(listener: Listener) -> bool:
    try:
        async with asyncio.timeout(1), connected(listener):
            return True
    except (ConnectionError, TimeoutError):
        # A listener that stops has the kernel drop what asks for a connection. A busy machine may be as silent before that.
        return not listener.connections.draining


def test_a_kept_connection_gets_its_last_answer_while_the_listener_stops() -> None:
    async def work() -> None:
        listener = Listener(APP, bind(ANY_PORT, "admin"))
        await listener.start()
        request = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"
        async with connected(listener) as (reader, writer), connected(listener) as (silent, other):
            writer.write(request)
            assert b"connection: close" not in (await reader.readuntil(b"hello")).lower()
            stopped = asyncio.create_task(listener.stop(20.0))
            while await takes_connections(listener):
                assert not stopped.done()
            for one in (writer, other):
                one.write(request)
            for last in (reader, silent):
                assert b"connection: close" in (await last.read()).lower()
            await stopped

    asyncio.run(work())


def test_an_idle_connection_is_closed_in_the_end() -> None:
    async def work() -> None:
        listener = Listener(APP, bind(ANY_PORT, "observe"))
        await listener.start()
        async with connected(listener) as (reader, _):
            await listener.stop(0.05)
            assert await reader.read() == b""

    asyncio.run(work())


HEAD = b"GET / HTTP/1.1\r\nHost: here\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n"
ENDLESS = {
    "a request line": b"",
    "a header's name": HEAD,
    "a header's value": HEAD + b"x: ",
    "a chunk's extension": CHUNKED + b"5;",
    "a chunk's size": CHUNKED,
    "a trailer": CHUNKED + b"0\r\nx: ",
    "a body in chunks": CHUNKED + b"FFFFFFFF\r\n",
    "a body of some length": b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 99999999999\r\n\r\n",
}


@pytest.mark.parametrize("begin", ENDLESS.values(), ids=ENDLESS.keys())
def test_nothing_without_an_end_is_read_without_end(begin: bytes) -> None:
    most = 64 << 20

    async def work() -> int:
        listener = Listener(APP, bind(ANY_PORT, "observe"))
        await listener.start()
        try:
            return await asyncio.to_thread(send_all, listener.address, begin, most)
        finally:
            await listener.stop()

    assert asyncio.run(work()) < most


def send_all(address: str, begin: bytes, most: int) -> int:
    """Sends one byte again and again; how many the other side took before it closed."""
    host, port = address.rsplit(":", 1)
    sent = 0
    with socket.create_connection((host, int(port)), timeout=30) as client:
        try:
            client.sendall(begin)
            while sent < most:
                client.sendall(b"0" * 65536)
                sent += 65536
        except ConnectionError:
            return sent
    return sent


@pytest.mark.parametrize("line", [b"X-A: b\r\n", b"a:\r\n"])
def test_a_head_with_lines_without_end_is_refused_with_431(line: bytes) -> None:
    async def work() -> bytes:
        listener = Listener(APP, bind(ANY_PORT, "observe"))
        await listener.start()
        host, port = listener.address.rsplit(":", 1)
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(HEAD + line * (40_000 // len(line)))
        answer = await reader.read(12)
        writer.close()
        await listener.stop()
        return answer

    assert asyncio.run(work()) == b"HTTP/1.1 431"

"""The control plane's own HTTP ports: uvicorn without its hands on signals, and without waiting for open
streams.

uvicorn as it comes replaces the process's signal handlers, raises the captured signal again once it has
stopped (so a drained process would end with -15 instead of 0), and waits for every open event stream. All
three belong to the process, not to a listener. Its parser is h11 whatever is installed: httptools bounds no
head. The inference port is not here: the data plane opens it. Next: connections.py, process.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import socket
import struct
from collections.abc import Generator

import uvicorn
from starlette.types import ASGIApp

from headgate.errors import Conflict
from headgate.gateway.acceptor import Acceptor
from headgate.gateway.connections import Connection, Connections, Limits
from headgate.gateway.units import Address

_BACKLOG = 1024
_STOP_SECONDS = 2
_TURN_SECONDS = 0.01
#: Linux's socket option for a packet filter, and one that drops SYN without ACK in the flags of TCP. What is
#: part of a connection passes; connections inherit the filter of their listener.
_SO_ATTACH_FILTER = 26
_NO_MORE = (
    (0x30, 0, 0, 13),
    (0x54, 0, 0, 0x12),
    (0x15, 0, 1, 0x02),
    (0x06, 0, 0, 0),
    (0x06, 0, 0, 0xFFFF_FFFF),
)
_SWEEP_SECONDS = 1.0


class _Server(uvicorn.Server):
    """A uvicorn server that leaves signals alone and bounds its connections."""

    def __init__(self, config: uvicorn.Config, connections: Connections) -> None:
        super().__init__(config)
        self._connections = connections

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's for given sockets, with an acceptor of ours."""
        await self.lifespan.startup()

        def protocol() -> Connection:
            return Connection(
                self._connections,
                config=self.config,
                server_state=self.server_state,
                app_state=self.lifespan.state,
            )

        acceptors = [Acceptor(sock, self._connections, protocol) for sock in sockets or []]
        for acceptor in acceptors:
            acceptor.open(_BACKLOG)
        self.servers = acceptors  # type: ignore[assignment]
        self.started = True

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Captures nothing: the process has handlers of its own, for the process as a whole."""
        yield


def _take_no_more(sock: socket.socket) -> None:
    """Has the kernel drop what asks for a connection, so that none is made which nobody would accept."""
    instructions = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in _NO_MORE))
    program = struct.pack("HL", len(_NO_MORE), ctypes.addressof(instructions))
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


class Listener:
    """One ASGI app on one socket, in the running event loop."""

    def __init__(
        self,
        app: ASGIApp,
        sock: socket.socket,
        connections: Connections | None = None,
    ) -> None:
        self._sock = sock
        self._since: float | None = None
        """When each answer began to be its connection's last, by the event loop's clock."""
        self.connections = Connections(Limits()) if connections is None else connections
        config = uvicorn.Config(
            app,
            http="h11",
            h11_max_incomplete_event_size=self.connections.limits.head_bytes,
            log_config=None,
            # Its warnings are about what clients get wrong: counted, and no lines that anybody can have written.
            log_level="error",
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            proxy_headers=False,
            # The sweep sees to it, before the first answer as well.
            timeout_keep_alive=round(self.connections.limits.idle_seconds),
            timeout_graceful_shutdown=_STOP_SECONDS,
        )
        self._server = _Server(config, self.connections)
        self._task: asyncio.Task[None] | None = None
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """Where it listens, with the port that the system chose if port 0 was asked for."""
        host, port = self._sock.getsockname()[:2]
        return str(Address(host, port))

    async def start(self) -> None:
        """Returns once connections are taken."""
        self._task = asyncio.create_task(
            self._server.serve(sockets=[self._sock]), name=f"listener {self.address}"
        )
        while not self._server.started:
            done, _ = await asyncio.wait({self._task}, timeout=0.01)
            if done:
                self._task.result()
                raise Conflict("the listener ended before it took a connection")
        self._sweeper = asyncio.create_task(self._sweep(), name=f"sweeper {self.address}")

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            self.connections.sweep()

    def drain(self) -> None:
        """From now on each connection ends with its next answer; new ones are taken until :meth:`stop`."""
        if self._since is None:
            self._since = asyncio.get_running_loop().time()
            self.connections.draining = True

    async def stop(self, idle_seconds: float = 0.0) -> None:
        """Takes no more connections, gives open requests a moment, then cuts them off. May be called twice.

        An idle connection is closed ``idle_seconds`` after :meth:`drain`, so that a request that is on its
        way is answered.
        """
        if self._task is None:
            self._sock.close()
            return
        self.drain()
        if not self._server.should_exit:
            await self._last_requests(idle_seconds)
        self._server.should_exit = True
        await asyncio.wait({self._task})
        if self._sweeper is not None:
            self._sweeper.cancel()

    async def _last_requests(self, idle_seconds: float) -> None:
        loop, since = asyncio.get_running_loop(), self._since or 0.0
        _take_no_more(self._sock)
        # A turn of the loop in which it accepts what the kernel has accepted.
        await asyncio.sleep(_TURN_SECONDS)
        for server in self._server.servers:
            server.close()
        while self._server.server_state.connections and loop.time() < since + idle_seconds:
            await asyncio.sleep(_TURN_SECONDS)

"""The control plane's own HTTP ports: uvicorn without its hands on signals, and without waiting for open
streams.

uvicorn as it comes replaces the process's signal handlers, raises the captured signal again once it has
stopped (so a drained process would end with -15 instead of 0), and waits for every open event stream. All
three belong to the process, not to a listener. The inference port is not here: the data plane opens it.
Next: process.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Generator

import uvicorn
from starlette.types import ASGIApp

from headgate.errors import Conflict
from headgate.gateway.units import Address

_BACKLOG = 128
_STOP_SECONDS = 2


class _Server(uvicorn.Server):
    """A uvicorn server that leaves signals alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Captures nothing: the process has handlers of its own, for the process as a whole."""
        yield


def bind(address: Address, purpose: str) -> socket.socket:
    """A bound socket that does not listen yet, so that a taken port is known before anything is loaded.

    Raises :class:`Conflict` with the option that mends it; ``purpose`` is the option's name without dashes.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setblocking(False)
        sock.bind((address.host, address.port))
    except OSError as error:
        sock.close()
        raise Conflict(
            f"cannot listen at {address} ({error.strerror or error}); stop what is there, or give another "
            f"--{purpose} HOST:PORT (port 0 takes any free one)"
        ) from error
    return sock


class Listener:
    """One ASGI app on one socket, in the running event loop."""

    def __init__(self, app: ASGIApp, sock: socket.socket) -> None:
        self._sock = sock
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            proxy_headers=False,
            backlog=_BACKLOG,
            timeout_graceful_shutdown=_STOP_SECONDS,
        )
        self._server = _Server(config)
        self._task: asyncio.Task[None] | None = None

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

    async def stop(self) -> None:
        """Takes no more connections, gives open requests a moment, then cuts them off. May be called twice."""
        if self._task is None:
            self._sock.close()
            return
        self._server.should_exit = True
        await asyncio.wait({self._task})

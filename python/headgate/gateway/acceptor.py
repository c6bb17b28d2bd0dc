"""Takes connections from a socket a few at a time, so that others get room before there are too many.

An event loop's own server takes all that wait before it tells anybody, and gives them descriptors; out of descriptors it
closes what waits, a rollback among them. Next: connections.py.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable

from headgate.gateway.connections import Connections

BATCH = 16
"""Connections taken in one turn of the loop."""
_PAUSE_SECONDS = 0.02
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Acceptor:
    """Takes connections from a bound socket until it is closed."""

    def __init__(
        self, sock: socket.socket, connections: Connections, protocol: Callable[[], asyncio.Protocol]
    ) -> None:
        """``protocol`` makes what each connection is served by."""
        self._sock = sock
        self._connections = connections
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[object]] = set()
        self._paused: asyncio.TimerHandle | None = None

    def open(self, backlog: int) -> None:
        """Begins to listen."""
        self._sock.listen(backlog)
        self._loop.add_reader(self._sock.fileno(), self._take)

    def close(self) -> None:
        """Takes no more; those that were taken go on. May be called twice."""
        if self._paused is not None:
            self._paused.cancel()
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())

    async def wait_closed(self) -> None:
        """Waits for those that are being opened."""
        await asyncio.gather(*self._opening, return_exceptions=True)

    def _take(self) -> None:
        for _ in range(BATCH):
            try:
                client, _ = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                self._wait_for_room()
                return
            client.setblocking(False)
            opening = self._loop.create_task(self._open(client))
            self._opening.add(opening)
            opening.add_done_callback(self._opening.discard)

    async def _open(self, client: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol, client)
        except OSError:
            # The client is gone already.
            client.close()

    def _wait_for_room(self) -> None:
        """Nobody can be taken: one of ours makes room, and whoever else has descriptors gets a moment."""
        self._connections.make_room()
        self._loop.remove_reader(self._sock.fileno())
        self._paused = self._loop.call_later(
            _PAUSE_SECONDS, self._loop.add_reader, self._sock.fileno(), self._take
        )

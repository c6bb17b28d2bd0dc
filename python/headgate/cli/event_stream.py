"""The gateway's event stream (server-sent events) as Python objects; it reconnects with the last id and so misses nothing.

Not here: how events are shown (``events``). Next: client.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from headgate.cli.client import AdminClient
from headgate.cli.exits import UnreachableError
from headgate.cli.transport import Stream
from headgate.errors import Draining

_LONGEST_PAUSE_SECONDS = 45.0
"""The gateway writes a tick every 5 s; a connection on which nine did not come is lost."""
_LINE_BYTES = 4 << 20
_FIRST_BACKOFF_SECONDS = 0.5
_LONGEST_BACKOFF_SECONDS = 30.0

Event = dict[str, Any]


def stored(client: AdminClient, endpoint: str | None, after: int, limit: int) -> Iterator[Event]:
    """The newest events that the gateway keeps, oldest first."""
    params = {"endpoint": endpoint, "follow": "false", "limit": limit}
    headers = {"last-event-id": str(after)}
    with client.stream("/events", params, headers, _LONGEST_PAUSE_SECONDS) as stream:
        yield from (event for event in _events(stream) if event["type"] != _TICK)


def follow(
    client: AdminClient,
    endpoint: str | None,
    after: int | None,
    sleep: Callable[[float], None],
    say: Callable[[str], None],
    *,
    ticks: bool = False,
) -> Iterator[Event]:
    """Events as they happen, without an end. The first connection must succeed; a lost one is made again.

    With ``ticks`` the events ``tick`` are among them, and one stands for each connection that was made.
    """
    backoff, connected = _FIRST_BACKOFF_SECONDS, False
    while True:
        try:
            for event in _read(client, endpoint, after):
                connected, backoff = True, _FIRST_BACKOFF_SECONDS
                if event["type"] == _TICK:
                    if ticks:
                        yield event
                    continue
                after = event["id"] or after
                yield event
            reason = "it ended the stream"
        except (UnreachableError, Draining) as error:
            if not connected:
                raise
            reason = error.message
        say(f"headgate: {reason}; again in {backoff:g} s")
        sleep(backoff)
        backoff = min(2 * backoff, _LONGEST_BACKOFF_SECONDS)


_TICK = "tick"
_OPEN: Event = {"type": _TICK}
"""Stands for a connection that was made."""


def _read(client: AdminClient, endpoint: str | None, after: int | None) -> Iterator[Event]:
    headers = {} if after is None else {"last-event-id": str(after)}
    with client.stream("/events", {"endpoint": endpoint}, headers, _LONGEST_PAUSE_SECONDS) as stream:
        yield _OPEN
        yield from _events(stream)


def _events(stream: Stream) -> Iterator[Event]:
    """The ``data`` of each event; comments and what is cut off at the end are left out."""
    data: list[bytes] = []
    while line := stream.readline(_LINE_BYTES):
        line = line.rstrip(b"\r\n")
        if line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
        elif not line and data:
            yield json.loads(b"\n".join(data))
            data = []

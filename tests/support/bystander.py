"""Who else uses the gateway while a test attacks it: served all the time, and how much memory the process takes meanwhile.

Not here: the attacks (``conformance/test_http2_frames``).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from conformance.cases import GOOD
from support.client import SECONDS, Connection
from support.gateway import GatewayProcess

#: What an attack may cost in memory while it lasts.
GROWTH = 64 << 20
#: The longest that a bystander may wait for an answer, in seconds. Its requests take less than a millisecond, and a
#: machine may be busy.
SLOWEST = 20.0


def resident(pid: int) -> int:
    """The memory of a process, in bytes: ``VmRSS``."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) << 10


def connections(gateway: GatewayProcess) -> int:
    """How many connections the data ports have, by ``/metrics``."""
    lines = gateway.observe("/metrics").text.splitlines()
    return round(float(next(line for line in lines if line.startswith("headgate_connections ")).split()[1]))


def until_alone(gateway: GatewayProcess) -> None:
    """Asks until no connection is left; that it takes too long is the test's failure."""
    deadline = time.monotonic() + SECONDS
    while (left := connections(gateway)) > 0:
        assert time.monotonic() < deadline, f"{left} connections are left"


class Bystander(threading.Thread):
    """Sends good requests to ``pair`` on one connection, one after the other, until the block ends."""

    def __init__(self, gateway: GatewayProcess) -> None:
        super().__init__(daemon=True)
        self.gateway = gateway
        self.changed = threading.Condition()
        self.served = 0
        self.slowest = 0.0
        self.peak = 0
        self.failure: BaseException | None = None
        self.over = False

    def run(self) -> None:
        """One request after the other; a failure ends it and is raised in the test."""
        try:
            with Connection(self.gateway.http) as connection:
                while not self.over:
                    self._ask(connection)
        except BaseException as failure:
            self.failure = failure
        with self.changed:
            self.changed.notify_all()

    def _ask(self, connection: Connection) -> None:
        begun = time.monotonic()
        answer = connection.send("POST", "/v2/models/pair/infer", GOOD)
        assert answer.status == 200, answer
        with self.changed:
            self.served += 1
            self.slowest = max(self.slowest, time.monotonic() - begun)
            self.peak = max(self.peak, resident(self.gateway.pid))
            self.changed.notify_all()

    def more(self, count: int = 10) -> None:
        """Waits until so many more requests are answered."""
        with self.changed:
            wanted = self.served + count
            served = self.changed.wait_for(lambda: self.failure or self.served >= wanted, SECONDS)
        if self.failure is not None:
            raise self.failure
        assert served, f"a bystander is not served any more, after {self.served} answers"

    def __enter__(self) -> Self:
        self.start()
        self.more()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.over = True
        self.join(SECONDS)


@contextmanager
def unharmed(gateway: GatewayProcess) -> Iterator[Bystander]:
    """What happens within costs others nothing: they are served meanwhile and after, and memory stays bounded."""
    before = resident(gateway.pid)
    with Bystander(gateway) as bystander:
        yield bystander
        bystander.more()
    assert bystander.slowest < SLOWEST
    assert bystander.peak - before < GROWTH
    with Connection(gateway.http) as connection:
        assert connection.send("POST", "/v2/models/pair/infer", GOOD).status == 200
    until_alone(gateway)

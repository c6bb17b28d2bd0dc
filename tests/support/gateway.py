"""Starts the real gateway, ``python -m headgate serve``, on ports that the system chooses, and speaks to its admin API.

Not here: requests to the data port (``client``), and the data plane inside the test's own process (``native``).
"""

from __future__ import annotations

import http.client
import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from support.forks import Fork
from support.waiting import until

START_SECONDS = 60.0
STOP_SECONDS = 60.0
#: A start goes on without what is loaded for longer than ten seconds, and says for a minute that it is starting.
LOAD_SECONDS = 120.0
#: Every port of a gateway, by its setting, wherever the system has room: gateways of other tests, of other workers and of the
#: person at this machine run at the same time.
ANY_PORT = dict.fromkeys(("http", "grpc", "observe", "admin"), "127.0.0.1:0")
ANY_PORT_OPTIONS = [part for name, address in ANY_PORT.items() for part in (f"--{name}", address)]

#: How variables begin that the dynamic linker, the allocator, Python, OpenMP, or the C library read once and early.
READ_AT_THE_START = ("LD_", "GLIBC_TUNABLES", "MALLOC_", "PYTHON", "OMP_", "LANG", "LC_", "TZ")


@dataclass
class GatewayProcess:
    """One gateway process; a context manager that ends it. ``arguments`` follow ``headgate serve``."""

    state: Path
    arguments: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    prefix: Sequence[str] = ()
    """A program that runs it, such as strace."""
    python: str = sys.executable
    as_a_person: bool = False
    """Whether it is started with ``python -m headgate`` although nothing here asks for that: for tests of what happens before the
    imports, such as a signal, and of what a fork shares with the other forks, such as the seed of the hashes of strings.
    """
    waits_for_loads: bool = True
    """Whether a start waits for what is still being loaded when it says that it is ready: on a busy machine that may be every model.
    For tests of a load that hangs it does not.
    """
    child: subprocess.Popen[str] | Fork | None = None
    addresses: dict[str, str] = field(default_factory=dict)

    def start(self) -> Self:
        """Starts the process and waits until it says that it is ready and, unless told otherwise, has loaded what it is to serve."""
        arguments = [
            "serve",
            *self.arguments,
            # A test sees what it has just done.
            *([] if "--metrics-age" in self.arguments else ["--metrics-age", "0s"]),
            "--state",
            str(self.state),
            *ANY_PORT_OPTIONS,
        ]
        self.log = self.state.with_name(self.state.name + ".log")
        self.log.touch()
        environment = os.environ | dict(self.environment)
        if self.fresh:
            self.child = self._executed(arguments, environment)
        else:
            self.child = Fork(arguments, self.log, environment)
        self.addresses = json.loads(self._first_line())
        if self.waits_for_loads:
            self._await_loads()
        return self

    def _await_loads(self) -> None:
        try:
            until(self._is_over_its_loads, LOAD_SECONDS)
        except AssertionError:
            self.kill()
            raise AssertionError(
                f"the gateway is loading without an end:\n{self.log.read_text()[-4000:]}"
            ) from None

    def _is_over_its_loads(self) -> bool:
        """Whether nothing is being loaded that keeps it from being ready, or it has ended."""
        assert self.child is not None
        if self.child.poll() is not None:
            return True
        connection = http.client.HTTPConnection(self.addresses["observe"], timeout=LOAD_SECONDS)
        try:
            connection.request("GET", "/readyz", headers={"connection": "close"})
            reasons = json.loads(connection.getresponse().read())["reasons"]
        except (OSError, http.client.HTTPException):
            # A gateway below a supervisor may be killed at any time, and another one begins.
            return False
        finally:
            connection.close()
        return not any(reason.startswith("starting") for reason in reasons)

    @property
    def fresh(self) -> bool:
        """Whether it is a program of its own: another one runs it, it starts itself again, or a variable is set that is read when a
        program or a library is loaded, which is too late in a fork. A test need not ask for it: for what cannot be seen here it sets
        ``as_a_person``.
        """
        changed = any(name.startswith(READ_AT_THE_START) for name in self.environment)
        elsewhere = bool(self.prefix) or self.python != sys.executable
        return self.as_a_person or changed or elsewhere or "--supervise" in self.arguments

    def _executed(self, arguments: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
        command = [*self.prefix, self.python, "-m", "headgate", *arguments]
        with self.log.open("a") as log:
            return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)

    def _first_line(self) -> str:
        assert self.child is not None
        assert self.child.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.child.stdout, selectors.EVENT_READ)
            answered = selector.select(START_SECONDS)
        line = self.child.stdout.readline() if answered else ""
        if not line:
            code = self.kill()
            raise AssertionError(
                f"the gateway did not get ready (exit code {code}):\n{self.log.read_text()[-4000:]}"
            )
        return line

    @property
    def pid(self) -> int:
        """The process id."""
        assert self.child is not None
        return self.child.pid

    @property
    def http(self) -> str:
        """The data port, ``host:port``."""
        return self.addresses["http"]

    @property
    def grpc(self) -> str:
        """The second data port, ``host:port``."""
        return self.addresses["grpc"]

    def admin(self) -> AdminClient:
        """A client of the admin port with the token made at first start."""
        return AdminClient(self.addresses["admin"], (self.state / "admin-token").read_text().strip())

    def observe(self, path: str) -> httpx.Response:
        """A GET on the observe port."""
        return httpx.get(f"http://{self.addresses['observe']}{path}")

    def signal(self, number: int) -> None:
        """Sends a signal."""
        assert self.child is not None
        self.child.send_signal(number)

    def stop(self) -> int:
        """SIGTERM, then waits; the exit code."""
        assert self.child is not None
        self.child.terminate()
        code = self.child.wait(STOP_SECONDS)
        self._close()
        return code

    def kill(self) -> int:
        """SIGKILL; the exit code."""
        assert self.child is not None
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGKILL)
        code = self.child.wait(STOP_SECONDS)
        self._close()
        return code

    def _close(self) -> None:
        if self.child is not None and self.child.stdout is not None:
            self.child.stdout.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.child is not None and self.child.poll() is None:
            if kind is None:
                self.stop()
            else:
                self.kill()
        self._close()


class AdminClient:
    """The admin API as a person's script would call it: bearer token, If-Match of the revision just read, a reason."""

    def __init__(self, address: str, token: str) -> None:
        self.http = httpx.Client(
            base_url=f"http://{address}", headers={"Authorization": f"Bearer {token}"}, timeout=30.0
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def get(self, path: str) -> Any:
        """The JSON of a GET that must succeed."""
        return checked(self.http.get(path))

    def traffic(self, endpoint: str) -> Any:
        """The live traffic of an endpoint."""
        return self.get(f"/v1/endpoints/{endpoint}/traffic")

    def revision(self, endpoint: str) -> int:
        """The live revision's number."""
        return int(self.traffic(endpoint)["revision"])

    def set_weights(self, endpoint: str, weights: dict[str, str], revision: int | None = None) -> Any:
        """Overrides the live weights; the answer's JSON. Without ``revision``, reads it first."""
        match = self.revision(endpoint) if revision is None else revision
        return checked(
            self.http.patch(
                f"/v1/endpoints/{endpoint}/traffic",
                json={"weights": weights, "reason": "test"},
                headers={"If-Match": f'"{match}"'},
            )
        )

    def act(self, endpoint: str, verb: str, **body: Any) -> Any:
        """A verb such as ``rollback``; the answer's JSON. Verbs that are no emergency get the revision just read."""
        headers = {}
        if verb not in {"rollback", "block", "freeze", "abort", "explain"}:
            headers["If-Match"] = f'"{self.revision(endpoint)}"'
        if verb != "explain":
            body = {"reason": "test", **body}
        return checked(self.http.post(f"/v1/endpoints/{endpoint}:{verb}", json=body, headers=headers))


def checked(answer: httpx.Response) -> Any:
    """The JSON of an answer that must be a success."""
    assert answer.is_success, (
        f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text}"
    )
    return answer.json() if answer.content else None

"""The gateway of a run, supervised as users run it, and what its admin API says, as the model's values.

Not here: what must be true (``suite``), the model (``model``).
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from chaos.faults import GUARD_SECONDS, Faults, is_gone, until
from chaos.model import Declared, State, Table, made
from support import models
from support.gateway import GatewayProcess

PRIMARY = (("v1", 1), ("v2", 2), ("v3", 3))
OTHER = (("v1", 11), ("v2", 12), ("v3", 13))
"""Other models under the same names: they must be refused while the names stand for the first ones."""
MOST_KILLS = 4
"""Deaths within a minute after which the supervisor is replaced: the sixth ends it."""
ANSWER_SECONDS = 45.0


@dataclass(frozen=True)
class Outcome:
    """What became of a call: ``done``, ``refused`` (4xx) or ``unknown`` (nothing, or 503)."""

    kind: str
    durable: bool = True
    revision: int | None = None
    status: int = 0
    said: str = ""


class Place:
    """The processes, their folder, and calls to them."""

    def __init__(self, folder: Path, compiler: str) -> None:
        self.folder, self.state = folder, folder / "state"
        self.faults = Faults(folder / "faults", compiler)
        for _, factor in (*PRIMARY, *OTHER):
            models.place(models.scale(float(factor)), folder, "models", f"f{factor}")
        np.savez(folder / "baseline.npz", X=np.random.default_rng(7).normal(size=(200, 4)).astype(np.float32))
        arguments = ["--supervise", "--root", str(folder), "--drain-grace", "1s"]
        self.gateway = GatewayProcess(self.state, arguments, self.faults.environment())
        self.digests: dict[str, int] = {}
        self.kills = 0
        self._client: httpx.Client | None = None
        self._log_from = 0

    # === processes ===

    def start(self) -> None:
        """Starts supervisor and gateway."""
        self.kills = 0
        self.faults.forget_waiting()
        path = self.state.with_name("state.log")
        self._log_from = path.stat().st_size if path.exists() else 0
        self.gateway.start()

    def log(self) -> str:
        """What was logged since the start."""
        return self.gateway.log.read_bytes()[self._log_from :].decode()

    def worker(self) -> int:
        """The process that serves."""
        return self._workers()[0]

    def _workers(self) -> list[int]:
        listed = Path(f"/proc/{self.gateway.pid}/task/{self.gateway.pid}/children").read_text()
        return [int(pid) for pid in listed.split() if not is_gone(int(pid))]

    def kill_starting_worker(self, after_seconds: float) -> None:
        """SIGKILL of the process that follows a killed one, so long after it began."""
        until(self._workers, "the next gateway to begin")
        threading.Event().wait(after_seconds)  # any moment of a start, not a wait for something
        self.kill_worker()
        # It may have been ready: what it said is not what the next one says.
        while self._says_something(0.0):
            assert self.gateway.child is not None
            assert self.gateway.child.stdout is not None
            self.gateway.child.stdout.readline()

    def kill_worker(self) -> None:
        """SIGKILL; returns when the process is gone."""
        pid = self.worker()
        self.kills += 1
        os.kill(pid, signal.SIGKILL)
        until(lambda: is_gone(pid), "the killed gateway to be gone")
        self.faults.forget_waiting()

    def await_worker(self) -> None:
        """Waits for the next process to be ready."""
        ready = self._says_something(GUARD_SECONDS)
        assert self.gateway.child is not None
        assert self.gateway.child.stdout is not None
        line = self.gateway.child.stdout.readline() if ready else ""
        assert line, f"no ready line after a kill:\n{self.gateway.log.read_text()[-3000:]}"
        assert json.loads(line) == self.gateway.addresses

    def _says_something(self, within_seconds: float) -> bool:
        """Whether there is a line on the gateway's standard output."""
        assert self.gateway.child is not None
        assert self.gateway.child.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.gateway.child.stdout, selectors.EVENT_READ)
            return bool(selector.select(within_seconds))

    def kill_supervisor(self) -> None:
        """SIGKILL of the supervisor, which takes the gateway along."""
        pid = self.worker()
        self.gateway.kill()
        until(lambda: is_gone(pid), "the gateway to end with its supervisor")
        self.faults.forget_waiting()

    def is_killed_too_often(self) -> bool:
        """Whether one more death might end the supervisor."""
        return self.kills >= MOST_KILLS

    # === calls ===

    def client(self) -> httpx.Client:
        """A client that keeps its connections."""
        if self._client is None:
            token = (self.state / "admin-token").read_text().strip()
            self._client = httpx.Client(
                base_url=f"http://{self.gateway.addresses['admin']}/v1",
                headers={"Authorization": f"Bearer {token}"},
                timeout=ANSWER_SECONDS,
                limits=httpx.Limits(keepalive_expiry=ANSWER_SECONDS),
            )
        return self._client

    def hang_up(self) -> None:
        """Closes the client: the next call connects anew."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def get(self, path: str) -> httpx.Response | None:
        """A GET; None without an answer."""
        with contextlib.suppress(httpx.TransportError):
            return self.client().get(path)
        self.hang_up()
        with contextlib.suppress(httpx.TransportError):
            return self.client().get(path)
        return None

    def call(self, method: str, path: str, **more: Any) -> Outcome:
        """A write."""
        try:
            answer = self.client().request(method, path, **more)
        except httpx.TransportError as error:
            return Outcome("unknown", said=repr(error))
        if answer.is_success:
            body = answer.json()
            return Outcome(
                "done", body.get("durable", True), body.get("revision"), answer.status_code, answer.text
            )
        kind = "refused" if answer.status_code < 500 else "unknown"
        return Outcome(kind, False, None, answer.status_code, answer.text)

    def document(
        self, name: str, declared: Declared, factors: tuple[tuple[str, int], ...], timeout_ms: int
    ) -> str:
        """A document as a person would write it."""
        document = {
            "apiVersion": "headgate/v1",
            "kind": "Endpoint",
            "name": name,
            "versions": {version: f"file:models/f{factor}" for version, factor in factors},
            "traffic": {
                "champion": declared.champion,
                "weights": {version: percent(slots) for version, slots in declared.weights},
                "sticky": "header.x-user-id",
            },
            "limits": {"timeout": f"{timeout_ms}ms"},
        }
        if name == "a":
            document["drift"] = {"baseline": "file:baseline.npz"}
        return json.dumps(document)

    def read(self, name: str) -> tuple[State | None, Table | None]:
        """What the gateway says of an endpoint; (None, None) when it says that there is none."""
        answer = self.get(f"/endpoints/{name}")
        assert answer is not None, f"{name} cannot be read"
        if answer.status_code == 404 or "was never served" in answer.text:
            # The second says why a document that was refused is not served.
            return None, None
        assert answer.is_success, answer.text
        body = answer.json()
        traffic, declared = body["traffic"], body["declared"]
        factors = tuple(
            sorted(
                (version, self.digests.get(found["digest"], -1))
                for version, found in body["versions"].items()
            )
        )
        state = State(
            champion=traffic["champion"],
            last_good=traffic["last_good"],
            factors=factors,
            weights=slots_of(traffic["weights"]),
            blocked=frozenset(self.digests[block["digest"]] for block in body["blocks"]),
            frozen=body["frozen"] is not None,
            declared=Declared(declared["champion"], slots_of(declared["weights"])),
        )
        runs = tuple((version, first, last) for version, first, last in traffic["table"])
        return state, Table(traffic["champion"], traffic["salt"], runs)

    # === the folder ===

    def keep(self) -> Path:
        """A copy of the state folder; the gateway must not run."""
        kept = self.folder / "kept"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(self.state, kept)
        return kept

    def bring_back(self, kept: Path) -> None:
        """The state folder as it was."""
        shutil.rmtree(self.state)
        kept.rename(self.state)


def percent(slots: int) -> str:
    """A share as documents and calls write it."""
    return f"{slots / 100:g}%"


def slots_of(weights: dict[str, str]) -> tuple[tuple[str, int], ...]:
    """Shares as slots."""
    return made({version: round(float(share.rstrip("%")) * 100) for version, share in weights.items()})

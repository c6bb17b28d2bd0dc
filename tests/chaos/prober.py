"""Users with sticky keys, all the time: each answer is compared with what the model says at that moment.

Not here: writes (``suite``). An answer counts against a state only if that state held from before the request until after it.
"""

from __future__ import annotations

import http.client
import itertools
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

from chaos.model import Table
from support.client import Answer, Connection

KEYS = [f"user-{number}" for number in range(40)]
BODY = {"inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
_PAUSE_SECONDS = 0.004


@dataclass(frozen=True, eq=False)
class View:
    """What is known of an endpoint; a new one for every change, so that the same object means that nothing happened."""

    table: Table | None
    """None: something is under way, or there is no endpoint."""
    factors: dict[str, int] = field(default_factory=dict)
    forbidden: frozenset[str] = frozenset()
    must_answer: bool = False


class Prober:
    """One thread that asks one endpoint after the other."""

    def __init__(self, names: tuple[str, ...], violated: Callable[[str], None]) -> None:
        self.views = {name: View(None) for name in names}
        self.count: Counter[str] = Counter()
        self._violated = violated
        self._address: str | None = None
        self._turn = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask_all, name="prober", daemon=True)
        self._thread.start()

    def aim(self, address: str | None) -> None:
        """Where the gateway is; None while it is not expected to answer. Returns when no request is under way."""
        with self._turn:
            self._address = address

    def stop(self) -> None:
        """Ends the thread."""
        self._over.set()
        self._thread.join()

    def _ask_all(self) -> None:
        with ExitStack() as opened:
            connection: Connection | None = None
            for key in itertools.cycle(KEYS):
                for name in self.views:
                    if self._over.wait(_PAUSE_SECONDS):
                        return
                    with self._turn:
                        if connection is None and self._address is not None:
                            connection = opened.enter_context(Connection(self._address))
                        if connection is None or not self._is_asked(connection, name, key):
                            opened.close()
                            connection = None

    def _is_asked(self, connection: Connection, name: str, key: str) -> bool:
        """Whether the connection can be used again."""
        if self._address is None:
            return False
        try:
            self._ask(connection, name, key)
        except (OSError, http.client.HTTPException):
            self.count["broken"] += 1
            return False
        return True

    def _ask(self, connection: Connection, name: str, key: str) -> None:
        before = self.views[name]
        answer = connection.infer(name, BODY, {"x-user-id": key})
        after = self.views[name]
        self.count["asked"] += 1
        if answer.status == 200:
            self._compare(name, key, answer, before, after)
        elif before is after and before.must_answer and before.table is not None:
            self._violated(
                f"{name}: a sticky request got {answer.status} {answer.body[:200]!r} in a state that must answer"
            )
        else:
            self.count["refused"] += 1
        for version in sorted(before.forbidden & after.forbidden)[:1]:
            direct = connection.send("POST", f"/v2/models/{name}/versions/{version}/infer", b'{"inputs": []}')
            if direct.status == 200:
                self._violated(f"{name}: {version} is blocked and answered by its own address")

    def _compare(self, name: str, key: str, answer: Answer, before: View, after: View) -> None:
        served = answer.version
        if served in before.forbidden & after.forbidden:
            self._violated(f"{name}: {served} is blocked and answered {key}")
        if before is not after or before.table is None:
            return
        self.count["compared"] += 1
        if (expected := before.table.version_of(key)) != served:
            self._violated(f"{name}: {key} belongs to {expected} and was answered by {served}")
        factor = answer.json["outputs"][0]["data"][0]
        if before.factors.get(served) != factor:
            self._violated(f"{name}: {served} answered with model {factor}, not {before.factors.get(served)}")

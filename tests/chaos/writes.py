"""One write: what the model says of it, the call, and what the gateway serves afterwards.

Not here: faults (``suite``), what must hold after a start (``checks``).
"""

from __future__ import annotations

import http.client
import threading
import time
from dataclasses import dataclass, field, replace

from chaos.checks import Checks
from chaos.model import (
    EMERGENCIES,
    SIMPLE,
    Declared,
    Endpoint,
    Refused,
    State,
    Table,
    Write,
    apply,
    create,
    made,
    restore,
    returned,
)
from chaos.place import OTHER, PRIMARY, Outcome, Place, percent
from chaos.prober import BODY
from chaos.report import Report
from support.client import Connection

_ROLLBACK_GUARD_SECONDS = 60.0
"""Sixty times what a rollback may take: the machine may be busy."""


@dataclass
class AdminRequest:
    """A write as it is asked: the call, what must come of it, and what came."""

    write: Write
    before: State | None
    expected: State | None = None
    """None: the gateway must refuse it (``why``)."""
    why: str = ""
    method: str = "POST"
    path: str = ""
    body: dict[str, object] | None = None
    document: str | None = None
    params: dict[str, str] = field(default_factory=dict)
    outcome: Outcome = field(default_factory=lambda: Outcome("unknown"))
    thread: threading.Thread | None = None

    def is_alive(self) -> bool:
        """Whether its answer is waited for."""
        return self.thread is not None and self.thread.is_alive()

    def join(self) -> None:
        """Waits for the answer."""
        if self.thread is not None:
            self.thread.join()


class Writes:
    """Makes calls of writes and books what they leave."""

    def __init__(self, place: Place, checks: Checks, report: Report) -> None:
        self._place, self._checks, self._report = place, checks, report
        self._made = 0
        self._data: Connection | None = None

    def carry_out(self, write: Write) -> None:
        """One write from its call to a look at what is served."""
        if write.kind in ("token", "revoke", "unpin"):
            self._checks.ledger.carry_out(write)
            return
        asked = self._ask(write)
        self._checks.unsettle(write.endpoint, asked.expected)
        if asked.write.kind == "rollback" and asked.expected not in (None, asked.before):
            self._timed_rollback(asked)
        else:
            self._send(asked)
        self.conclude(asked)

    def begin(self, write: Write) -> AdminRequest:
        """Sends a write in a thread of its own."""
        if write.kind in ("token", "revoke", "unpin"):
            write = replace(write, kind="traffic")
        asked = self._ask(write)
        self._checks.pending.add(write.endpoint)
        self._checks.unsettle(write.endpoint, asked.expected)
        asked.thread = threading.Thread(target=self._send, args=(asked,), daemon=True)
        asked.thread.start()
        return asked

    def would_change(self, write: Write) -> bool:
        """Whether an ordinary write would be accepted and change something."""
        if write.kind not in ("traffic", "restore", "unblock", "unfreeze"):
            return False
        asked = self._ask(write)
        return asked.expected not in (None, asked.before)

    def conclude(self, asked: AdminRequest) -> None:
        """Books the answer, and compares what is served with it when the gateway can be asked."""
        name, outcome = asked.write.endpoint, asked.outcome
        endpoint = self._checks.endpoints[name]
        self._report.answered(outcome)
        if asked.thread is not None:
            self._checks.pending.discard(name)
        if outcome.status >= 500 and outcome.status != 503:
            self._report.violate(f"{asked.write}: {outcome.status} {outcome.said}")
        overtaken = endpoint.now != asked.before
        if outcome.kind == "done":
            self._done(asked, endpoint, overtaken)
        elif outcome.kind == "refused" and asked.expected is not None and not overtaken:
            self._report.violate(f"{asked.write} on {asked.before} was refused: {outcome.said}")
        elif outcome.kind == "unknown" and asked.expected not in (None, asked.before):
            endpoint.unanswered(asked.expected)
        self._checks.moved(name, asked.write.kind in ("restore", "apply"))
        if self._checks.is_running():
            self._checks.observe(name, asked.write)

    def _done(self, asked: AdminRequest, endpoint: Endpoint, overtaken: bool) -> None:
        if asked.expected is None:
            self._report.violate(f"{asked.write} was accepted, and must be refused: {asked.why}")
            return
        if overtaken:
            self._report.violate(f"{asked.write} was accepted, and was overtaken by an emergency call")
        if asked.outcome.durable:
            endpoint.acknowledged(asked.expected, asked.outcome.revision)
            self._checks.ledger.pinned(asked.write.endpoint, asked.expected)
        else:
            endpoint.in_force(asked.expected)

    # === the call ===

    def _send(self, asked: AdminRequest) -> None:
        begun = time.monotonic()
        self._call(asked)
        kind = "emergency" if asked.write.kind in EMERGENCIES else "ordinary"
        self._report.time(kind, time.monotonic() - begun, str(asked.write))

    def _call(self, asked: AdminRequest) -> None:
        self._made += 1
        reason = f"chaos {self._made}"
        headers = {"if-match": "*"}
        if asked.document is not None:
            params = {**asked.params, "reason": reason}
            if asked.before is None or asked.before.removed:
                headers = {"if-none-match": "*"}
            headers["content-type"] = "application/yaml"
            asked.outcome = self._place.call(
                asked.method, asked.path, content=asked.document, params=params, headers=headers
            )
        elif asked.method == "DELETE":
            params = {**asked.params, "reason": reason}
            asked.outcome = self._place.call(asked.method, asked.path, params=params, headers=headers)
        else:
            body = {**(asked.body or {}), "reason": reason}
            if asked.before is not None and asked.before.removed:
                headers = {"if-none-match": "*"}
            asked.outcome = self._place.call(asked.method, asked.path, json=body, headers=headers)
        # What a call that changed nothing leaves in the audit is written behind it.
        if (
            asked.outcome.kind == "done"
            and asked.outcome.durable
            and '"status":"applied"' in asked.outcome.said
        ):
            self._checks.ledger.reasons.append((asked.write.endpoint, reason))

    def _ask(self, write: Write) -> AdminRequest:
        """The call of a write, and what the model says of it."""
        endpoint = self._checks.endpoints[write.endpoint]
        now = endpoint.now
        if now is None or (now.removed and (write.kind != "restore" or not _restorable(endpoint))):
            write = replace(write, kind="apply")
        elif write.kind == "restore" and not _restorable(endpoint):
            write = replace(write, kind="abort")
        asked = AdminRequest(write, endpoint.now, path=f"/endpoints/{write.endpoint}")
        try:
            if endpoint.now is None or write.kind == "apply":
                self._ask_apply(asked, endpoint)
            elif write.kind == "restore":
                self._ask_restore(asked, endpoint)
            else:
                self._ask_simple(asked, endpoint.now)
        except Refused as refused:
            asked.why = str(refused)
        return asked

    def _ask_simple(self, asked: AdminRequest, before: State) -> None:
        write = asked.write
        if write.kind == "traffic":
            asked.method, asked.path = "PATCH", f"{asked.path}/traffic"
            asked.body = {}
            champion = write.other if write.pick < 0.4 else before.champion
            if write.pick < 0.4:
                asked.body["champion"] = write.other
            if write.version != champion or write.slots or write.pick >= 0.4:
                asked.body["weights"] = {write.version: percent(write.slots)}
        elif write.kind == "delete":
            asked.method, asked.params = "DELETE", {"force": "true"}
        else:
            asked.path = f"{asked.path}:{write.kind}"
            if write.kind in ("block", "unblock"):
                asked.body = {"version": write.version}
        asked.expected = SIMPLE[write.kind](before, write)

    def _ask_restore(self, asked: AdminRequest, endpoint: Endpoint) -> None:
        before = endpoint.now
        assert before is not None
        known = _restorable(endpoint)
        asked.path = f"{asked.path}:restore"
        n = known[int(asked.write.pick * len(known))]
        asked.body = {"revision": n}
        then = endpoint.history[n]
        asked.expected = returned(before, then) if before.removed else restore(before, then)

    def _ask_apply(self, asked: AdminRequest, endpoint: Endpoint) -> None:
        write, before = asked.write, endpoint.now
        asked.method = "PUT"
        declared = Declared(write.version, made({write.other: write.slots}))
        # Long enough for a machine on which others work; it differs, so that the document does.
        timeout_ms = 20_000 + int(write.pick * 1000)
        if before is None or before.removed:
            factors = OTHER if write.pick < 0.3 else PRIMARY
            asked.document = self._place.document(write.endpoint, declared, factors, timeout_ms)
            self._checks.ledger.refuse_other_models(write.endpoint, factors)
            asked.expected = create(before, declared, factors)
            return
        take = write.pick > 0.8
        if write.pick < 0.5:
            declared = before.declared
        elif not take:
            declared = Declared(before.declared.champion, made(dict(declared.weights)))
            declared = replace(
                declared, weights=made({v: n for v, n in declared.weights if v != declared.champion})
            )
        asked.params = {"take_traffic": "true"} if take else {}
        asked.document = self._place.document(write.endpoint, declared, before.factors, timeout_ms)
        asked.expected = apply(before, declared, take)

    # === how long a rollback takes ===

    def _timed_rollback(self, asked: AdminRequest) -> None:
        """Sends a rollback, and asks with the key of a user who is on a version that it takes away until that changes."""
        table = self._checks.endpoints[asked.write.endpoint].table
        before, expected = asked.before, asked.expected
        assert before is not None
        assert expected is not None
        key = None if table is None else _key_of(table, expected.champion)
        if key is None:
            self._send(asked)
            return
        connection = self.data()
        thread = threading.Thread(target=self._send, args=(asked,), daemon=True)
        begun = time.monotonic()
        thread.start()
        while True:
            answer = connection.infer(asked.write.endpoint, BODY, {"x-user-id": key})
            taken = time.monotonic() - begun
            if answer.status == 200 and answer.version == expected.champion:
                self._report.time("rollback", taken)
                break
            if taken > _ROLLBACK_GUARD_SECONDS:
                served = answer.headers.get("x-headgate-version")
                self._report.violate(f"{asked.write}: {key} is still answered by {served}")
                break
            time.sleep(0.001)
        thread.join()

    def close(self) -> None:
        """Closes what is open."""
        if self._data is not None:
            self._data.http.close()
            self._data = None

    def data(self) -> Connection:
        """A connection to the data port that is open: none can be made when descriptors have run out."""
        if self._data is not None:
            try:
                self._data.send("GET", "/v2/health/ready")
                return self._data
            except (OSError, http.client.HTTPException):
                self.close()
        self._data = Connection(self._place.gateway.http)
        self._data.send("GET", "/v2/health/ready")
        return self._data


def _restorable(endpoint: Endpoint) -> list[int]:
    """Revisions with the models that the names stand for now."""
    now = endpoint.now
    assert now is not None
    return sorted(
        n for n, state in endpoint.history.items() if state.factors == now.factors and not state.removed
    )


def _key_of(table: Table, winner: str) -> str | None:
    """A key on another version than the one that a rollback goes to."""
    keys = (f"rolled-{number}" for number in range(20_000))
    return next((key for key in keys if table.version_of(key) != winner), None)

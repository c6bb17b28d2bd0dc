"""What must hold: after a write, after a start, and to users in between.

Not here: tokens, pins and audit (``ledger``), the calls (``writes``).
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

from chaos import faults
from chaos.ledger import Ledger
from chaos.model import Declared, Endpoint, State, Table, Write
from chaos.place import OTHER, PRIMARY, Place, slots_of
from chaos.prober import Prober, View
from chaos.report import Report


class Checks:
    """The endpoints as they are known, and everything that is compared with them."""

    def __init__(self, place: Place, report: Report, names: tuple[str, ...]) -> None:
        self._place, self._report = place, report
        self.endpoints = {name: Endpoint() for name in names}
        self.ledger = Ledger(place, report, self.endpoints)
        self.prober = Prober(names, report.violate)
        self._must_answer = True
        self._running = False
        self._table_may_move: set[str] = set()
        self.pending: set[str] = set()
        """Endpoints with a write that is not answered."""

    # === life ===

    def begin(self) -> None:
        """Learns which digest each model has, then lets the users come."""
        self._running = True
        for number, factors in enumerate((PRIMARY, OTHER)):
            name = f"learn{number}"
            document = self._place.document(name, Declared(), factors, 2000)
            headers = {"if-none-match": "*", "content-type": "application/yaml"}
            made = self._place.call("PUT", f"/endpoints/{name}", content=document, headers=headers)
            assert made.kind == "done", made.said
            answer = self._place.get(f"/endpoints/{name}")
            assert answer is not None
            for version, factor in factors:
                self._place.digests[answer.json()["versions"][version]["digest"]] = factor
        self._let_users_in()

    def is_running(self) -> bool:
        """Whether the gateway can be asked."""
        return self._running

    def demand_answers(self, wanted: bool) -> None:
        """Whether a user who is not answered is a fault now."""
        self._must_answer = wanted

    def stopped(self, code: int) -> None:
        """The gateway has ended by itself: with 0 everything in force is on disk, with 1 it says what is not."""
        self._running = False
        if code == 0:
            for endpoint in self.endpoints.values():
                if endpoint.now is not None:
                    endpoint.durable, endpoint.uncertain = endpoint.now, []
        elif code != 1:
            self._report.violate(f"SIGTERM ended with exit code {code}")
        elif "lost, because the disk did not take it" not in self._place.log():
            self._report.violate("SIGTERM ended with exit code 1, and the log does not say what is lost")

    def killed(self) -> None:
        """The gateway was killed."""
        self._running = False

    # === writes ===

    def unsettle(self, name: str, expected: State | None) -> None:
        """A write begins: until it is known what came of it, users may be answered either way, but by no blocked version."""
        before = self.endpoints[name].now
        forbidden = frozenset() if before is None or before.removed else before.forbidden()
        if expected is not None:
            forbidden &= expected.forbidden()
        self.prober.views[name] = View(None, forbidden=forbidden)

    def moved(self, name: str, table_too: bool) -> None:
        """A write that may bring another table with the same weights."""
        if table_too:
            self._table_may_move.add(name)

    def observe(self, name: str, write: Write | None = None) -> None:
        """Compares what is served with what is known, and shows it to the users."""
        endpoint = self.endpoints[name]
        before, table = endpoint.now, endpoint.table
        found, now = self._read(name)
        if found != before:
            if found not in endpoint.uncertain:
                self._report.violate(f"{name}: serves {found} after {write}, and should serve {before}")
            if found is not None:
                endpoint.now = found
        self._compare_tables(name, found, (table, now))
        endpoint.table = now
        self._show(name)

    def _read(self, name: str) -> tuple[State | None, Table | None]:
        """What is served; of a removed endpoint, what is known of it."""
        found, table = self._place.read(name)
        if found is None:
            known = [state for state in [self.endpoints[name].now, *self.endpoints[name].allowed()] if state]
            gone = next((state for state in known if state.removed), None)
            return gone, None
        return found, table

    def _compare_tables(
        self, name: str, found: State | None, tables: tuple[Table | None, Table | None]
    ) -> None:
        """No slot moves without a change of traffic, and no more than that change needs."""
        before, now = tables
        may_move = name in self._table_may_move
        self._table_may_move.discard(name)
        if found is None or now is None:
            return
        if (now.champion, now.weights()) != (found.champion, found.weights):
            self._report.violate(f"{name}: the table {now} contradicts {found}")
        if before is None or may_move:
            return
        if (before.champion, before.weights()) == (now.champion, now.weights()) and before != now:
            self._report.violate(f"{name}: keys moved from {before} to {now} without a change of traffic")

    def _show(self, name: str) -> None:
        state, table = self.endpoints[name].now, self.endpoints[name].table
        if state is None or state.removed or table is None or name in self.pending:
            self.prober.views[name] = View(None)
        else:
            self.prober.views[name] = View(table, dict(state.factors), state.forbidden(), self._must_answer)

    def _let_users_in(self) -> None:
        for name in self.endpoints:
            self._show(name)
        self.prober.aim(self._place.gateway.http)

    # === disks that recover ===

    def has_late_rows(self) -> bool:
        """Whether an emergency call was answered without its row, as far as is known."""
        return any(endpoint.late for endpoint in self.endpoints.values())

    def settle(self) -> None:
        """The disk is well again: what is in force gets there."""
        for name, endpoint in self.endpoints.items():
            self.observe(name)
            if endpoint.now is None or endpoint.now.removed or not endpoint.uncertain:
                continue
            state = endpoint.now

            def is_written(name: str = name, state: State = state) -> bool:
                verb = "freeze" if state.frozen else "abort"
                if verb == "abort" and state.weights:
                    return self._is_newest_applied(name, state)
                said = self._place.call("POST", f"/endpoints/{name}:{verb}", json={"reason": "settle"})
                return said.kind == "done" and said.durable

            faults.until(is_written, f"{name} to be written to a disk that is well")
            endpoint.acknowledged(state, None)

    def _is_newest_applied(self, name: str, state: State) -> bool:
        answer = self._place.get(f"/endpoints/{name}/revisions?limit=5")
        rows = [] if answer is None or not answer.is_success else answer.json()["revisions"]
        newest = next((row for row in rows if row["status"] == "applied"), None)
        pending = [row for row in rows if row["status"] == "proposed"]
        return (
            newest is not None
            and not pending
            and (newest["champion"], slots_of(newest["weights"])) == (state.champion, state.weights)
        )

    def await_applied_file(self) -> None:
        """Waits until the file of the last applied state knows what is in force: it lags a second behind."""

        def is_there() -> bool:
            try:
                text = (self._place.state / "applied.json").read_text().partition("\n")[2]
            except OSError:
                return False
            kept = json.loads(text)
            with closing(
                sqlite3.connect(f"file:{self._place.state}/headgate.db?mode=ro", uri=True)
            ) as database:
                numbers = database.execute("SELECT name, applied FROM endpoints").fetchall()
                (generation,) = database.execute("SELECT value FROM generation").fetchone()
            same = all(kept["endpoints"].get(name, {"n": None})["n"] == applied for name, applied in numbers)
            return same and kept["generation"] >= generation

        faults.until(is_there, "applied.json to know what was written")

    # === starts ===

    def after_start(self) -> None:
        """What must hold after a start, whatever ended the gateway."""
        self._running = True
        self._must_answer = True
        for name, endpoint in self.endpoints.items():
            before, table = endpoint.now, endpoint.table
            found, now = self._read(name)
            if found not in endpoint.allowed():
                self._report.violate(f"{name}: starts with {found}, and may start with {endpoint.allowed()}")
            same = found is not None and before is not None and found.same_traffic(before)
            self._compare_tables(name, found, (table if same else None, now))
            if found is not None and not found.removed:
                self.ledger.may_be_pinned(name, found)
            endpoint.started(found)
            endpoint.table = now
            self._check_history(name, endpoint)
        self.ledger.check()
        self._let_users_in()

    def _check_history(self, name: str, endpoint: Endpoint) -> None:
        """Every revision that was acknowledged."""
        rows: dict[int, dict[str, object]] = {}
        before = ""
        while True:
            answer = self._place.get(f"/endpoints/{name}/revisions?limit=500{before}")
            if answer is None or not answer.is_success:
                break
            page = answer.json()["revisions"]
            rows |= {row["revision"]: row for row in page}
            if len(page) < 500:
                break
            before = f"&before={page[-1]['revision']}"
        for n, state in endpoint.history.items():
            row = rows.get(n)
            if row is None:
                self._report.violate(f"{name}: revision {n} was acknowledged and is gone")
            elif row["status"] != "applied" or row["champion"] != state.champion:
                self._report.violate(f"{name}: revision {n} was acknowledged as {state} and is {row}")

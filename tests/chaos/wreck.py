"""Damage: what a start may do with it. It serves what was acknowledged, or says what is wrong; never something else in silence.

Not here: how files are damaged (``damage``).
"""

from __future__ import annotations

from chaos.checks import Checks
from chaos.damage import NEEDS_KILL, damage
from chaos.model import State, Table
from chaos.place import Place
from chaos.prober import BODY, KEYS
from chaos.report import Report
from chaos.sequence import Episode
from support.client import Connection

_EXIT_REFUSED = "exit code 3"


class Wreck:
    """Starts a gateway on damaged files, looks at it, and brings the whole ones back."""

    def __init__(self, place: Place, checks: Checks, report: Report) -> None:
        self._place, self._checks, self._report = place, checks, report

    def needs_kill(self, episode: Episode) -> bool:
        """Whether the gateway has to be killed before, so that its write-ahead log is there."""
        return episode.unclean or episode.damage in NEEDS_KILL

    def carry_out(self, episode: Episode) -> None:
        """The gateway has ended; afterwards its files are as they were."""
        kept = self._place.keep()
        done = damage(self._place.state, episode.damage, episode.place, episode.bits)
        try:
            self._place.start()
        except AssertionError as refused:
            self._report.noted("start refused")
            if _EXIT_REFUSED not in str(refused):
                self._report.violate(f"{done}: the start failed without a reason: {refused}")
        else:
            self._place.hang_up()
            try:
                self._look(done)
            finally:
                self._place.hang_up()
                self._place.kill_supervisor()
        self._place.bring_back(kept)

    def _look(self, done: str) -> None:
        listed = self._place.get("/endpoints")
        told = self._is_told()
        if listed is None or not listed.is_success:
            self._report.noted("not readable")
            return
        endpoints = {summary["name"]: summary for summary in listed.json()["endpoints"]}
        for name, endpoint in self._checks.endpoints.items():
            if endpoint.now is None or endpoint.now.removed:
                if endpoints.get(name, {}).get("state") == "ready":
                    self._report.violate(f"{done}: {name} was removed and is served")
                continue
            if name not in endpoints:
                self._report.violate(f"{done}: {name} is gone in silence")
                continue
            self._compare(done, name, endpoints[name])
        if not told:
            for what in (*self._checks.ledger.lost_tokens(), *self._checks.ledger.lost_pins()):
                self._report.violate(f"{done}, in silence: {what}")

    def _is_told(self) -> bool:
        """Whether the gateway says that its database as a whole is damaged."""
        page = self._place.gateway.observe("/metrics").text
        lines = [line for line in page.splitlines() if line.startswith("headgate_state_damage")]
        return any(float(line.rpartition(" ")[2]) > 0 for line in lines)

    def _compare(self, done: str, name: str, summary: dict[str, object]) -> None:
        endpoint = self._checks.endpoints[name]
        alarmed = bool(summary["alarms"]) or summary["state"] == "failed"
        if summary["state"] != "failed":
            found, table = self._place.read(name)
            if found not in endpoint.allowed():
                self._report.violate(f"{done}: {name} starts with {found}, not {endpoint.allowed()}")
                return
            self._compare_answers(done, name, (found, table), alarmed)
        self._report.noted("alarm" if alarmed else "harmless")

    def _compare_answers(
        self, done: str, name: str, known: tuple[State | None, Table | None], alarmed: bool
    ) -> None:
        state, table = known
        assert state is not None
        assert table is not None
        with Connection(self._place.gateway.http) as connection:
            for key in KEYS[:10]:
                answer = connection.infer(name, BODY, {"x-user-id": key})
                if answer.status != 200:
                    if not alarmed:
                        self._report.violate(f"{done}: {name} answers {answer.status} without an alarm")
                    continue
                # A challenger that does not load is left out, with an alarm.
                right = {table.version_of(key)} | ({state.champion} if alarmed else set())
                if answer.version not in right - state.forbidden():
                    self._report.violate(
                        f"{done}: {name}: {key} is answered by {answer.version}, not {right}"
                    )

"""The gateways of a sweep: one for each setting, whose run times are calibrated or whose highest rate is searched.

The patched text lies in a folder of its own, which is gone afterwards, and its ``file:`` paths resolve below the folder of the document
(``--root``): nothing is written beside the document. Not here: which settings are tried (``sweep``), the result (``sweep_servers``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from headgate.bench import loads
from headgate.bench.document_settings import DocumentSettings
from headgate.bench.find import fails_at, find_at
from headgate.bench.measuring import Ended, Question
from headgate.bench.preparing import Asked, Place, Running, place_at, running_server
from headgate.bench.results import Capacity, Outcome, Result, Window
from headgate.bench.run import Measurement, Tools
from headgate.bench.run_settings import Choice, calibrating
from headgate.bench.scenario import Scenario
from headgate.bench.slo import Slo
from headgate.bench.sweep import Bracket, SettingRefusedError
from headgate.bench.sweep_simulation import RequestTimes
from headgate.bench.target import TargetUnreachable
from headgate.documents.values import SLOTS
from headgate.errors import InvalidArgument, ModelNotReady

INTERRUPTED = "interrupted; what was measured is kept"

_WARM_SHARE = 4
"""A quarter of a calibration is left out: the first requests find cold caches."""


class SweepEndedError(Exception):
    """Nothing more can be measured: interrupted, or the server is gone."""

    def __init__(self, outcome: Outcome, why: str) -> None:
        super().__init__(why)
        self.outcome: Outcome = outcome


@dataclass(frozen=True)
class Budget:
    """How long a calibration and a search take at most, in ns."""

    calibration: int
    find: int


@dataclass
class SpawnedWorkbench:
    """Serves the document with one setting after the other; a gateway stays for all calibrations of its threads."""

    asked: Asked
    scenario: Scenario
    tools: Tools
    document: DocumentSettings
    slo: Slo
    folder: Path
    budget: Budget
    calibrations: list[Window] = field(default_factory=list)
    found: dict[Choice, list[Result]] = field(default_factory=dict)
    tested: Result | None = None
    """That of the rate at which the present setting was tested apart from the rounds."""
    notes: list[str] = field(default_factory=list)
    place: Place | None = None
    """The newest one, for what is true of all."""
    _stack: ExitStack = field(default_factory=ExitStack)
    """What ends the gateway of a calibration."""
    _calibrated: tuple[int, Running] | None = None
    """The threads of that gateway."""
    _rows: tuple[tuple[int, float], ...] = ((1, 1.0),)
    _tested_to: float = 0.0
    """The highest rate of the generator's self-tests."""
    _source: str | None = None
    """Where the requests of a calibration come from, once one of a single row was made."""

    # === what a sweep asks for ===

    def say(self, sentence: str) -> None:
        """Tells how far it is, and notices Ctrl-C."""
        self.check_interrupted()
        self.tools.view.say(sentence)

    def check_interrupted(self) -> None:
        """:class:`SweepEndedError` after Ctrl-C."""
        if self.tools.interruption.requested:
            raise SweepEndedError("interrupted", INTERRUPTED)

    def rows(self) -> tuple[tuple[int, float], ...]:
        """Rows of the requests that are measured, with their shares."""
        return self._rows

    def request_times(self, threads: int, rows: int) -> RequestTimes | None:
        """The times of a closed loop of one client, each of whose requests asks for the server's phases."""
        running = self._calibrating(threads)
        found = self._with_rows(running, rows)
        if found is None:
            return None
        scenario, place = found
        measurement = Measurement.at(place, scenario, self.tools)
        length = self.budget.calibration
        loading = measurement.loading(
            f"calibration with {rows} row{'s' * (rows != 1)}", loads.closed_json(1, length), None, length
        )
        measured = measurement.measurer().measure(loading, Question(from_ns=length // _WARM_SHARE))
        answer = measured.answer
        name = f"{threads} threads, {rows} rows"
        self.calibrations.append(Window(name=name, clients=1, for_ns=length, answer=answer))
        if measured.ended is Ended.UNREACHABLE:
            raise SweepEndedError("unreachable", measured.why or "the server stopped answering")
        self.check_interrupted()
        phases = answer.phases
        if not phases.sampled or not phases.run.p50_ns:
            return None
        # Medians: what other processes take of the processors meanwhile is no part of a run.
        around = (phases.decode.p50_ns or 0) + (phases.reply.p50_ns or 0)
        return RequestTimes(phases.run.p50_ns / 1e9, around / 1e9)

    def find(self, choice: Choice, number: int) -> Bracket:
        """Searches the rate that the setting holds."""
        self.close()
        earlier = self.found.setdefault(choice, [])
        scenario = self._searching(number, earlier)
        try:
            with self._measurement(choice, scenario) as measurement:
                result = find_at(measurement, self.slo)
        except (TargetUnreachable, InvalidArgument, ModelNotReady) as error:
            if choice != self.document.present:
                raise SettingRefusedError(error.message) from error
            if any(self.found.values()):
                raise SweepEndedError("unreachable", error.message) from error
            raise
        earlier.append(result)
        self._check_ended(result)
        capacity = result.capacity or Capacity(alpha=1.0)
        return Bracket(capacity.passed if capacity.confirmed else None, capacity.failed)

    def fails_at(self, choice: Choice, rate: float) -> bool:
        """Whether one long test says that the rate is too much for the setting."""
        scenario = self._searching(0, [])
        try:
            with self._measurement(choice, scenario) as measurement:
                result = fails_at(measurement, self.slo, rate)
        except (TargetUnreachable, InvalidArgument, ModelNotReady) as error:
            raise SweepEndedError("unreachable", error.message) from error
        self.tested = result
        self._check_ended(result)
        return result.capacity is not None and result.capacity.failed is not None

    def _check_ended(self, result: Result) -> None:
        if result.verdict in ("interrupted", "unreachable"):
            raise SweepEndedError(result.verdict, "; ".join(result.reasons))

    # === gateways ===

    def close(self) -> None:
        """Ends the gateway of a calibration."""
        self._calibrated = None
        self._stack.close()

    def _calibrating(self, threads: int) -> Running:
        """The gateway of a calibration; each also tells which rows are measured."""
        if self._calibrated is None or self._calibrated[0] != threads:
            self.close()
            served = self._served(calibrating(self.document.present, threads))
            self._calibrated = threads, self._stack.enter_context(served)
            place = self._place(self._calibrated[1], self._scenario())
            shares: dict[int, float] = {}
            for one in place.prepared.requests:
                shares[one.rows] = shares.get(one.rows, 0.0) + one.weight
            total = math.fsum(shares.values())
            self._rows = tuple((rows, weight / total) for rows, weight in sorted(shares.items()))
        return self._calibrated[1]

    @contextmanager
    def _served(self, choice: Choice) -> Iterator[Running]:
        """The document with these settings."""
        path = self.folder / self.document.path.name
        path.write_text(self.document.with_choice(choice), encoding="utf-8", newline="")
        root = str(self.document.path.absolute().parent)
        options = (*self.asked.serve_options, "--root", root)
        with running_server(replace(self.asked, document=path, serve_options=options)) as running:
            yield running

    @contextmanager
    def _measurement(self, choice: Choice, scenario: Scenario) -> Iterator[Measurement]:
        """A gateway of its own, and the self-tests of those before: the generator is the same."""
        with self._served(choice) as running:
            measurement = Measurement.at(self._place(running, scenario), scenario, self.tools)
            measurement.client.tested_to = self._tested_to
            yield measurement
            self._tested_to = measurement.client.tested_to

    def _place(self, running: Running, scenario: Scenario) -> Place:
        self.place = place_at(running, self.asked, scenario, self.tools.generator)
        return self.place

    # === what is sent ===

    def _scenario(self, **changes: Any) -> Scenario:
        """The scenario with the version of the document; ``changes`` are of its only endpoint."""
        entry = self.scenario.mix[0].model_copy(update={"version": self.document.version, **changes})
        return self.scenario.model_copy(update={"mix": (entry,)})

    def _with_rows(self, running: Running, rows: int) -> tuple[Scenario, Place] | None:
        """Requests of so many rows: those of the scenario if its rows can be put together anew, else made-up ones."""
        written = self.scenario.mix[0].data
        check = self.scenario.check.model_copy(update={"timing": 1.0})
        for source in [self._source] if self._source else dict.fromkeys([written, "synthetic"]):
            scenario = self._scenario(rows={rows: SLOTS}, data=source).model_copy(update={"check": check})
            try:
                place = self._place(running, scenario)
            except InvalidArgument as error:
                refused = error
                continue
            if source != written and self._source is None:
                self.notes.append(f"run times are those of made-up values: {refused.message}")
            self._source = source
            return scenario, place
        if rows == 1:
            raise refused
        self.notes.append(f"batches were not simulated for more rows than {rows // 2}: {refused.message}")
        return None

    def _searching(self, number: int, earlier: list[Result]) -> Scenario:
        """The search of a round: from where the one before it ended, if there was one."""
        passed = [one.capacity.passed for one in earlier if one.capacity is not None and one.capacity.passed]
        changes = {"budget": self.budget.find, **({"start": passed[-1]} if passed else {})}
        search = self.scenario.search.model_copy(update=changes)
        return self._scenario().model_copy(update={"search": search, "seed": self.scenario.seed + number})

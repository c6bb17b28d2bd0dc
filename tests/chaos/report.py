"""What a run has done and found, as a table."""

from __future__ import annotations

import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping

from chaos.place import Outcome
from chaos.sequence import FAULTS, Episode

_SLOW_SECONDS = 5.0
"""What a long run tells at once."""


class Report:
    """Counts by fault; every violation with what was being done."""

    def __init__(self, seed: int, *, loud: bool = False) -> None:
        self.seed = seed
        self.violations: list[str] = []
        self.times: dict[tuple[str, str], list[float]] = defaultdict(list)
        """Seconds, by what was timed and the fault meanwhile."""
        self.notes: Counter[str] = Counter()
        self._loud = loud
        self._rows: dict[str, Counter[str]] = {fault: Counter() for fault in FAULTS}
        self._episode: Episode | None = None
        self._users: Counter[str] = Counter()

    @property
    def _row(self) -> Counter[str]:
        return self._rows["none" if self._episode is None else self._episode.fault]

    def begin(self, episode: Episode) -> None:
        """An episode begins."""
        self._episode = episode
        self._row["episodes"] += 1
        if self._loud:
            self._say(f"{episode.number} {episode.fault} {episode.ending}")

    def end(self, users: Mapping[str, int]) -> None:
        """An episode is over; ``users`` is what their requests came to, from the beginning of the run."""
        for name, count in users.items():
            self._row[name] += count - self._users[name]
        self._users = Counter(users)

    def answered(self, outcome: Outcome) -> None:
        """A write."""
        if outcome.kind == "done":
            self._row["durable" if outcome.durable else "not durable"] += 1
        else:
            self._row["refused write" if outcome.kind == "refused" else "unknown"] += 1

    def time(self, what: str, seconds: float, of: str = "") -> None:
        """Something that took so long."""
        if self._loud and seconds > _SLOW_SECONDS:
            self._say(f"slow: {what} {of} took {seconds:.1f} s")
        self.times[what, "none" if self._episode is None else self._episode.fault].append(seconds)

    def noted(self, what: str) -> None:
        """What is neither right nor wrong: what a start did with damage, above all."""
        self.notes[what] += 1

    def violate(self, what: str) -> None:
        """Something that must not be."""
        number = (
            "start" if self._episode is None else f"episode {self._episode.number} ({self._episode.fault})"
        )
        line = f"seed {self.seed}, {number}: {what}"
        self.violations.append(line)
        self._row["violations"] += 1
        if self._loud:
            self._say(f"VIOLATION {line}")

    def _say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def table(self) -> str:
        """Everything, in Markdown."""
        columns = (
            "episodes", "durable", "not durable", "refused write", "unknown", "asked", "compared", "refused", "broken",
            "violations",
        )  # fmt: skip
        titles = (
            "episodes", "writes on disk", "in force only", "refused", "unknown", "user requests", "compared", "not served",
            "connections lost", "violations",
        )  # fmt: skip
        lines = [
            f"seed {self.seed}",
            "",
            f"| fault | {' | '.join(titles)} | rollbacks | median, ms | slowest, ms |",
            "|---|" + "---:|" * (len(titles) + 3),
        ]
        for fault, row in self._rows.items():
            counts = " | ".join(str(row[name]) for name in columns)
            lines.append(f"| {fault} | {counts} | {_times(self.times.get(('rollback', fault), []))} |")
        total = sum(self._rows.values(), Counter())
        every = [second for (what, _), found in self.times.items() if what == "rollback" for second in found]
        lines.append(f"| all | {' | '.join(str(total[name]) for name in columns)} | {_times(every)} |")
        stops = [second for (what, _), found in self.times.items() if what == "stop" for second in found]
        if stops:
            lines += ["", f"SIGTERM to exit: {len(stops)} times, at most {max(stops):.1f} s."]
        if self.notes:
            noted = ", ".join(f"{what} {count}" for what, count in sorted(self.notes.items()))
            lines += ["", f"Noted: {noted}."]
        lines += ["", *(f"- {line}" for line in self.violations)]
        return "\n".join(lines)


def _times(seconds: list[float]) -> str:
    if not seconds:
        return "0 | | "
    return f"{len(seconds)} | {statistics.median(seconds) * 1e3:.0f} | {max(seconds) * 1e3:.0f}"

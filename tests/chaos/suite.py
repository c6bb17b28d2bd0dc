"""Carries a sequence out against a real gateway, and compares it with the model after every step.

What must hold: an acknowledged write is there after every later start; a sticky key moves with a change of traffic alone; a restart
moves nothing; a rollback reaches the data plane; a blocked version answers nobody. Not here: the order (``sequence``), starts
(``checks``), damage (``wreck``). Next: ``writes``.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from chaos import faults
from chaos.checks import Checks
from chaos.model import EMERGENCIES, Write
from chaos.place import Place
from chaos.report import Report
from chaos.sequence import ENDPOINTS, Episode
from chaos.wreck import Wreck
from chaos.writes import Writes

_STOP_GUARD_SECONDS = 60.0
"""Ten times what a stop may take with a disk that hangs: a second of drain, five for the rows."""


class Suite:
    """One run; a context manager that ends its processes."""

    def __init__(self, folder: Path, compiler: str, report: Report) -> None:
        self.report = report
        self.place = Place(folder, compiler)
        self.checks = Checks(self.place, report, ENDPOINTS)
        self.writes = Writes(self.place, self.checks, report)
        self.wreck = Wreck(self.place, self.checks, report)
        self._worker_died = False
        self._carry_out = {
            "none": self._calm,
            "kill worker": self._kill,
            "kill supervisor": self._kill,
            "restart": self._restart,
            "hang": self._hang,
            "full": self._full,
            "clock": self._clock,
            "descriptors": self._descriptors,
            "damage": self._damage,
        }

    def __enter__(self) -> Suite:
        self.place.start()
        self.checks.begin()
        for name in ENDPOINTS:
            self.writes.carry_out(Write("apply", name, "v1", "v2", slots=2000, pick=1.0))
        return self

    def __exit__(self, *_: object) -> None:
        self.checks.prober.stop()
        self.writes.close()
        self.place.faults.clear()
        self.place.hang_up()
        if self.place.gateway.child is not None and self.place.gateway.child.poll() is None:
            self.place.kill_supervisor()

    def run(self, episodes: Iterable[Episode]) -> None:
        """Every episode in its order."""
        for episode in episodes:
            self.report.begin(episode)
            self._carry_out[episode.fault](episode)
            self.report.end(self.checks.prober.count)

    # === faults ===

    def _calm(self, episode: Episode) -> None:
        self.checks.demand_answers(True)
        for write in episode.writes:
            self.writes.carry_out(write)

    def _kill(self, episode: Episode) -> None:
        for write in episode.writes[:-1]:
            self.writes.carry_out(write)
        last = self.writes.begin(episode.writes[-1])
        threading.Event().wait(episode.delay_seconds)  # any moment of a write, not a wait for something
        self._die(worker=episode.fault == "kill worker")
        last.join()
        self.writes.conclude(last)
        if (
            self._worker_died
            and episode.again_after_seconds is not None
            and not self.place.is_killed_too_often()
        ):
            self.place.kill_starting_worker(episode.again_after_seconds)
        self._arise()

    def _die(self, worker: bool) -> None:
        """SIGKILL of the gateway or of its supervisor."""
        self.checks.prober.aim(None)
        self.checks.killed()
        self._worker_died = worker and not self.place.is_killed_too_often()
        if self._worker_died:
            self.place.kill_worker()
        else:
            self.place.kill_supervisor()

    def _arise(self) -> None:
        if self._worker_died:
            self.place.await_worker()
        else:
            self.place.start()
        self.place.hang_up()
        self.checks.after_start()

    def _restart(self, episode: Episode) -> None:
        for write in episode.writes[:2]:
            self.writes.carry_out(write)
        self._stop()
        self.place.start()
        self.checks.after_start()

    def _stop(self) -> None:
        """SIGTERM of the supervisor; exit code 0 says that everything in force is on disk."""
        self.checks.prober.aim(None)
        self.place.hang_up()
        self.place.gateway.signal(signal.SIGTERM)
        assert self.place.gateway.child is not None
        begun = time.monotonic()
        while self.place.gateway.child.poll() is None:
            if time.monotonic() - begun > _STOP_GUARD_SECONDS:
                self.report.violate("SIGTERM did not end the gateway")
                self.place.faults.clear()
                self.place.kill_supervisor()
                return
            time.sleep(0.01)
        code = self.place.gateway.kill()  # it has ended: closes what is left of it
        self.report.time("stop", time.monotonic() - begun)
        self.place.faults.forget_waiting()
        self.checks.stopped(code)

    def _hang(self, episode: Episode) -> None:
        self.checks.demand_answers(True)
        waits = next((write for write in episode.writes if self.writes.would_change(write)), None)
        self.place.faults.hang(True)
        pending = None if waits is None else self.writes.begin(waits)
        if pending is not None:
            faults.until(
                lambda: self.place.faults.waiting() or not pending.is_alive(), "a write to reach the disk"
            )
        for write in episode.writes:
            # What is no emergency would wait, unless an emergency call was answered without its row.
            if write is not waits and (write.kind in EMERGENCIES or self._is_refusing(write)):
                self.writes.carry_out(write)
        self._end_of_disk_fault(episode)
        if pending is not None:
            pending.join()
            self.writes.conclude(pending)
        if episode.ending == "healed":
            self.checks.settle()
        else:
            self._arise_from(episode)

    def _is_refusing(self, write: Write) -> bool:
        """An ordinary write that is answered at once: not one that waits for its turn behind another one."""
        late = self.checks.has_late_rows() and write.endpoint not in self.checks.pending
        return late and write.kind not in ("token", "revoke", "unpin")

    def _full(self, episode: Episode) -> None:
        self.checks.demand_answers(True)
        self.place.faults.fill(True, growth_only=self._starts_full(episode))
        for write in episode.writes:
            self.writes.carry_out(write)
        self._end_of_disk_fault(episode)
        if episode.ending == "healed":
            self.checks.settle()
        else:
            self._arise_from(episode)

    @staticmethod
    def _starts_full(episode: Episode) -> bool:
        return (episode.fault, episode.ending) == ("full", "killed") and episode.place < 0.7

    def _end_of_disk_fault(self, episode: Episode) -> None:
        if episode.ending == "healed":
            self.place.faults.clear()
        elif episode.ending == "killed":
            self._die(worker=True)
            # A disk without a free block stops no start; one that hangs does.
            if not self._starts_full(episode):
                self.place.faults.clear()
        else:
            self._worker_died = False
            self._stop()
            self.place.faults.clear()

    def _arise_from(self, episode: Episode) -> None:
        self._arise()
        if episode.ending == "killed" and self.place.faults.is_full():
            self.place.faults.clear()
            self.checks.settle()

    def _clock(self, episode: Episode) -> None:
        self.checks.demand_answers(True)
        self.place.faults.shift_clock(episode.clock_seconds)
        for write in episode.writes:
            self.writes.carry_out(write)
        if episode.ending != "stopped":
            self.place.faults.shift_clock(0)

    def _descriptors(self, episode: Episode) -> None:
        self.checks.demand_answers(True)
        # What is connected stays so; the rest has to wait.
        self.place.get("/endpoints")
        self.writes.data()
        pid = self.place.worker()
        limits = faults.limit_descriptors(pid, episode.descriptors)
        try:
            for write in episode.writes:
                self.writes.carry_out(write)
        finally:
            faults.give_descriptors(pid, limits)
        self.checks.settle()

    def _damage(self, episode: Episode) -> None:
        for write in episode.writes[:2]:
            self.writes.carry_out(write)
        if self.wreck.needs_kill(episode):
            self.checks.await_applied_file()
            self._worker_died = False
            self._die(worker=False)
        else:
            self._stop()
        self.wreck.carry_out(episode)
        self.place.start()
        self.checks.after_start()

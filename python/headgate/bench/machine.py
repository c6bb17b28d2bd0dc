"""What the machine of the generator is, for the result file. What cannot be read is null."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path

import headgate
from headgate.bench.results import Machine


def here() -> Machine:
    """This machine."""
    memory = _field(Path("/proc/meminfo"), "MemTotal")
    return Machine(
        cpu=_field(Path("/proc/cpuinfo"), "model name"),
        cpus=len(available_cpus()),
        memory_bytes=int(memory.split()[0]) * 1024 if memory else None,
        kernel=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        headgate=headgate.__version__,
        governor=_text(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
    )


def available_cpus() -> tuple[int, ...]:
    """The processors that this process may use."""
    return tuple(sorted(os.sched_getaffinity(0)))


def split_cpus(cpus: Sequence[int], threads: int) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Processors for a server and for ``threads`` of a generator, apart; None if there are not enough for both."""
    if len(cpus) < threads + 1:
        return None
    return tuple(cpus[:-threads]), tuple(cpus[-threads:])


def _field(path: Path, name: str) -> str | None:
    for line in (_text(path) or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None

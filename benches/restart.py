"""What a restart below ``--supervise`` takes: from the death of the gateway process to the next one's exec, and to its ready line.

Not here: how long the models of a gateway take to load, which a real restart adds. Run: ``python -m benches.restart``.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benches.host import tiny

_LOOK_SECONDS = 0.0005
MOST = 5
"""Deaths within a minute that a supervisor takes."""


def begun(parent: int, before: int) -> int:
    """Waits for the process after ``before``."""
    listed = Path(f"/proc/{parent}/task/{parent}/children")
    while True:
        with contextlib.suppress(OSError):
            for child in map(int, listed.read_text().split()):
                if child != before and b"HEADGATE_SUPERVISED=" in Path(f"/proc/{child}/environ").read_bytes():
                    return child
        time.sleep(_LOOK_SECONDS)


def dead(process: int) -> None:
    """Waits until the kernel has taken a process down, which takes its time for one with much memory."""
    with contextlib.suppress(OSError):
        while Path(f"/proc/{process}/stat").read_text().rsplit(") ", 1)[1][0] not in "ZX":
            time.sleep(_LOOK_SECONDS)


def measure(rounds: int, folder: Path) -> dict[str, list[float]]:
    """Seconds of each step from the kill on, in each round."""
    model = folder / "models" / "tiny" / "1" / "model.onnx"
    model.parent.mkdir(parents=True)
    tiny(model, 2.0)
    ports = [f"--{port}=127.0.0.1:0" for port in ("http", "grpc", "observe", "admin")]
    command = [sys.executable, "-m", "headgate", "serve", "--supervise", f"--models={folder / 'models'}"]
    steps: dict[str, list[float]] = {
        "its death": [],
        "the exec of the next process": [],
        "its ready line": [],
    }
    with subprocess.Popen(
        [*command, f"--state={folder / 'state'}", *ports],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        child = begun(parent.pid, 0)
        for _ in range(rounds):
            begin = time.perf_counter()
            os.kill(child, signal.SIGKILL)
            dead(child)
            steps["its death"].append(time.perf_counter() - begin)
            child = begun(parent.pid, child)
            steps["the exec of the next process"].append(time.perf_counter() - begin)
            parent.stdout.readline()
            steps["its ready line"].append(time.perf_counter() - begin)
        parent.terminate()
    return steps


def main() -> None:
    """Prints medians and worst cases."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=MOST, choices=range(1, MOST + 1))
    rounds = arguments.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        steps = measure(rounds, Path(folder))
    for what, seconds in steps.items():
        median, worst = statistics.median(seconds) * 1e3, max(seconds) * 1e3
        print(f"from kill to {what}: median {median:.1f} ms, worst of {rounds} {worst:.1f} ms")


if __name__ == "__main__":
    main()

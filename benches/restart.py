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


def measure(rounds: int, folder: Path) -> tuple[list[float], list[float]]:
    """Seconds to the exec and to the ready line of each round."""
    model = folder / "models" / "tiny" / "1" / "model.onnx"
    model.parent.mkdir(parents=True)
    tiny(model, 2.0)
    ports = [f"--{port}=127.0.0.1:0" for port in ("http", "grpc", "observe", "admin")]
    command = [sys.executable, "-m", "headgate", "serve", "--supervise", f"--models={folder / 'models'}"]
    execs, lines = [], []
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
            death = time.perf_counter()
            os.kill(child, signal.SIGKILL)
            child = begun(parent.pid, child)
            execs.append(time.perf_counter() - death)
            parent.stdout.readline()
            lines.append(time.perf_counter() - death)
        parent.terminate()
    return execs, lines


def main() -> None:
    """Prints medians and worst cases."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=MOST, choices=range(1, MOST + 1))
    rounds = arguments.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        execs, lines = measure(rounds, Path(folder))
    for what, seconds in (("exec of the next process", execs), ("its ready line", lines)):
        median, worst = statistics.median(seconds) * 1e3, max(seconds) * 1e3
        print(f"from kill to {what}: median {median:.1f} ms, worst of {rounds} {worst:.1f} ms")


if __name__ == "__main__":
    main()

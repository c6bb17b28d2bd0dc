"""What a client command takes: wall and processor time from its exec to its end, against a gateway on this machine.

Not here: what the gateway takes for an answer (``benches.scrapes``). Run: ``python -m benches.commands``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benches.host import tiny

COMMANDS = (["get"], ["get", "tiny"], ["history", "tiny"], ["whoami"], ["--help"], ["validate", "--schema"])
"""The last one imports documents and pydantic, as commands that only call the gateway must not."""


@contextmanager
def gateway(folder: Path) -> Iterator[Path]:
    """A gateway with one endpoint; its state folder."""
    model = folder / "models" / "tiny" / "1" / "model.onnx"
    model.parent.mkdir(parents=True)
    tiny(model, 2.0)
    ports = [f"--{port}=127.0.0.1:0" for port in ("http", "grpc", "observe", "admin")]
    command = [sys.executable, "-m", "headgate", "serve", f"--models={folder / 'models'}", *ports]
    state = folder / "state"
    with subprocess.Popen(
        [*command, f"--state={state}"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield state
        process.terminate()


def timed(command: list[str], state: Path) -> tuple[float, float]:
    """Wall and processor seconds of one run."""
    before, begun = os.times(), time.perf_counter()
    subprocess.run(
        command, env={**os.environ, "HEADGATE_STATE": str(state)}, stdout=subprocess.DEVNULL, check=True
    )
    wall, after = time.perf_counter() - begun, os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return wall, used


def main() -> None:
    """Prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    runs = parser.parse_args().runs
    headgate = [sys.executable, "-m", "headgate"]
    commands = {"python -c pass": [sys.executable, "-c", "pass"]}
    commands |= {f"headgate {' '.join(words)}": [*headgate, *words] for words in COMMANDS}
    with tempfile.TemporaryDirectory() as folder, gateway(Path(folder)) as state:
        print(f"Median of {runs} runs, in ms.\n\n| command | wall | processor |\n|---|---|---|")
        for name, command in commands.items():
            print(_row(name, [timed(command, state) for _ in range(runs)]))


def _row(name: str, found: list[tuple[float, float]]) -> str:
    wall, used = (statistics.median(one[at] for one in found) * 1e3 for at in (0, 1))
    return f"| `{name}` | {wall:.0f} | {used:.0f} |"


if __name__ == "__main__":
    main()

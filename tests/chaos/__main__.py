"""The long run: ``make chaos SECONDS=1200 SEED=7``. Prints the seed first and a table at the end; exits 1 after a violation."""

from __future__ import annotations

import argparse
import itertools
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from chaos.report import Report
from chaos.sequence import FAULTS, Episode, episode, episodes
from chaos.suite import Suite


def only(seed: int, fault: str) -> Iterator[Episode]:
    """One fault again and again."""
    return (episode(seed, number, fault) for number in itertools.count(1))


def main() -> int:
    """Runs episodes until the time is over."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--fault", choices=FAULTS, default=None, help="this one alone")
    parser.add_argument("--folder", type=Path, default=None, help="where the state is kept afterwards")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(1_000_000) if options.seed is None else options.seed
    print(f"seed {seed}", file=sys.stderr, flush=True)
    compiler = shutil.which("cc")
    if compiler is None:
        raise SystemExit("a C compiler is missing: apt-get install gcc")
    report = Report(seed, loud=True)
    deadline = time.monotonic() + options.seconds
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        try:
            with Suite(folder, compiler, report) as suite:
                drawn = episodes(seed) if options.fault is None else only(seed, options.fault)
                suite.run(itertools.takewhile(lambda _: time.monotonic() < deadline, drawn))
        finally:
            print(report.table(), flush=True)
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())

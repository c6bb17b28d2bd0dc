"""A short seeded part of the chaos suite; the long one is ``make chaos``."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.report import Report
from chaos.sequence import FAULTS, episode, episodes
from chaos.suite import Suite
from support.tools import need_native, need_program

SEED = 13


def test_a_seed_gives_one_sequence() -> None:
    first, again = episodes(SEED), episodes(SEED)
    one = [next(first) for _ in range(100)]
    assert one == [next(again) for _ in range(100)]
    assert {drawn.fault for drawn in one} == set(FAULTS)
    other = episodes(SEED + 1)
    assert one != [next(other) for _ in range(100)]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [SEED, SEED + 1])
def test_nothing_that_was_acknowledged_is_lost_and_no_user_changes_version(tmp_path: Path, seed: int) -> None:
    need_native()
    report = Report(seed)
    with Suite(tmp_path, need_program("cc", "gcc"), report) as suite:
        # Every fault once, in an order that leaves something of one to the next.
        suite.run(episode(seed, number, fault) for number, fault in enumerate(FAULTS))
    print(report.table())
    assert not report.violations, report.table()

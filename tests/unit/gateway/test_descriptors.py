from __future__ import annotations

import subprocess
import sys

import pytest

from headgate.gateway import descriptors


@pytest.mark.parametrize("limit", [256, 512, 1024, 4096, 65_536])
def test_the_shares_fit_into_the_limit(limit: int) -> None:
    shares = descriptors.share(limit)
    assert shares.data + 2 * shares.control + 96 <= limit
    assert min(shares.data, shares.control) >= 16


def test_more_descriptors_mean_no_fewer_for_anybody() -> None:
    shares = [descriptors.share(limit) for limit in range(64, 20_000, 7)]
    for name in ("data", "control"):
        values = [getattr(one, name) for one in shares]
        assert values == sorted(values)
    assert descriptors.share(65_536) == descriptors.Shares(10_000, 512)


@pytest.mark.parametrize(("soft", "hard", "then"), [(256, 1024, 1024), (1024, 1024, 1024)])
def test_the_soft_limit_is_raised_to_the_hard_one(soft: int, hard: int, then: int) -> None:
    program = (
        f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
        "from headgate.gateway import descriptors\n"
        "print(descriptors.raise_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said.split() == [str(then), str(then), str(hard)]

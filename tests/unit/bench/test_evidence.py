"""The reference of the sequential test is right: computed vectors, and a known integral."""

from __future__ import annotations

import pytest

from support.evidence import evidence, incomplete_beta


def test_the_incomplete_beta_has_its_known_values() -> None:
    assert incomplete_beta(1, 1, 0.3) == pytest.approx(0.3)
    assert incomplete_beta(2, 3, 0.5) == pytest.approx(0.6875)
    assert incomplete_beta(1, 99, 0.01) == pytest.approx(1 - 0.99**99)


@pytest.mark.parametrize(
    ("slow", "quick", "side", "wanted"), [(0, 600, 0, 93.353), (5, 1302, 0, 11.824), (15, 500, 1, 158.96)]
)
def test_the_evidence_is_that_of_the_vectors(slow: int, quick: int, side: int, wanted: float) -> None:
    assert evidence(0.01, slow, quick)[side] == pytest.approx(wanted, rel=1e-4)


def test_417_good_requests_are_the_fewest_that_pass_at_five_percent() -> None:
    assert evidence(0.01, 0, 416)[0] < 20 <= evidence(0.01, 0, 417)[0]

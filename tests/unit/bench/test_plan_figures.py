"""Plans of three kinds of server that share nothing with the models: how far the predicted capacity and what was held out are off.

The long form is ``python -m support.planned_servers 100``; its figures are in docs/design/bench-planning.md.
"""

import pytest

from support.planned_servers import SERVERS, outcomes
from support.tools import need_native

SEEDS = range(2)


@pytest.mark.parametrize("name", SERVERS)
def test_the_capacity_of_a_model_that_holds_is_within_15_percent(name: str) -> None:
    need_native()
    found = list(outcomes(name, SEEDS))
    held = [one for one in found if one.holds]
    assert held, found
    assert all(abs(one.capacity_ratio - 1) <= 0.15 for one in held), found
    assert all(abs(error) <= 0.20 for one in held for error in one.errors), found
    assert all(all(one.inside) for one in held), found

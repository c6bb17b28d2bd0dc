"""Plans and defaults that two people write at once.

Not here: one writer (``test_rollouts``, ``admin/test_rollouts``).
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from headgate.control import Call, Precondition
from headgate.errors import RevisionConflict
from unit.control.test_rollouts import ANN, PLAN
from unit.control_harness import gateway, run


def test_a_removal_is_of_the_plan_that_was_read_and_not_of_one_stored_meanwhile(tmp_path: Path) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            await gate.control.put_plan(PLAN.encode(), call=ANN)
            read = Call("ann", precondition=Precondition.at(1))
            other = PLAN.replace("shadow: 10%", "shadow: 20%").encode()
            found = await asyncio.gather(
                gate.control.put_plan(other, call=read),
                gate.control.delete_plan("careful", call=read),
                gate.control.delete_plan("careful", call=read),
                return_exceptions=True,
            )
            lost = [one for one in found if isinstance(one, BaseException)]
            assert [type(one) for one in lost] == [RevisionConflict] * 2, found
            stored = gate.store.plans.all()
            assert [one.n for one in stored] == [view["n"] for view in gate.control.plans()]

    run(work)

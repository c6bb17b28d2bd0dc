"""Dry runs: what a write would be refused for is found before anybody carries it out.

A dry run goes the way of a write as far as that leaves nothing behind: decide, look at the files, ask the data plane. It waits for
no write of the same endpoint. Not here: what only a load shows (warm-up, batches, memory). Next: ``writer``.
"""

from __future__ import annotations

import json
from dataclasses import replace

from headgate.control.domain.results import Result
from headgate.control.writes.context import Context
from headgate.control.writes.transition import Transition, argument_of, refusal, result_of


async def rehearse(context: Context, transition: Transition) -> Result:
    """The plan of a transition that is not carried out; raises what carrying it out would be refused for."""
    unopened = await _ask(context, transition) if transition.decision.status == "applied" else []
    notes = transition.plan["notes"] + [
        f"{version} was not opened, because the models in memory leave no room for it: only an apply tells whether it loads"
        for version in unopened
    ]
    planned = replace(transition, plan={**transition.plan, "notes": notes})
    return result_of(planned, "planned")


async def _ask(context: Context, transition: Transition) -> list[str]:
    """The versions that could not be looked at. Those that do not load are left out where the write would leave them out."""
    while True:
        argument = await argument_of(context.long, context, transition, urgent=False)
        if argument is None:
            return []
        found = json.loads(await context.long(lambda: context.plane.dry_run(argument)))  # noqa: B023
        refused = found["refused"]
        if refused is None:
            return list(found["unopened"])
        if not transition.leaves_out(refused["version"], refused["message"]):
            raise refusal(transition, refused)

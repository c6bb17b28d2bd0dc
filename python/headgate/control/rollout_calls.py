"""Rollouts, plans and defaults as ``Control`` answers for them.

Not here: what a rollout decides (``domain.rollout``), how it is carried out (``writes.rollouts``). Next: ``service``.
"""

from __future__ import annotations

import asyncio
from functools import partial

from headgate.control.domain.calls import INTERNAL, Call, Settings
from headgate.control.domain.results import PlanDocumentView, PlanResult, Result
from headgate.control.reads.queries import Queries
from headgate.control.reads.rollout_figures import RolloutFigures, rollout_figures
from headgate.control.reads.rollout_views import RolloutSummary, RolloutView, history, rollout_view
from headgate.control.writes.endpoint import present
from headgate.control.writes.rollout_decisions import rollout_of
from headgate.control.writes.rollout_facts import facts_of
from headgate.control.writes.rollouts import Rollouts
from headgate.control.writes.runner import Runner
from headgate.control.writes.stored_plans import StoredPlans

_REVISIONS = 1_000
"""Revisions that the history of rollouts is read from."""


class RolloutCalls(Queries):
    """The part of ``Control`` that is about rollouts."""

    settings: Settings
    _rollouts: Rollouts
    _runner: Runner
    _stored_plans: StoredPlans

    # === reads ===

    async def rollout_view(self, endpoint: str) -> RolloutView | None:
        """The rollout that is under way, or the last one; None if there never was one."""
        current = present(self._endpoints.known(endpoint))
        rollout = current.traffic.rollout
        if rollout is None:
            return None
        look = self._rollouts.look_of(endpoint, rollout)
        missing = [one.words for one in self._rollouts.missing(endpoint, rollout)]
        figures, plane = await self._recent.of(endpoint), self._context.plane
        facts = facts_of(current, rollout.plan, figures, plane)
        return await asyncio.to_thread(lambda: rollout_view(current, rollout, look, missing, facts))

    async def rollouts(self, endpoint: str) -> list[RolloutSummary]:
        """The rollouts that the kept revisions tell of, newest first."""
        self._endpoints.ever(endpoint)
        return await self._context.io(
            lambda: history(self._context.store.revisions(endpoint, limit=_REVISIONS))
        )

    async def rollout_figures(self) -> RolloutFigures:
        """The newest rollout of each endpoint in figures, and how those since the start ended; reads memory alone."""
        return await rollout_figures(self._endpoints, self._rollouts)

    def plans(self) -> list[PlanDocumentView]:
        """The stored plans by name; reads memory alone."""
        return self._stored_plans.views()

    def plan(self, name: str) -> PlanDocumentView:
        """One plan; :class:`NotFound`."""
        return self._stored_plans.view("RolloutPlan", name)

    def defaults(self) -> PlanDocumentView:
        """The defaults; :class:`NotFound` if there are none."""
        return self._stored_plans.view("Defaults", "")

    # === writes ===

    async def rollout_start(
        self,
        endpoint: str,
        version: str,
        plan: str | None = None,
        *,
        call: Call = INTERNAL,
    ) -> Result:
        """Begins a rollout of a version by a plan (None: the document's, else the built-in one).

        A dry run says in its plan's text what the rollout would do.
        """
        work = partial(self._rollouts.start, endpoint, (version, plan), call)
        return await self._runner.run(call, ("rollout_start", endpoint), work)

    async def rollout_retry(
        self, endpoint: str, version: str | None = None, plan: str | None = None, *, call: Call = INTERNAL
    ) -> Result:
        """As :meth:`rollout_start` for a digest that was rejected; None stands for the challenger of the last rollout."""

        async def work() -> Result:
            last = version or rollout_of(present(self._endpoints.known(endpoint))).challenger.name
            return await self._rollouts.start(endpoint, (last, plan), call, retry=True)

        return await self._runner.run(call, ("rollout_retry", endpoint), work)

    async def rollout_promote(self, endpoint: str, *, full: bool = False, call: Call = INTERNAL) -> Result:
        """The next step of a rollout, or with ``full`` its end; what was undecided is recorded."""
        work = partial(self._rollouts.promote, endpoint, call, full=full)
        return await self._runner.run(call, ("rollout_promote", endpoint), work)

    async def rollout_pause(self, endpoint: str, *, call: Call = INTERNAL) -> Result:
        """Holds a rollout where it is."""
        work = partial(self._rollouts.pause, endpoint, call)
        return await self._runner.run(call, ("rollout_pause", endpoint), work)

    async def rollout_resume(self, endpoint: str, *, call: Call = INTERNAL) -> Result:
        """Has a paused rollout go on; its step begins anew."""
        work = partial(self._rollouts.resume, endpoint, call)
        return await self._runner.run(call, ("rollout_resume", endpoint), work)

    async def rollout_approve(
        self, endpoint: str, role: str, *, digest: str | None = None, call: Call = INTERNAL
    ) -> Result:
        """Approves the next step that needs it, with the caller's ``role``; with ``digest`` exactly these bytes."""
        work = partial(self._rollouts.approve, endpoint, call, role, digest)
        return await self._runner.run(call, ("rollout_approve", endpoint), work)

    async def rollout_abort(self, endpoint: str, *, call: Call = INTERNAL) -> Result:
        """Emergency: everything as it was before the rollout; nothing is blocked."""
        work = partial(self._rollouts.abort, endpoint, call)
        return await self._runner.run(
            call, ("rollout_abort", endpoint), work, self.settings.durable_seconds / 4
        )

    async def put_plan(
        self,
        data: bytes,
        *,
        expected: tuple[str, str] | None = None,
        call: Call = INTERNAL,
        with_plans: frozenset[str] = frozenset(),
    ) -> PlanResult:
        """Stores the one document of ``data``: a rollout plan, or the defaults; of the ``expected`` kind and name, if any. A dry run
        takes it that plans of the names ``with_plans`` are stored first.
        """

        async def work() -> PlanResult:
            document = await self._stored_plans.parse(data, expected)
            return await self._stored_plans.put(document, call, with_plans=with_plans)

        return await self._runner.run(call, ("plan_put", None), work)

    async def delete_plan(self, name: str, *, call: Call = INTERNAL) -> PlanResult:
        """Removes a plan that nothing names."""
        work = partial(self._stored_plans.delete, "RolloutPlan", name, call)
        return await self._runner.run(call, ("plan_delete", None), work)

    async def delete_defaults(self, *, call: Call = INTERNAL) -> PlanResult:
        """Removes the defaults."""
        work = partial(self._stored_plans.delete, "Defaults", "", call)
        return await self._runner.run(call, ("plan_delete", None), work)

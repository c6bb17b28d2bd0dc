"""Traffic, emergency calls, history and removal as ``Control`` answers for them.

Not here: what a write means (``writes.decisions``), how it becomes durable (``writes.writer``, ``writes.emergency``). Next: ``service``.
"""

from __future__ import annotations

from collections.abc import Mapping

from headgate.control.domain.calls import INTERNAL, Call
from headgate.control.domain.copies import Switches
from headgate.control.domain.results import PinView, Result
from headgate.control.domain.traffic import Stamp, faults
from headgate.control.rollout_calls import RolloutCalls
from headgate.control.writes.decisions import Decisions, noted
from headgate.control.writes.emergency import Emergency
from headgate.control.writes.endpoint import EndpointState
from headgate.control.writes.maintenance import Maintenance
from headgate.control.writes.model_checks import ModelChecks
from headgate.control.writes.transition import Decide
from headgate.control.writes.unpin import unpin
from headgate.control.writes.writer import Writer
from headgate.documents import parse_weight
from headgate.errors import ModelNotFound
from headgate.leases import Lease


class TrafficCalls(RolloutCalls):
    """The part of ``Control`` that moves traffic of endpoints that are there, and takes them away."""

    _decisions: Decisions
    _emergencies: Emergency
    _maintenance: Maintenance
    _model_checks: ModelChecks
    _writer: Writer

    async def patch_traffic(
        self,
        endpoint: str,
        *,
        weights: Mapping[str, str] = {},
        champion: str | None = None,
        switches: Switches = Switches(),  # noqa: B008 - frozen
        call: Call = INTERNAL,
    ) -> Result:
        """Overrides weights (``{"v8": "5%"}``, the others keep theirs) and champion, and switches shadows and the capture."""

        async def work() -> Result:
            state, slots = self._endpoints.known(endpoint), _slots(weights)
            await self._model_checks.of_cold_versions(state)
            return await self._writer.write(state, call, self._decisions.patch(slots, champion, switches))

        return await self._runner.run(call, ("traffic", endpoint), work)

    async def rollback(self, endpoint: str, *, call: Call = INTERNAL) -> Result:
        """Emergency: 100 % on the last good champion; what had traffic beside it is blocked."""
        return await self._emergency(
            ("rollback", endpoint), call, self._decisions.rollback(self._stamp(call))
        )

    async def abort(self, endpoint: str, *, call: Call = INTERNAL) -> Result:
        """Emergency: every slot back to the champion."""
        return await self._emergency(("abort", endpoint), call, self._decisions.abort(self._stamp(call)))

    async def block(self, endpoint: str, subject: str, *, call: Call = INTERNAL) -> Result:
        """Emergency: no traffic for a version (by name or digest)."""
        return await self._emergency(
            ("block", endpoint), call, self._decisions.block(subject, self._stamp(call))
        )

    async def freeze(self, endpoint: str, *, call: Call = INTERNAL) -> Result:
        """Emergency: only emergency calls change the endpoint from now on."""
        return await self._emergency(("freeze", endpoint), call, self._decisions.freeze(self._stamp(call)))

    async def unblock(self, endpoint: str, subject: str, *, call: Call = INTERNAL) -> Result:
        """Lifts a block."""
        return await self._ordinary(("unblock", endpoint), call, self._decisions.unblock(subject))

    async def unfreeze(self, endpoint: str, *, call: Call = INTERNAL) -> Result:
        """Lifts a freeze."""
        return await self._ordinary(("unfreeze", endpoint), call, self._decisions.unfreeze())

    async def restore(self, endpoint: str, revision: int, *, call: Call = INTERNAL) -> Result:
        """Document and traffic of an old revision that was applied; an endpoint that was removed is back with it."""

        async def work() -> Result:
            state = self._endpoints.removed(endpoint) or self._endpoints.known(endpoint)
            with Lease() as lease:
                then = await self.served_once(endpoint, revision)
                plan = then.spec.rollout
                # A plan that is gone keeps no traffic from coming back; one that is there stays.
                with self._stored_plans.held(plan, endpoint):
                    await self._model_checks.of_revision(state, then, lease)
                    decide = noted(self._decisions.restore(then), self._stored_plans.notes_on(plan))
                    return await self._writer.write(state, call, decide)

        return await self._runner.run(call, ("restore", endpoint), work)

    async def delete(self, endpoint: str, *, force: bool = False, call: Call = INTERNAL) -> Result:
        """Takes an endpoint away; refused while it has traffic, unless forced. Its history stays. Ends a load on its way."""

        async def work() -> Result:
            await self._maintenance.sample()
            self._end_first_load(endpoint, call, force=force)
            state = self._endpoints.known(endpoint)
            await self._model_checks.of_cold_versions(state)
            decide = self._decisions.delete(
                lambda state: None if force else self._busy(state), self._stamp(call)
            )
            return await self._writer.write(state, call, decide)

        return await self._runner.run(call, ("remove", endpoint), work)

    def _end_first_load(self, endpoint: str, call: Call, *, force: bool) -> None:
        state = self._endpoints.get(endpoint)
        if state is None or call.dry_run or not (force or self._busy(state) is None):
            return
        if self._writer.cancel_older_loads(state) and state.current is None:
            raise ModelNotFound(
                f"{endpoint} was not served yet; the load of its first revision was cancelled"
            )

    async def unpin(self, endpoint: str, version: str, *, call: Call = INTERNAL) -> PinView:
        """Lets a version's name stand for other bytes; refused while the endpoint has the version."""
        state = self._endpoints.get(endpoint) or EndpointState(endpoint)
        return await unpin(self._context, self.registry, state, version, call)

    async def _ordinary(self, about: tuple[str, str], call: Call, decide: Decide) -> Result:
        async def work() -> Result:
            state = self._endpoints.known(about[1])
            await self._model_checks.of_cold_versions(state)
            return await self._writer.write(state, call, decide)

        return await self._runner.run(call, about, work)

    async def _emergency(self, about: tuple[str, str], call: Call, decide: Decide) -> Result:
        async def work() -> Result:
            return await self._emergencies.write(self._endpoints.known(about[1]), call, decide)

        return await self._runner.run(call, about, work, self.settings.durable_seconds / 4)

    def _stamp(self, call: Call) -> Stamp:
        return Stamp(call.principal, self._context.now(), call.reason)

    def _busy(self, state: EndpointState) -> str | None:
        if state.answered is None:
            return None
        quiet = (self._context.store.now() - state.answered).total_seconds()
        if quiet >= self.settings.quiet_seconds:
            return None
        return (
            f"{state.name} answered a request {int(quiet)} s ago: it is removed once it had none for "
            f"{self.settings.quiet_seconds} s, or with force=true"
        )


def _slots(weights: Mapping[str, str]) -> dict[str, int]:
    wrong: dict[str, str] = {}
    slots: dict[str, int] = {}
    for version, share in weights.items():
        try:
            slots[version] = parse_weight(share)
        except ValueError as error:
            wrong[f"weights.{version}"] = str(error)
    if wrong:
        raise faults(wrong)
    return slots

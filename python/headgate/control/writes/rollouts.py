"""Rollouts: looks at every endpoint that has one under way, and carries out what follows, as calls of people are carried out.

What an advance decides is written with the state that it leads to (``rollout_decisions``): before that nothing has happened, and after
it nothing is left to do. Here is what may be lost: what was counted in the present step, and the replay that it asked for.
Not here: what is decided (``domain.rollout``), what is seen (``observing``), what a start does (``interrupted``). Next: ``service``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

from headgate.background import Background
from headgate.control.domain.calls import Call
from headgate.control.domain.plan_text import need_words
from headgate.control.domain.results import Plan, Result
from headgate.control.domain.revision import Revision
from headgate.control.domain.rollout import calls, moves
from headgate.control.domain.rollout.actions import Advance, StartReplay
from headgate.control.domain.rollout.advance import advance
from headgate.control.domain.rollout.built_in import without_replay
from headgate.control.domain.rollout.missing import Missing, missing
from headgate.control.domain.rollout.observation import Observation
from headgate.control.domain.rollout.plan import ResolvedPlan
from headgate.control.domain.rollout.preview import preview_text, problems
from headgate.control.domain.rollout.state import Progress, RolloutState, Trialled
from headgate.control.domain.traffic import Stamp, faults
from headgate.control.writes.context import Context
from headgate.control.writes.data_plane import status_of
from headgate.control.writes.decisions import Decisions
from headgate.control.writes.emergency import Emergency
from headgate.control.writes.endpoint import Endpoints, EndpointState, present
from headgate.control.writes.observing import Figures, Observer
from headgate.control.writes.refused_moves import RefusedMoves
from headgate.control.writes.rollout_counts import RolloutCounts
from headgate.control.writes.rollout_decisions import (
    Move,
    RolloutChanged,
    RolloutMove,
    RolloutStart,
    is_urgent,
    rollout_of,
)
from headgate.control.writes.rollout_facts import check_supported, facts_of, outputs_of, plan_of
from headgate.control.writes.step_replays import StepReplays
from headgate.control.writes.stored_plans import StoredPlans
from headgate.control.writes.writer import Writer
from headgate.documents.rollout import BUILT_IN
from headgate.errors import Conflict, HeadgateError, from_code

LOOK_SECONDS = 2.0
"""How often each endpoint is looked at."""
_DRIVER = "headgate"


@dataclass(frozen=True)
class Writing:
    """Who carries a write out: in its turn, or at once."""

    ordinary: Writer
    urgent: Emergency
    decisions: Decisions


@dataclass(frozen=True)
class Look:
    """The newest look at a rollout, and what was missing then."""

    rollout: str
    progress: Progress
    observation: Observation
    at_ms: int


class Rollouts:
    """The rollouts of one gateway. Belongs to one event loop."""

    def __init__(
        self, context: Context, endpoints: Endpoints, writing: Writing, plans: StoredPlans, figures: Figures
    ) -> None:
        """``endpoints`` are all there are, now and later; ``figures`` knows the last minutes."""
        self._context = context
        self._endpoints = endpoints
        self._writing = writing
        self._plans = plans
        self._figures = figures
        self._observer = Observer(context, figures)
        self.replays: StepReplays | None = None
        self.counts = RolloutCounts()
        context.feed.listen(self.counts.saw)
        self._progress: dict[str, tuple[str, Progress]] = {}
        self._looks: dict[str, Look] = {}
        self._looking: dict[str, asyncio.Task[None]] = {}
        self._moving: dict[str, asyncio.Task[None]] = {}
        self._refused = RefusedMoves()

    # === what people ask ===

    async def start(
        self, endpoint: str, wanted: tuple[str, str | None], call: Call, *, retry: bool = False
    ) -> Result:
        """A rollout of a version by a plan (None: the document's, else the built-in one). Nothing moves before its first step.

        :class:`PolicyInvalid` with everything that keeps it from working; a dry run says what it would do in its plan's text.
        """
        version, named = wanted
        state = self._endpoints.known(endpoint)
        current, figures = present(state), await self._figures.of(endpoint)
        plane = self._context.plane
        plan = await asyncio.to_thread(lambda: plan_of(named, current, self._plans, figures, plane))
        no_replay = await self._no_replay(current, version, plan)
        if no_replay is not None and plan.name == BUILT_IN:
            plan, no_replay = without_replay(plan, no_replay), None
        before = await self._observer.before(current, version)
        outputs, uncounted, left_out = await self._outputs(current, plan)
        found_of = facts_of(current, plan, figures, plane)
        found_of = replace(found_of, outputs=outputs, uncounted=uncounted, left_out=left_out)
        facts = replace(found_of, no_replay=no_replay, busy=before.busy, load=before.load)
        check_supported(current, plan, version)
        found = await asyncio.to_thread(lambda: problems(plan, version, facts))
        refused = {problem.path: problem.words for problem in found if problem.refuses}
        if refused:
            raise faults(refused)
        decide = RolloutStart(
            self._writing.decisions, moves.Wanted(version, plan, retry), self._stamp(call, call.reason)
        )
        result = await self._writing.ordinary.write(state, call, decide)
        if not call.dry_run:
            self._keep(endpoint, decide.advanced)
            return result
        digest = current.spec.digests()[version]
        found_needs = result["plan"]["needs"].get(version)
        needs = "" if found_needs is None else need_words(version, found_needs, answers=True)
        text = await asyncio.to_thread(
            lambda: preview_text(plan, Trialled(name=version, digest=digest), facts, needs)
        )
        planned = result["plan"]
        told = {**planned, "text": f"{planned['text']}\n{text}", "preview": text.splitlines()}
        return {**result, "plan": cast(Plan, told)}

    async def _outputs(
        self, current: Revision, plan: ResolvedPlan
    ) -> tuple[frozenset[str] | None, frozenset[str], int]:
        """As :func:`outputs_of` the endpoint's baseline and the champion's outputs, if a gate is on some."""
        if not any(gate.family == "output_drift" for gate in plan.gates):
            return outputs_of(None)
        find, digest = self._context.paths.baselines.find, current.spec.baseline
        status = status_of(self._context.plane.status(current.endpoint), current.endpoint)
        champion = status.get("versions", {}).get(current.traffic.champion, {})
        return await self._context.io(lambda: outputs_of(find(digest), champion.get("signature")))

    async def _no_replay(self, current: Revision, version: str, plan: ResolvedPlan) -> str | None:
        """Why the steps of a plan that replay have nothing to work on although requests are captured; None: they have, or there are
        none.
        """
        replays = any(step.kind == "replay" for step in plan.steps)
        if self.replays is None or not replays or current.spec.capture is None:
            return None
        return await self.replays.refused(current, version)

    async def promote(self, endpoint: str, call: Call, *, full: bool) -> Result:
        """The next step, or with ``full`` the end, whatever is undecided."""
        state = self._endpoints.known(endpoint)
        rollout = rollout_of(present(state))
        seen = await self._observed(state) if rollout.active else Observation()

        def move(progress: Progress, stamp: Stamp, now: RolloutState) -> Advance:
            if (now.id, now.step) != (rollout.id, rollout.step):
                raise Conflict(f"rollout {now.id} of {endpoint} is in another step now: look again")
            return calls.promote(now, progress, seen, stamp, full=full)

        return await self._asked(state, call, move)

    async def pause(self, endpoint: str, call: Call) -> Result:
        """Holds the rollout where it is."""
        return await self._asked(
            self._endpoints.known(endpoint),
            call,
            lambda progress, stamp, now: calls.pause(now, progress, stamp),
        )

    async def resume(self, endpoint: str, call: Call) -> Result:
        """Goes on; the step begins anew."""
        return await self._asked(
            self._endpoints.known(endpoint),
            call,
            lambda progress, stamp, now: calls.resume(now, progress, stamp),
        )

    async def approve(self, endpoint: str, call: Call, role: str, digest: str | None) -> Result:
        """A yes to the next step that needs one; for the challenger on trial, or for exactly ``digest``."""

        def move(progress: Progress, stamp: Stamp, now: RolloutState) -> Advance:
            return calls.approve(now, progress, stamp, role, digest or now.challenger.digest)

        return await self._asked(self._endpoints.known(endpoint), call, move)

    async def abort(self, endpoint: str, call: Call) -> Result:
        """Emergency: everything as it was before the rollout."""
        state = self._endpoints.known(endpoint)
        stamp = self._stamp(call, call.reason)

        def move(now: RolloutState) -> Advance:
            return calls.abort(now, self._known(endpoint, now), stamp, endpoint)

        decide = RolloutMove(self._writing.decisions, move, stamp)
        return await self._writing.urgent.write(state, call, decide)

    async def _asked(
        self,
        state: EndpointState,
        call: Call,
        move: Callable[[Progress, Stamp, RolloutState], Advance],
    ) -> Result:
        stamp = self._stamp(call, call.reason)
        decide = RolloutMove(
            self._writing.decisions, lambda now: move(self._known(state.name, now), stamp, now), stamp
        )
        result = await self._writing.ordinary.write(state, call, decide)
        if not call.dry_run:
            self._keep(state.name, decide.advanced)
            await self._begin_replay(state, decide.advanced)
        return result

    # === what the evidence says ===

    def begin(self, background: Background) -> None:
        """Begins the loop."""
        background.run("advance_rollouts", self.turn, LOOK_SECONDS)

    async def close(self) -> None:
        """Looks no more. A write that has begun goes on to its end, as every write does."""
        tasks = [*self._looking.values(), *self._moving.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def turn(self) -> None:
        """Looks at every endpoint with a rollout under way, each by itself. One that takes long is left behind, and keeps no other one
        from being looked at. Raises what failed, once all were looked at.
        """
        # What was carried out since the last turn keeps no look of this one from going on.
        failed = _over(self._moving)
        self._observer.sample()
        under_way = {state.name: state for state in self._endpoints.values() if _is_under_way(state)}
        self._observer.forget({*under_way})
        self.counts.keep({state.name for state in self._endpoints.values() if state.current is not None})
        self._refused.keep(under_way)
        if self.replays is not None:
            rollouts = {name: rollout_of(present(state)) for name, state in under_way.items()}
            try:
                await self.replays.end_others(rollouts)
            except HeadgateError as error:
                failed["a replay"] = error
        for name, state in under_way.items():
            if name not in self._looking:
                self._looking[name] = asyncio.create_task(self._look(state))
        if self._looking:
            await asyncio.wait(self._looking.values(), timeout=LOOK_SECONDS)
        _raise({**failed, **_over(self._looking), **_over(self._moving)})

    async def _look(self, state: EndpointState) -> None:
        current = present(state)
        rollout = rollout_of(current)
        seen = await self._observed(state)
        now_ms = self._now_ms()
        progress = self._known(state.name, rollout)
        advanced = advance(rollout, progress, seen, now_ms)
        changes = advanced.state != rollout or advanced.move is not None
        if changes and self._refused.waits(state.name, rollout, advanced, now_ms):
            return
        if not changes:
            self._keep(state.name, advanced)
            await self._begin_replay(state, advanced)
        elif is_urgent(advanced):
            await self._carry_out(state, rollout, advanced)
        elif seen.frozen:
            # A freeze holds, and whoever lifts it finds the rollout as it was.
            self._progress[state.name] = (rollout.id, progress)
        elif state.name not in self._moving:
            # Not waited for: it may wait for a load, and harm is looked for meanwhile.
            self._moving[state.name] = asyncio.create_task(self._carry_out(state, rollout, advanced))

    async def _carry_out(self, state: EndpointState, rollout: RolloutState, advanced: Advance) -> None:
        said = advanced.said or ""
        call = Call(_DRIVER, reason=said)
        move: Move = lambda _: advanced  # noqa: E731
        decide = RolloutMove(self._writing.decisions, move, self._stamp(call, said), expected=rollout)
        write = self._writing.urgent.write if is_urgent(advanced) else self._writing.ordinary.write
        tail = state.tail
        try:
            await asyncio.shield(asyncio.ensure_future(write(state, call, decide)))
        except RolloutChanged:
            # A person came first, which is no fault: the next look sees what they left.
            return
        except HeadgateError as error:
            refused = (rollout, advanced)
            self._refused.note(state.name, refused, error, self._now_ms(), is_left=state.tail > tail)
            raise
        self._refused.carried_out(state.name)
        self._keep(state.name, advanced)
        await self._begin_replay(state, advanced)

    async def _observed(self, state: EndpointState) -> Observation:
        current = present(state)
        rollout = rollout_of(current)
        replay = None if self.replays is None else await self.replays.seen(state.name, rollout)
        seen = await self._observer.look(state, current, replay)
        seen = seen.model_copy(update={"refused": self._refused.lasting(state.name, rollout)})
        self._looks[state.name] = Look(rollout.id, self._known(state.name, rollout), seen, self._now_ms())
        return seen

    async def _begin_replay(self, state: EndpointState, advanced: Advance | None) -> None:
        actions = () if advanced is None else advanced.actions
        for action in actions:
            if isinstance(action, StartReplay) and self.replays is not None:
                await self.replays.begin(present(state), action)

    # === what is known ===

    def look_of(self, endpoint: str, rollout: RolloutState) -> Look | None:
        """The newest look at that rollout; None before the first."""
        look = self._looks.get(endpoint)
        if look is None or look.rollout != rollout.id:
            return None
        return Look(rollout.id, self._known(endpoint, rollout), look.observation, look.at_ms)

    def missing(self, endpoint: str, rollout: RolloutState) -> tuple[Missing, ...]:
        """What the present step waits for, as of the newest look."""
        look = self.look_of(endpoint, rollout)
        if look is None or not rollout.active:
            return ()
        found = missing(rollout, look.progress, look.observation, look.at_ms)
        return (*found, *self._not_carried_out(endpoint, rollout))

    def _not_carried_out(self, endpoint: str, rollout: RolloutState) -> tuple[Missing, ...]:
        """What a move was refused for: it is tried again with every look, and without this nobody would see why nothing happens."""
        why = self._refused.why(endpoint, rollout)
        return () if why is None else (Missing(f"its next move, which is refused: {why}"),)

    def _known(self, endpoint: str, rollout: RolloutState) -> Progress:
        known = self._progress.get(endpoint)
        return known[1] if known is not None and known[0] == rollout.id else Progress()

    def _keep(self, endpoint: str, advanced: Advance | None) -> None:
        if advanced is not None:
            self._progress[endpoint] = (advanced.state.id, advanced.progress)

    def _stamp(self, call: Call, reason: str) -> Stamp:
        return Stamp(call.principal, self._context.now(), reason)

    def _now_ms(self) -> int:
        return round(self._context.store.now().timestamp() * 1000)


def _is_under_way(state: EndpointState) -> bool:
    current = state.current
    if current is None or not state.loaded:
        return False
    return current.traffic.rollout is not None and current.traffic.rollout.active


def _over(tasks: dict[str, asyncio.Task[None]]) -> dict[str, BaseException]:
    """Takes out the tasks that are over; what those raised that failed."""
    failed: dict[str, BaseException] = {}
    for name, task in list(tasks.items()):
        if task.done():
            del tasks[name]
            error = None if task.cancelled() else task.exception()
            if error is not None:
                failed[name] = error
    return failed


def _raise(failed: dict[str, BaseException]) -> None:
    if not failed:
        return
    defects = [error for error in failed.values() if not isinstance(error, HeadgateError)]
    if defects:
        raise defects[0]
    errors = {name: error for name, error in failed.items() if isinstance(error, HeadgateError)}
    first = next(iter(errors.values()))
    raise from_code(first.code, "; ".join(f"{name}: {error.message}" for name, error in errors.items()))

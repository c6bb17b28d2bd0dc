"""Rollout plans and defaults: written, read, and used. They are few and small, so that all of them are in memory.

Not here: their fields (``documents``), rows (``store.plans``), the plan that needs no document (``rollout_facts``). Next: ``rollouts``.
"""

from __future__ import annotations

import difflib
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

from headgate.control.domain.calls import Call
from headgate.control.domain.results import PlanDocumentView, PlanResult
from headgate.control.domain.traffic import faults
from headgate.control.writes.audit import audit_record
from headgate.control.writes.context import Context
from headgate.control.writes.endpoint import Endpoints, present
from headgate.control.writes.idempotency import remembered
from headgate.documents import (
    Defaults,
    Document,
    Fault,
    Kinds,
    OtherDocument,
    RolloutPlan,
    parse_each,
    policy_invalid,
)
from headgate.documents.faults import quoted
from headgate.documents.rollout import BUILT_IN
from headgate.errors import Conflict, HeadgateError, NotFound
from headgate.store import AppliedDocument, PlanRecord, seconds

_log = logging.getLogger(__name__)
MOST = 1_000
"""Plans that are stored at most."""
_DEFAULTS = ("Defaults", "")


class StoredPlans:
    """The documents of kinds ``RolloutPlan`` and ``Defaults``. Belongs to one event loop."""

    def __init__(self, context: Context, endpoints: Endpoints) -> None:
        """``endpoints`` are all there are, now and later."""
        self._context = context
        self._endpoints = endpoints
        self._known: dict[tuple[str, str], tuple[PlanRecord, RolloutPlan | Defaults]] = {}
        self._held: dict[str, Counter[str]] = {}
        """By plan: what is about to name it, with the number of such writes."""
        self._leaving: Counter[tuple[str, str]] = Counter()
        """Documents whose removal is being written."""

    async def restore(self) -> None:
        """Reads all of them. One that cannot be read is left out, with an alarm."""
        for record in await self._context.io(self._context.store.plans.all):
            try:
                content = await self._context.parsing(lambda record=record: _parsed(record.text))  # type: ignore[misc]
            except HeadgateError as error:
                await self._context.alarm(
                    None, None, f"{record.kind} {record.name} cannot be read: {error.message}"
                )
                continue
            self._known[record.kind, record.name] = (record, content.content)

    # === reads ===

    def names(self) -> list[str]:
        """The plans by name, the built-in one first."""
        return [BUILT_IN, *sorted(name for kind, name in self._known if kind == "RolloutPlan")]

    def find(self, name: str) -> RolloutPlan:
        """A plan; :class:`NotFound` says which there are."""
        found = self._known.get(("RolloutPlan", name))
        if found is None:
            raise self._unknown("RolloutPlan", name)
        return cast(RolloutPlan, found[1])

    @property
    def defaults(self) -> Defaults | None:
        """The defaults in force."""
        found = self._known.get(_DEFAULTS)
        return None if found is None else cast(Defaults, found[1])

    def filled(self, document: Document) -> Document:
        """A document with the defaults where it says nothing."""
        defaults = self.defaults
        return (
            document if defaults is None else replace(document, endpoint=defaults.filled(document.endpoint))
        )

    def view(self, kind: str, name: str) -> PlanDocumentView:
        """One document; :class:`NotFound`."""
        found = self._known.get((kind, name))
        if found is None:
            raise self._unknown(kind, name)
        return _view(found[0], found[1])

    def views(self) -> list[PlanDocumentView]:
        """Every plan by name, without the built-in one, which depends on the endpoint's traffic."""
        return [_view(*self._known[key]) for key in sorted(self._known) if key[0] == "RolloutPlan"]

    # === writes ===

    async def parse(self, data: bytes, expected: tuple[str, str] | None = None) -> OtherDocument:
        """The one document of ``data``; :class:`PolicyInvalid` lists every fault, and that it is not of the ``expected`` kind and name."""
        document = await self._context.parsing(lambda: _parsed(data))
        if expected is not None and (document.kind, document.name) != expected:
            where = "kind" if document.kind != expected[0] else "name"
            said = f"the document is {_title(document.kind, document.name)}, the address says {_title(*expected)}"
            raise faults({where: said})
        return document

    async def put(
        self,
        document: OtherDocument,
        call: Call,
        applied: AppliedDocument | None = None,
        with_plans: frozenset[str] = frozenset(),
    ) -> PlanResult:
        """Stores a document in the place of the one before. A rollout that is under way keeps the plan that it began with.

        ``applied`` remembers the file that it comes from. A dry run takes it that plans of the names ``with_plans`` are stored
        beside it: they may be named, and take their room.
        """
        content = document.content
        named = content.rollout if isinstance(content, Defaults) else None
        with self.using(named, _title(document.kind, document.name), call, with_plans):
            return await self._put(document, call, applied, with_plans)

    def _check_room(self, name: str, with_plans: frozenset[str]) -> None:
        """:class:`Conflict` if a new document has no room, or not all that come with it."""
        beside = [one for one in with_plans if one != name and ("RolloutPlan", one) not in self._known]
        if len(self._known) + len(beside) < MOST:
            return
        if not beside:
            raise Conflict(f"there are {MOST} plans already: delete one that is not used")
        raise Conflict(
            f"there are {len(self._known)} plans, and there is no room for {len(beside) + 1} more: {MOST} are stored at most. "
            "Delete plans that are not used"
        )

    async def _put(
        self,
        document: OtherDocument,
        call: Call,
        applied: AppliedDocument | None,
        with_plans: frozenset[str],
    ) -> PlanResult:
        key = (document.kind, document.name)
        known = self._known.get(key)
        before = None if known is None else known[0]
        number = None if before is None else before.n
        call.precondition.check(_title(*key), number)
        if before is None:
            self._check_room(document.name, with_plans if call.dry_run else frozenset())
        now = self._context.now()
        record = PlanRecord(*key, (number or 0) + 1, document.digest, call.principal, now, document.raw)
        if before is not None and before.digest == document.digest:
            if applied is not None and not call.dry_run:
                await self._context.write(lambda: self._context.store.add_applied(applied))
            return self._result(
                (before, document.content), before, "planned" if call.dry_run else "unchanged"
            )
        result = self._result((record, document.content), before, "planned" if call.dry_run else "applied")
        if call.dry_run:
            return result
        detail = {"kind": document.kind, "name": document.name, "n": record.n, "digest": document.digest}
        audit = audit_record(call, now, "plan_put", (None, None), ("applied", detail))
        answer = remembered(self._context, call, result)
        await self._context.write(lambda: self._context.store.plans.put(record, audit, answer, applied))
        self._known[key] = (record, document.content)
        return result

    async def delete(self, kind: str, name: str, call: Call) -> PlanResult:
        """Removes a document; :class:`Conflict` while an endpoint or the defaults name it."""
        title = _title(kind, name)
        found = self._known.get((kind, name))
        if found is None:
            raise self._unknown(kind, name)
        call.precondition.check(title, found[0].n)
        users = self._users(kind, name)
        if users:
            raise Conflict(f"{title} is used by {_few(users)}: change rollout: there first")
        coming = sorted(self._held.get(name, ())) if kind == "RolloutPlan" else []
        if coming:
            raise Conflict(
                f"{title} is named by {_few(coming)}, which is being applied: try again after that"
            )
        result = self._result(found, found[0], "planned" if call.dry_run else "applied", removes=True)
        if not call.dry_run:
            await self._delete(found[0], call, result)
        return result

    async def _delete(self, record: PlanRecord, call: Call, result: PlanResult) -> None:
        key = (record.kind, record.name)
        detail = {"kind": record.kind, "name": record.name, "n": record.n}
        audit = audit_record(call, self._context.now(), "plan_delete", (None, None), ("applied", detail))
        answer = remembered(self._context, call, result)
        self._leaving[key] += 1
        try:
            await self._context.write(lambda: self._context.store.plans.delete(*key, record.n, audit, answer))
            self._known.pop(key, None)
        finally:
            self._leaving[key] -= 1
            if not self._leaving[key]:
                del self._leaving[key]

    def _result(
        self,
        stored: tuple[PlanRecord, RolloutPlan | Defaults],
        before: PlanRecord | None,
        status: Literal["applied", "unchanged", "planned"],
        *,
        removes: bool = False,
    ) -> PlanResult:
        record, content = stored
        changes = removes or before is None or before.digest != record.digest
        users = self._users(record.kind, record.name)
        told = {
            **_view(record, content),
            "status": status,
            "changes": changes,
            "message": _message(record, before, users, removes=removes),
            "diff": _diff(before, None if removes else record) if changes else "",
            "used_by": users,
        }
        return cast(PlanResult, told)

    def _users(self, kind: str, name: str) -> list[str]:
        """The endpoints that name a plan, and the defaults if they do."""
        if kind != "RolloutPlan":
            return []
        states = [state for state in self._endpoints.values() if state.current is not None]
        found = sorted(state.name for state in states if present(state).spec.rollout == name)
        named = self.defaults is not None and self.defaults.rollout == name
        return [*found, "the defaults"] if named else found

    def _unknown(self, kind: str, name: str) -> NotFound:
        if kind == "Defaults":
            return NotFound(
                "there are no defaults: apply a document of kind Defaults (headgate apply -f FILE)"
            )
        if name == BUILT_IN:
            return NotFound(
                "default is the built-in plan, which is made for the traffic of each endpoint: a dry run shows it "
                "(headgate rollout start ENDPOINT VERSION --plan default --dry-run)"
            )
        return NotFound(f"no plan is named {quoted(name)}; there are {', '.join(self.names())}")

    def _check_plan(self, name: str | None) -> None:
        """:class:`PolicyInvalid` for a ``rollout:`` that names no plan, :class:`Conflict` for a plan whose removal is being written."""
        if not self._is_there(name):
            words = self._unknown("RolloutPlan", name or "").message
            raise faults({"rollout": f"{words}: apply the plan first"})
        if name is not None and self._leaving["RolloutPlan", name]:
            raise Conflict(f"plan {name} is being removed: name another one, or store it again after that")

    def notes_on(self, name: str | None) -> tuple[str, ...]:
        """What a reader should know of a ``rollout:`` that comes back with an old revision."""
        if self._is_there(name):
            return ()
        return (f"no plan is named {name} any more: store it, or name another one, before a rollout starts",)

    @contextmanager
    def using(self, name: str | None, who: str, call: Call, with_plans: frozenset[str]) -> Iterator[None]:
        """Checks that the plan is there, then :meth:`held`. A dry run takes it that plans of the names ``with_plans`` are stored, and holds
        nothing.
        """
        if not (call.dry_run and name in with_plans):
            self._check_plan(name)
        with nullcontext() if call.dry_run else self.held(name, who):
            yield

    @contextmanager
    def held(self, name: str | None, who: str) -> Iterator[None]:
        """Keeps a plan from being removed while ``who`` is on the way to naming it. Until then it is not among its users."""
        if name is None or name == BUILT_IN:
            yield
            return
        holders = self._held.setdefault(name, Counter())
        holders[who] += 1
        try:
            yield
        finally:
            holders[who] -= 1
            if not holders[who]:
                del holders[who]
            if not holders:
                del self._held[name]

    def _is_there(self, name: str | None) -> bool:
        return name is None or name == BUILT_IN or ("RolloutPlan", name) in self._known


def _title(kind: str, name: str) -> str:
    """``plan careful``, or ``the defaults``."""
    return "the defaults" if kind == "Defaults" else f"plan {name}"


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(names[:10]) + more


def _message(record: PlanRecord, before: PlanRecord | None, users: Sequence[str], *, removes: bool) -> str:
    title = _title(record.kind, record.name)
    verb = "are" if record.kind == "Defaults" else "is"
    if removes:
        return f"{title} {verb} removed"
    if before is not None and before.digest == record.digest:
        return f"{title} {verb} as stored already"
    said = f"{title} {verb} new" if before is None else f"{title} {'change' if verb == 'are' else 'changes'}"
    if record.kind == "Defaults":
        return f"{said}: they fill what a document leaves out when it is applied next"
    return f"{said}; rollouts under way keep the plan that they began with" + (
        f"; used by {_few(users)}" if users else ""
    )


def _diff(before: PlanRecord | None, after: PlanRecord | None) -> str:
    texts = ["" if one is None else one.text.decode(errors="replace") for one in (before, after)]
    old, new = (
        "nothing" if one is None else f"{_title(one.kind, one.name)} {one.n}" for one in (before, after)
    )
    lines = difflib.unified_diff(texts[0].splitlines(), texts[1].splitlines(), old, new, lineterm="")
    return "\n".join(lines)


def _parsed(data: bytes) -> OtherDocument:
    parsed = parse_each(data, source="the document", root=Path("/nonexistent"), kinds=Kinds.ALL)
    if parsed.refused is not None:
        raise parsed.refused
    if parsed.documents or len(parsed.others) != 1:
        fault = Fault("kind", None, "one document of kind RolloutPlan or Defaults is expected here")
        raise policy_invalid("the document", [fault])
    return parsed.others[0]


def _view(record: PlanRecord, content: RolloutPlan | Defaults) -> PlanDocumentView:
    written: dict[str, Any] = content.model_dump(
        mode="json", exclude_none=True, exclude_defaults=True, by_alias=True
    )
    return PlanDocumentView(
        kind=cast(Any, record.kind),
        name=record.name,
        n=record.n,
        digest=record.digest,
        who=record.who,
        written=seconds(record.written),
        document={"apiVersion": "headgate/v1", "kind": record.kind, **written},
    )

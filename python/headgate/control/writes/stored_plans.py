"""Rollout plans and defaults: written, read, and used. They are few and small, so that all of them are in memory.

Not here: their fields (``documents``), rows (``store.plans``), the plan that needs no document (``rollout_facts``). Next: ``rollouts``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from headgate.control.domain.calls import Call
from headgate.control.domain.results import PlanDocumentView
from headgate.control.domain.traffic import faults
from headgate.control.writes.audit import audit_record
from headgate.control.writes.context import Context
from headgate.control.writes.endpoint import Endpoints
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
from headgate.documents.rollout import BUILT_IN
from headgate.errors import Conflict, HeadgateError, NotFound
from headgate.store import PlanRecord

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
            raise NotFound(f"no plan is named {name!r}; there are {', '.join(self.names())}")
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
            raise NotFound(f"there is no {kind} {name}".rstrip())
        return _view(found[0], found[1])

    def views(self) -> list[PlanDocumentView]:
        """Every plan by name, without the built-in one, which depends on the endpoint's traffic."""
        return [_view(*self._known[key]) for key in sorted(self._known) if key[0] == "RolloutPlan"]

    # === writes ===

    async def parse(self, data: bytes) -> OtherDocument:
        """The one document of ``data``; :class:`PolicyInvalid` lists every fault."""
        return await self._context.parsing(lambda: _parsed(data))

    async def put(self, document: OtherDocument, call: Call) -> PlanDocumentView:
        """Stores a document in the place of the one before. A rollout that is under way keeps the plan that it began with."""
        key = (document.kind, document.name)
        before = self._known.get(key)
        number = None if before is None else before[0].n
        call.precondition.check(f"{document.kind} {document.name}".rstrip(), number)
        self._check_names(document)
        if before is None and len(self._known) >= MOST:
            raise Conflict(f"there are {MOST} plans already: delete one that is not used")
        now = self._context.now()
        record = PlanRecord(*key, (number or 0) + 1, document.digest, call.principal, now, document.raw)
        if call.dry_run or (before is not None and before[0].digest == document.digest):
            return _view(record if before is None else before[0], document.content)
        detail = {"kind": document.kind, "name": document.name, "n": record.n, "digest": document.digest}
        audit = audit_record(call, now, "plan_put", (None, None), ("applied", detail))
        await self._context.write(lambda: self._context.store.plans.put(record, audit))
        self._known[key] = (record, document.content)
        return _view(record, document.content)

    async def delete(self, kind: str, name: str, call: Call) -> PlanDocumentView:
        """Removes a document; :class:`Conflict` while an endpoint or the defaults name it."""
        view = self.view(kind, name)
        call.precondition.check(f"{kind} {name}".rstrip(), view["n"])
        users = list(self._users(name)) if kind == "RolloutPlan" else []
        if users:
            raise Conflict(f"plan {name} is used by {', '.join(users[:10])}: write rollout: anew there first")
        if not call.dry_run:
            detail = {"kind": kind, "name": name, "n": view["n"]}
            audit = audit_record(call, self._context.now(), "plan_delete", (None, None), ("applied", detail))
            await self._context.write(lambda: self._context.store.plans.delete(kind, name, audit))
            self._known.pop((kind, name), None)
        return view

    def _users(self, name: str) -> Iterator[str]:
        for state in self._endpoints.values():
            if state.current is not None and state.current.spec.rollout == name:
                yield state.name
        if self.defaults is not None and self.defaults.rollout == name:
            yield "the defaults"

    def _check_names(self, document: OtherDocument) -> None:
        content = document.content
        if isinstance(content, Defaults):
            self.check_plan(content.rollout)

    def check_plan(self, name: str | None) -> None:
        """:class:`PolicyInvalid` for a ``rollout:`` that names no plan."""
        if name is not None and name != BUILT_IN and ("RolloutPlan", name) not in self._known:
            raise faults(
                {
                    "rollout": f"no plan is named {name!r}; there are {', '.join(self.names())}: apply the plan first"
                }
            )


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
        written=record.written,
        document={"apiVersion": "headgate/v1", "kind": record.kind, **written},
    )

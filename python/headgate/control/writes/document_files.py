"""Documents that lie in files: each one is applied once for each content of it, the endpoints of a file side by side.

Not here: what a document changes (``decisions``), reading one that an API call sends (``sources``). Next: ``service``.

Endpoints are independent, so that one whose load hangs keeps no other from being served. Documents of the same endpoint, in whatever
file, are applied in the order in which their files were handed over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from headgate.control.domain.calls import Call
from headgate.control.domain.results import PlanResult, Result
from headgate.control.domain.revision import sha256
from headgate.control.writes import sources
from headgate.control.writes.context import Context
from headgate.documents import Document, Files, Kinds, OtherDocument, Parsed, parse_each
from headgate.errors import HeadgateError, PolicyInvalid, StorageFailed
from headgate.store import AppliedDocument


class Apply(Protocol):
    """:meth:`Control.apply`."""

    async def __call__(
        self, document: Document, *, call: Call = ..., source_digest: str | None = ...
    ) -> Result:
        """The result, when the document is served."""


@dataclass(frozen=True)
class DocumentFile:
    """A file with the documents of it that were never applied from it."""

    path: Path
    digest: str
    documents: Sequence[Document]
    others: Sequence[OtherDocument] = ()
    """Plans and the defaults, in the order in which they are stored: before any endpoint."""
    refused: PolicyInvalid | None = None
    """The faults of its documents that cannot be applied; they keep the others from nothing."""
    refused_names: tuple[str, ...] = ()
    """The endpoints that these describe, as far as they have a name."""


class Put(Protocol):
    """:meth:`StoredPlans.put`."""

    async def __call__(
        self, document: OtherDocument, call: Call, applied: AppliedDocument | None = None
    ) -> PlanResult:
        """The answer, when it is on disk."""


class DocumentFiles:
    """Applies files; belongs to one event loop."""

    def __init__(self, context: Context, apply: Apply, put: Put) -> None:
        """``apply`` carries the document of an endpoint out, ``put`` stores another one."""
        self._context = context
        self._apply = apply
        self._put = put
        self._newest: dict[str, asyncio.Task[Result]] = {}

    async def read(self, path: Path, root: Path) -> DocumentFile | None:
        """The documents of a file, whose ``file:`` are relative to ``root``; ``None`` when all were applied from it before.

        Raises ``PolicyInvalid`` for what is no YAML.

        Whoever applied them: a document that was applied by hand is not applied again at a start, nor is one whose traffic was
        moved on since.
        """
        data = await self._context.io(lambda: sources.read_file(path))
        applied = await self._context.io(lambda: self._context.store.applied_from(str(path)))
        new = await self._context.parsing(lambda: _not_applied(data, path, root, applied))
        if new.refused is None and not new.documents and not new.others:
            return None
        damaged = await self._context.io(self._context.store.damaged_applied)
        unsure = {
            one.name
            for one in new.documents
            for row in damaged
            if str(path) == row.path or one.name == row.endpoint
        }
        if unsure:
            raise StorageFailed(
                f"{path}: whether {', '.join(sorted(unsure))} was applied from it is not known, because rows of the state are damaged: "
                f"`headgate apply {path}` applies it and writes them anew"
            )
        return DocumentFile(path, sha256(data), new.documents, new.others, new.refused, new.refused_names)

    async def put_others(self, file: DocumentFile, call: Call) -> list[PlanResult]:
        """Stores the plans and defaults of a file; raises what the first of those that fail failed with, when all were tried."""
        stored: list[PlanResult] = []
        failed: HeadgateError | None = None
        for one in file.others:
            applied = AppliedDocument(str(file.path), _applied_name(one), one.digest)
            try:
                stored.append(await self._put(one, call, applied))
            except HeadgateError as error:
                failed = failed or error
        if failed is not None:
            raise failed
        return stored

    async def apply(self, file: DocumentFile, call: Call) -> list[Result]:
        """Applies the documents of all endpoints of a file; raises what the first of those that fail failed with, or are refused for,
        when all are over.
        """
        tasks = [self._begin(document, file.digest, call) for document in file.documents]
        try:
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        except asyncio.CancelledError:
            # A write that has begun goes on to its end; one that waits for another file is left out.
            await asyncio.gather(*tasks, return_exceptions=True)
            raise
        results = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        if file.refused is not None:
            raise file.refused
        return results

    def _begin(self, document: Document, digest: str, call: Call) -> asyncio.Task[Result]:
        name = document.endpoint.name
        before = self._newest.get(name)

        async def work() -> Result:
            if before is not None:
                await asyncio.wait({before})
            return await self._apply(document, call=call, source_digest=digest)

        def forget(over: asyncio.Task[Result]) -> None:
            if self._newest.get(name) is over:
                del self._newest[name]

        task = self._newest[name] = asyncio.create_task(work())
        task.add_done_callback(forget)
        return task


def _not_applied(data: bytes, path: Path, root: Path, applied: Collection[tuple[str, str]]) -> Parsed:
    def new(follow: Files) -> Parsed:
        parsed = parse_each(data, source=str(path), root=root, follow=follow, kinds=Kinds.ALL)
        documents = [one for one in parsed.documents if (one.name, one.digest) not in applied]
        others = [one for one in parsed.others if (_applied_name(one), one.digest) not in applied]
        others.sort(key=lambda one: one.kind != "RolloutPlan")
        return Parsed(documents, parsed.refused, parsed.refused_names, tuple(others))

    if applied:
        # Files that were moved away since keep nothing from being served that is stored. Faults are told below, all of them.
        with suppress(PolicyInvalid):
            unread = new(Files.IGNORED)
            if not unread.documents and not unread.others and unread.refused is None:
                return unread
    return new(Files.FOLLOWED)


def _applied_name(document: OtherDocument) -> str:
    """What stands in the place of an endpoint's name, which has no slash."""
    return f"{document.kind}/{document.name}"

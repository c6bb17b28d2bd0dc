"""Documents that lie in files: each file is applied once for each content of it, its endpoints side by side.

Not here: what a document changes (``changes``), reading one that an API call sends (``sources``). Next: ``service``.

Endpoints are independent, so that one whose load hangs keeps no other from being served. Documents of the same endpoint, in whatever
file, are applied in the order in which their files were handed over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from headgate.control.domain.calls import Call
from headgate.control.domain.results import Result
from headgate.control.domain.revision import sha256
from headgate.control.writes import sources
from headgate.control.writes.context import Workshop
from headgate.documents import Document, parse


class Apply(Protocol):
    """:meth:`Control.apply`."""

    async def __call__(
        self, document: Document, *, call: Call = ..., source_digest: str | None = ...
    ) -> Result:
        """The result, when the document is served."""


@dataclass(frozen=True)
class DocumentFile:
    """A file whose content has not been applied yet."""

    path: Path
    digest: str
    documents: Sequence[Document]


class DocumentFiles:
    """Applies files; belongs to one event loop."""

    def __init__(self, workshop: Workshop, apply: Apply) -> None:
        """``apply`` carries one document out."""
        self._shop = workshop
        self._apply = apply
        self._newest: dict[str, asyncio.Task[Result]] = {}

    async def read(self, path: Path, root: Path) -> DocumentFile | None:
        """The documents of a file, whose ``file:`` are relative to ``root``; ``None`` when these bytes were applied last from it."""
        data = await self._shop.io(lambda: sources.read_file(path))
        digest = sha256(data)
        if await self._shop.io(lambda: self._shop.store.applied_file(str(path))) == digest:
            return None
        documents = await self._shop.io(lambda: parse(data, source=str(path), root=root))
        return DocumentFile(path, digest, documents)

    async def apply(self, file: DocumentFile, call: Call) -> list[Result]:
        """Applies all documents of a file; raises what the first of those that fail failed with, when all are over."""
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
        if not call.dry_run:
            await self._shop.io(lambda: self._shop.store.put_applied_file(str(file.path), file.digest))
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

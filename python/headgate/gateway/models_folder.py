"""Serves a ``--models`` folder: ``NAME/VERSION/model.onnx`` becomes endpoints, and later folders become
versions.

At first sight the highest number is champion. A folder that appears later is loaded without traffic, and the
command that gives it traffic is said. Nothing here ever moves or removes traffic: a folder that disappears,
or comes back with other bytes, changes nothing that is served. Endpoints that a person described in a
document are left alone. Scanning, hashing, pins and the list of refusals are headgate/registry's. Next:
headgate/registry/sync.py.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headgate.control import Control
from headgate.documents import Document, from_models_tree, highest
from headgate.errors import Conflict, HeadgateError, ModelLoadFailed, NotFound, PolicyInvalid
from headgate.registry import Found, Survey, SyncResult, TreeSync, survey

_log = logging.getLogger(__name__)
_Key = tuple[str, str]


class ModelsFolder:
    """Keeps endpoints up to date with one folder; belongs to one event loop."""

    def __init__(self, root: Path, control: Control) -> None:
        self._root = root
        self._control = control
        self._tree = TreeSync(control.registry)
        self._usable: dict[_Key, Path] = {}
        self._pending: set[str] = set()
        self._said: set[str] = set()
        self._updates: dict[str, asyncio.Task[None]] = {}

    async def watch(self, interval_seconds: float) -> None:
        """Passes for ever, ``interval_seconds`` between them; ends when cancelled."""
        while True:
            await asyncio.sleep(interval_seconds)
            await self._pass(interval_seconds)

    def loading(self) -> dict[str, asyncio.Task[None]]:
        """The endpoints that are being loaded."""
        return {name: update for name, update in self._updates.items() if not update.done()}

    async def close(self) -> None:
        """Leaves what is being loaded; idempotent."""
        for update in self._updates.values():
            update.cancel()
        await asyncio.gather(*self._updates.values(), return_exceptions=True)
        self._updates.clear()

    async def _pass(self, patience_seconds: float) -> None:
        try:
            await self.sync(time.time(), patience_seconds=patience_seconds)
        except HeadgateError as error:
            # The folder is unreadable or the disk is full: what is served stays, and the next pass tries again.
            self._once(f"--models {self._root}: {error.message}")
        except Exception as error:
            self._once(f"a pass over {self._root} failed by a defect of Headgate: {error!r}", exc_info=error)

    async def sync(self, now: float | None = None, *, patience_seconds: float | None = None) -> list[str]:
        """One pass; the endpoints that are still being loaded after ``patience_seconds`` (``None`` waits for all of them).

        With ``now`` (seconds since 1970), folders still being written wait for a later pass. Endpoints are loaded side by
        side, so that one whose load hangs keeps no other waiting. Raises ``StorageFailed`` when the folder cannot be read.
        """

        def look() -> tuple[Survey, SyncResult]:
            seen = survey(self._root)
            return seen, self._tree.sync(seen.found, now=now)

        seen, result = await asyncio.to_thread(look)
        for skipped in seen.skipped:
            self._once(f"{skipped.folder} {skipped.reason}")
        self._note(result)
        settling = {one.endpoint for one in result.settling}
        for endpoint in sorted(self._pending - settling - self._updates.keys()):
            self._updates[endpoint] = asyncio.create_task(self._update(endpoint))
        return await self._wait(patience_seconds)

    async def _wait(self, patience_seconds: float | None) -> list[str]:
        """Waits for the updates; those that are not over. Raises what the first of them failed with."""
        if self._updates:
            await asyncio.wait(self._updates.values(), timeout=patience_seconds)
        over = {name: update for name, update in self._updates.items() if update.done()}
        for name in over:
            del self._updates[name]
        errors = [error for update in over.values() if (error := update.exception()) is not None]
        if errors:
            raise errors[0]
        return sorted(self._updates)

    def _note(self, result: SyncResult) -> None:
        """Takes over what the pass found; endpoints that gained a version are updated after it."""
        for admitted in result.new:
            self._usable[_key(admitted.found)] = admitted.found.folder
            self._pending.add(admitted.found.endpoint)
        for refused in result.refused:
            folder = self._root / refused.endpoint / refused.version
            self._set_aside(Found(refused.endpoint, refused.version, folder), refused.message)
        for failed in result.failed:
            self._set_aside(failed.found, failed.error.message)
        for key in result.gone:
            self._usable.pop(key, None)

    async def _update(self, endpoint: str) -> None:
        """Applies the document of the folders of one endpoint, if it would say anything new."""
        present = await self._present(endpoint)
        if present is not None and present["source"] != _source(endpoint):
            self._pending.discard(endpoint)
            author = present["source"] or "a document"
            self._once(f"{endpoint} is described by {author}; {self._root / endpoint} is not used for it")
            return
        if present is not None and present["frozen"]:
            self._once(
                f"{endpoint} is frozen: new versions in {self._root / endpoint} wait until it is unfrozen"
            )
            return
        self._pending.discard(endpoint)
        try:
            document = self._document(endpoint, present)
            if document is None or (present is not None and present["document_digest"] == document.digest):
                return
            await self._control.apply(document)
        except HeadgateError as error:
            if self._not_applied(endpoint, present, error):
                await self._update(endpoint)
            return
        self._tell(endpoint, document, present)

    async def _present(self, endpoint: str) -> Mapping[str, Any] | None:
        try:
            return await self._control.get(endpoint)
        except NotFound:
            return None

    def _document(self, endpoint: str, present: Mapping[str, Any] | None) -> Document | None:
        """The folders' document, or None when it would take away something that is live."""
        folders = {version: path for (name, version), path in self._usable.items() if name == endpoint}
        if not folders:
            return None
        if present is None:
            return from_models_tree(endpoint, folders, root=self._root)
        live = present["traffic"]
        champion = present["declared"]["champion"]
        if champion not in folders:
            champion = live["champion"]
        missing = sorted({champion, *live["weights"]} - {live["champion"], *folders})
        if champion not in folders:
            missing = sorted({champion, *missing})
        if missing:
            self._once(
                f"{endpoint}: new folders wait, because {', '.join(missing)} is live and has no usable folder below "
                f"{self._root / endpoint}; bring it back, or write a document for {endpoint}"
            )
            return None
        return from_models_tree(endpoint, folders, root=self._root, champion=champion)

    def _not_applied(self, endpoint: str, present: Mapping[str, Any] | None, error: HeadgateError) -> bool:
        """True when the others can go on: a new version that does not load was set aside.

        At first sight the champion is not: the highest number is what somebody wants served, and none below it is asked for.
        """
        version = str(error.detail.get("version"))
        folders = {name: path for (one, name), path in self._usable.items() if one == endpoint}
        kept = present["versions"] if present is not None else {highest(folders)} if folders else set()
        if isinstance(error, ModelLoadFailed | PolicyInvalid) and version in folders and version not in kept:
            self._set_aside(Found(endpoint, version, folders[version]), error.message)
            return True
        if isinstance(error, Conflict):
            # Somebody changed the endpoint meanwhile, or it was frozen: the next pass looks again.
            self._pending.add(endpoint)
        self._once(f"{endpoint}: the folders in {self._root / endpoint} were not applied: {error.message}")
        return False

    def _tell(self, endpoint: str, document: Document, present: Mapping[str, Any] | None) -> None:
        champion = document.endpoint.traffic.champion
        if present is None:
            others = [name for name in document.endpoint.versions if name != champion]
            rest = f", {', '.join(others)} without traffic" if others else ""
            _log.info("%s: %s is champion%s", endpoint, champion, rest, extra={"endpoint": endpoint})
            return
        before = {name for name, version in present["versions"].items() if version["in_document"]}
        for version in document.endpoint.versions:
            if version not in before:
                _log.info(
                    "%s: %s is loaded and gets no traffic yet; give it some with: headgate traffic %s %s=10%%",
                    *(endpoint, version, endpoint, version),
                    extra={"endpoint": endpoint, "version": version},
                )

    def _set_aside(self, found: Found, message: str) -> None:
        self._usable.pop(_key(found), None)
        self._once(f"refused: {found.folder}: {message}")

    def _once(self, text: str, exc_info: BaseException | None = None) -> None:
        if text not in self._said:
            self._said.add(text)
            _log.warning("%s", text, exc_info=exc_info)


def _key(found: Found) -> _Key:
    return found.endpoint, found.version


def _source(endpoint: str) -> str:
    """How :func:`headgate.documents.from_models_tree` names the documents it writes."""
    return f"--models ({endpoint})"

"""Serves a ``--models`` folder: ``NAME/VERSION/model.onnx`` becomes endpoints, and later folders become
versions.

At first sight the highest number is champion (headgate/registry/versions.py). A folder that appears later is loaded without
traffic, and the command that gives it traffic is said. Nothing here ever moves or removes traffic: a folder that disappears,
or comes back with other bytes, changes nothing that is served. Endpoints that a person described in a document are left alone.
What is not served is among the registry's refusals with its reason, for as long as that holds. Scanning, hashing and pins are
headgate/registry's. Next: headgate/registry/sync.py.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from pathlib import Path

from headgate.control import Control, Revision
from headgate.documents import Document, from_models_tree, models_tree_source, models_tree_text
from headgate.errors import Conflict, HeadgateError, ModelLoadFailed, PolicyInvalid, StorageFailed
from headgate.registry import Found, Refusal, Skipped, Survey, SyncResult, TreeSync, survey, versions

_log = logging.getLogger(__name__)
_Key = tuple[str, str]
_REFUSALS = "models"
#: How long a turn waits for what it loads: an endpoint whose load hangs keeps no other from being taken up.
PATIENCE_SECONDS = 2.0


class ModelsFolder:
    """Keeps endpoints up to date with one folder; belongs to one event loop."""

    def __init__(self, root: Path, control: Control) -> None:
        self._root = root
        self._control = control
        self._tree = TreeSync(control.registry)
        self._usable: dict[str, dict[str, Path]] = {}
        """The folders that can be served, by endpoint and version."""
        self._pending: set[str] = set()
        self._said: dict[str, str] = {}
        self._updates: dict[str, asyncio.Task[None]] = {}
        self._is_closed = False
        # What is refused, each by where it was found out.
        self._unreadable: str | None = None
        self._skipped: list[Skipped] = []
        self._not_loaded: dict[_Key, tuple[Path, str]] = {}
        self._not_applied: dict[str, str] = {}
        self._refusals: dict[tuple[str, ...], Refusal] = {}

    async def turn(self) -> None:
        """A pass, as often as somebody likes; what is loaded longer goes on behind it. Raises as :meth:`sync`."""
        await self.sync(time.time(), patience_seconds=PATIENCE_SECONDS)

    def loading(self) -> dict[str, asyncio.Task[None]]:
        """The endpoints that are being loaded."""
        return {name: update for name, update in self._updates.items() if not update.done()}

    async def close(self) -> None:
        """Leaves what is being loaded and takes up nothing more; idempotent."""
        self._is_closed = True
        for update in self._updates.values():
            update.cancel()
        await asyncio.gather(*self._updates.values(), return_exceptions=True)
        self._updates.clear()

    async def sync(self, now: float | None = None, *, patience_seconds: float | None = None) -> list[str]:
        """One pass; the endpoints that are still being loaded after ``patience_seconds`` (``None`` waits for all of them).

        With ``now`` (seconds since 1970), folders still being written wait for a later pass. Endpoints are loaded side by
        side, so that one whose load hangs keeps no other waiting. Raises ``StorageFailed`` when the folder cannot be read.
        """

        def look() -> tuple[Survey, SyncResult]:
            seen = survey(self._root)
            return seen, self._tree.sync(seen.found, now=now)

        try:
            seen, result = await asyncio.to_thread(look)
        except StorageFailed as error:
            self._unreadable, self._skipped = error.message.removeprefix(f"{self._root} "), []
            self._publish()
            raise
        self._unreadable, self._skipped = None, seen.skipped
        self._note(result)
        settling = {one.endpoint for one in result.settling}
        for endpoint in [] if self._is_closed else sorted(self._pending - settling - self._updates.keys()):
            self._updates[endpoint] = asyncio.create_task(self._update(endpoint))
        self._publish()
        try:
            return await self._wait(patience_seconds)
        finally:
            # What ends after that is published by the next pass.
            self._publish()

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
            found = admitted.found
            self._usable.setdefault(found.endpoint, {})[found.version] = found.folder
            self._not_loaded.pop(_key(admitted.found), None)
            self._pending.add(admitted.found.endpoint)
        for refused in result.refused:
            self._drop(refused.endpoint, refused.version)
            folder = self._root / refused.endpoint / refused.version
            self._once(str(folder), f"refused: {folder}: {refused.message}")
        for failed in result.failed:
            self._drop(*_key(failed.found))
        for key in result.gone:
            self._drop(*key)
            self._not_loaded.pop(key, None)
            if key[0] in self._not_applied:
                self._pending.add(key[0])

    async def _update(self, endpoint: str) -> None:
        """Applies the document of the folders of one endpoint, without versions that do not load; notes why it was not applied."""
        why: str | None = ""
        while why == "":
            why = await self._apply(endpoint)
        if why is None:
            self._not_applied.pop(endpoint, None)
        else:
            self._not_applied[endpoint] = why

    async def _apply(self, endpoint: str) -> str | None:
        """Why the folders were not applied; ``None`` if they were or need not be, and empty if they can be tried once more."""
        present = self._control.current(endpoint)
        if present is not None and not self._may_change(endpoint, present):
            return None
        self._pending.discard(endpoint)
        try:
            document = self._document(endpoint, present)
            if isinstance(document, str):
                return document
            if document is None:
                return None
            await self._control.apply(document)
        except HeadgateError as error:
            return self._failed(endpoint, present, error)
        self._tell(endpoint, document, present)
        return None

    def _may_change(self, endpoint: str, present: Revision) -> bool:
        """Whether an endpoint that is served is this folder's and not frozen."""
        if present.document.source != models_tree_source(endpoint):
            self._pending.discard(endpoint)
            author = present.document.source or "a document"
            self._once(
                endpoint, f"{endpoint} is described by {author}; {self._root / endpoint} is not used for it"
            )
            return False
        if present.traffic.frozen is not None:
            folder = self._root / endpoint
            self._once(endpoint, f"{endpoint} is frozen: new versions in {folder} wait until it is unfrozen")
            return False
        return True

    def _folders(self, endpoint: str) -> dict[str, Path]:
        return dict(self._usable.get(endpoint, {}))

    def _drop(self, endpoint: str, version: str) -> None:
        self._usable.get(endpoint, {}).pop(version, None)

    def _document(self, endpoint: str, present: Revision | None) -> Document | str | None:
        """The folders' document, if there are any and it is not the present one; why there is none if nothing says who is champion, or
        if it would take away something that is live.
        """
        folders = self._folders(endpoint)
        if not folders:
            return None
        if present is None:
            choice = versions.choose(folders)
            if choice.champion is None:
                return choice.why_none
            return from_models_tree(endpoint, folders, root=self._root, champion=choice.champion)
        live = present.traffic
        champion = present.spec.declared.champion
        if champion not in folders:
            champion = live.champion
        missing = sorted({champion, *live.weights()} - {live.champion, *folders})
        if champion not in folders:
            missing = sorted({champion, *missing})
        if missing:
            return (
                f"new folders wait, because {', '.join(missing)} is live and has no usable folder below "
                f"{self._root / endpoint}; bring it back, or write a document for {endpoint}"
            )
        if models_tree_text(endpoint, folders, root=self._root, champion=champion) == present.text:
            # Most endpoints are as they were, and parsing takes most of the time.
            return None
        return from_models_tree(endpoint, folders, root=self._root, champion=champion)

    def _failed(self, endpoint: str, present: Revision | None, error: HeadgateError) -> str:
        """Why the folders were not applied; empty if a new version that does not load was set aside, and the others can go on.

        At first sight the champion is not: it is what somebody wants served, and no other is asked for in its place.
        """
        version = str(error.detail.get("version"))
        folders = self._folders(endpoint)
        kept = set(present.spec.versions) if present is not None else {versions.choose(folders).champion}
        if isinstance(error, ModelLoadFailed | PolicyInvalid) and version in folders and version not in kept:
            self._not_loaded[endpoint, version] = folders[version], error.message
            self._drop(endpoint, version)
            return ""
        if isinstance(error, Conflict):
            # Somebody changed the endpoint meanwhile, or it was frozen: the next pass looks again.
            self._pending.add(endpoint)
        return f"the versions were not applied: {error.message}"

    def _tell(self, endpoint: str, document: Document, present: Revision | None) -> None:
        champion, known = document.endpoint.traffic.champion, {"endpoint": endpoint}
        before: set[str] = set()
        if present is None:
            others = [name for name in document.endpoint.versions if name != champion]
            rest = f", {', '.join(others)} without traffic" if others else ""
            _log.info("%s: %s is champion%s", endpoint, champion, rest, extra=known)
        else:
            before = present.spec.versions.keys() - set(present.kept)
        folders = self._folders(endpoint)
        for version in document.endpoint.versions:
            why = versions.why_no_traffic(version, folders) if version in folders else None
            if version not in before | {champion} and (present is not None or why is not None):
                _log.info(
                    "%s: %s %sis loaded and gets no traffic yet; give it some with: headgate traffic %s %s=10%%",
                    *(endpoint, version, f"{why}: it " if why else "", endpoint, version),
                    extra={**known, "version": version},
                )

    # === what is not served ===

    def _publish(self) -> None:
        """Hands the registry what is refused now, and logs what is new among it."""
        now = dict(self._all_refusals())
        for key, refusal in now.items():
            if self._refusals.get(key) != refusal:
                known = {"endpoint": refusal.endpoint, "version": refusal.version, "folder": refusal.folder}
                told = {name: value for name, value in known.items() if value is not None}
                _log.warning("refused: %s: %s", refusal.folder, refusal.message, extra=told)
        self._refusals = now
        self._control.registry.refused.replace(_REFUSALS, now)

    def _all_refusals(self) -> Iterator[tuple[tuple[str, ...], Refusal]]:
        if self._unreadable is not None:
            yield (str(self._root),), Refusal(self._unreadable, folder=str(self._root))
        for skipped in self._skipped:
            folder = str(skipped.folder)
            yield (folder,), Refusal(skipped.reason, skipped.endpoint, skipped.version, folder)
        for failed in self._tree.failures():
            found = failed.found
            yield (
                _key(found),
                Refusal(failed.error.message, found.endpoint, found.version, str(found.folder)),
            )
        for key, (place, message) in self._not_loaded.items():
            yield key, Refusal(message, *key, folder=str(place))
        for endpoint, message in self._not_applied.items():
            yield (endpoint,), Refusal(message, endpoint, folder=str(self._root / endpoint))

    def _once(self, place: str, text: str) -> None:
        """Logs what is to be said of a place, unless that was the last that was said of it."""
        if self._said.get(place) != text:
            self._said[place] = text
            _log.warning("%s", text)


def _key(found: Found) -> _Key:
    return found.endpoint, found.version

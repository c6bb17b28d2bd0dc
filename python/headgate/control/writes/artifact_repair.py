"""Versions that were left out because their files were damaged: repaired from where they came from, and served again.

Not here: leaving them out (``start_recovery``, ``writer``). Next: ``service``.

A version that the data plane refused although its files are whole is not tried again here: that may take minutes, and a new
document or more traffic tries it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from itertools import chain
from pathlib import Path

from headgate.control.domain.revision import Revision
from headgate.control.writes import swap
from headgate.control.writes.context import Context
from headgate.control.writes.endpoint import EndpointState
from headgate.control.writes.handover import Load, native_apply
from headgate.control.writes.records import stored
from headgate.control.writes.swap import EndpointUpdate
from headgate.control.writes.tickets import Event
from headgate.documents import Files, locate, parse_one
from headgate.errors import HeadgateError
from headgate.registry import ArtifactStore

REPAIR_SECONDS = 5.0
_EARLIER = 100
"""Earlier revisions that are searched for where a version came from."""
_log = logging.getLogger(__name__)
_Seen = tuple[tuple[int, int, int] | None, ...]


class ArtifactRepair:
    """Looks at what is left out, again and again; a file that has not changed is not read twice."""

    def __init__(
        self, context: Context, artifacts: ArtifactStore, endpoints: Mapping[str, EndpointState]
    ) -> None:
        """``endpoints`` are all there are, now and later."""
        self._context = context
        self._artifacts = artifacts
        self._endpoints = endpoints
        self._seen: dict[tuple[str, str], _Seen] = {}
        """The files of artifacts that are still damaged, as they were at the last look."""
        self._sources: dict[tuple[str, str], tuple[int, Path | None]] = {}
        """Where a version's artifact came from, as of a revision of its endpoint."""

    async def turn(self) -> None:
        """One look at every endpoint that lacks something."""
        for state in list(self._endpoints.values()):
            if state.current is not None and (state.damaged or state.no_drift) and not state.turn.locked():
                async with state.turn:
                    await self._endpoint(state)

    async def _endpoint(self, state: EndpointState) -> None:
        revision = state.current
        if revision is None:
            return
        whole = await self._context.long(lambda: self._whole(revision, sorted(state.damaged)))
        baselines, digest = self._context.paths.baselines, revision.spec.baseline
        measured = state.no_drift and await self._context.io(lambda: baselines.find(digest)) is not None
        if (whole or measured) and state.current is revision:
            await self._serve(state, revision, whole)

    def _whole(self, revision: Revision, names: list[str]) -> set[str]:
        """Those of the versions whose files are whole again."""
        return {name for name in names if self._is_repaired(revision, name)}

    def _is_repaired(self, revision: Revision, name: str) -> bool:
        version = revision.spec.versions.get(name)
        if version is None or version.constant is not None:
            return False
        source = self._source(revision, name, version.digest)
        kept = self._artifacts.place(version.digest)
        seen = (_identity(kept), _identity(kept.with_name("manifest.json")), *map(_identity, _files(source)))
        key = (revision.endpoint, version.digest)
        if self._seen.get(key) == seen:
            return False
        try:
            self._artifacts.model_path(version.digest)
            return True
        except HeadgateError:
            if source is not None and self._brought_back(source, version.digest, name):
                return True
        self._seen[key] = seen
        return False

    def _source(self, revision: Revision, name: str, digest: str) -> Path | None:
        """Where a version comes from: as its document says, or the newest earlier one for a version that is kept without being in it."""
        key = (revision.endpoint, digest)
        if key not in self._sources or self._sources[key][0] != revision.n:
            store = self._context.store
            earlier = (stored(store, one) for one in store.revisions(revision.endpoint, limit=_EARLIER))
            named = (
                _named(one, name)
                for one in chain([revision], earlier)
                if one.spec.digests().get(name) == digest
            )
            self._sources[key] = (revision.n, next((path for path in named if path is not None), None))
        return self._sources[key][1]

    def _brought_back(self, source: Path, digest: str, name: str) -> bool:
        try:
            if self._artifacts.fingerprint(source).digest != digest:
                return False
            brought = self._artifacts.ingest(source) == digest
        except HeadgateError as error:
            _log.info("%s could not be repaired from %s: %s", name, source, error.message)
            return False
        _log.info("the artifact of %s was repaired from %s", name, source)
        return brought

    async def _serve(self, state: EndpointState, revision: Revision, whole: set[str]) -> None:
        """Hands the same revision over once more, with what is whole again; what is served stays if that does not load."""
        state.in_load = revision
        try:
            event = await self._outcome(state, revision, whole)
        except HeadgateError as error:
            # Not for good: the next look tries again.
            _log.info("%s: %s is not served yet: %s", state.name, ", ".join(sorted(whole)), error.message)
            return
        finally:
            state.in_load = None
            state.cancelled.discard(revision.n)
        if event["event"] == "applied":
            state.damaged -= whole
            _log.info("%s: served again: %s", state.name, ", ".join(sorted(whole)) or "drift")
        elif event["event"] == "failed":
            self._refused(state, whole, event)

    async def _outcome(self, state: EndpointState, revision: Revision, whole: set[str]) -> Event:
        context = self._context
        omitted = {name: why for name, why in state.omitted.items() if name not in whole}
        argument = await context.io(
            lambda: native_apply(revision, context.paths, Load(state.loaded, omitted))
        )
        async with state.step:
            context.tickets.pump()
            if state.current is not revision:
                # An emergency call passed. Handing this over now would undo it.
                return {"event": "superseded"}
            future = swap.serve(context, state, EndpointUpdate(revision, omitted, argument))
        return await future

    def _refused(self, state: EndpointState, whole: set[str], event: Event) -> None:
        """What the data plane refuses although it is whole is not tried again; what came with it is."""
        version = event.get("version")
        if version in whole:
            state.omitted[version] = event["message"]
            state.damaged.discard(version)
        else:
            state.damaged -= whole


def _named(revision: Revision, name: str) -> Path | None:
    """Where the document of a revision says that a version comes from; None where it does not say so any more."""
    root = revision.document.root
    if root is None:
        return None
    try:
        document = parse_one(
            revision.text, source=revision.document.source or "", root=Path(root), follow=Files.IGNORED
        )
        version = document.endpoint.versions.get(name)
        if version is None or version.model is None:
            return None
        return locate(version.model, Path(root))
    except (HeadgateError, ValueError, OSError):
        return None


def _files(source: Path | None) -> list[Path]:
    """The files whose change means that a source is worth another look."""
    return [] if source is None else [source, source / "model.onnx"]


def _identity(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_ino, status.st_size, status.st_mtime_ns)

"""Control: the one object that the admin API, the command line's gateway and the sync loop talk to.

Not here: HTTP (``admin``), what a write means (``writes.decisions``), how it becomes durable (``writes.writer``). Next: ``admin.app``.

Everything runs on one event loop; what blocks runs in threads. Reads answer from memory where they can.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from headgate.background import Background
from headgate.control.domain.calls import INTERNAL, Call, Settings
from headgate.control.domain.results import PlanResult, Readiness, Result
from headgate.control.reads.recent import Recent
from headgate.control.traffic_calls import TrafficCalls
from headgate.control.writes import clean_stop, sources
from headgate.control.writes.artifact_repair import REPAIR_SECONDS, ArtifactRepair
from headgate.control.writes.audit import Recorder
from headgate.control.writes.context import Context
from headgate.control.writes.data_plane import DataPlane
from headgate.control.writes.decisions import Decisions
from headgate.control.writes.document_files import DocumentFile, DocumentFiles
from headgate.control.writes.emergency import Emergency
from headgate.control.writes.endpoint import Endpoints, EndpointState
from headgate.control.writes.handover import Paths
from headgate.control.writes.integrity import Integrity
from headgate.control.writes.interrupted import Interruptions
from headgate.control.writes.maintenance import Maintenance
from headgate.control.writes.model_checks import ModelChecks
from headgate.control.writes.operations import Operations
from headgate.control.writes.refused_documents import RefusedDocuments
from headgate.control.writes.replays import Replays
from headgate.control.writes.resolve import ArtifactUse, Resolver
from headgate.control.writes.rollouts import Rollouts, Writing
from headgate.control.writes.runner import Runner
from headgate.control.writes.start_recovery import StartRecovery
from headgate.control.writes.step_replays import StepReplays
from headgate.control.writes.stored_plans import StoredPlans
from headgate.control.writes.trials import TrialWriter
from headgate.control.writes.write_behind import WriteBehind
from headgate.control.writes.writer import Writer
from headgate.documents import Document
from headgate.drift import BaselineStore
from headgate.errors import Draining, StorageFailed
from headgate.leases import Lease
from headgate.registry import ArtifactStore, Registry, by_name
from headgate.store import EventRecord, Store

T = TypeVar("T")


class Control(TrafficCalls):
    """The control plane of one gateway: what can be asked, and below what can be changed."""

    def __init__(
        self,
        store: Store,
        native: DataPlane,
        artifacts: ArtifactStore,
        settings: Settings = Settings(),  # noqa: B008 - frozen
    ) -> None:
        """Nothing is served before :meth:`start`."""
        paths = Paths(artifacts.model_path, artifacts.place, store.state, BaselineStore(store.state))
        registry = Registry(artifacts, store.pins)
        recent = Recent(native.totals)
        context = Context(store, native, paths, settings, recent)
        super().__init__(context, Endpoints(registry.refused.why), registry, recent)
        self.refused_documents = RefusedDocuments(registry.refused)
        registry.refused.tell(lambda refused: native.set_refusals(json.dumps(by_name(refused)).encode()))
        self.settings = settings
        self._behind = WriteBehind(self._context, self._endpoints)
        self.audit_log = Recorder(self._context)
        self._runner = Runner(self._context, self.audit_log)
        self._writer = Writer(self._context, self._behind)
        self._emergencies = Emergency(self._context, self._behind)
        self._decisions = Decisions(self._context)
        self._resolver = Resolver(self.registry, native, paths)
        self._model_checks = ModelChecks(self._context, artifacts)
        self._interruptions = Interruptions(self._context, self._decisions)
        self._start_recovery = StartRecovery(self._context, self._interruptions, self._behind.wake)
        self.operations = Operations(self._context)
        self.replays = Replays(self._context, self._endpoints, self.operations, self.audit_log)
        self._stored_plans = StoredPlans(self._context, self._endpoints)
        self._files = DocumentFiles(self._context, self.apply, self._stored_plans.put)
        writing = Writing(self._writer, self._emergencies, self._decisions)
        self._rollouts = Rollouts(self._context, self._endpoints, writing, self._stored_plans, recent)
        self._rollouts.replays = StepReplays(self.replays)
        self._maintenance = Maintenance(self._context, self._endpoints)
        self._trials = TrialWriter(self._context)
        self._integrity = Integrity(self._context, self._endpoints)
        self._artifact_repair = ArtifactRepair(self._context, artifacts, self._endpoints)
        self.background = Background(lambda: self._context.store.now().timestamp())
        self._roots: list[Path] = [root for root in (settings.root, *settings.roots) if root is not None]
        self._started = False
        self._closing = False
        self._is_hung = False

    # === life ===

    async def start(self) -> None:
        """Serves the last applied revision of every endpoint. Register ``native.event_fd()`` for :meth:`pump` first, and call nothing
        that writes before this returns. Those that are served meanwhile answer; the others are in :meth:`loading`.
        """
        self._interruptions.ended(
            clean=await self._context.io(lambda: clean_stop.take(self._context.store.state))
        )
        await self._stored_plans.restore()
        await self._trials.restore()
        await self._start_recovery.start(self._endpoints, await self._integrity.at_start())
        await self.operations.interrupted()
        self._started = True
        data = {state.name: state.revision for state in self._endpoints.values() if state.current is not None}
        event = EventRecord("started", self._context.now(), None, None, "headgate", "", {"endpoints": data})
        await self._context.tell(event)
        self._maintenance.start(self.background)
        self._integrity.start(self.background)
        self._trials.start(self.background)
        self._rollouts.begin(self.background)
        self.watch(self.background)
        self.background.run("repair_artifacts", self._artifact_repair.turn, REPAIR_SECONDS)
        self.background.run("write_unsaved", self._behind.turn)
        self.background.run("write_audit", self.audit_log.turn)
        self.background.run("write_refused_callers", self.refused_callers.turn)
        self._behind.wake()
        self.background.run("sample_metrics", self._recent.turn)

    def pump(self) -> None:
        """Drains the data plane's events; call it when ``native.event_fd()`` is readable."""
        self._context.tickets.pump()

    async def stop(self, patience_seconds: float = 1.0) -> None:
        """Ends event streams, refuses what is new, lets what waits end, but waits for no disk that hangs. Idempotent."""
        if self._closing:
            return
        self._closing = True
        self._runner.refuse()
        self._context.feed.close()
        self._context.stop_waiting()
        self._context.tickets.close()
        await self.background.close()
        await self._rollouts.close()
        await self._runner.ended(patience_seconds)
        await self.operations.close(patience_seconds)
        self._context.refuse_reads()

    async def close(self, patience_seconds: float = 5.0) -> list[str]:
        """Stops, writes what is in force and not on disk, and names what is lost. Leaves store and gateway open.

        Idempotent. When a thread hangs in the store after that, :meth:`is_hung`.
        """
        deadline = asyncio.get_running_loop().time() + patience_seconds
        await self.stop(min(patience_seconds, 1.0))

        def left() -> float:
            return max(deadline - asyncio.get_running_loop().time(), 0.01)

        revisions, rows, _ = await asyncio.gather(
            self._behind.drain(left()), self.audit_log.drain(left()), self.refused_callers.drain(left())
        )
        # Neither keeps the stop: the next start writes the file, and counts that are not written are a gap of their trial.
        for write in (self._trials.write, self._integrity.write):
            with suppress(StorageFailed, TimeoutError, Draining):
                async with asyncio.timeout(left()):
                    await write()
        if self._started and not revisions:
            with suppress(TimeoutError, Draining):
                async with asyncio.timeout(left()):
                    await self._context.write(lambda: clean_stop.leave(self._context.store.state))
        self._is_hung = not await self._context.close(left())
        return revisions + rows

    def is_hung(self) -> bool:
        """Whether a thread waits for the disk although everything was closed."""
        return self._is_hung

    def readiness(self) -> Readiness:
        """Ready once started and until the stop. Endpoints have no part in it: one that does not answer must not take traffic from
        the others.
        """
        reasons = [] if self._started else ["the gateway is starting"]
        if self._closing:
            reasons.append("the gateway is stopping")
        return Readiness(not reasons, reasons)

    def loading(self) -> dict[str, asyncio.Task[None]]:
        """The endpoints that were served before the start and are loaded still."""
        return self._start_recovery.loading()

    async def loads_begun(self) -> None:
        """Returns when the store is read, and :meth:`loading` knows every endpoint."""
        await self._start_recovery.begun.wait()

    def damage(self) -> list[str]:
        """What is wrong with the database as a whole, each with its remedy; reads memory alone."""
        return self._integrity.alarms()

    def audit_lost(self) -> int:
        """Rows of the audit that were dropped, because its queue was full."""
        return self.audit_log.dropped

    def removed(self) -> Mapping[str, int]:
        """What was removed since the start: rows for their age, files that nobody referenced; by kind, and the files' ``bytes``."""
        return self._maintenance.removed()

    def serves(self) -> bool:
        """Whether some endpoint is served."""
        return any(state.loaded for state in self._endpoints.values())

    def roots_add(self, root: Path) -> None:
        """A folder that ``?source=`` may name."""
        if root not in self._roots:
            self._roots.append(root)

    # === writes: documents ===

    async def parse(self, endpoint: str, data: bytes, *, source: Path | None = None) -> Document:
        """The one document of ``data``, which must be named ``endpoint``; :class:`PolicyInvalid` lists every fault."""
        state = self._endpoints.get(endpoint)
        last = None if state is None or state.current is None else state.current.document.root
        where = sources.ReferenceFolders(source, tuple(self._roots), last, self.settings.root)
        return await self._context.parsing(lambda: sources.read_one(endpoint, data, where))

    async def put(
        self,
        endpoint: str,
        data: bytes,
        *,
        source: Path | None = None,
        call: Call = INTERNAL,
        take_traffic: bool = False,
        with_plans: frozenset[str] = frozenset(),
    ) -> Result:
        """Applies the one document of ``data``: :meth:`parse` and :meth:`apply` as one call. A dry run takes it that plans of the names
        ``with_plans`` are stored first.
        """

        async def work() -> Result:
            document = await self.parse(endpoint, data, source=source)
            return await self._apply(document, call, take_traffic=take_traffic, with_plans=with_plans)

        return await self._runner.run(call, ("apply", endpoint), work)

    async def apply(
        self,
        document: Document,
        *,
        call: Call = INTERNAL,
        take_traffic: bool = False,
        source_digest: str | None = None,
    ) -> Result:
        """Three-way merge of a document; creation when there is no such endpoint."""

        async def work() -> Result:
            return await self._apply(document, call, take_traffic=take_traffic, source_digest=source_digest)

        return await self._runner.run(call, ("apply", document.endpoint.name), work)

    async def _apply(
        self,
        document: Document,
        call: Call,
        *,
        take_traffic: bool,
        source_digest: str | None = None,
        with_plans: frozenset[str] = frozenset(),
    ) -> Result:
        name, document = document.endpoint.name, self._stored_plans.filled(document)
        with self._stored_plans.using(document.endpoint.rollout, name, call, with_plans):
            state = self._endpoints.get(name)
            # Before the models are read: a stale caller should not wait for that.
            call.precondition.check(name, None if state is None else state.revision)
            use = ArtifactUse.INSPECT if call.dry_run else ArtifactUse.STORE
            with Lease() as lease:
                resolved = await self._context.long(
                    lambda: self._resolver.resolve(document, source_digest, use, lease)
                )
                decide = self._decisions.apply(resolved, take_traffic=take_traffic)
                if call.dry_run:
                    there = self._endpoints.get(name) or EndpointState(name)
                    return await self._writer.write(there, call, decide)
                state = self._endpoints.made(name)
                self._writer.cancel_older_loads(state, resolved.text)
                result = await self._writer.write(state, call, decide)
        self.refused_documents.applied(name, document.source)
        return result

    async def apply_file(
        self, path: Path, *, root: Path | None = None, call: Call = INTERNAL
    ) -> list[Result]:
        """Applies every document of a file, the results of its endpoints; ``[]`` when everything in it was applied from it before."""
        file = await self.read_file(path, root=root)
        if file is None:
            return []
        await self.put_read(file, call=call)
        return await self.apply_read(file, call=call)

    async def read_file(self, path: Path, *, root: Path | None = None) -> DocumentFile | None:
        """The documents of a file; ``None`` when everything in it was applied from it before."""
        place = path.absolute()
        folder = place.parent if root is None else root
        file = await self._files.read(place, folder)
        self.roots_add(folder)
        return file

    async def put_read(self, file: DocumentFile, *, call: Call = INTERNAL) -> list[PlanResult]:
        """Stores the plans and the defaults of a file, which its endpoints may name."""
        return await self._files.put_others(file, call)

    async def apply_read(self, file: DocumentFile, *, call: Call = INTERNAL) -> list[Result]:
        """Applies the documents of a file, its endpoints side by side; those of one endpoint in the order of these calls."""
        return await self._files.apply(file, call)

    # === behind ===

    async def storing(self, work: Callable[[], T]) -> T:
        """Runs a write to the store that belongs to no endpoint."""
        return await self._context.write(work)

    async def authenticating(self, work: Callable[[], T]) -> T:
        """Looks at a caller's token, in threads that no other call keeps busy."""
        return await self._context.authenticating(work)

    async def reading(self, work: Callable[[], T]) -> T:
        """Runs a read of the store."""
        return await self._context.io(work)

    async def flush(self) -> None:
        """Writes what emergency calls could not write; :class:`StorageFailed` when the store still cannot."""
        await self._behind.flush()

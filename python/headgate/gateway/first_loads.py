"""What a start loads: what was served last, then the documents of the command line and the ``--models`` folder.

Nothing writes before all that was served last is loaded or has failed, so that a restart moves nothing. The data ports
do not wait for that if one endpoint's load hangs: after :data:`PATIENCE_SECONDS` they open with what is served. Documents
and the folder get the same patience; what takes longer goes on behind. Next: models_folder.py.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from headgate.control import Control, DocumentFile
from headgate.errors import HeadgateError
from headgate.gateway.models_folder import ModelsFolder
from headgate.gateway.settings import Settings

#: How long the start waits for what was served last before the data ports open without it, and for documents and the
#: folder before it goes on without them.
PATIENCE_SECONDS = 10.0
#: For how long what is loaded still keeps the gateway from being ready: a balancer should not send the requests of a large model too
#: early. Beyond that an endpoint's state is its own.
READY_SECONDS = 60.0
_MODELS_POLL_SECONDS = 2.0
_log = logging.getLogger(__name__)
_Named = tuple[str, asyncio.Task[None]]


@dataclass(frozen=True)
class _Failure:
    """What could not be loaded: a file, or one of its documents, or the folder."""

    place: str
    error: HeadgateError
    file: Path | None = None
    endpoints: tuple[str, ...] = ()


class FirstLoads:
    """The first loads of one process; used once."""

    def __init__(
        self,
        settings: Settings,
        plane: Control,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._plane = plane
        self._clock = clock
        self._begun = clock()
        self._files: list[tuple[Path, asyncio.Task[None]]] = []
        self._storing: list[asyncio.Task[None]] = []
        self._late: list[_Named] = []
        self._failed: list[_Failure] = []
        self._is_decided = False
        self._models: ModelsFolder | None = None

    async def run(self, open_data_ports: Callable[[], Awaitable[None]]) -> None:
        """Loads until all is served, or something is and the rest takes long. Raises what keeps a gateway with nothing to serve from
        starting.

        ``open_data_ports`` is called if what was served last takes long.
        """
        await self._serve_stored(open_data_ports)
        await self._apply_files()
        await self._read_models()
        while not self._plane.serves() and (pending := self._pending()):
            await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        order = {str(path): at for at, path in enumerate(self._settings.documents)}
        self._failed.sort(key=lambda failed: order.get(failed.place, len(order)))
        if self._failed and not self._pending() and self._plane.is_empty():
            for failure in self._failed[1:]:
                self._tell(failure)
            raise self._failed[0].error
        self._is_decided = True
        for failure in self._failed:
            self._tell(failure)
        self._late = self._loading()
        if late := self.late():
            _log.warning("still being loaded, the others are served: %s", ", ".join(late))

    def late(self) -> list[str]:
        """What the start went on without and is loaded still: endpoints and files."""
        return sorted({name for name, task in self._late if not task.done()})

    def reasons(self) -> list[str]:
        """Why no traffic should come yet."""
        late = self.late()
        if not late or (self._plane.serves() and self._clock() - self._begun >= READY_SECONDS):
            return []
        return [f"starting: still being loaded: {', '.join(late)}"]

    def watch(self) -> None:
        """Keeps the endpoints of the folder up to date from now on, as a loop of the control plane."""
        if self._models is not None:
            self._plane.background.run("models_folder", self._models.turn, _MODELS_POLL_SECONDS)

    async def close(self) -> None:
        """Leaves what is loaded still; idempotent."""
        tasks = [*self._storing, *(task for _, task in self._files)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._models is not None:
            await self._models.close()

    def _loading(self) -> list[_Named]:
        """What is loaded now: endpoints of the folder, and each document by its file."""
        models = {} if self._models is None else self._models.loading()
        return [*models.items(), *((str(path), task) for path, task in self._files if not task.done())]

    def _pending(self) -> list[asyncio.Task[None]]:
        return [task for _, task in self._loading()]

    # === what was served last ===

    async def _serve_stored(self, open_data_ports: Callable[[], Awaitable[None]]) -> None:
        start = asyncio.create_task(self._plane.start())
        begun = asyncio.create_task(self._plane.loads_begun())
        try:
            await asyncio.wait({start}, timeout=PATIENCE_SECONDS)
            # A store may be read for longer than that. Before its end nothing is being loaded, which looks as if all was.
            await asyncio.wait({start, begun}, return_when=asyncio.FIRST_COMPLETED)
            while not self._plane.serves() and (loading := self._plane.loading()):
                await asyncio.wait(loading.values(), return_when=asyncio.FIRST_COMPLETED)
            if loading := self._plane.loading():
                self._late = list(loading.items())
                _log.warning("still being loaded, the others are served: %s", ", ".join(sorted(loading)))
                await open_data_ports()
            await start
        finally:
            start.cancel()
            begun.cancel()

    # === documents ===

    async def _apply_files(self) -> None:
        """Applies of each file the documents that were never applied from it.

        A file that fails stops the start only when there is nothing else to serve: a bad edit must not take
        down, at the next restart, what the store can go on serving, nor what other files describe.
        """
        files: list[tuple[Path, DocumentFile]] = []
        for path in self._settings.documents:
            try:
                file = await self._plane.read_file(path, root=self._settings.root)
            except HeadgateError as error:
                self._failed.append(_Failure(str(path), error, path))
                continue
            if file is None:
                _log.info("%s: applied from there before; the stored state is served", path)
                continue
            if file.refused is not None:
                self._failed.append(_Failure(str(path), file.refused, path, file.refused_names))
            files.append((path, file))
        await self._store_others(files)
        for path, file in files:
            # Each by itself: one that fails or hangs is no reason not to tell of the others, or to wait for them.
            for document in file.documents:
                one = replace(file, documents=[document], refused=None)
                self._files.append((path, asyncio.create_task(self._apply(path, one))))
        if self._files:
            done, _ = await asyncio.wait([task for _, task in self._files], timeout=PATIENCE_SECONDS)
            for task in done:
                task.result()

    async def _store_others(self, files: Sequence[tuple[Path, DocumentFile]]) -> None:
        """Plans and defaults of all files come before any endpoint, which may name them. A disk that hangs is not waited for."""
        self._storing = [asyncio.create_task(self._store(path, file)) for path, file in files if file.others]
        if self._storing:
            done, _ = await asyncio.wait(self._storing, timeout=PATIENCE_SECONDS)
            for task in done:
                task.result()

    async def _store(self, path: Path, file: DocumentFile) -> None:
        try:
            results = await self._plane.put_read(file)
        except HeadgateError as error:
            failure = _Failure(str(path), error, path)
            if self._is_decided:
                self._tell(failure)
            else:
                self._failed.append(failure)
            return
        for result in results:
            _log.info("%s: %s", path, result["message"])

    async def _apply(self, path: Path, file: DocumentFile) -> None:
        try:
            results = await self._plane.apply_read(file)
        except HeadgateError as error:
            names = tuple(document.name for document in file.documents)
            failure = _Failure(str(path), error, path, names)
            if self._is_decided:
                self._tell(failure)
            else:
                self._failed.append(failure)
            return
        except Exception:
            _log.exception("%s could not be applied because of a defect of Headgate", path)
            return
        for result in results:
            known = {"endpoint": result["endpoint"], "revision": result["revision"]}
            _log.info("%(endpoint)s: %(message)s (revision %(revision)s)", result, extra=known)

    def _tell(self, failure: _Failure) -> None:
        place, why = failure.place, failure.error
        told = {"document": place, "code": why.code}
        _log.error(
            "%s was not applied, what was applied of it before stays: %s", place, why.message, extra=told
        )
        if failure.file is not None:
            self._plane.refused_documents.note(failure.file.absolute(), failure.endpoints, why.message)

    # === the folder ===

    async def _read_models(self) -> None:
        if self._settings.models is None:
            return
        self._models = ModelsFolder(self._settings.models.absolute(), self._plane)
        try:
            await self._models.sync(patience_seconds=PATIENCE_SECONDS)
        except HeadgateError as error:
            # As with a document at fault: what the store can go on serving is served.
            self._failed.append(_Failure(f"--models {self._settings.models}", error))

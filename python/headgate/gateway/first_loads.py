"""What a start loads: what was served last, the documents of the command line, the ``--models`` folder.

All of it is loaded side by side, and the start waits for it: a request must not come before what answers it. But one
endpoint whose load hangs keeps no other from being served: after :data:`PATIENCE_SECONDS` the ports open with what is
there, and the rest goes on behind. Nothing opens before something is served. Next: models_folder.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from headgate.control import Control, DocumentFile
from headgate.errors import HeadgateError
from headgate.gateway.models_folder import ModelsFolder
from headgate.gateway.settings import Settings

#: How long the ports stay closed for what was served last, for the documents, and for the folder, one after the other.
PATIENCE_SECONDS = 10.0
#: For how long what is loaded still keeps the gateway from being ready: a balancer should not send the requests of a large model too
#: early. Beyond that an endpoint's state is its own.
READY_SECONDS = 60.0
_MODELS_POLL_SECONDS = 2.0


class FirstLoads:
    """The first loads of one process; used once."""

    def __init__(
        self,
        settings: Settings,
        plane: Control,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``say`` gets one sentence for each thing a person should know."""
        self._settings = settings
        self._plane = plane
        self._say = say
        self._clock = clock
        self._begun = clock()
        self._files: list[tuple[Path, asyncio.Task[None]]] = []
        self._failed: list[tuple[Path, HeadgateError]] = []
        self._is_decided = False
        self._models: ModelsFolder | None = None

    async def run(self) -> None:
        """Loads until all is served, or something is and the rest takes long. Raises what keeps a gateway with nothing to serve from
        starting.
        """
        await self._plane.start(PATIENCE_SECONDS)
        await self._apply_files()
        await self._read_models()
        while not self._plane.serves() and (pending := self._pending()):
            await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        self._failed.sort(key=lambda failed: self._settings.documents.index(failed[0]))
        if self._failed and not self._pending() and not await self._plane.list():
            raise self._failed[0][1]
        self._is_decided = True
        for path, why in self._failed:
            self._tell(path, why)
        if late := self.late():
            self._say(f"still being loaded, the others are served: {', '.join(late)}")

    def late(self) -> list[str]:
        """What is loaded still: endpoints and files."""
        models = {} if self._models is None else self._models.loading()
        files = [str(path) for path, task in self._files if not task.done()]
        return sorted({*self._plane.loading(), *models}) + files

    def reasons(self) -> list[str]:
        """Why no traffic should come yet."""
        late = self.late()
        if not late or (self._plane.serves() and self._clock() - self._begun >= READY_SECONDS):
            return []
        return [f"starting: still being loaded: {', '.join(late)}"]

    async def watch(self) -> None:
        """Keeps the endpoints of the folder up to date, for ever; ends when cancelled."""
        if self._models is not None:
            await self._models.watch(_MODELS_POLL_SECONDS)

    async def close(self) -> None:
        """Leaves what is loaded still; idempotent."""
        tasks = [task for _, task in self._files]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._models is not None:
            await self._models.close()

    def _pending(self) -> list[asyncio.Task[None]]:
        loading = [] if self._models is None else self._models.loading().values()
        files = [task for _, task in self._files if not task.done()]
        return [*self._plane.loading().values(), *loading, *files]

    # === documents ===

    async def _apply_files(self) -> None:
        """Applies each document file that changed since it was last applied.

        A file that fails stops the start only when there is nothing else to serve: a bad edit must not take
        down, at the next restart, what the store can go on serving, nor what other files describe.
        """
        for path in self._settings.documents:
            try:
                file = await self._plane.read_file(path, root=self._settings.root)
            except HeadgateError as error:
                self._failed.append((path, error))
                continue
            if file is None:
                self._say(f"{path}: unchanged since it was last applied; the stored state is served")
            else:
                self._files.append((path, asyncio.create_task(self._apply(path, file))))
        if self._files:
            done, _ = await asyncio.wait([task for _, task in self._files], timeout=PATIENCE_SECONDS)
            for task in done:
                task.result()

    async def _apply(self, path: Path, file: DocumentFile) -> None:
        try:
            results = await self._plane.apply_read(file)
        except HeadgateError as error:
            if self._is_decided:
                self._tell(path, error)
            else:
                self._failed.append((path, error))
            return
        for result in results:
            self._say(f"{result['endpoint']}: {result['message']} (revision {result['revision']})")

    def _tell(self, path: Path, why: HeadgateError) -> None:
        self._say(f"{path} was not applied, what was applied last is served: {why.message}")

    # === the folder ===

    async def _read_models(self) -> None:
        if self._settings.models is None:
            return
        self._models = ModelsFolder(self._settings.models.absolute(), self._plane, self._say)
        try:
            await self._models.sync(patience_seconds=PATIENCE_SECONDS)
        except HeadgateError as error:
            # As with a document at fault: what the store can go on serving is served.
            if not await self._plane.list():
                raise
            self._say(f"--models {self._settings.models}: {error.message}; it is looked at again")

"""One gateway process from start to stop: the order in which its parts begin, serve and end.

It owns signals, the event loop, and the two control-plane ports. It knows no documents (first_loads.py and
headgate.control do) and prints nothing: it tells an :class:`Announcer`. It is safe to kill at any moment:
everything that must survive is in the store before anyone is told. Next: listeners.py, first_loads.py,
then headgate/control.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import threading
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import uvloop

from headgate import admin, control, nvidia_libraries, observe
from headgate.control import Control
from headgate.errors import HeadgateError, StorageFailed
from headgate.gateway import descriptors, signals, units
from headgate.gateway.connections import Connections, Limits
from headgate.gateway.first_loads import FirstLoads
from headgate.gateway.listeners import Listener
from headgate.gateway.native_config import native_config
from headgate.gateway.settings import Settings
from headgate.gateway.sockets import bind
from headgate.gateway.supervise import SupervisorHandles
from headgate.private_files import create_file, replace_file
from headgate.registry import ArtifactStore
from headgate.runtime_library import RuntimeLibrary
from headgate.store import Store, open_store

_log = logging.getLogger("headgate.gateway")

#: A wrapper that forwards what its process group got as well sends every signal twice; that is one wish, not two.
_SAME_SIGNAL_SECONDS = 1.0
_FORCED_EXIT = 1
_READY_POLL_SECONDS = 0.2
#: How much longer than the drain a stop may take: for what is in force and not on disk yet.
_WRITE_SECONDS = 5.0
#: Kept of that for the last steps.
_LAST_STEPS_SECONDS = 1.0
_LOST_EXIT = 1


class Announcer(Protocol):
    """Who tells the program or person that started it, apart from the log."""

    def bound(self, addresses: dict[str, str]) -> None:
        """Everything serves, at these addresses: ``http``, ``grpc``, ``observe``, ``admin``."""

    def first_token(self, token: str, path: Path) -> None:
        """The admin token made at the first start; it is shown this once."""


@dataclass(frozen=True)
class DataPlaneSource:
    """What the data plane is made of."""

    module: ModuleType
    """``headgate._native``, or what a test has in its place."""
    library: RuntimeLibrary | None


def run(
    settings: Settings,
    source: DataPlaneSource,
    announcer: Announcer,
    supervised: SupervisorHandles | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT, then drains; returns when everything has ended.

    Raises what kept it from starting: ``Conflict`` (the state folder or a port is taken), ``StorageFailed``,
    ``PolicyInvalid`` (a document, and nothing else to serve). A second signal ends the process at once.
    """
    process = Process(settings, source, announcer, supervised)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(process.run())
        if process.is_hung:
            # The loop and Python's own end would wait for the thread.
            process.end_at_once()
        # As they would for one that the loop started itself.
        guard = process.end_within(_LAST_STEPS_SECONDS)
    guard.cancel()
    if process.lost:
        raise SystemExit(_LOST_EXIT)


class Process:
    """The parts of one gateway; used once."""

    def __init__(
        self,
        settings: Settings,
        source: DataPlaneSource,
        announcer: Announcer,
        supervised: SupervisorHandles | None = None,
    ) -> None:
        self._settings = settings
        self._source = source
        self._announcer = announcer
        self._supervised = supervised
        self._stop_asked = asyncio.Event()
        self._first_signal: float | None = None
        self._started = False
        self._bound: dict[str, str] = {}
        """The addresses of the data ports, once they are open."""
        self._store: Store | None = None
        self._native: Any = None
        self._control: Control | None = None
        self._first_loads: FirstLoads | None = None
        self._sockets: dict[str, socket.socket] = {}
        self._listeners: dict[str, Listener] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.lost: list[str] = []
        """What was in force and could not be written to disk before the end."""
        self.is_hung = False
        """Whether a thread hangs in the state folder at the end."""

    async def run(self) -> None:
        """Starts, waits for a signal, stops."""
        with signals.SignalScope(self._signal_handlers()):
            try:
                await _first(self._start(), self._stop_asked.wait())
                await self._stop_asked.wait()
                _log.info("draining: no new requests; those in flight finish (a second signal cuts them off)")
            finally:
                guard = self.end_within(self._stop_seconds())
                await self._stop()
                guard.cancel()

    def end_within(self, seconds: float) -> threading.Timer:
        """A thread that ends the process when that time is over, whatever hangs; it can be cancelled."""
        guard = threading.Timer(seconds, self.end_at_once)
        guard.daemon = True
        guard.start()
        return guard

    def stop(self) -> None:
        """Asks for what the first signal asks for."""
        self._stop_asked.set()

    def reasons(self) -> list[str]:
        """Why no traffic should come now; empty means ready."""
        if self._stop_asked.is_set():
            return ["draining: the gateway is about to stop"]
        reasons = self._starting()
        if self._native is not None:
            reasons += self._native.not_ready_reasons()
        return reasons + (list(self._control.readiness().reasons) if self._started and self._control else [])

    def _starting(self) -> list[str]:
        """Why the start keeps traffic away: the data ports are closed, or something has been loaded for less than a minute."""
        if not self._bound or self._first_loads is None:
            return ["starting: what was served last is being loaded"]
        return self._first_loads.reasons()

    # === start ===

    async def _start(self) -> None:
        settings = self._settings
        # The lock first: a second gateway must fail before it touches a port or a model.
        self._store = await asyncio.to_thread(open_store, settings.state)
        artifacts = await asyncio.to_thread(ArtifactStore, settings.state, settings.memory_budget_bytes)
        given = {} if self._supervised is None else self._supervised.sockets
        shares = descriptors.share(descriptors.raise_limit())
        for name, address in (("http", settings.http), ("grpc", settings.grpc)):
            if address.port != 0 and name not in given:
                # The data plane binds last, when everything is loaded; a taken port should be known before.
                bind(address, name).close()
        for name, address in (("observe", settings.observe), ("admin", settings.admin)):
            self._sockets[name] = given.get(name) or bind(address, name)
        plane = self._control = self._make_control(self._store, artifacts, shares.data)
        tokens = admin.Tokens(self._store)
        restarts = 0 if self._supervised is None else self._supervised.restarts
        sources = observe.Sources(
            self._native,
            plane,
            self.reasons,
            self._connections,
            settings.triton_metrics,
            restarts,
            settings.metrics_age_ms / 1000,
        )
        apps = {
            "observe": observe.create_app(sources),
            "admin": admin.create_app(plane, tokens, hosts=settings.admin_hosts),
        }
        limits = Limits(connections=shares.control)
        self._listeners = {
            name: Listener(app, self._sockets[name], Connections(limits)) for name, app in apps.items()
        }
        # From here on health can be asked, so that a long load is seen as a start and not as a hang.
        await self._listeners["observe"].start()
        asyncio.get_running_loop().add_reader(self._native.event_fd(), plane.pump)
        first = self._first_loads = FirstLoads(settings, plane)
        await first.run(self._open_data_ports)
        first.watch()
        await self._first_token(tokens)
        await self._open_data_ports()
        await self._listeners["admin"].start()
        self._started = True
        addresses = {**self._bound, **{name: one.address for name, one in self._listeners.items()}}
        try:
            await asyncio.to_thread(_write_addresses, settings.state, addresses)
        except OSError as error:
            _log.warning("the addresses could not be left in %s: %s", settings.state, error)
        self._announcer.bound(addresses)
        if self._supervised is not None:
            self._supervised.say_ready()

    async def _open_data_ports(self) -> None:
        """Opens them, once: no inference socket before there is something to answer with."""
        if self._bound:
            return
        given = {} if self._supervised is None else self._supervised.sockets
        fds = [given[name].fileno() for name in ("http", "grpc") if name in given]
        self._bound = json.loads(await asyncio.to_thread(self._native.start, *fds))
        for name in ("http", "grpc"):
            if name in given:
                # The data plane has its own descriptor of it.
                given[name].close()
        if self._starting():
            self._spawn(self._become_ready())
        else:
            self._native.set_ready(True)

    async def _become_ready(self) -> None:
        """Ready means the same on every port."""
        while self._starting():
            await asyncio.sleep(_READY_POLL_SECONDS)
        self._native.set_ready(True)

    def _connections(self) -> dict[str, observe.ConnectionCounts]:
        """The connections of each listener, for the metrics."""
        return {name: listener.connections for name, listener in self._listeners.items()}

    def _make_control(self, store: Store, artifacts: ArtifactStore, connections: int) -> Control:
        settings, source = self._settings, self._source
        library = None if source.library is None else str(source.library.path)
        make_access_log(settings)
        self._native = source.module.Gateway(
            json.dumps(native_config(settings, library, nvidia_libraries.find(), connections)).encode()
        )
        folders = [path.absolute().parent for path in settings.documents]
        folders += [folder.absolute() for folder in (settings.root, settings.models) if folder is not None]
        return Control(
            store,
            control.Native(self._native, source.module, library),
            artifacts,
            control.Settings(
                root=settings.root,
                roots=tuple(folders),
                cores=units.cores().available,
                private_webhooks=settings.private_webhooks,
                **settings.kept,
            ),
        )

    async def _first_token(self, tokens: admin.Tokens) -> None:
        try:
            token = await asyncio.to_thread(tokens.ensure_first, self._settings.state)
        except StorageFailed as error:
            _log.warning("no admin token could be made: %s; the next start tries again", error.message)
            return
        if token is not None:
            self._announcer.first_token(token, self._settings.state / "admin-token")

    def _spawn(self, work: Awaitable[None]) -> None:
        async def body() -> None:
            await work

        task = asyncio.create_task(body())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # === signals ===

    def _signal_handlers(self) -> dict[signal.Signals, signals.Handler]:
        """What each signal does, in the event loop: a handler itself may come between any two steps of it."""
        loop = asyncio.get_running_loop()

        def on_loop(act: signals.Handler) -> signals.Handler:
            def handler(number: signal.Signals) -> None:
                loop.call_soon_threadsafe(act, number)

            return handler

        return {
            **dict.fromkeys(signals.STOP, on_loop(self._on_stop)),
            signals.REOPEN: on_loop(self._on_reopen),
            **dict.fromkeys(signals.UNUSED, on_loop(self._on_unused)),
        }

    def _on_reopen(self, number: signal.Signals) -> None:
        if self._settings.access_log is None or self._native is None:
            _log.info("%s: there is no access log to open anew", number.name)
        else:
            self._spawn(self._reopen_access_log())

    async def _reopen_access_log(self) -> None:
        try:
            await asyncio.to_thread(make_access_log, self._settings)
            await asyncio.to_thread(self._native.reopen_access_log)
        except HeadgateError as error:
            _log.error("%s; the file that was open is written on", error.message)
        else:
            _log.info("the access log %s was opened anew", self._settings.access_log)

    def _on_unused(self, number: signal.Signals) -> None:
        _log.info("%s changes nothing here; SIGTERM drains, SIGHUP opens the access log anew", number.name)

    def _on_stop(self, _number: signal.Signals) -> None:
        now = asyncio.get_running_loop().time()
        if self._first_signal is None:
            self._first_signal = now
        if self._stop_asked.is_set():
            if now - self._first_signal < _SAME_SIGNAL_SECONDS:
                return
            # Nothing is lost that must survive: the store is on disk before anyone is told. See the top.
            _log.warning("forced: requests in flight are cut off")
            os._exit(_FORCED_EXIT)
        self._stop_asked.set()

    # === stop ===

    async def _stop(self) -> None:
        """Ends the parts, event streams first, the store last; every step is taken even if one before it
        fails. The admin port answers ``draining`` until the data plane has drained.
        """
        self._stop_asked.set()
        if self._native is not None:
            # Before anything that may wait: readiness means the same on every port.
            self._native.set_ready(False)
        deadline = asyncio.get_running_loop().time() + self._stop_seconds() - _LAST_STEPS_SECONDS
        for listener in self._listeners.values():
            listener.drain()
        settings, loop = self._settings, asyncio.get_running_loop()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._first_loads is not None:
            await self._first_loads.close()
        async with contextlib.AsyncExitStack() as last_to_first:
            if self._store is not None:
                last_to_first.callback(self._close, self._store)
                last_to_first.callback((settings.state / "addresses.json").unlink, missing_ok=True)
            if self._control is not None:
                last_to_first.push_async_callback(self._write_what_waits, self._control, deadline)
            for sock in self._sockets.values():
                last_to_first.callback(sock.close)
            last_to_first.push_async_callback(self._stop_listeners)
            if self._native is not None:
                last_to_first.callback(loop.remove_reader, self._native.event_fd())
                last_to_first.push_async_callback(self._drain)
            if self._control is not None:
                last_to_first.push_async_callback(self._control.stop)

    def _stop_seconds(self) -> float:
        return (self._settings.drain_delay_ms + self._settings.drain_grace_ms) / 1000 + _WRITE_SECONDS

    def end_at_once(self) -> None:
        """Leaves behind what hangs."""
        _log.error("the disk does not answer: the process ends without it")
        os._exit(_LOST_EXIT if self.lost else 0)

    async def _write_what_waits(self, plane: Control, deadline: float) -> None:
        """Until the deadline; what hangs beyond it is left behind."""
        left = max(deadline - asyncio.get_running_loop().time(), _LAST_STEPS_SECONDS)
        self.lost = await plane.close(left)
        for what in self.lost:
            _log.error("lost, because the disk did not take it: %s", what)
        self.is_hung = plane.is_hung()

    def _close(self, store: Store) -> None:
        if not self.is_hung:
            # It would wait for the same disk.
            store.close()

    async def _stop_listeners(self) -> None:
        idle_seconds = self._settings.drain_idle_ms / 1000
        await asyncio.gather(*(listener.stop(idle_seconds) for listener in self._listeners.values()))

    async def _drain(self) -> None:
        delay, grace = self._settings.drain_delay_ms, self._settings.drain_grace_ms
        clean = await asyncio.to_thread(self._native.stop, delay, grace)
        if not clean:
            _log.warning("requests that ran longer than the %s ms of --drain-grace were cut off", grace)


def make_access_log(settings: Settings) -> None:
    """One in the state folder is as private as all that is there. Elsewhere its readers are the umask's and the folder's affair."""
    path = settings.access_log
    if path is not None and path.absolute().is_relative_to(settings.state):
        with contextlib.suppress(OSError):  # who opens it says so
            os.close(create_file(path, flags=os.O_APPEND))


async def _first(work: Awaitable[None], end: Awaitable[object]) -> None:
    """Runs ``work`` to its end, or cancels it as soon as ``end`` happens."""
    job = asyncio.ensure_future(work)
    alarm = asyncio.ensure_future(end)
    await asyncio.wait({job, alarm}, return_when=asyncio.FIRST_COMPLETED)
    alarm.cancel()
    if job.done():
        job.result()
        return
    job.cancel()
    # Not awaited itself: its cancellation could not be told from the one of the caller.
    await asyncio.wait({job})
    if not job.cancelled():
        job.result()


def _write_addresses(state: Path, addresses: dict[str, str]) -> None:
    """Leaves the bound addresses for the command line on this machine; replaced in one step."""
    # Not waited for by a disk that hangs: it says where this process is, and nothing after a crash.
    replace_file(state / "addresses.json", f"{json.dumps(addresses)}\n".encode(), durable=False)

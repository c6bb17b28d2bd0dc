"""A gateway that is started for a measurement: its own state folder, free ports on loopback, processors apart from the generator's.

It is ended by its process id, also after Ctrl-C, which does not reach it: it has a session of its own. Next: ``target``.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from headgate.bench.target import ServerAddress, TargetUnreachable, parse_url
from headgate.errors import InvalidArgument

_START_SECONDS = 120.0
_STOP_SECONDS = 40.0
_LOG_SHOWN = 1500
_ANY_PORTS = [part for name in ("http", "grpc", "observe", "admin") for part in (f"--{name}", "127.0.0.1:0")]

#: Runs the gateway on its processors, and has the kernel end it if this process is killed before it can.
_BEGIN = """
import ctypes, os, sys
cpus = [int(cpu) for cpu in sys.argv[1].split(",") if cpu]
if cpus:
    os.sched_setaffinity(0, cpus)
ctypes.CDLL(None).prctl(1, 15)
os.execv(sys.executable, [sys.executable, "-m", "headgate", *sys.argv[2:]])
"""


@dataclass(frozen=True)
class Spawned:
    """A gateway that runs for the measurement."""

    address: ServerAddress
    grpc: ServerAddress
    state: Path
    pid: int
    cpus: tuple[int, ...] | None


@contextmanager
def spawned(document: Path, options: Sequence[str], cpus: tuple[int, ...] | None) -> Iterator[Spawned]:
    """Serves the document until the block ends; ``options`` are further ones of ``headgate serve``.

    :class:`TargetUnreachable` with the end of its log if it does not get ready.
    """
    if not document.exists():
        raise InvalidArgument(f"{document} is not there")
    with tempfile.TemporaryDirectory(prefix="headgate-bench-") as folder:
        state, log = Path(folder) / "state", Path(folder) / "log"
        with log.open("wb") as errors:
            child = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    _BEGIN,
                    ",".join(map(str, cpus or ())),
                    *_arguments(document, options, state),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        try:
            addresses = _addresses(child, log)
            yield Spawned(parse_url(addresses["http"]), parse_url(addresses["grpc"]), state, child.pid, cpus)
        finally:
            _end(child)


def _arguments(document: Path, options: Sequence[str], state: Path) -> list[str]:
    return ["serve", str(document.resolve()), *options, "--state", str(state), *_ANY_PORTS]


def _addresses(child: subprocess.Popen[bytes], log: Path) -> dict[str, str]:
    """What the ready line says."""
    if child.stdout is None:
        raise RuntimeError("the child was started with a pipe for its stdout")
    deadline = monotonic() + _START_SECONDS
    line = b""
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while not line.endswith(b"\n") and monotonic() < deadline:
            if selector.select(max(0.0, deadline - monotonic())):
                read = os.read(child.stdout.fileno(), 65_536)
                if not read:
                    break
                line += read
    try:
        found = json.loads(line)
        return {"http": str(found["http"]), "grpc": str(found["grpc"])}
    except (ValueError, KeyError, TypeError):
        tail = log.read_text(encoding="utf-8", errors="replace")[-_LOG_SHOWN:].strip()
        raise TargetUnreachable(f"the gateway of --spawn did not get ready:\n{tail}") from None


def _end(child: subprocess.Popen[bytes]) -> None:
    """SIGTERM, time to drain, then SIGKILL. Another Ctrl-C meanwhile ends it at once."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(_STOP_SECONDS)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(signal.SIGKILL)
            child.wait()
    if child.stdout is not None:
        child.stdout.close()

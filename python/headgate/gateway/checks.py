"""What ``headgate doctor`` looks at: each check asks one thing about this machine and says what mends it.

The checks change nothing that stays: a port is bound and closed again, a probe file is written and removed.
How they are printed is the command line's business. Next: cli/doctor.py.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from headgate import runtime_library
from headgate.errors import HeadgateError
from headgate.gateway import descriptors
from headgate.gateway.settings import Settings
from headgate.gateway.sockets import refusal
from headgate.gateway.units import Address, Cores
from headgate.private_files import check_owner

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """One line of the report; ``remedy`` is empty when there is nothing to do."""

    check: str
    status: Status
    message: str
    remedy: str = ""

    def as_json(self) -> dict[str, str]:
        """The finding as a JSON object."""
        return asdict(self)


def library(
    find: Callable[[], runtime_library.RuntimeLibrary],
) -> tuple[Finding, runtime_library.RuntimeLibrary | None]:
    """Whether exactly one ONNX Runtime wheel is installed, and new enough."""
    try:
        found = find()
    except HeadgateError as error:
        fact, _, remedy = error.message.partition("; ")
        return Finding("onnxruntime", "fail", fact, remedy), None
    return Finding("onnxruntime", "ok", f"{found.distribution} {found.version}, {found.path}"), found


def native(
    found: runtime_library.RuntimeLibrary | None, library_info: Callable[[str], bytes] | None
) -> Iterator[Finding]:
    """Whether the native module is there and can open the library, and which providers the library brings."""
    if library_info is None:
        yield Finding(
            "native module",
            "fail",
            "headgate._native is missing: this is a source tree that was not built",
            "build it with: make build, or install a wheel",
        )
        return
    yield Finding("native module", "ok", "headgate._native is importable")
    if found is None:
        return
    try:
        info = json.loads(library_info(str(found.path)))
    except HeadgateError as error:
        yield Finding("library", "fail", error.message, 'pip install --force-reinstall "headgate[cpu]"')
        return
    level = info.get("api_level", found.api_level)
    yield Finding(
        "library",
        "ok",
        f"opens, release {info.get('version', found.version)}, API level {level} "
        f"(needed: {runtime_library.MINIMUM_API_LEVEL})",
    )
    providers = info.get("providers", [])
    if "CPUExecutionProvider" in providers:
        yield Finding("providers", "ok", ", ".join(providers))
    else:
        yield Finding(
            "providers",
            "fail",
            f"the CPU provider is not among: {', '.join(providers) or 'none'}",
            'pip install --force-reinstall "headgate[cpu]"',
        )


def cores(given: Cores) -> Finding:
    """How many cores the process gets; threads are made for that many."""
    if given.quota is None:
        return Finding("cores", "ok", f"{given.usable} by affinity, no CPU quota")
    text = f"{given.affinity} by affinity, CPU quota of {given.quota:g} cores: {given.usable} used"
    if given.quota < 1:
        return Finding(
            "cores", "warn", text, "a quota below one core stalls requests for whole periods; give 1 or more"
        )
    return Finding("cores", "ok", text)


def open_files(hard_limit: int) -> Finding:
    """Whether the limit on open files, which the gateway raises as far as it may, allows the connections that are wanted."""
    limit = descriptors.MOST if hard_limit == resource.RLIM_INFINITY else hard_limit
    data = descriptors.share(limit).data
    remedy = "raise the hard limit: ulimit -Hn 65536, or LimitNOFILE=65536 in the systemd unit"
    if limit < descriptors.LEAST:
        return Finding(
            "open files", "fail", f"the limit is {limit}, {descriptors.LEAST} is the least", remedy
        )
    text = f"the limit is {limit}, for {data} connections of the data ports"
    if data < descriptors.DATA_MOST:
        return Finding("open files", "warn", f"{text}, fewer than {descriptors.DATA_MOST}", remedy)
    return Finding("open files", "ok", text)


def port(purpose: str, address: Address, running: bool) -> Finding:
    """Whether an address is free; a taken one is as expected when a gateway is ``running`` on the state
    folder.
    """
    check = f"{purpose} port"
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
        except OSError as error:
            text = f"{address}: {refusal(address, error)}"
            if running:
                return Finding(check, "ok", f"{text}; a gateway runs on this state folder")
            return Finding(check, "fail", text, f"stop what is there, or give another --{purpose} HOST:PORT")
    return Finding(check, "ok", f"{address} is free")


def state_folder(folder: Path, running: bool) -> Finding:
    """Whether the state folder can be written (or made), and whether a gateway holds it."""
    remedy = "give the user this folder, or name another with --state DIR"
    nearest = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not nearest.is_dir():
        return Finding("state folder", "fail", f"{nearest} is not a folder", remedy)
    try:
        if nearest == folder:
            check_owner(folder)
    except HeadgateError as error:
        return Finding("state folder", "fail", error.message, remedy)
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        return Finding(
            "state folder", "fail", f"{nearest} cannot be written: {error.strerror or error}", remedy
        )
    if running:
        return Finding("state folder", "ok", f"{folder} is writable; a running gateway holds its lock")
    made = "" if nearest == folder else " (it will be made)"
    return Finding("state folder", "ok", f"{folder} is writable and not locked{made}")


def telemetry(variables: Mapping[str, str]) -> Finding:
    """Whether ONNX Runtime's telemetry is off."""
    value = variables.get("ORT_DISABLE_TELEMETRY")
    if value == "1":
        return Finding("telemetry", "ok", "ORT_DISABLE_TELEMETRY=1: ONNX Runtime sends nothing")
    return Finding(
        "telemetry", "fail", f"ORT_DISABLE_TELEMETRY is {value!r}", "export ORT_DISABLE_TELEMETRY=1"
    )


def is_locked(folder: Path) -> bool:
    """Whether a process holds the lock of a state folder; false when there is no lock to ask."""
    try:
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


@dataclass(frozen=True)
class Machine:
    """What the checks ask; the tests hand in another one."""

    find: Callable[[], runtime_library.RuntimeLibrary]
    library_info: Callable[[str], bytes] | None
    cores: Callable[[], Cores]
    running: Callable[[Path], bool]
    """Whether a gateway holds the lock of this state folder."""


def examine(settings: Settings, machine: Machine) -> list[Finding]:
    """All findings, in the order in which a start would meet them."""
    first, found = library(machine.find)
    running = machine.running(settings.state)
    return [
        first,
        *native(found, machine.library_info),
        telemetry(os.environ),
        cores(machine.cores()),
        open_files(resource.getrlimit(resource.RLIMIT_NOFILE)[1]),
        state_folder(settings.state, running),
        port("http", settings.http, running),
        port("grpc", settings.grpc, running),
        port("observe", settings.observe, running),
        port("admin", settings.admin, running),
    ]

"""Whether two addresses to listen at are one place, and which processes listen there already.

It reads ``/proc``, binds nothing and knows no settings. Next: sockets.py and settings.py, which refuse what meets.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from headgate.gateway.units import Address

_PROC = Path("/proc")
_LISTENS = "0A"
_LONGEST_COMMAND = 80


@dataclass(frozen=True)
class ListeningProcess:
    """A process that listens somewhere."""

    pid: int
    command: str
    """Its command line, shortened, without anything that a terminal would obey."""

    def __str__(self) -> str:
        return f"process {self.pid} ({self.command})"


def meet(one: str, two: str) -> bool:
    """Whether two hosts have an address of this machine in common, as far as their text says so."""
    ones, twos = _addresses(one), _addresses(two)
    if not (ones and twos):
        # A name is some address of this machine, and a listener at all of them is there as well.
        return one.lower() == two.lower() or any(address.is_unspecified for address in ones + twos)
    return any(
        first == second or _covers(first, second) or _covers(second, first)
        for first in ones
        for second in twos
    )


def processes_at(address: Address, proc: Path = _PROC) -> list[ListeningProcess]:
    """The processes that keep ``address`` from being bound, the oldest first; those of other users are not seen.

    Sockets are handed down: a supervisor and its gateway are both listed.
    """
    inodes = {inode for host, port, inode in _listening(proc) if port == address.port and _at(host, address)}
    return (
        [_described(proc / pid) for pid in _pids(proc) if _holds(proc / pid / "fd", inodes)] if inodes else []
    )


def _at(host: str, address: Address) -> bool:
    return meet(host, address.host) or not _addresses(address.host)


def _covers(one: IPv4Address | IPv6Address, two: IPv4Address | IPv6Address) -> bool:
    """Whether a listener at one takes what is meant for the other: ``0.0.0.0`` takes all of IPv4, ``::`` everything."""
    return one.is_unspecified and one.version >= two.version


def _addresses(host: str) -> list[IPv4Address | IPv6Address]:
    """The addresses that a host stands for; none for a name that only the system can look up."""
    try:
        names = ["127.0.0.1", "::1"] if host.lower() == "localhost" else [host]
        return [ip_address(name) for name in names]
    except ValueError:
        return []


def _listening(proc: Path) -> Iterator[tuple[str, int, str]]:
    """Host, port and inode of every socket that listens in this network namespace."""
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (proc / "net" / table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENS:
                    host, port = fields[1].split(":")
                    yield _host(host), int(port, 16), fields[9]


def _host(written: str) -> str:
    """The address that ``/proc/net/tcp`` writes as hexadecimal words in the machine's order of bytes."""
    words = [int(written[at : at + 8], 16).to_bytes(4, "little") for at in range(0, len(written), 8)]
    return socket.inet_ntop(socket.AF_INET if len(words) == 1 else socket.AF_INET6, b"".join(words))


def _pids(proc: Path) -> list[str]:
    return sorted((entry.name for entry in proc.iterdir() if entry.name.isdecimal()), key=int)


def _holds(descriptors: Path, inodes: set[str]) -> bool:
    wanted = {f"socket:[{inode}]" for inode in inodes}
    with contextlib.suppress(OSError):
        for one in descriptors.iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile
                if os.readlink(one) in wanted:  # noqa: PTH115 (a Path would take the target for a path)
                    return True
    return False


def _described(process: Path) -> ListeningProcess:
    command = ""
    with contextlib.suppress(OSError):
        words = (process / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
        words[0] = words[0].rsplit("/", 1)[-1]
        command = " ".join(words).strip()
    shown = "".join(letter if letter.isprintable() else "?" for letter in command)
    if len(shown) > _LONGEST_COMMAND:
        shown = shown[: _LONGEST_COMMAND - 1] + "…"
    return ListeningProcess(int(process.name), shown or "no command line")

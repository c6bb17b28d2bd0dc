"""Values as people write them in settings: addresses, switches, counts; the cores given to a process; its usual state folder.

It does not know which setting wants which unit; gateway/settings.py does. Every parser raises ``ValueError``
with what was written and what would be right. Next: settings.py.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_DEEPEST_CGROUP = 32
#: What a machine is taken to have that does not say.
_UNKNOWN_MEMORY = 8 << 30


@dataclass(frozen=True)
class Address:
    """A TCP address to listen at; port 0 lets the system choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """``127.0.0.1:8000``, ``[::1]:8000``, ``:8000`` (loopback); a leading ``http://`` and a last ``/`` are
    allowed.

    The scheme is allowed because ``HEADGATE_ADMIN`` is read by ``serve`` as an address and by the client as
    a URL.
    """
    bare = text.strip().removeprefix("http://").rstrip("/")
    host, colon, port = bare.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{text!r}: an IPv6 address needs brackets, such as [::1]:8000")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ValueError(f"{text!r} is not an address; write HOST:PORT with a port from 0 to 65535")
    return Address(host or "127.0.0.1", int(port))


def parse_switch(text: str) -> bool:
    """``on`` or ``off``."""
    try:
        return {"on": True, "off": False}[text.strip().lower()]
    except KeyError:
        raise ValueError(f"{text!r} is neither on nor off") from None


def one_of(*words: str) -> Callable[[str], str]:
    """A parser that takes one of these words."""

    def parse(text: str) -> str:
        word = text.strip().lower()
        if word not in words:
            raise ValueError(f"{text!r} is not one of {', '.join(words)}")
        return word

    return parse


def parse_share(text: str) -> float:
    """A share such as ``1%`` or ``0.05%``, as a fraction."""
    number, percent, rest = text.strip().partition("%")
    try:
        share = float(number) / 100
    except ValueError:
        share = -1.0
    if not percent or rest or not 0 <= share <= 1:
        raise ValueError(f"{text!r} is not a share; write 0% to 100%, such as 1%")
    return share


def parse_count(text: str) -> int:
    """A whole number of at least 1."""
    if not text.strip().isdecimal() or int(text) < 1:
        raise ValueError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def parse_host_name(text: str) -> str:
    """A host name or address as it stands in a ``Host`` header, without port, in lower case."""
    if not re.fullmatch(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\]", text):
        raise ValueError(
            f"{text!r} is not a host name; write it without scheme and port, such as gateway.example"
        )
    return text.lower()


@dataclass(frozen=True)
class Cores:
    """The cores this process may use: by affinity, and by a cgroup's CPU quota where one is set."""

    affinity: int
    quota: float | None

    @property
    def usable(self) -> int:
        """Whole cores to make threads for: the smaller of the two, at least one."""
        return max(1, int(self.available))

    @property
    def available(self) -> float:
        """The smaller of the two; a quota may be a part of a core."""
        return float(self.affinity if self.quota is None else min(self.affinity, self.quota))


def cores(root: Path = Path("/sys/fs/cgroup"), own_groups: Path = Path("/proc/self/cgroup")) -> Cores:
    """Reads affinity and quota; ``root`` and ``own_groups`` are the mount and the membership file of
    cgroups.
    """
    return Cores(len(os.sched_getaffinity(0)), _quota(root, own_groups))


def memory(
    root: Path = Path("/sys/fs/cgroup"),
    own_groups: Path = Path("/proc/self/cgroup"),
    machine: Path = Path("/proc/meminfo"),
) -> int:
    """The bytes of memory that this process may use: the machine's, or a cgroup's limit where that is less."""
    words = next((line.split() for line in _text(machine).splitlines() if line.startswith("MemTotal:")), [])
    found = [int(words[1]) << 10] if len(words) > 1 else []
    for group in _groups(root, own_groups):
        found += _bytes(group / "memory.max")
    v1 = root / "memory"
    for group in _groups(v1, own_groups, "memory"):
        found += _bytes(group / "memory.limit_in_bytes")
    return min(found, default=_UNKNOWN_MEMORY)


def _bytes(limit: Path) -> list[int]:
    text = _text(limit)
    return [int(text)] if text.isdecimal() else []


def _groups(root: Path, own_groups: Path, controller: str = "") -> Iterator[Path]:
    """The groups of this process, from its own up to the root. In a container the root may be its own."""
    group = root / _own_group(own_groups, controller)
    for _ in range(_DEEPEST_CGROUP):
        yield group
        if group == root or root not in group.parents:
            break
        group = group.parent
    if group != root:
        yield root


def _quota(root: Path, own_groups: Path) -> float | None:
    """The smallest quota from this process's group up to the root, in cores.

    A file that is missing or not readable says that no quota is set there: groups without the CPU controller
    have none.
    """
    found = [_quota_v1(root), *(_quota_v2(group) for group in _groups(root, own_groups))]
    given = [quota for quota in found if quota is not None]
    return min(given) if given else None


def _own_group(own_groups: Path, controller: str = "") -> str:
    """The path of this process's group: of version 2, or of a controller of version 1."""
    for line in _text(own_groups).splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controller in controllers.split(","):
            return path.lstrip("/")
    return ""


def _quota_v2(group: Path) -> float | None:
    parts = _text(group / "cpu.max").split()
    return None if len(parts) != 2 or parts[0] == "max" else int(parts[0]) / int(parts[1])


def _quota_v1(root: Path) -> float | None:
    quota, period = _text(root / "cpu/cpu.cfs_quota_us"), _text(root / "cpu/cpu.cfs_period_us")
    if not quota or not period or int(quota) <= 0:
        return None
    return int(quota) / int(period)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def default_state(variables: Mapping[str, str]) -> Path:
    """``$XDG_STATE_HOME/headgate``, else ``~/.local/state/headgate``: the same from every working directory.

    The command line finds the gateway's token there, wherever it is called from.
    """
    base = variables.get("XDG_STATE_HOME")
    home = Path(base) if base else Path(variables.get("HOME") or "~").expanduser() / ".local" / "state"
    return home / "headgate"

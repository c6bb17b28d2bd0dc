"""The address of an admin API: scheme, host, port. Two addresses are the same gateway only if all three are equal.

Not here: which address a command calls and with which token (``target``). Next: target.py.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from headgate.errors import InvalidArgument
from headgate.gateway.units import parse_address

_LOOPBACK_NAMES = {"localhost": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - mapped away from it


@dataclass(frozen=True)
class AdminAddress:
    """Where an admin API is called."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        hidden = self.scheme == "https" and self.port == 443
        return f"{self.scheme}://{host}" if hidden else f"{self.scheme}://{host}:{self.port}"

    @property
    def is_private(self) -> bool:
        """Whether what is sent there cannot be read on the way: TLS, or this machine."""
        return self.scheme == "https" or _is_loopback(self.host)


DEFAULT = AdminAddress("http", "127.0.0.1", 8003)


def admin_address(text: str, name: str = "--admin") -> AdminAddress:
    """``HOST:PORT``, ``http://HOST:PORT`` or ``https://HOST[:PORT]``; an address of every interface becomes loopback.

    ``name`` is what a message calls the place where it was written.
    """
    try:
        if text.strip().startswith("https://"):
            return _secure(text.strip())
        address = parse_address(text)
    except ValueError as error:
        raise InvalidArgument(f"{name}: {error}") from error
    if not address.host.strip("[]") or any(letter in address.host for letter in "/@?#"):
        raise InvalidArgument(f"{name}: {text!r} is not an address; write HOST:PORT or https://HOST")
    host = address.host.lower()
    return AdminAddress("http", _LOOPBACK_NAMES.get(host, host), address.port)


def _secure(text: str) -> AdminAddress:
    parts = urlsplit(text)
    if (
        not parts.hostname
        or parts.path.strip("/")
        or parts.query
        or parts.fragment
        or parts.username is not None
    ):
        raise ValueError(f"{text!r} is not an address; write https://HOST or https://HOST:PORT")
    return AdminAddress("https", parts.hostname, parts.port or 443)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

"""Sockets that are bound before anything listens on them. Next: listeners.py, supervise.py."""

from __future__ import annotations

import errno
import socket

from headgate.errors import Conflict
from headgate.gateway.addresses import processes_at
from headgate.gateway.units import Address


def bind(address: Address, purpose: str) -> socket.socket:
    """A bound socket that does not listen yet, so that a taken port is known before anything is loaded.

    Raises :class:`Conflict` with who is there and the option that mends it; ``purpose`` is the option's name without dashes.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setblocking(False)
        sock.bind((address.host, address.port))
    except OSError as error:
        sock.close()
        raise Conflict(
            f"cannot listen at {address}: {refusal(address, error)}; stop what is there, or give another "
            f"--{purpose} HOST:PORT (port 0 takes any free one)"
        ) from error
    return sock


def refusal(address: Address, error: OSError) -> str:
    """Why an address could not be bound: the system's words, and which process is there if it can be seen."""
    words = error.strerror or str(error)
    if error.errno != errno.EADDRINUSE:
        return words
    there = processes_at(address)
    if not there:
        return f"{words}, by a process that this user may not look at"
    more = f" and {len(there) - 1} more" if len(there) > 1 else ""
    return f"{words}, by {there[0]}{more}"

"""Sockets that are bound before anything listens on them. Next: listeners.py, supervise.py."""

from __future__ import annotations

import socket

from headgate.errors import Conflict
from headgate.gateway.units import Address


def bind(address: Address, purpose: str) -> socket.socket:
    """A bound socket that does not listen yet, so that a taken port is known before anything is loaded.

    Raises :class:`Conflict` with the option that mends it; ``purpose`` is the option's name without dashes.
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
            f"cannot listen at {address} ({error.strerror or error}); stop what is there, or give another "
            f"--{purpose} HOST:PORT (port 0 takes any free one)"
        ) from error
    return sock

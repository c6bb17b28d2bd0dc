"""One POST to an address that a document names: bounded in time and bytes, without redirects, and to public addresses only unless allowed.

The name is looked up once and the connection goes to an address that was checked, so that a name which points elsewhere a moment later
reaches nothing within. Not here: what is posted (``messages``), when (``delivery``). Next: ``delivery``.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

import headgate

_HEAD = 16 << 10
"""Bytes of a receiver's status line and header; what comes behind is not read."""
_ADDRESSES = 4
"""Addresses of a name that are tried."""
_CLOSE_SECONDS = 1.0
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: |\r)")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_UNQUOTED = "/%:@!$&'()*+,;=-._~?"

Addresses = Callable[[str, int], Awaitable[Sequence[str]]]
"""Looks the addresses of a host up."""


class PostError(Exception):
    """Why a message was not taken; one line for people, without the address's path."""


@dataclass(frozen=True)
class Policy:
    """Where messages may go. ``private`` allows addresses that are not public, and clear text."""

    look_up: Addresses
    private: bool = False


Post = Callable[[str, Mapping[str, str], bytes, float], Awaitable[None]]
"""Posts bytes to an address within so many seconds; :class:`PostError`."""


@dataclass(frozen=True)
class _Target:
    secure: bool
    host: str
    port: int
    path: str
    shown: str
    """As the field ``host`` has it."""


async def post(
    policy: Policy, address: str, fields: Mapping[str, str], body: bytes, timeout_seconds: float
) -> None:
    """Returns once the receiver has answered 2xx; :class:`PostError` otherwise, at the latest after the time."""
    try:
        async with asyncio.timeout(timeout_seconds):
            target = _target(address, policy)
            reader, writer = await _connected(target, policy)
            try:
                writer.write(_head(target, fields, body) + body)
                await writer.drain()
                status = await _status(reader)
            finally:
                await _closed(writer)
    except TimeoutError as error:
        raise PostError(f"no answer within {timeout_seconds:g} s") from error
    except (OSError, EOFError, asyncio.LimitOverrunError, UnicodeError) as error:
        raise PostError(_words(error)) from error
    if 300 <= status < 400:
        raise PostError(
            f"it answers {status}, and redirects are not followed: write the address that it leads to"
        )
    if not 200 <= status < 300:
        raise PostError(f"it answers {status}")


def _target(address: str, policy: Policy) -> _Target:
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError as error:
        raise PostError("it is no address") from error
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.username is not None:
        raise PostError("it is no address of the form https://host/path")
    secure = parts.scheme == "https"
    if not secure and not policy.private:
        raise PostError("it is http, and messages go over https (--private-webhooks allows http)")
    host = parts.hostname.encode("idna").decode() if ":" not in parts.hostname else parts.hostname
    standard = 443 if secure else 80
    shown = f"[{host}]" if ":" in host else host
    path = quote(parts.path or "/", safe=_UNQUOTED) + (
        f"?{quote(parts.query, safe=_UNQUOTED)}" if parts.query else ""
    )
    return _Target(
        secure, host, port or standard, path, shown if port in (None, standard) else f"{shown}:{port}"
    )


async def _connected(target: _Target, policy: Policy) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    found = list(await policy.look_up(target.host, target.port))[:_ADDRESSES]
    if not found:
        raise PostError(f"{target.host} has no address")
    if not policy.private:
        for one in found:
            if not _is_public(one):
                raise PostError(
                    f"{target.host} is at {one}, which is no public address (--private-webhooks allows it)"
                )
    # The certificates of the system are read from files.
    secure = await asyncio.to_thread(ssl.create_default_context) if target.secure else None
    more = {} if secure is None else {"server_hostname": target.host, "ssl_shutdown_timeout": _CLOSE_SECONDS}
    for one in found[:-1]:
        # The last address says why none answers.
        with suppress(OSError):
            return await asyncio.open_connection(one, target.port, limit=_HEAD, ssl=secure, **more)  # type: ignore[arg-type]
    return await asyncio.open_connection(found[-1], target.port, limit=_HEAD, ssl=secure, **more)  # type: ignore[arg-type]


def _is_public(address: str) -> bool:
    found = ipaddress.ip_address(address.partition("%")[0])
    inner = _embedded(found) if isinstance(found, ipaddress.IPv6Address) else None
    reached = found if inner is None else inner
    return reached.is_global and not reached.is_multicast


def _embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The address that a gateway or the kernel makes of one that only carries it: mapped, 6to4, NAT64, Teredo."""
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (None if teredo is None else teredo[1])


def _head(target: _Target, fields: Mapping[str, str], body: bytes) -> bytes:
    lines = [
        f"POST {target.path} HTTP/1.1",
        f"host: {target.shown}",
        f"user-agent: headgate/{headgate.__version__}",
        "content-type: application/json",
        f"content-length: {len(body)}",
        "connection: close",
        *(f"{name}: {value}" for name, value in fields.items()),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


async def _status(reader: asyncio.StreamReader) -> int:
    """The status of the final answer; those in between (1xx) are passed over."""
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        match = _STATUS.match(head)
        if match is None:
            raise PostError("its answer is no HTTP/1.1")
        status = int(match[1])
        if status >= 200:
            return status


async def _closed(writer: asyncio.StreamWriter) -> None:
    """Closes the connection, and does not wait long for the other side."""
    writer.close()
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(_CLOSE_SECONDS):
            await writer.wait_closed()


def _words(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return f"TLS: {getattr(error, 'verify_message', '') or error.reason or error}"
    if isinstance(error, asyncio.LimitOverrunError):
        return f"its answer has more than {_HEAD} bytes before its body"
    if isinstance(error, EOFError):
        return "it closed the connection without an answer"
    if isinstance(error, UnicodeError):
        return "its name is no name of a host"
    return str(error) if getattr(error, "strerror", None) is None else str(getattr(error, "strerror"))  # noqa: B009

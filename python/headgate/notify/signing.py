"""Secrets of webhooks and the signature of a message, as Standard Webhooks 1.0.0 has it (https://www.standardwebhooks.com).

    webhook-signature: v1,base64(HMAC-SHA256(key, "{id}.{timestamp}.{body}"))

Not here: the bytes that are signed (``messages``). Next: ``posting``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Mapping
from pathlib import Path

from headgate.notify.messages import message_id
from headgate.notify.posting import PostError
from headgate.regular_files import read_regular

_PREFIX = "whsec_"
_LEAST = 16
"""Bytes of a key: a shorter one could be guessed from one message."""
_MOST = 64 << 10


def read_reference(written: str, environment: Mapping[str, str] = os.environ) -> str:
    """What ``${env:NAME}`` or ``${file:/path}`` stands for, or the text itself; :class:`PostError` if it stands for nothing.

    It is read at each delivery, so that a file that is changed needs no restart; a variable is that of the process. A file is read,
    so call it from a thread.
    """
    if not written.startswith("${"):
        return written
    kind, _, name = written[2:-1].partition(":")
    if kind == "env":
        found = environment.get(name, "").strip()
        if not found:
            raise PostError(f"the variable {name} is not set where the gateway runs")
        return found
    try:
        found = read_regular(Path(name), _MOST).decode().strip()
    except (OSError, ValueError) as error:
        raise PostError(f"the file {name} cannot be read: {error}") from error
    if not found:
        raise PostError(f"the file {name} is empty")
    return found


def key_of(secret: str) -> bytes:
    """The key of a secret: what follows ``whsec_`` is base64, any other text stands for its bytes."""
    if not secret.startswith(_PREFIX):
        key = secret.encode()
    else:
        try:
            key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
        except (binascii.Error, ValueError) as error:
            raise PostError("the secret begins with whsec_ and is no base64 behind it") from error
    if len(key) < _LEAST:
        raise PostError(f"the secret has {len(key)} bytes; it must have at least {_LEAST}")
    return key


def sign(body: bytes, secret: str | None, timestamp: int) -> dict[str, str]:
    """The header fields of a message; without a secret it is not signed. ``timestamp`` in seconds since 1970, of this attempt."""
    fields = {"webhook-id": message_id(body), "webhook-timestamp": str(timestamp)}
    if secret is not None:
        signed = f"{fields['webhook-id']}.{timestamp}.".encode() + body
        digest = hmac.new(key_of(secret), signed, hashlib.sha256).digest()
        fields["webhook-signature"] = "v1," + base64.b64encode(digest).decode()
    return fields

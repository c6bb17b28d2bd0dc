"""What is done on a state folder without the gateway: who may write there owns the gateway anyway.

Not here: the commands (``tokens``). Next: headgate/store/store.py, ``open_beside``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from headgate.admin.tokens import OFFLINE, Tokens
from headgate.documents import parse_duration
from headgate.errors import InvalidArgument
from headgate.private_files import check_owner
from headgate.store import open_beside


def create_token(state: Path, name: str, role: str, expires: str | None) -> dict[str, Any]:
    """Makes a token as the API would; a gateway that runs on the folder takes it at once."""
    check_owner(state)
    store = open_beside(state)
    try:
        token, secret = Tokens(store).create(
            name=name, role=role, expires_seconds=_seconds(expires), by=OFFLINE
        )
    finally:
        store.close()
    return {**token, "secret": secret}


def _seconds(expires: str | None) -> int | None:
    if expires is None:
        return None
    try:
        return parse_duration(expires) // 1000
    except ValueError as error:
        raise InvalidArgument(f"--expires: {error}") from error

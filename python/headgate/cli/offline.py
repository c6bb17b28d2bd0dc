"""What is done on a state folder without the gateway: who may write there owns the gateway anyway.

Not here: the commands (``tokens``, ``state``). Next: headgate/store/store.py, ``open_beside``.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from headgate.admin.tokens import OFFLINE, Tokens
from headgate.documents import parse_duration
from headgate.errors import InvalidArgument, PermissionDenied, StorageFailed
from headgate.store import open_beside, write_backup


def create_token(state: Path, name: str, role: str, expires: str | None) -> dict[str, Any]:
    """Makes a token as the API would; a gateway that runs on the folder takes it at once."""
    _check_owner(state)
    store = open_beside(state)
    try:
        token, secret = Tokens(store).create(
            name=name, role=role, expires_seconds=_seconds(expires), by=OFFLINE
        )
    finally:
        store.close()
    return {**token, "secret": secret}


def check_state(state: Path) -> dict[str, Any]:
    """What is not as it was written: revisions with their documents, and the files that models are made of."""
    _check_owner(state)
    store = open_beside(state)
    try:
        endpoints = [record.name for record in store.endpoints()]
        revisions = [{"endpoint": one.endpoint, "revision": one.n, "what": one.what} for one in store.check()]
    finally:
        store.close()
    blobs = sorted((state / "blobs" / "sha256").glob("*"))
    files = [{"file": str(path), "what": what} for path in blobs if (what := _damage(path)) is not None]
    return {
        "state": str(state),
        "checked": {"endpoints": len(endpoints), "files": len(blobs)},
        "revisions": revisions,
        "files": files,
    }


def backup_state(state: Path, target: Path) -> None:
    """Writes a backup."""
    _check_owner(state)
    write_backup(state, target)


def _damage(path: Path) -> str | None:
    """What is wrong with a file that is named by its digest."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None  # The gateway has just collected it.
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return None if found == path.name else f"its bytes are sha256:{found}"


def _check_owner(state: Path) -> None:
    """Another user's files beside the database would keep the gateway from opening it."""
    try:
        owner = state.stat().st_uid
    except OSError as error:
        raise StorageFailed(f"the state folder {state} cannot be used: {error.strerror}") from error
    if owner != os.geteuid():
        raise PermissionDenied(
            f"{state} belongs to user {owner}: run the command as that user (sudo -u '#{owner}')"
        )


def _seconds(expires: str | None) -> int | None:
    if expires is None:
        return None
    try:
        return parse_duration(expires) // 1000
    except ValueError as error:
        raise InvalidArgument(f"--expires: {error}") from error

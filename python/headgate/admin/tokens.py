"""Bearer tokens: made, shown once, judged in constant time. ``headgate_<kid>_<secret>``; the store keeps a SHA-256.

Not here: the table (``store.tokens``), reading the header (``guard``). Next: ``guard``.

A token holds 256 random bits, so one round of SHA-256 protects it: there is nothing to guess that a slow hash would slow down.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import secrets
import string
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final, Literal, cast, get_args

from typing_extensions import TypedDict

from headgate.control.domain.calls import OURS
from headgate.errors import InvalidArgument, NotFound, StorageFailed, Unauthenticated
from headgate.store import AuditRecord, Store, TokenRecord, seconds, stamp, unstamp

Role = Literal["viewer", "operator", "admin"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)
"""From least to most; each may do what those before it may."""

_FIRST = "first"
FIRST_TOKEN_FILE = "admin-token"  # noqa: S105 - a file name
_ALPHABET = string.digits + string.ascii_letters
_KID_LETTERS = 8
_SECRET_LETTERS = 43  # 62 ** 43 > 2 ** 256
_NAME_MAX = 100
_TOUCH_EVERY = timedelta(seconds=60)
_log = logging.getLogger(__name__)


class TokenView(TypedDict):
    """A token as it is listed; never its secret."""

    id: str
    name: str
    role: Role
    created: str
    expires: str | None
    last_used: str | None
    revoked: str | None


@dataclass(frozen=True)
class Principal:
    """Who calls: the token's id, name and role."""

    id: str
    name: str
    role: Role

    def may(self, least: Role) -> bool:
        """Whether the role reaches ``least``."""
        return ROLES.index(self.role) >= ROLES.index(least)


class Tokens:
    """The tokens of one gateway; blocks on the disk, so call it from a thread."""

    def __init__(self, store: Store) -> None:
        """On the gateway's store."""
        self._store = store

    def ensure_first(self, state: Path) -> str | None:
        """Makes an admin token when none can be used any more, and keeps it in ``state/admin-token`` (0600).

        None when there is one that somebody can know. Whoever can write the state folder owns the gateway anyway.
        """
        path = state / FIRST_TOKEN_FILE
        usable = [t for t in self._store.tokens.list() if t.role == "admin" and self._usable(t)]
        if any(self._reached_somebody(token, path) for token in usable):
            return None
        record, secret = self._make(_FIRST, "admin", None)
        # The file first: a token of which nobody has the text would lock everybody out.
        _write_secret(path, secret)
        self._add(record, "serve")
        return secret

    def _reached_somebody(self, token: TokenRecord, path: Path) -> bool:
        """A first token that was never used and whose file is gone was perhaps never seen by anyone."""
        if token.name != _FIRST or token.last_used is not None:
            return True
        try:
            return _hash(path.read_text().strip()) == token.sha256
        except (OSError, ValueError):
            return False

    def create(
        self, *, name: str, role: str, expires_seconds: int | None = None, by: str = "serve"
    ) -> tuple[TokenView, str]:
        """A new token and its text, which is shown this once and kept nowhere."""
        if role not in ROLES:
            raise InvalidArgument(f"role: {role!r} is not a role; there are {', '.join(ROLES)}")
        if not name or len(name) > _NAME_MAX or not name.isprintable():
            raise InvalidArgument(f"name: it needs 1 to {_NAME_MAX} printable characters")
        if name.strip().casefold() in OURS:
            raise InvalidArgument(f"name: {name!r} is a name of the gateway itself; take another one")
        if expires_seconds is not None and expires_seconds <= 0:
            raise InvalidArgument("expires_in: it must be longer than nothing")
        record, text = self._make(name, role, expires_seconds)
        self._add(record, by)
        return _view(record), text

    def _make(self, name: str, role: str, expires_seconds: int | None) -> tuple[TokenRecord, str]:
        kid, secret = _letters(_KID_LETTERS), _letters(_SECRET_LETTERS)
        text = f"headgate_{kid}_{secret}"
        now = self._store.now()
        expires = None if expires_seconds is None else stamp(now + timedelta(seconds=expires_seconds))
        return TokenRecord(kid, _hash(text), role, name, stamp(now), expires, None, None), text

    def _add(self, record: TokenRecord, by: str) -> None:
        detail = {"token": record.id, "name": record.name, "role": record.role}
        self._store.tokens.add(record, self._audit(by, "token_create", detail))

    def list(self) -> list[TokenView]:
        """All tokens, oldest first, revoked and expired ones included."""
        return [_view(record) for record in self._store.tokens.list()]

    def revoke(self, token_id: str, by: str) -> TokenView:
        """Ends a token at once; idempotent."""
        record = self._store.tokens.revoke(token_id, self._audit(by, "token_revoke", {"token": token_id}))
        if record is None:
            raise NotFound(f"there is no token {token_id!r}")
        return _view(record)

    def authenticate(self, text: str) -> Principal:
        """Whose token this is; :class:`Unauthenticated` says nothing about which part was wrong."""
        refused = Unauthenticated("the token is not known, expired or revoked")
        parts = text.split("_")
        if len(parts) != 3 or parts[0] != "headgate":
            raise refused
        record = self._store.tokens.get(parts[1])
        # Compared even without a record, so that the time does not tell which ids exist.
        same = hmac.compare_digest(_hash(text), record.sha256 if record is not None else _hash(""))
        if record is None or not same or not self._usable(record):
            raise refused
        self._touch(record)
        return Principal(record.id, record.name, cast(Role, record.role))

    def _usable(self, record: TokenRecord) -> bool:
        return record.revoked is None and (
            record.expires is None or record.expires > stamp(self._store.now())
        )

    def _touch(self, record: TokenRecord) -> None:
        now = self._store.now()
        if record.last_used is not None and now - unstamp(record.last_used) < _TOUCH_EVERY:
            return
        try:
            self._store.tokens.touch(record.id, stamp(now))
        except StorageFailed:
            # A full disk must not keep anyone from an emergency call.
            _log.exception("the last use of token %s could not be written", record.id)

    def _audit(self, by: str, action: str, detail: dict[str, str]) -> AuditRecord:
        return AuditRecord(stamp(self._store.now()), by, "admin", action, None, None, "applied", "", detail)


def _write_secret(path: Path, secret: str) -> None:
    """Replaces the file in one step; it is on disk and readable by its owner only (0600) when this returns."""
    try:
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.unlink(missing_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(secret + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise StorageFailed(f"{path} could not be written: {error}") from error


def _letters(count: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(count))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _view(record: TokenRecord) -> TokenView:
    values = asdict(record)
    del values["sha256"]
    for name in ("created", "expires", "last_used", "revoked"):
        values[name] = None if values[name] is None else seconds(values[name])
    return cast(TokenView, values)

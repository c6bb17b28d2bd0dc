"""Bearer tokens: made, shown once, judged in constant time. ``headgate_<kid>_<secret>``; the store keeps a SHA-256.

Not here: the table (``store.tokens``), reading the header (``guard``). Next: ``guard``.

A token holds 256 random bits, so one round of SHA-256 protects it: there is nothing to guess that a slow hash would slow down.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import string
import threading
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Final, Literal, cast, get_args

from typing_extensions import TypedDict

from headgate.control.domain.calls import OURS, Call
from headgate.control.writes.audit import audit_record
from headgate.errors import InvalidArgument, NotFound, StorageFailed, Unauthenticated
from headgate.private_files import replace_file
from headgate.store import AuditRecord, Store, TokenRecord, is_whole, seconds, stamp, unstamp

Role = Literal["viewer", "operator", "approver", "admin"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)
"""From least to most; each may do what those before it may."""

_FIRST = "first"
OFFLINE = "offline"
"""Who makes a token on the state folder, without the gateway."""
FIRST_TOKEN_FILE = "admin-token"  # noqa: S105 - a file name
_ALPHABET = string.digits + string.ascii_letters
_KID_LETTERS = 8
_SECRET_LETTERS = 43  # 62 ** 43 > 2 ** 256
_NAME_MAX = 100
_DAY_SECONDS = 86_400
_MOST_SECONDS = 3650 * _DAY_SECONDS
"""The longest life of a token: what is meant to last longer is meant to last until it is revoked."""
_TOUCH_EVERY = timedelta(seconds=60)
_KEPT = 1_000
"""Tokens that are remembered for a store that does not answer."""


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
        self._lock = threading.Lock()
        self._found: dict[str, TokenRecord] = {}
        """Tokens as the store had them last, the newest last."""
        self._used: dict[str, str] = {}
        """When they were used last."""
        self._unwritten: set[str] = set()

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
        if token.name != _FIRST or self._used.get(token.id, token.last_used) is not None:
            return True
        try:
            return _hash(path.read_text().strip()) == token.sha256
        except (OSError, ValueError):
            return False

    def create(
        self, *, name: str, role: str, expires_seconds: int | None = None, by: Call | str = "serve"
    ) -> tuple[TokenView, str]:
        """A new token and its text, which is shown this once and kept nowhere."""
        if role not in ROLES:
            raise InvalidArgument(f"role: {role!r} is not a role; there are {', '.join(ROLES)}")
        if not name or len(name) > _NAME_MAX or not name.isprintable():
            raise InvalidArgument(f"name: it needs 1 to {_NAME_MAX} printable characters")
        if name.strip().casefold() in OURS:
            raise InvalidArgument(f"name: {name!r} is a name of the gateway itself; take another one")
        if expires_seconds is not None and not 1 <= expires_seconds <= _MOST_SECONDS:
            raise InvalidArgument(
                f"expires_in: it must be from 1s to {_MOST_SECONDS // _DAY_SECONDS}d; a token without it is good until it is revoked"
            )
        record, text = self._make(name, role, expires_seconds)
        self._add(record, by)
        return _view(record), text

    def _make(self, name: str, role: str, expires_seconds: int | None) -> tuple[TokenRecord, str]:
        kid, secret = _letters(_KID_LETTERS), _letters(_SECRET_LETTERS)
        text = f"headgate_{kid}_{secret}"
        now = self._store.now()
        expires = None if expires_seconds is None else stamp(now + timedelta(seconds=expires_seconds))
        return TokenRecord(kid, _hash(text), role, name, stamp(now), expires, None, None), text

    def _add(self, record: TokenRecord, by: Call | str) -> None:
        detail = {"token": record.id, "name": record.name, "role": record.role}
        self._store.tokens.add(record, self._audit(by, "token_create", detail))

    def list(self) -> list[TokenView]:
        """All tokens, oldest first, revoked and expired ones included."""
        return [
            _view(replace(record, last_used=self._used.get(record.id, record.last_used)))
            for record in self._store.tokens.list()
        ]

    def revoke(self, token_id: str, by: Call | str, *, force: bool = False) -> TokenView:
        """Ends a token at once; idempotent. :class:`Conflict` for the last admin token, unless forced."""
        with self._lock:
            self._found.pop(token_id, None)
        audit = self._audit(by, "token_revoke", {"token": token_id})
        record = self._store.tokens.revoke(token_id, audit, force=force)
        if record is None:
            raise NotFound(f"there is no token {token_id!r}")
        return _view(record)

    def authenticate(self, text: str) -> Principal:
        """Whose token this is; :class:`Unauthenticated` says nothing about which part was wrong. Reads the store, writes nothing."""
        token_id = _id_of(text)
        record = None if token_id is None else self._store.tokens.get(token_id)
        principal = self._judge(text, record)
        if principal is None or record is None:
            raise Unauthenticated(_why(text, record))
        with self._lock:
            self._found.pop(record.id, None)
            self._found[record.id] = record
            if len(self._found) > _KEPT:
                del self._found[next(iter(self._found))]
        self._touch(record)
        return principal

    def recall(self, text: str) -> Principal | None:
        """Whose token this is by what the store said last; None when it has not said."""
        return self._judge(text, self._found.get(_id_of(text) or ""))

    def _judge(self, text: str, record: TokenRecord | None) -> Principal | None:
        # Compared even without a record, so that the time does not tell which ids exist.
        same = hmac.compare_digest(_hash(text), record.sha256 if record is not None else _hash(""))
        if record is None or not same or not self._usable(record):
            return None
        return Principal(record.id, record.name, cast(Role, record.role))

    def is_usable(self, token_id: str) -> bool:
        """Whether a token is neither revoked nor expired."""
        record = self._store.tokens.get(token_id)
        return record is not None and self._usable(record)

    def _usable(self, record: TokenRecord) -> bool:
        # A damaged row is nobody's token: it must never give more rights than it had.
        return (
            record.revoked is None
            and is_whole(record)
            and (record.expires is None or record.expires > stamp(self._store.now()))
        )

    def _touch(self, record: TokenRecord) -> None:
        now, last = self._store.now(), self._used.get(record.id, record.last_used)
        if last is None or now - unstamp(last) >= _TOUCH_EVERY:
            with self._lock:
                self._used[record.id] = stamp(now)
                self._unwritten.add(record.id)

    def has_uses(self) -> bool:
        """Whether :meth:`write_uses` has something to write."""
        return bool(self._unwritten)

    def write_uses(self) -> None:
        """Writes when tokens were used last; what fails is written with the next use."""
        with self._lock:
            uses = {token_id: self._used[token_id] for token_id in self._unwritten}
            self._unwritten.clear()
        self._store.tokens.touch(uses)

    def _audit(self, by: Call | str, action: str, detail: dict[str, str]) -> AuditRecord:
        who = Call(by) if isinstance(by, str) else by
        return audit_record(who, stamp(self._store.now()), action, (None, None), ("applied", detail))


def _why(text: str, record: TokenRecord | None) -> str:
    """Why a token is refused; who has its text is told that its row is damaged."""
    if record is None or is_whole(record) or not hmac.compare_digest(_hash(text), record.sha256):
        return "the token is not known, expired or revoked"
    return f"the row of token {record.id} is damaged, so that it is refused: make another one (`headgate token create --offline`)"


def _id_of(text: str) -> str | None:
    parts = text.split("_")
    return parts[1] if len(parts) == 3 and parts[0] == "headgate" else None


def _write_secret(path: Path, secret: str) -> None:
    """Replaces the file in one step; it is on disk and readable by its owner only (0600) when this returns."""
    try:
        replace_file(path, f"{secret}\n".encode())
    except OSError as error:
        raise StorageFailed(f"{path} could not be written: {error}") from error


def _letters(count: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(count))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _view(record: TokenRecord) -> TokenView:
    values = asdict(record)
    del values["sha256"], values["checksum"]
    for name in ("created", "expires", "last_used", "revoked"):
        values[name] = None if values[name] is None else seconds(values[name])
    return cast(TokenView, values)

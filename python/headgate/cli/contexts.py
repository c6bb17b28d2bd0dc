"""The file of contexts: gateways by name, each with its admin address and its token. Readable by its owner only.

Not here: the commands (``context``), which context a command uses (``target``). Next: target.py.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from headgate.errors import InvalidArgument, NotFound, PermissionDenied, StorageFailed

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", re.ASCII)


@dataclass(frozen=True)
class Context:
    """One gateway: where it is, and the token that was made for it, as text or as a file that holds it."""

    admin: str
    token: str | None = None
    token_file: str | None = None


@dataclass(frozen=True)
class Contexts:
    """All of them, and the one that is used when none is named."""

    current: str | None = None
    by_name: Mapping[str, Context] = field(default_factory=dict)

    def get(self, name: str) -> Context:
        """The context of that name; :class:`NotFound` lists those there are."""
        if name not in self.by_name:
            known = ", ".join(sorted(self.by_name)) or "none; make one with `headgate context add`"
            raise NotFound(f"there is no context {name!r}; there are: {known}")
        return self.by_name[name]

    def with_context(self, name: str, context: Context) -> Contexts:
        """With one more, or another one under its name."""
        return replace(self, by_name={**self.by_name, check_name(name): context})

    def without(self, name: str) -> Contexts:
        """With one less; if it was the current one, there is none."""
        self.get(name)
        rest = {known: context for known, context in self.by_name.items() if known != name}
        return Contexts(None if self.current == name else self.current, rest)

    def using(self, name: str) -> Contexts:
        """With ``name`` as the current one."""
        self.get(name)
        return replace(self, current=name)


def check_name(name: str) -> str:
    """The name, if it can be one."""
    if not _NAME.fullmatch(name):
        raise InvalidArgument(f"{name!r} cannot name a context; use letters, digits, '.', '_' and '-'")
    return name


def contexts_file(variables: Mapping[str, str]) -> Path:
    """``$XDG_CONFIG_HOME/headgate/contexts.json``, else below ``~/.config``."""
    base = variables.get("XDG_CONFIG_HOME")
    home = Path(base) if base else Path(variables.get("HOME") or "~").expanduser() / ".config"
    return home / "headgate" / "contexts.json"


def read_contexts(path: Path) -> Contexts:
    """What the file says; nothing if there is none."""
    try:
        with path.open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            written = json.load(file)
    except (FileNotFoundError, NotADirectoryError):
        return Contexts()
    except OSError as error:
        raise StorageFailed(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InvalidArgument(f"{path} is not the JSON that `headgate context` writes: {error}") from error
    if mode & 0o077:
        raise PermissionDenied(
            f"{path} holds tokens and others may open it (mode {mode:o}); run `chmod 600 {path}`"
        )
    return _contexts(written, path)


def write_contexts(path: Path, contexts: Contexts) -> None:
    """Replaces the file in one step; only its owner may open it (0600), whatever the umask."""
    # Imported here: commands that only read need not wait for it.
    import tempfile

    body = {
        "current": contexts.current,
        "contexts": {name: _fields(one) for name, one in contexts.by_name.items()},
    }
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".contexts", dir=path.parent)  # 0600 by its contract
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(body, file, indent=2)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StorageFailed(f"{path} could not be written: {error.strerror}") from error


def _fields(context: Context) -> dict[str, str]:
    return {name: value for name, value in asdict(context).items() if value is not None}


def _contexts(written: Any, path: Path) -> Contexts:
    try:
        found = {check_name(name): _context(fields) for name, fields in written["contexts"].items()}
        current = written.get("current")
    except (AttributeError, KeyError, TypeError) as error:
        raise InvalidArgument(f"{path} is not what `headgate context` writes; mend or remove it") from error
    return Contexts(current if current in found else None, found)


def _context(fields: Mapping[str, Any]) -> Context:
    context = Context(**fields)
    if not all(value is None or isinstance(value, str) for value in asdict(context).values()):
        raise TypeError("the fields of a context are texts")
    return context

"""A database, SQLite's or PostgreSQL's, on which the tests of the store open several stores."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from headgate.store import Clock, Store, open_store
from headgate.store.models import Base
from support.postgres import Postgres
from support.tools import need_postgres

Kind = Literal["sqlite", "postgresql"]


@dataclass
class Place:
    """A database that several stores may be opened on, each with a state folder of its own."""

    folder: Path
    url: str
    _open: ExitStack = field(default_factory=ExitStack)

    @property
    def postgres(self) -> bool:
        return self.url.startswith("postgresql")

    def open(self, name: str = "state", clock: Clock | None = None, *, more: str = "") -> Store:
        """A store; it is closed at the end of the test. ``more`` is added to the database's URL."""
        store = open_store(self.folder / name, url=self.url + more, clock=clock)
        self._open.callback(store.close)
        return store

    def close(self) -> None:
        self._open.close()


class Databases:
    """Gives each test a database. What they have in common is made once, when the first test asks for it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server: Postgres | None = None
        self._migrated: dict[Kind, str] = {}
        self._end = ExitStack()

    def empty(self, kind: Kind, folder: Path) -> str:
        """The URL of an empty database."""
        if kind == "sqlite":
            return f"sqlite:///{folder / 'shared.db'}"
        url = self._postgres().url("empty")
        with self._postgres().connect("empty") as connection:
            connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        return url

    def migrated(self, kind: Kind, folder: Path) -> str:
        """The URL of a database with the newest schema and no rows."""
        if kind not in self._migrated:
            url = self.empty(kind, self._folder) if kind == "sqlite" else self._postgres().url("migrated")
            open_store(self._folder / kind, url=url).close()
            self._migrated[kind] = url
        if kind == "postgresql":
            with self._postgres().connect("migrated") as connection:
                tables = ", ".join(set(Base.metadata.tables) - {"generation"})
                connection.execute(f"TRUNCATE {tables}; UPDATE generation SET value = 0".encode())
            return self._migrated[kind]
        shutil.copy(self._folder / "shared.db", folder)
        return self.empty(kind, folder)

    def _postgres(self) -> Postgres:
        if self._server is None:
            self._server = self._end.enter_context(Postgres(need_postgres()))
        return self._server

    def close(self) -> None:
        self._end.close()

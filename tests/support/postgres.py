"""A PostgreSQL server for tests: in a temporary folder, on a unix socket alone, without fsync, gone at the end.

It refuses to run as root: then it runs as ``nobody``, who owns the folder. It ends with the process that started it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType

import psycopg
from psycopg.sql import SQL, Identifier

_USER = "nobody"
_SECONDS = 60


class Postgres:
    """A server, as a context manager."""

    def __init__(self, programs: Path) -> None:
        """Makes the cluster; ``programs`` is the folder of ``initdb`` and ``postgres``."""
        self._programs = programs
        self._as_user: list[str] = []
        # Not below pytest's folder, which only its owner may enter.
        self._folder = Path(tempfile.mkdtemp(prefix="headgate-pg-"))
        if os.geteuid() == 0:
            shutil.chown(self._folder, _USER)
            self._as_user = ["setpriv", f"--reuid={_USER}", "--regid=nogroup", "--clear-groups"]
        options = ["--username=test", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C"]
        command = [*self._as_user, str(programs / "initdb"), "-D", str(self._folder / "data"), *options]
        made = subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=_SECONDS)
        assert made.returncode == 0, made.stderr

    def __enter__(self) -> Postgres:
        settings = {
            "unix_socket_directories": str(self._folder),
            "listen_addresses": "",
            "fsync": "off",
            "full_page_writes": "off",
            "autovacuum": "off",
            "wal_level": "minimal",
            "max_wal_senders": "0",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        end_with_us = ["setpriv", "--pdeathsig=QUIT"]
        command = [
            *self._as_user,
            *end_with_us,
            str(self._programs / "postgres"),
            "-D",
            str(self._folder / "data"),
        ]
        self._log = (self._folder / "log").open("wb")
        self._server = subprocess.Popen([*command, *options], stdout=self._log, stderr=self._log, cwd="/")
        self._wait()
        return self

    def _wait(self) -> None:
        program = str(self._programs / "pg_isready")
        while self._server.poll() is None:
            asked = subprocess.run([program, "-q", "-h", str(self._folder), "-t", "1"], timeout=_SECONDS)
            if asked.returncode == 0:
                return
        raise AssertionError((self._folder / "log").read_text())

    def url(self, name: str) -> str:
        """The URL of the database ``name``, which is made when there is none."""
        with self.connect("postgres") as connection:
            known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone()
            if known is None:
                connection.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
        return f"postgresql://test@/{name}?host={self._folder}"

    def connect(self, name: str) -> psycopg.Connection:
        """A connection to a database, without transactions. It waits for no lock for long: a test left something open then."""
        where = f"host={self._folder} user=test dbname={name} options='-c lock_timeout=20s'"
        return psycopg.connect(where, autocommit=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # An immediate stop, which writes nothing: nobody reads the files again.
        self._server.send_signal(signal.SIGQUIT)
        self._server.wait(_SECONDS)
        self._log.close()
        shutil.rmtree(self._folder)

"""Migrations: what an older schema held is there in the newest one; under a lock; whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Engine, MetaData, create_engine, make_url, text

from headgate.errors import StorageFailed
from headgate.store import EventRecord, open_store
from headgate.store.migrating import migration_config, newest_migration
from headgate.store.migrations.first_spec import spec_of
from headgate.store.models import Base
from headgate.store.schema import NEWEST
from support.archives import extract
from support.models import TESTS
from unit.store_harness import Place

OLD = "2026-11-29T13:39:48Z"
NEW = "2026-11-29T13:39:48.000000Z"
CONTENT = b"name: digits\n\x00\xff"
DOCUMENT = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
OTHER = b"name: other"
OTHER_DOCUMENT = "sha256:" + hashlib.sha256(OTHER).hexdigest()
BLOCK = {"digest": "sha256:2", "version": "v2", "since": OLD, "who": "ann", "reason": "bad"}
RESOLVED = {
    "declared": {"champion": "v1", "weights": {}, "sticky": None},
    "versions": {"v1": {"digest": "sha256:1"}, "v2": {"digest": "sha256:2", "in_document": False}},
    "columns": {}, "timeout_ms": 2000, "baseline": None, "window_seconds": 86400, "root": "/srv",
}  # fmt: skip


def engine_of(place: Place) -> Engine:
    url = make_url(place.url)
    return create_engine(url.set(drivername="postgresql+psycopg") if place.postgres else url)


def old_revision(n: int, **changes: Any) -> dict[str, Any]:
    return {
        "endpoint": "digits", "n": n, "parent": n - 1 or None, "kind": "apply", "status": "applied", "who": "ann",
        "when": OLD, "reason": "why", "document": CONTENT, "document_digest": DOCUMENT, "source": "/srv/a.yaml",
        "source_digest": "sha256:file", "champion": "v1", "salt": "digits/abc/1", "given": [["v2", 0, 499]],
        "attempt": 1, "last_good": "v1", "since": OLD, "frozen": None, "blocks": [BLOCK], "resolved": RESOLVED,
        "message": None, **changes,
    }  # fmt: skip


ROWS: dict[str, list[dict[str, Any]]] = {
    "endpoints": [
        {"name": "digits", "applied": 2, "tail": 3, "removed": False},
        {"name": "other", "applied": 1, "tail": 1, "removed": True},
    ],
    "revisions": [
        old_revision(1),
        old_revision(2, kind="traffic"),
        old_revision(3, status="proposed", frozen={"who": "bob", "when": OLD, "reason": ""}, source="the document of digits"),
        old_revision(1, endpoint="other", resolved={}, source=None, source_digest=None, document=OTHER, document_digest=OTHER_DOCUMENT),
    ],
    "pins": [{"endpoint": "digits", "version": "v1", "digest": "sha256:1", "when": OLD}],
    "blocks": [{"endpoint": "digits", "digest": "sha256:2", "version": "v2", "since": OLD, "who": "", "reason": ""}],
    "applied_files": [
        {"path": "/srv/all.yaml", "digest": "sha256:file", "when": OLD},
        {"path": "/srv/other.yaml", "digest": OTHER_DOCUMENT, "when": OLD},
        {"path": "/srv/unknown.yaml", "digest": "sha256:unknown", "when": OLD},
    ],
    "tokens": [
        {"id": "kid", "sha256": "0", "role": "admin", "name": "first", "created": OLD, "expires": None, "last_used": OLD,
         "revoked": None},
    ],
    "idempotency": [
        {"principal": "kid", "route": "PUT /x", "key": "k", "request": "r", "response": {"a": [1]}, "expires": "2999" + OLD[4:]},
    ],
    "events": [
        {"id": id_, "type": "applied", "when": OLD, "endpoint": "digits", "revision": 1, "who": "", "reason": "", "data": {"n": id_}}
        for id_ in (5, 9)
    ],
    "audit": [
        {"id": id_, "when": OLD, "who": "ann", "role": "admin", "action": "apply", "endpoint": None, "revision": None,
         "outcome": "applied", "reason": "", "detail": {}}
        for id_ in (3, 7)
    ],
    "operations": [
        {"id": "op", "endpoint": "digits", "kind": "apply", "status": "running", "started": OLD, "finished": None,
         "result": None, "problem": {"code": "x"}},
    ],
}  # fmt: skip


@pytest.fixture
def old_place(empty_place: Place) -> Place:
    """A database of schema 0001."""
    engine = engine_of(empty_place)
    config = migration_config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        tables = MetaData()
        tables.reflect(connection)
        for name, rows in ROWS.items():
            connection.execute(tables.tables[name].insert(), rows)
    engine.dispose()
    return empty_place


def test_rows_of_the_first_schema_are_brought_along(old_place: Place) -> None:
    store = old_place.open()
    assert store.check() == store.check_rows() == []
    assert store.floor("events") == 0
    assert [(e.name, e.applied, e.tail, e.removed) for e in store.endpoints()] == [
        ("digits", 2, 3, False),
        ("other", 1, 1, True),
    ]
    assert [(pin.version, pin.digest, pin.when) for pin in store.pins.all()] == [("v1", "sha256:1", NEW)]
    (token,) = store.tokens.list()
    assert (token.created, token.expires, token.last_used) == (NEW, None, NEW)
    (operation,) = store.running_operations()
    assert (operation.started, operation.result, operation.problem) == (NEW, None, {"code": "x"})
    answer = store.idempotent("kid", "PUT /x", "k")
    assert answer is not None
    assert answer.response == {"a": [1]}
    assert store.applied_from("/srv/a.yaml") == store.applied_from("/srv/all.yaml") == {("digits", DOCUMENT)}
    assert store.applied_from("/srv/other.yaml") == {("other", OTHER_DOCUMENT)}
    assert (
        store.applied_from("the document of digits") == store.applied_from("/srv/unknown.yaml") == frozenset()
    )


def test_cursors_go_on_above_those_that_were_given_out(old_place: Place) -> None:
    store = old_place.open()
    assert [(event.generation, event.when, event.data) for event in store.events_after(5, limit=9)] == [
        (9, NEW, {"n": 9})
    ]
    assert [entry.generation for entry in store.audit(endpoint=None, limit=9, before=None)] == [7, 3]
    assert store.generation() == 9
    assert store.add_event(EventRecord("alarm", NEW, None, None, "", "")).generation == 10


def test_a_revision_becomes_a_body(old_place: Place) -> None:
    store = old_place.open()
    one, three, other = (store.revision(*key) for key in (("digits", 1), ("digits", 3), ("other", 1)))
    assert one is not None
    assert three is not None
    assert other is not None
    assert store.document(one.document) == CONTENT
    assert (one.ended, three.ended, one.when, one.source) == (0, None, NEW, "/srv/a.yaml")
    assert json.loads(one.body) == {
        "format": 1, "endpoint": "digits", "n": 1, "parent": None, "kind": "apply", "who": "ann", "when": NEW, "reason": "why",
        "document": {"digest": DOCUMENT, "source": "/srv/a.yaml", "source_digest": "sha256:file", "root": "/srv"},
        "spec": spec_of(RESOLVED)[0],
        "kept": ["v2"],
        "traffic": {
            "champion": "v1", "last_good": "v1", "since": NEW, "attempt": 1,
            "table": {"salt": "digits/abc/1", "given": [["v2", 0, 499]]},
            "frozen": None, "blocked": [{**BLOCK, "since": NEW}],
        },
    }  # fmt: skip
    assert json.loads(three.body)["traffic"]["frozen"] == {"who": "bob", "when": NEW, "reason": ""}
    assert "could not be read" in json.loads(other.body)["unreadable"]


def test_a_state_folder_that_a_gateway_made_is_whole(tmp_path: Path) -> None:
    with tarfile.open(TESTS / "states" / "schema-0001.tar.xz") as tar:
        extract(tar, tmp_path)
    store = open_store(tmp_path / "example" / "state")
    assert store.check() == []
    expected = json.loads((TESTS / "states" / "schema-0001.json").read_text())
    for name in expected["names"]:
        known = {(one["document_digest"]) for one in expected["endpoints"][name]["revisions"]}
        assert {one.document for one in store.revisions(name, limit=99)} == known
    store.close()


@pytest.mark.parametrize("begun", ["empty", "old"])
def test_models_and_migrations_agree(empty_place: Place, request: pytest.FixtureRequest, begun: str) -> None:
    if begun == "old":
        request.getfixturevalue("old_place")
    empty_place.open().close()
    engine = engine_of(empty_place)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_an_empty_database_gets_the_newest_schema() -> None:
    assert newest_migration() == NEWEST


def test_a_schema_from_the_future_is_refused(empty_place: Place) -> None:
    store = empty_place.open()
    with store.transactions.write() as write:
        write.session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    store.close()
    with pytest.raises(StorageFailed, match="newer version"):
        empty_place.open()


@pytest.mark.parametrize("at", [1, 6, 11])
def test_a_migration_that_is_cut_off_leaves_nothing(
    old_place: Place, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    create = Operations.create_table
    calls: list[str] = []

    def cut_off(self: Operations, name: str, *columns: object, **more: object) -> object:
        calls.append(name)
        if len(calls) == at:
            raise KeyboardInterrupt
        return create(self, name, *columns, **more)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(Operations, "create_table", cut_off)
        with pytest.raises(KeyboardInterrupt):
            old_place.open()
    assert len(calls) == at
    store = old_place.open()
    assert store.generation() == 9
    assert store.check() == []


OPEN = """
import sys
from pathlib import Path
from headgate.store import open_store
print("ready", flush=True)
sys.stdin.readline()
store = open_store(Path(sys.argv[1]), url=sys.argv[2])
print(store.generation(), len(store.revisions("digits", limit=9)), store.check())
store.close()
"""


def test_two_processes_that_open_at_once_migrate_once(old_place: Place) -> None:
    environment = {**os.environ, "PYTHONPATH": str(TESTS.parent / "python")}
    others = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN, str(old_place.folder / name), old_place.url],
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for name in ("one", "other")
    ]
    for other in others:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
    for other in others:
        assert other.stdin is not None
        other.stdin.write("\n")
        other.stdin.flush()
    for other in others:
        said, why = other.communicate(timeout=60)
        assert (said, other.returncode) == ("9 3 []\n", 0), why

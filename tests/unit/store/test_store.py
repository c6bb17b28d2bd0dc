"""The store on a real SQLite file: migrations, numbering, one transaction per transition, the lock."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text

from headgate.errors import Conflict, StorageFailed
from headgate.store import (
    AuditRecord,
    BlockRecord,
    Commit,
    EventRecord,
    IdempotencyRecord,
    RevisionRecord,
    Store,
    open_store,
    stamp,
    unstamp,
)
from headgate.store.models import Base
from unit.control_harness import Clock

NOW = "2027-03-01T03:12:04Z"
BLOCK = BlockRecord("sha256:2", "v2", NOW, "ann", "bad")


def record(n: int = 1, **changes: object) -> RevisionRecord:
    first = RevisionRecord(
        endpoint="digits", n=n, parent=n - 1 or None, kind="apply", status="proposed", who="ann", when=NOW,
        reason="why", document=b"\x00bytes\xff", document_digest="sha256:d", source="/a.yaml", source_digest="sha256:s",
        champion="v1", salt="digits/abc/1", given=(("v2", 0, 499), ("v2", 999, 500)), attempt=1, last_good="v1",
        since=NOW, frozen=None, blocks=(BLOCK,), resolved={"versions": {}},
    )  # fmt: skip
    return replace(first, **changes)  # type: ignore[arg-type]


def event(n: int = 1) -> EventRecord:
    return EventRecord("applied", NOW, "digits", n, "ann", "why", {"a": 1})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with_clock = open_store(tmp_path / "state", clock=Clock())
    yield with_clock
    with_clock.close()


def test_a_revision_comes_back_as_it_was(store: Store) -> None:
    store.propose(record())
    found = store.revision("digits", 1)
    assert found == record()
    assert store.endpoints()[0].applied is None
    events = store.commit(Commit("digits", 1, "applied", None, [event()]))
    assert events[0].id == 1
    found = store.revision("digits", 1)
    assert found is not None
    assert found.status == "applied"
    assert (store.endpoints()[0].applied, store.endpoints()[0].tail) == (1, 1)


def test_history_is_append_only(store: Store) -> None:
    store.propose(record(1))
    with pytest.raises(StorageFailed, match="revision 3 cannot follow revision 1"):
        store.propose(record(3))
    with pytest.raises(StorageFailed, match="revision 1 cannot follow revision 1"):
        store.propose(record(1))
    store.commit(Commit("digits", 1, "failed", "broken"))
    with pytest.raises(StorageFailed, match="no proposed revision 1"):
        store.commit(Commit("digits", 1, "applied"))
    store.propose(record(2))
    store.commit(Commit("digits", 2, "applied"))
    assert [(r.n, r.status, r.message) for r in store.revisions("digits", limit=9)] == [
        (2, "applied", None), (1, "failed", "broken"),
    ]  # fmt: skip
    assert [r.n for r in store.revisions("digits", limit=9, before=2)] == [1]


def test_confirmations_in_another_order_keep_the_highest(store: Store) -> None:
    store.propose(record(1))
    store.propose(record(2, blocks=()))
    store.commit(Commit("digits", 2, "applied"))
    store.commit(Commit("digits", 1, "applied"))
    assert store.endpoints()[0].applied == 2


def test_a_transition_is_whole_or_not_there(store: Store) -> None:
    store.propose(record(1))
    bad = EventRecord("applied", NOW, "digits", 1, "ann", "", {"not json": object()})
    key = IdempotencyRecord("kid", "PUT /x", "k", "req", {"a": 1}, "2027-03-02T03:12:04Z")
    audit = AuditRecord(NOW, "ann", "admin", "apply", "digits", 1, "applied", "")
    with pytest.raises((StorageFailed, TypeError)):
        store.commit(Commit("digits", 1, "applied", None, [event(), bad], audit, key, {"v1": "sha256:1"}))
    assert store.endpoints()[0].applied is None
    assert store.idempotent("kid", "PUT /x", "k") is None
    assert store.audit(endpoint=None, limit=9, before=None) == []
    assert store.events_after(0, limit=9) == []
    assert store.pins.get("digits", "v1") is None
    store.commit(Commit("digits", 1, "applied", None, [event()], audit, key, {"v1": "sha256:1"}))
    assert store.idempotent("kid", "PUT /x", "k") == key
    assert store.audit(endpoint="digits", limit=9, before=None)[0].action == "apply"
    assert store.pins.get("digits", "v1") == "sha256:1"


def test_what_is_written_late_is_written_once(store: Store) -> None:
    commit = Commit("digits", 1, "applied", None, [event()])
    assert len(store.append_ended(record(1), commit)) == 1
    assert store.append_ended(record(1), commit) == []
    store.propose(record(2))
    assert len(store.append_ended(record(2), Commit("digits", 2, "applied", None, [event(2)]))) == 1
    assert store.endpoints()[0].applied == 2


def test_keys_expire(store: Store) -> None:
    key = IdempotencyRecord("kid", "PUT /x", "k", "req", {"a": 1}, "2027-03-01T03:12:05Z")
    store.put_idempotent(key)
    assert store.idempotent("kid", "PUT /x", "k") == key
    store.clock.forward(1)  # type: ignore[attr-defined]
    assert store.idempotent("kid", "PUT /x", "k") is None


def test_pins_never_change(store: Store) -> None:
    store.propose(record(1), {"v1": "sha256:1"})
    assert store.pins.get("digits", "v1") is None
    store.commit(Commit("digits", 1, "applied", pins={"v1": "sha256:1"}))
    store.propose(record(2), {"v1": "sha256:1"})
    with pytest.raises(Conflict, match="version v1 of digits is sha256:1 since .*, and this is sha256:2"):
        store.propose(record(3), {"v1": "sha256:2"})
    store.commit(Commit("digits", 2, "applied", pins={"v1": "sha256:2"}))
    assert [(p.version, p.digest) for p in store.pins.all()] == [("v1", "sha256:1")]


def test_everything_survives_a_close(tmp_path: Path) -> None:
    store = open_store(tmp_path / "state")
    store.propose(record())
    store.commit(Commit("digits", 1, "applied", None, [event()]))
    store.put_applied_file("/a.yaml", "sha256:s")
    store.close()
    store.close()
    store = open_store(tmp_path / "state")
    assert store.revision("digits", 1) == replace(record(), status="applied")
    assert store.applied_file("/a.yaml") == "sha256:s"
    assert store.last_event_id() == 1
    store.close()


def test_the_database_is_durable_and_private(tmp_path: Path) -> None:
    state = tmp_path / "state"
    store = open_store(state)
    with store.read() as session:
        assert session.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert session.execute(text("PRAGMA synchronous")).scalar() == 2
    for folder in (state, state / "baselines", state / "blobs", state / "artifacts"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    store.close()


def test_models_and_migrations_agree(tmp_path: Path) -> None:
    store = open_store(tmp_path / "state")
    store.close()
    engine = create_engine(f"sqlite:///{tmp_path / 'state' / 'headgate.db'}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_a_schema_from_the_future_is_refused(tmp_path: Path) -> None:
    open_store(tmp_path / "state").close()
    engine = create_engine(f"sqlite:///{tmp_path / 'state' / 'headgate.db'}")
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(StorageFailed, match="newer version"):
        open_store(tmp_path / "state")


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "headgate.db").write_bytes(
        b"not a database, but long enough to be read as one" * 20
    )
    with pytest.raises(StorageFailed):
        open_store(tmp_path / "state")


def test_another_process_is_kept_out_until_this_one_ends(tmp_path: Path) -> None:
    state = tmp_path / "state"
    code = (
        f"from pathlib import Path; from headgate.store import open_store; open_store(Path({str(state)!r}))"
    )
    here = Path(__file__).parents[3] / "python"
    environment = {**os.environ, "PYTHONPATH": str(here)}
    store = open_store(state)
    other = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert other.returncode != 0
    assert f"another gateway (process {os.getpid()})" in other.stderr
    with pytest.raises(Conflict):
        open_store(state)
    store.close()
    other = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert other.returncode == 0, other.stderr


def test_a_state_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(StorageFailed, match="cannot be used"):
        open_store(tmp_path / "state")


def test_stamps() -> None:
    assert stamp(unstamp(NOW)) == NOW
    with pytest.raises(ValueError, match="time zone"):
        stamp(unstamp(NOW).replace(tzinfo=None))


def test_a_migration_that_is_cut_off_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from alembic.operations import Operations

    create = Operations.create_table
    calls = []

    def cut_off(self: Operations, name: str, *columns: object, **more: object) -> object:
        calls.append(name)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return create(self, name, *columns, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Operations, "create_table", cut_off)
    with pytest.raises(KeyboardInterrupt):
        open_store(tmp_path / "state")
    monkeypatch.undo()
    assert len(calls) == 4
    open_store(tmp_path / "state").close()

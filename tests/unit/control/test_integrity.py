"""A database with flipped bytes, lost writes or none left: said at the start, and never served as something older."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from headgate.errors import ModelNotReady, StorageFailed
from headgate.store import AuditRecord, TokenRecord
from headgate.store.applied_file import NAME, read_applied
from unit.control_harness import Gate, document, gateway, run

SHARED = "{champion: v1, weights: {v2: 20%}, sticky: header.x-user-id}"

TOKEN = TokenRecord(
    "kid",
    "0" * 64,
    "operator",
    "ci",
    "2026-01-01T00:00:00.000000Z",
    expires=None,
    last_used=None,
    revoked=None,
)
AUDIT = AuditRecord(TOKEN.created, "first", "admin", "token", None, None, "applied", "")


def replaced(folder: Path, old: bytes, new: bytes) -> None:
    """Bytes in the database's file are others from now on; of the same length, as when bits flip."""
    assert len(old) == len(new)
    path = folder / "state" / "headgate.db"
    data = path.read_bytes()
    assert data.count(old)
    path.write_bytes(data.replace(old, new))


async def served(folder: Path) -> None:
    """Two endpoints, one of them with a challenger, checkpointed into the database's file."""
    async with gateway(folder) as gate:
        await gate.apply(document(SHARED))
        await gate.apply(document(SHARED, name="other"))
        await gate.control.patch_traffic("digits", weights={"v2": "30%"})


def statement(folder: Path, text: str) -> None:
    with sqlite3.connect(folder / "state" / "headgate.db") as database:
        database.execute(text)
    database.close()


DAMAGES: dict[str, Callable[[Path], None]] = {
    "a body": lambda folder: replaced(folder, b'["v2",0,2999]', b'["v2",0,9999]'),
    "a document": lambda folder: replaced(folder, b"name: digits", b"name: digitz"),
    "which revision is in force": lambda folder: statement(folder, "UPDATE endpoints SET applied = 1 WHERE name = 'digits'"),
    "the name of an endpoint": lambda folder: statement(folder, "UPDATE endpoints SET name = 'digitz' WHERE name = 'digits'"),
    "a line of an endpoint": lambda folder: statement(folder, "DELETE FROM endpoints WHERE name = 'digits'"),
    "a status": lambda folder: statement(folder, "UPDATE revisions SET status = 'failed' WHERE endpoint = 'digits' AND n = 2"),
    "whether it was removed": lambda folder: statement(folder, "UPDATE endpoints SET removed = 1 WHERE name = 'digits'"),
    "its newest revision": lambda folder: statement(folder, "DELETE FROM revisions WHERE endpoint = 'digits' AND n = 2"),
    "its newest writes": lambda folder: (
        statement(folder, "DELETE FROM revisions WHERE endpoint = 'digits' AND n = 2"),
        statement(folder, "UPDATE endpoints SET applied = 1, tail = 1 WHERE name = 'digits'"),
    )[0],
    "all of its rows": lambda folder: (
        statement(folder, "DELETE FROM revisions WHERE endpoint = 'digits'"),
        statement(folder, "DELETE FROM endpoints WHERE name = 'digits'"),
    )[0],
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGES)
def test_a_damaged_endpoint_is_not_served_as_something_else(tmp_path: Path, what: str) -> None:
    async def body() -> None:
        await served(tmp_path)
        DAMAGES[what](tmp_path)
        async with gateway(tmp_path) as gate:
            assert set(gate.native.served) == {"other"}
            await said(gate)
        async with gateway(tmp_path) as gate:
            # It stands until it is repaired.
            assert set(gate.native.served) == {"other"}
            assert gate.control.readiness().ready

    run(body)


async def said(gate: Gate) -> None:
    why = gate.native.excused["digits"]
    assert "headgate state check" in why
    with pytest.raises(ModelNotReady, match="headgate state restore"):
        await gate.control.get("digits")
    one = next(one for one in await gate.control.list() if one["name"] == "digits")
    assert (one["state"], len(one["alarms"])) == ("failed", 1)
    assert "alarm" in {
        event.type for event in gate.store.events_after(0, limit=500) if event.endpoint == "digits"
    }
    with pytest.raises(ModelNotReady, match="--take-traffic"):
        await gate.apply(document(SHARED))


def test_a_damaged_endpoint_begins_anew_when_somebody_says_so(tmp_path: Path) -> None:
    async def body() -> None:
        await served(tmp_path)
        DAMAGES["its newest writes"](tmp_path)
        async with gateway(tmp_path) as gate:
            await gate.apply(document("{champion: v3}"), take_traffic=True)
            assert gate.live()[0] == "v3"
        async with gateway(tmp_path) as gate:
            assert gate.live()[0] == "v3"

    run(body)


@pytest.mark.parametrize("how", ["lost", "empty", "without rows"])
def test_a_lost_database_does_not_start_as_a_new_one(tmp_path: Path, how: str) -> None:
    async def body() -> None:
        await served(tmp_path)
        database = tmp_path / "state" / "headgate.db"
        if how == "lost":
            database.unlink()
        elif how == "empty":
            database.write_bytes(b"")
        else:
            for table in ("revisions", "endpoints"):
                statement(tmp_path, f"DELETE FROM {table}")
        for _ in range(2):
            with pytest.raises(StorageFailed, match=rf"lost or empty.*headgate state restore FILE.*{NAME}"):
                async with gateway(tmp_path):
                    pass

    run(body)


async def cut_off(folder: Path, place: int) -> None:
    """A state folder as after a kill, with a byte of the write-ahead log flipped: SQLite drops what comes after it, in silence."""
    async with gateway(folder) as gate:
        await gate.apply(document(SHARED))
        await gate.apply(document(SHARED, name="other"))
        await gate.control.patch_traffic("digits", weights={"v2": "30%"})
        await gate.control._integrity.write()
        names = ("headgate.db", "headgate.db-wal", NAME)
        kept = {name: bytearray((gate.state / name).read_bytes()) for name in names}
    kept["headgate.db-wal"][place] ^= 0xFF
    for name, data in kept.items():
        (folder / "state" / name).write_bytes(data)


def test_a_log_that_lost_its_newest_writes_is_noticed(tmp_path: Path) -> None:
    async def body() -> None:
        await cut_off(tmp_path, -2000)
        async with gateway(tmp_path) as gate:
            assert set(gate.native.served) == {"other"}
            assert (
                "revision 2: it was in force, and the database has lost it" in gate.native.excused["digits"]
            )

    run(body)


def test_a_log_that_lost_everything_is_no_new_gateway(tmp_path: Path) -> None:
    async def body() -> None:
        await cut_off(tmp_path, 500)
        with pytest.raises(StorageFailed, match="lost or empty"):
            async with gateway(tmp_path):
                pass

    run(body)


def test_a_log_that_lost_what_is_of_no_endpoint_is_an_alarm(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document(SHARED))
            gate.store.tokens.add(TOKEN, AUDIT)
            before = (gate.state / "headgate.db-wal").stat().st_size
            gate.store.tokens.revoke(TOKEN.id, AUDIT)
            await gate.control._integrity.write()
            names = ("headgate.db", "headgate.db-wal", NAME)
            kept = {name: bytearray((gate.state / name).read_bytes()) for name in names}
        # In the first page that the revocation has written: it is lost, and so is all behind it.
        kept["headgate.db-wal"][before + 2000] ^= 0xFF
        for name, data in kept.items():
            (tmp_path / "state" / name).write_bytes(data)
        async with gateway(tmp_path) as gate:
            # The token that was revoked is accepted again: nothing of the rows that are left says so.
            token = gate.store.tokens.get(TOKEN.id)
            assert token is not None
            assert token.revoked is None
            assert set(gate.native.served) == {"digits"}
            (line,) = gate.control.damage()
            assert "has lost its newest writes" in line
            assert "tokens" in line

    run(body)


def test_a_file_that_could_not_be_written_is_written_at_the_next_turn(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document(SHARED))
            obstacle = gate.state / f".{NAME}.new"
            obstacle.mkdir()
            with pytest.raises(StorageFailed, match="could not be written"):
                await gate.control._integrity.write()
            obstacle.rmdir()
            await gate.control._integrity.write()
            known = read_applied(gate.state)
            assert known is not None
            assert set(known.endpoints) == {"digits"}

    run(body)


def test_a_page_that_cannot_be_read_is_an_alarm_with_the_remedy(tmp_path: Path) -> None:
    async def body() -> None:
        await served(tmp_path)
        path = tmp_path / "state" / "headgate.db"
        with sqlite3.connect(path) as database:
            (root,) = database.execute(
                "SELECT rootpage FROM sqlite_master WHERE name = 'idempotency'"
            ).fetchone()
            (size,) = database.execute("PRAGMA page_size").fetchone()
        database.close()
        data = bytearray(path.read_bytes())
        data[(root - 1) * size] ^= 0xFF
        path.write_bytes(data)
        async with gateway(tmp_path) as gate:
            (line, *_) = gate.control.damage()
            assert "pages of the database are damaged" in line
            assert "headgate state check" in line
            assert set(gate.native.served) == {"digits", "other"}

    run(body)


def test_damage_of_the_history_is_an_alarm_and_the_endpoint_is_served(tmp_path: Path) -> None:
    async def body() -> None:
        await served(tmp_path)
        async with gateway(tmp_path) as gate:
            await gate.control.patch_traffic("digits", weights={"v2": "40%"})
        replaced(tmp_path, b'["v2",0,2999]', b'["v2",0,2998]')
        async with gateway(tmp_path) as gate:
            assert set(gate.native.served) == {"digits", "other"}
            await gate.control._integrity.check_history()
            (alarm,) = (await gate.control.get("digits"))["alarms"]
            assert "revision 2: its body is not the one that was written" in alarm
            await gate.control._integrity.check_history()
            alarms = [e for e in gate.store.events_after(0, limit=500) if e.type == "alarm"]
            assert len(alarms) == 1

    run(body)


def test_a_damaged_file_beside_the_database_is_written_anew(tmp_path: Path) -> None:
    async def body() -> None:
        await served(tmp_path)
        file = tmp_path / "state" / NAME
        whole = file.read_bytes()
        file.write_bytes(whole[:-9])
        async with gateway(tmp_path) as gate:
            assert set(gate.native.served) == {"digits", "other"}
        assert file.stat().st_mode & 0o777 == 0o600
        assert file.read_bytes().split(b"\n", 1)[1].count(b'"n":2') == whole.count(b'"n":2')

    run(body)

"""Backups of a state folder: made beside a gateway, brought back whole, and refused when they are not ours."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest

from headgate.errors import Conflict, InvalidArgument, StorageFailed
from headgate.store import AuditRecord, TokenRecord, backup, open_store, restore_backup, write_backup

AUDIT = AuditRecord("2027-03-01T03:12:04.000000Z", "ann", "admin", "token_create", None, None, "applied", "")


def token(name: str) -> TokenRecord:
    return TokenRecord(name, "hash", "admin", name, AUDIT.when, None, None, None)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A folder with a model, a baseline and a token; its gateway is not running."""
    folder = tmp_path / "state"
    store = open_store(folder)
    store.tokens.add(token("before"), AUDIT)
    store.close()
    blob = folder / "blobs" / "sha256" / ("ab" * 32)
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"model")
    blob.chmod(0o444)
    artifact = folder / "artifacts" / ("cd" * 32)
    artifact.mkdir()
    os.link(blob, artifact / "model.onnx")
    (folder / "baselines" / "one.json").write_text("{}")
    (folder / "admin-token").write_text("headgate_secret")
    (folder / "feedback").mkdir(mode=0o700)
    for name in ("digits.receipts", "digits.receipts.new", "other"):
        (folder / "feedback" / name).write_bytes(b"key of " + name.encode())
    return folder


def tokens_of(folder: Path) -> list[str]:
    store = open_store(folder)
    try:
        assert store.check() == []
        return [one.id for one in store.tokens.list()]
    finally:
        store.close()


def test_it_is_made_while_a_gateway_writes_and_brings_back_what_there_was(
    state: Path, tmp_path: Path
) -> None:
    gateway = open_store(state)
    try:
        gateway.tokens.add(token("just now"), AUDIT)
        write_backup(state, tmp_path / "backup.tar")
        gateway.tokens.add(token("after"), AUDIT)
    finally:
        gateway.close()
    restored = tmp_path / "restored"
    restore_backup(tmp_path / "backup.tar", restored)
    assert tokens_of(restored) == ["before", "just now"]
    model = restored / "artifacts" / ("cd" * 32) / "model.onnx"
    assert model.read_bytes() == b"model"
    assert model.stat().st_ino == (restored / "blobs" / "sha256" / ("ab" * 32)).stat().st_ino
    assert (restored / "baselines" / "one.json").read_text() == "{}"
    assert not (restored / "admin-token").exists()
    (receipts,) = (restored / "feedback").iterdir()
    assert (receipts.name, receipts.read_bytes()) == ("digits.receipts", b"key of digits.receipts")


@pytest.mark.parametrize("content", [b"", b"longer than the key before it" * 1_000])
def test_receipts_that_are_written_meanwhile_are_copied_as_a_whole(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    file = state / "feedback" / "digits.receipts"
    head = tarfile.TarFile.gettarinfo

    def replaced(tar: tarfile.TarFile, *given: Any, **named: Any) -> tarfile.TarInfo:
        """A gateway replaces the file behind the moment at which its size was looked at."""
        made = head(tar, *given, **named)
        if made.name.endswith(file.name):
            beside = file.with_suffix(".new")
            beside.write_bytes(content)
            beside.rename(file)
        return made

    monkeypatch.setattr(tarfile.TarFile, "gettarinfo", replaced)
    write_backup(state, tmp_path / "backup.tar")
    restore_backup(tmp_path / "backup.tar", tmp_path / "restored")
    assert file.read_bytes() == content
    assert (tmp_path / "restored" / "feedback" / file.name).read_bytes() == b"key of digits.receipts"


def test_receipts_are_copied_behind_the_database(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway writes which receipts were used before the store gets what they counted."""
    file = state / "feedback" / "digits.receipts"
    copy = backup._copy_database

    def counted_after(source: Path, target: Path) -> None:
        copy(source, target)
        file.write_bytes(b"more was used")

    monkeypatch.setattr(backup, "_copy_database", counted_after)
    write_backup(state, tmp_path / "backup.tar")
    restore_backup(tmp_path / "backup.tar", tmp_path / "restored")
    assert (tmp_path / "restored" / "feedback" / file.name).read_bytes() == b"more was used"


def test_only_its_owner_reads_a_backup_and_what_was_restored(state: Path, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_backup(state, tmp_path / "backup.tar")
        restore_backup(tmp_path / "backup.tar", tmp_path / "restored")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "backup.tar").stat().st_mode) == 0o600
    for path in (tmp_path / "restored", *(tmp_path / "restored").rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    assert stat.S_IMODE((tmp_path / "restored" / "blobs" / "sha256" / ("ab" * 32)).stat().st_mode) == 0o400
    assert sorted(one.name for one in tmp_path.iterdir()) == ["backup.tar", "restored", "state"]


def test_nothing_is_written_over(state: Path, tmp_path: Path) -> None:
    write_backup(state, tmp_path / "backup.tar")
    with pytest.raises(Conflict, match="there already"):
        write_backup(state, tmp_path / "backup.tar")
    with pytest.raises(Conflict, match="not empty"):
        restore_backup(tmp_path / "backup.tar", state)
    assert tokens_of(state) == ["before"]
    with pytest.raises(StorageFailed, match=r"no headgate\.db"):
        write_backup(tmp_path, tmp_path / "other.tar")
    with pytest.raises(StorageFailed):
        write_backup(state, tmp_path / "nowhere" / "backup.tar")


def archive(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w") as tar:
        for member in members:
            content = b"x" if member.isreg() else b""
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made


@pytest.mark.parametrize(
    "evil",
    [
        member("../outside"),
        member("/etc/outside"),
        member("blobs/../../outside"),
        member("blobs/./x"),
        member("admin-token"),
        member("feedback/digits.receipts.new"),
        member("feedback/../admin-token.receipts"),
        member("feedback/below/digits.receipts"),
        member("blobs/link", tarfile.SYMTYPE, "/etc/passwd"),
        member("blobs/link", tarfile.LNKTYPE, "../../etc/passwd"),
        member("blobs/pipe", tarfile.FIFOTYPE),
        member("blobs/device", tarfile.CHRTYPE),
    ],
    ids=lambda one: f"{one.name} {one.type!r}",
)
def test_an_archive_that_is_no_backup_writes_nothing(tmp_path: Path, evil: tarfile.TarInfo) -> None:
    path = archive(tmp_path / "evil.tar", member("headgate.db"), evil)
    with pytest.raises(InvalidArgument, match="not a backup"):
        restore_backup(path, tmp_path / "restored")
    assert not (tmp_path / "restored").exists()


def test_what_is_cut_or_holds_no_database_is_refused(state: Path, tmp_path: Path) -> None:
    write_backup(state, tmp_path / "backup.tar")
    whole = (tmp_path / "backup.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[:5000])
    (tmp_path / "text.tar").write_text("not an archive")
    archive(tmp_path / "empty.tar", member("blobs/x"))
    for name in ("cut.tar", "text.tar", "empty.tar"):
        with pytest.raises((InvalidArgument, StorageFailed)):
            restore_backup(tmp_path / name, tmp_path / "restored")
        assert not (tmp_path / "restored" / "headgate.db").exists()

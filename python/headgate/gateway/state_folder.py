"""A state folder as a whole, from outside of the gateway: checked, copied to a file, brought back from one.

Not here: the database (``store``), artifacts (``registry``), baselines (``drift``). Next: ``cli.state``.

A gateway may be running on the folder: nothing here takes its lock, and the database is looked at through a copy that SQLite makes
of it, which is one state however much is written meanwhile. Artifacts and baselines never change once they are there.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from headgate.drift import BaselineStore, baseline_path
from headgate.errors import Conflict, HeadgateError, InvalidArgument, NotFound, StorageFailed
from headgate.leases import Lease
from headgate.private_files import create_file, make_folder, temporary_folder
from headgate.registry import (
    Collected,
    Unreferenced,
    artifact_fault,
    artifact_folder,
    lone_blob_faults,
    unreferenced,
)
from headgate.registry import collect as collect_unreferenced
from headgate.store import (
    APPLIED_FILE,
    DATABASE,
    FEEDBACK,
    Applied,
    AppliedDocument,
    AppliedState,
    Commit,
    Proposal,
    RevisionRecord,
    Store,
    json_text,
    open_beside,
    open_store,
    read_applied,
    receipt_files,
    restore_backup,
    write_backup,
)

_PAGE = 1000
_AT_ONCE = 100
"""Artifacts, baselines and files of models, each, that are removed at a time: those that use them wait meanwhile."""
_MESSAGE = "restored from the last applied state"


@dataclass
class References:
    """The digests of artifacts and baselines that revisions name."""

    artifacts: set[str] = field(default_factory=set)
    baselines: set[str] = field(default_factory=set)

    def add(self, body: str) -> None:
        """Those of one revision; of one that cannot be read, none."""
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            spec = json.loads(body)["spec"]
            self.artifacts |= {one["digest"] for one in spec["versions"].values() if "constant" not in one}
            baseline = spec.get("drift", {}).get("baseline")
            self.baselines |= set() if baseline is None else {baseline}

    def faults(self, state: Path) -> list[str]:
        """Those that are not whole."""
        kept = BaselineStore(state)
        found = [artifact_fault(state, digest) for digest in sorted(self.artifacts)]
        for digest in sorted(self.baselines):
            kept.find(digest)
            found.append(kept.fault(digest))
        return [fault for fault in found if fault is not None]


@dataclass
class Found:
    """What a look at a folder found: how much was looked at, and what is damaged."""

    endpoints: int = 0
    files: int = 0
    database: list[str] = field(default_factory=list)
    revisions: list[tuple[str, int, str]] = field(default_factory=list)
    damaged_files: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Everything that is damaged, one sentence each; empty when all is whole."""
        rows = [f"revision {n} of {endpoint}: {what}" for endpoint, n, what in self.revisions]
        return [*self.database, *rows, *self.damaged_files]


def check(state: Path) -> Found:
    """Reads everything and changes nothing."""
    if not (state / DATABASE).exists():
        raise StorageFailed(f"{state} holds no state: there is no {DATABASE} in it{_known(state)}")
    try:
        with _in_use(state), _snapshot(state) as (store, references):
            return _found(store, references, state)
    except StorageFailed as error:
        return Found(database=[error.message])


def backup(state: Path, target: Path) -> list[str]:
    """Writes one file with everything that is kept; nothing, and what is damaged, if something is."""
    if target.exists():
        raise Conflict(f"{target} is there already; give a backup a name of its own")
    found = check(state).lines()
    if not found:
        with _in_use(state):
            write_backup(state, target)
    return found


def collect(state: Path, *, dry_run: bool) -> Collected | Unreferenced:
    """Removes what nobody references, or says what that is; :class:`StorageFailed` for a damaged state, whose rows may name more."""
    store = open_beside(state)
    try:
        found = [
            *store.check_pages(),
            *store.check_rows(),
            *(f"{one.endpoint}: {one.what}" for one in store.check()),
        ]
        if found:
            raise StorageFailed(f"nothing is collected, because the state is damaged: {'; '.join(found)}")
        if dry_run:
            return unreferenced(state, store.referenced_digests)
        total = collected = collect_unreferenced(state, store.referenced_digests, _AT_ONCE)
        while collected.more:
            collected = collect_unreferenced(state, store.referenced_digests, _AT_ONCE)
            total += collected
        return total
    finally:
        store.close()


def export(state: Path) -> Iterator[dict[str, Any]]:
    """Every revision with its document, by endpoint, and then every row of the audit, newest first; all of one moment."""
    if not (state / DATABASE).exists():
        raise StorageFailed(f"{state} holds no state: there is no {DATABASE} in it{_known(state)}")
    with _snapshot(state) as (store, _):
        for pointer in store.endpoints():
            for record in _revisions(store, pointer.name):
                document = store.document(record.document).decode(errors="replace")
                yield {
                    "record": "revision",
                    **asdict(record),
                    "body": _read(record.body),
                    "document": document,
                }
        before: int | None = None
        while page := store.audit(endpoint=None, limit=_PAGE, before=before):
            yield from ({"record": "audit", **asdict(entry)} for entry in page)
            before = page[-1].generation


def _read(body: str) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body  # it is damaged, and exported as it is


def _revisions(store: Store, endpoint: str) -> Iterator[RevisionRecord]:
    """All of an endpoint, newest first."""
    before: int | None = None
    while page := store.revisions(endpoint, limit=_PAGE, before=before):
        yield from page
        before = page[-1].n


def restore(source: Path, state: Path) -> Found:
    """Makes an empty folder the state of ``source``, a backup or the last applied state of a folder that lost its database; what
    was found in it. A source that is damaged changes nothing.
    """
    if state.exists() and any(state.iterdir()):
        raise Conflict(f"{state} is not empty: restore into a folder of its own, or move what is there aside")
    if not source.is_file():
        raise NotFound(f"there is no file {source}")
    try:
        make_folder(state.parent)
        with temporary_folder(state.parent, f".{state.name}.") as work:
            found = _restored(source, work)
            work.rename(state)
    except OSError as error:
        raise StorageFailed(f"{source} could not be restored into {state}: {error}") from error
    return found


def _restored(source: Path, work: Path) -> Found:
    """The state of ``source`` in ``work``, ready to be used, and what was found in it."""
    if source.name == APPLIED_FILE:
        _begin_from(source, work)
    else:
        restore_backup(source, work)
    found = check(work)
    if found.lines():
        raise InvalidArgument(f"{source} is damaged, and nothing was changed: {'; '.join(found.lines())}")
    (work / "lock").unlink(missing_ok=True)
    return found


def _begin_from(source: Path, work: Path) -> None:
    """A new history from the last applied state of a folder, with the artifacts and the receipts that lie beside it there."""
    applied = read_applied(source.parent) or Applied()
    served = {name: entry for name, entry in applied.endpoints.items() if not entry.removed}
    references = References()
    for entry in served.values():
        references.add(entry.body)
    store = open_store(work)
    try:
        for name, entry in served.items():
            _write(store, name, entry)
        store.write_applied()
    finally:
        store.close()
    with _in_use(source.parent):
        for digest in references.artifacts:
            shutil.copytree(
                artifact_folder(source.parent, digest), artifact_folder(work, digest), dirs_exist_ok=True
            )
        for digest in references.baselines:
            shutil.copy2(baseline_path(source.parent, digest), baseline_path(work, digest))
    make_folder(work / FEEDBACK)
    for path in receipt_files(source.parent):
        shutil.copy2(path, work / FEEDBACK)


def _write(store: Store, name: str, entry: AppliedState) -> None:
    body: dict[str, Any] = {**json.loads(entry.body), "n": 1, "parent": None, "kind": "apply"}
    digests = {version: one["digest"] for version, one in body["spec"]["versions"].items()}
    source = body["document"]["source"]
    record = RevisionRecord(
        endpoint=name,
        n=1,
        parent=None,
        kind="apply",
        status="proposed",
        who=body["who"],
        when=body["when"],
        reason=body["reason"],
        document=entry.document,
        source=source,
        body=json_text(body),
    )
    # So that a start with this file does not apply it once more.
    file = None if source is None else AppliedDocument(source, name, entry.document)
    commit = Commit(name, 1, "applied", _MESSAGE, pins=digests, applied=file)
    store.append_ended(Proposal(record, entry.content.encode(), digests), commit)


def _found(store: Store, references: References, state: Path) -> Found:
    every = (*store.check(), *store.check_in_force())
    damages = {(damage.endpoint, damage.n, damage.what) for damage in every}
    return Found(
        len(store.endpoints()),
        len(references.artifacts) + len(references.baselines),
        [*(f"the database: {line}" for line in store.check_pages()), *store.check_rows()],
        sorted(damages),
        references.faults(state) + lone_blob_faults(state) + _receipt_faults(state),
    )


def _receipt_faults(state: Path) -> list[str]:
    """Files of receipts that are damaged."""
    files = receipt_files(state)
    if not files:
        return []
    from headgate import _native  # Without feedback a folder is looked at without the data plane.

    remedy = (
        "a gateway that runs has the key and writes the file anew with the next feedback, so do not restart it before that; "
        "if none runs, restore a backup, or start it, which makes a new key and refuses feedback on earlier answers"
    )
    return [
        f"{FEEDBACK}/{path.name} is damaged: {remedy}"
        for path in files
        if not _native.receipts_are_whole(path)
    ]


@contextmanager
def _in_use(state: Path) -> Iterator[None]:
    """Keeps everybody from collecting artifacts and baselines meanwhile."""
    with Lease() as lease:
        lease.hold(state / "artifacts")
        lease.hold(state / "baselines")
        yield


@contextmanager
def _snapshot(state: Path) -> Iterator[tuple[Store, References]]:
    """A store on a copy of the folder's database, and what its revisions name; the copy is gone afterwards."""
    with temporary_folder(prefix="headgate-state-") as copy:
        # This file first: it may lag behind the database, and is never ahead of it.
        if (state / APPLIED_FILE).exists():
            shutil.copy2(state / APPLIED_FILE, copy)
        _copy_database(state / DATABASE, copy / DATABASE)
        store = open_store(copy)
        try:
            references = References()
            for pointer in store.endpoints():
                for record in _revisions(store, pointer.name):
                    references.add(record.body)
            yield store, references
        finally:
            store.close()


def _copy_database(source: Path, target: Path) -> None:
    """SQLite's own copy: one state of the database, its write-ahead log included, while others write."""
    os.close(create_file(target))
    try:
        with (
            contextlib.closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as old,
            contextlib.closing(sqlite3.connect(target)) as new,
        ):
            old.backup(new)
    except sqlite3.Error as error:
        raise StorageFailed(f"the database {source} is damaged and cannot be copied: {error}") from error


def _known(state: Path) -> str:
    try:
        applied = read_applied(state)
    except HeadgateError as error:
        return f", and {error.message}"
    if applied is None:
        return ""
    return f", and {APPLIED_FILE} knows {len(applied.endpoints)} endpoints that were served from it"

"""The store on SQLite and on PostgreSQL: numbering, one transaction per transition, what comes back."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from headgate.errors import Conflict, RevisionConflict, StorageFailed
from headgate.store import (
    AppliedDocument,
    AuditRecord,
    Commit,
    EventRecord,
    IdempotencyRecord,
    OperationRecord,
    Proposal,
    RetentionLimits,
    RevisionRecord,
    Store,
)
from headgate.store.chain import chain_digest
from unit.control_harness import Clock
from unit.store_harness import Place

NOW = "2027-03-01T03:12:04.000000Z"
CONTENT = b"\x00bytes\xff"
DOCUMENT = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


def record(n: int = 1, **changes: object) -> RevisionRecord:
    first = RevisionRecord(
        endpoint="digits", n=n, parent=n - 1 or None, kind="apply", status="proposed", who="ann", when=NOW,
        reason="why", document=DOCUMENT, source="/a.yaml", body=f'{{"format":1,"n":{n}}}',
    )  # fmt: skip
    return replace(first, **changes)  # type: ignore[arg-type]


def proposal(n: int = 1, **changes: object) -> Proposal:
    return Proposal(record(n, **changes), CONTENT)


def event(n: int = 1) -> EventRecord:
    return EventRecord("applied", NOW, "digits", n, "ann", "why", {"a": 1})


def test_a_revision_comes_back_as_it_was(store: Store) -> None:
    store.propose(proposal())
    digest = chain_digest("", record().body)
    assert store.revision("digits", 1) == record(digest=digest, generation=1)
    assert store.document(DOCUMENT) == CONTENT
    assert store.endpoints()[0].applied is None
    events = store.commit(Commit("digits", 1, "applied", None, [event()]))
    assert events == [replace(event(), generation=2)]
    found = store.revision("digits", 1)
    assert found is not None
    assert (found.status, found.generation, found.ended) == ("applied", 1, 2)
    assert (store.endpoints()[0].applied, store.endpoints()[0].tail) == (1, 1)


def test_history_is_append_only(store: Store) -> None:
    store.propose(proposal(1))
    with pytest.raises(StorageFailed, match="revision 3 cannot follow revision 1"):
        store.propose(proposal(3))
    with pytest.raises(
        RevisionConflict, match="digits is at revision 1 by now, so revision 1 cannot be written"
    ):
        store.propose(proposal(1))
    store.commit(Commit("digits", 1, "failed", "broken"))
    with pytest.raises(StorageFailed, match="no proposed revision 1"):
        store.commit(Commit("digits", 1, "applied"))
    store.propose(proposal(2))
    store.commit(Commit("digits", 2, "applied"))
    assert [(r.n, r.status, r.message) for r in store.revisions("digits", limit=9)] == [
        (2, "applied", None), (1, "failed", "broken"),
    ]  # fmt: skip
    assert [r.n for r in store.revisions("digits", limit=9, before=2)] == [1]


def test_confirmations_in_another_order_keep_the_highest(store: Store) -> None:
    store.propose(proposal(1))
    store.propose(proposal(2))
    store.commit(Commit("digits", 2, "applied"))
    store.commit(Commit("digits", 1, "applied"))
    assert store.endpoints()[0].applied == 2


def test_a_transition_is_whole_or_not_there(store: Store) -> None:
    store.propose(proposal(1))
    bad = EventRecord("applied", NOW, "digits", 1, "ann", "", {"not json": object()})
    key = IdempotencyRecord("kid", "PUT /x", "k", "req", {"a": 1}, "2027-03-02T03:12:04.000000Z")
    audit = AuditRecord(NOW, "ann", "admin", "apply", "digits", 1, "applied", "")
    file = AppliedDocument("/a.yaml", "digits", DOCUMENT)
    whole = Commit("digits", 1, "applied", None, [event()], audit, key, {"v1": "sha256:1"}, file)
    with pytest.raises((StorageFailed, TypeError)):
        store.commit(replace(whole, events=[event(), bad]))
    assert store.endpoints()[0].applied is None
    assert store.idempotent("kid", "PUT /x", "k") is None
    assert store.audit(endpoint=None, limit=9, before=None) == []
    assert store.events_after(0, limit=9) == []
    assert store.pins.get("digits", "v1") is None
    assert store.applied_from("/a.yaml") == frozenset()
    store.commit(whole)
    assert store.idempotent("kid", "PUT /x", "k") == key
    assert store.applied_from("/a.yaml") == {("digits", DOCUMENT)}
    assert store.audit(endpoint="digits", limit=9, before=None)[0].action == "apply"
    assert store.pins.get("digits", "v1") == "sha256:1"


def test_what_is_written_late_is_written_once(store: Store) -> None:
    commit = Commit("digits", 1, "applied", None, [event()])
    assert len(store.append_ended(proposal(1), commit)) == 1
    assert store.append_ended(proposal(1), commit) == []
    store.propose(proposal(2))
    assert len(store.append_ended(proposal(2), Commit("digits", 2, "applied", None, [event(2)]))) == 1
    assert store.endpoints()[0].applied == 2


def test_keys_expire(place: Place) -> None:
    clock = Clock()
    store = place.open(clock=clock)
    key = IdempotencyRecord("kid", "PUT /x", "k", "req", {"a": 1}, "2027-03-01T03:12:05.000000Z")
    store.add_audit([], [key])
    assert store.idempotent("kid", "PUT /x", "k") == key
    clock.forward(1)
    assert store.idempotent("kid", "PUT /x", "k") is None


def test_pins_never_change(store: Store) -> None:
    store.propose(Proposal(record(1), CONTENT, {"v1": "sha256:1"}))
    assert store.pins.get("digits", "v1") is None
    store.commit(Commit("digits", 1, "applied", pins={"v1": "sha256:1"}))
    store.propose(Proposal(record(2), CONTENT, {"v1": "sha256:1"}))
    with pytest.raises(Conflict, match="version v1 of digits is sha256:1 since .*, and this is sha256:2"):
        store.propose(Proposal(record(3), CONTENT, {"v1": "sha256:2"}))
    store.commit(Commit("digits", 2, "applied", pins={"v1": "sha256:2"}))
    assert [(p.version, p.digest) for p in store.pins.all()] == [("v1", "sha256:1")]


def test_a_snapshot_of_pins_holds_those_of_the_endpoints_that_were_named(store: Store) -> None:
    for name in ("digits", "other"):
        store.propose(Proposal(record(1, endpoint=name), CONTENT))
        store.commit(Commit(name, 1, "applied", pins={"v1": "sha256:1"}))
    many = {f"m{number}" for number in range(1200)}
    pins = store.pins.snapshot({"digits", *many})
    assert (pins.get("digits", "v1"), pins.get("digits", "v2"), pins.get("other", "v1")) == (
        "sha256:1",
        None,
        None,
    )


def test_everything_survives_a_close(place: Place) -> None:
    store = place.open()
    store.propose(proposal())
    store.commit(Commit("digits", 1, "applied", None, [event()]))
    store.close()
    store.close()
    store = place.open()
    found = store.revision("digits", 1)
    assert found == record(status="applied", digest=chain_digest("", record().body), generation=1, ended=2)
    assert store.generation() == 2


def test_a_number_that_another_gateway_took_is_a_conflict(place: Place) -> None:
    one, other = place.open("one"), place.open("other")
    one.propose(proposal(1))
    for attempt in (record(1), record(1, body="{}")):
        with pytest.raises(RevisionConflict, match="digits is at revision 1 by now") as refused:
            other.propose(Proposal(attempt, CONTENT))
        assert refused.value.detail == {"revision": 1}
    other.propose(proposal(2))
    with pytest.raises(RevisionConflict, match="is at revision 2 by now"):
        one.propose(proposal(2))
    with pytest.raises(RevisionConflict):
        one.append_ended(proposal(2, body="{}"), Commit("digits", 2, "applied"))
    assert [(found.n, found.body) for found in one.revisions("digits", limit=9)] == [
        (2, record(2).body),
        (1, record(1).body),
    ]


def test_a_document_is_kept_once(store: Store) -> None:
    store.propose(proposal(1))
    store.propose(Proposal(record(2)))
    store.propose(proposal(3))
    assert store.document(DOCUMENT) == CONTENT
    with pytest.raises(StorageFailed, match="lost the document sha256:gone of revision 4"):
        store.propose(Proposal(record(4, document="sha256:gone")))
    with pytest.raises(StorageFailed, match="lost the document"):
        store.document("sha256:gone")


def test_a_document_applied_from_a_file_is_remembered_for_ever(store: Store) -> None:
    for digest in ("sha256:1", "sha256:2", "sha256:1"):
        store.add_applied(AppliedDocument("/a.yaml", "digits", digest))
    store.add_applied(AppliedDocument("/b.yaml", "digits", "sha256:3"))
    assert store.applied_from("/a.yaml") == {("digits", "sha256:1"), ("digits", "sha256:2")}
    # What is known already is no write.
    assert store.generation() == 3


def test_an_operation_is_replaced(store: Store) -> None:
    running = OperationRecord("op", "digits", "apply", "running", NOW)
    store.put_operation(running)
    assert store.running_operations() == [running]
    done = replace(running, status="done", finished=NOW, result={"a": None})
    store.put_operation(done)
    assert (store.operation("op"), store.running_operations()) == (done, [])


def test_the_newest_events_and_operations_are_kept(store: Store) -> None:
    for n in range(1, 8):
        store.add_event(event(n))
        store.put_operation(
            OperationRecord(f"op{n}", "digits", "apply", "running" if n == 1 else "done", NOW)
        )
    store.prune_operations(2)
    store.drop_journal("events", RetentionLimits(3))
    assert [one.revision for one in store.events_after(0, limit=99)] == [5, 6, 7]
    assert sum(store.operation(f"op{n}") is not None for n in range(1, 8)) == 3
    assert store.operation("op1") is not None
    store.prune_operations(2)
    store.drop_journal("events", RetentionLimits(3))
    assert [one.revision for one in store.events_after(0, limit=99)] == [5, 6, 7]


def test_numbers_beyond_what_a_column_holds_find_nothing_or_everything(store: Store) -> None:
    store.propose(proposal(1))
    store.commit(
        Commit("digits", 1, "applied", None, [event()], AuditRecord(NOW, "", "", "", None, None, "", ""))
    )
    beyond = 10**30
    assert store.revision("digits", beyond) is None
    assert len(store.revisions("digits", limit=9, before=beyond)) == 1
    assert len(store.audit(endpoint=None, limit=9, before=beyond)) == 1
    assert store.events_after(beyond, limit=9) == []

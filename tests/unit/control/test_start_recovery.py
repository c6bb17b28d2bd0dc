"""The start after a stop at any step: the served state is an acknowledged revision or the next committed one."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from headgate.control.reads.explanation import HypotheticalRequest
from headgate.errors import Conflict, Draining, ModelLoadFailed, StorageFailed
from headgate.store import (
    Commit,
    OperationRecord,
    Proposal,
    RevisionKind,
    RevisionRecord,
    StartRecord,
    Store,
    open_store,
)
from headgate.store.applied_file import NAME
from headgate.store.chain import chain_digest
from headgate.store.transactions import Transactions
from unit.control_harness import Gate, document, gateway, run, until
from unit.fake_native import FakeNative

SHARED = "{champion: v1, weights: {v2: 10%}, sticky: header.x-user-id}"
KEYS = [f"user-{n}" for n in range(500)]


def left_behind(first: RevisionRecord, n: int, kind: RevisionKind) -> Proposal:
    """What a stop leaves of a change that takes every slot back."""
    body = json.loads(first.body)
    body |= {"n": n, "parent": 1, "kind": kind}
    body["traffic"]["table"] = {"salt": "", "given": []}
    return Proposal(replace(first, n=n, parent=1, kind=kind, body=json.dumps(body)))


def written(gate: Gate, n: int, body: str) -> None:
    """Another build wrote this body of a revision of digits, with the digest that belongs to it."""
    earlier = gate.store.revision("digits", n - 1)
    digest = chain_digest("" if earlier is None else earlier.digest, body)
    with gate.store.transactions.write() as write:
        one = (RevisionRecord.endpoint == "digits") & (RevisionRecord.n == n)
        write.session.execute(update(RevisionRecord).where(one).values(body=body, digest=digest))


async def assignment(gate: Gate) -> list[str]:
    return [gate.native.owner("digits", key) for key in KEYS]


def test_every_key_keeps_its_version_over_a_restart(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document(SHARED))
            await gate.control.patch_traffic("digits", weights={"v2": "30%", "v3": "5%"})
            await gate.control.patch_traffic("digits", weights={"v2": "7%"})
            before = await assignment(gate)
        async with gateway(tmp_path) as gate:
            assert await assignment(gate) == before
            assert gate.native.applied[-1]["revision"] == 3
            assert gate.control.readiness().ready

    run(body)


@pytest.mark.parametrize(
    ("kind", "served", "status"),
    [("traffic", 1, "failed"), ("apply", 1, "failed"), ("unblock", 1, "failed"), ("rollback", 2, "applied"),
     ("block", 2, "applied"), ("freeze", 2, "applied")],
)  # fmt: skip
def test_a_proposed_revision_is_completed_or_undone(
    tmp_path: Path, kind: RevisionKind, served: int, status: str
) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document(SHARED))
            first = gate.store.revision("digits", 1)
            assert first is not None
            gate.store.propose(left_behind(first, 2, kind))
        async with gateway(tmp_path) as gate:
            assert gate.native.served["digits"]["revision"] == served
            history = await gate.control.revisions("digits")
            assert [(r["revision"], r["status"]) for r in history] == [(2, status), (1, "applied")]
            assert gate.store.endpoints()[0].applied == served
            result = await gate.control.patch_traffic("digits", weights={"v3": "1%"})
            assert result["revision"] == 3

    run(body)


def test_a_rollback_below_a_newer_proposal_is_completed(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document(SHARED))
            first = gate.store.revision("digits", 1)
            assert first is not None
            left: list[RevisionKind] = ["freeze", "rollback", "traffic"]
            for n, kind in enumerate(left, start=2):
                gate.store.propose(left_behind(first, n, kind))
        async with gateway(tmp_path) as gate:
            assert gate.native.served["digits"]["revision"] == 3
            history = await gate.control.revisions("digits")
            assert [r["status"] for r in history] == ["failed", "applied", "failed", "applied"]
            assert (await gate.control.patch_traffic("digits", weights={"v3": "1%"}))["revision"] == 5

    run(body)


def test_a_full_disk_keeps_nothing_from_being_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document(SHARED))
            first = gate.store.revision("digits", 1)
            assert first is not None
            gate.store.propose(left_behind(first, 2, "rollback"))
            gate.store.put_operation(
                OperationRecord("op1", "digits", "apply", "running", "2027-03-01T03:12:04Z")
            )

        def full(_: Transactions) -> Any:
            raise StorageFailed("the disk is full")

        with monkeypatch.context() as patched:
            patched.setattr(Transactions, "write", full)
            # The start waits that long for the disk; the write behind it may take as long on a busy machine.
            async with gateway(tmp_path, durable_seconds=4) as gate:
                assert gate.native.served["digits"]["revision"] == 2
                assert gate.control.readiness().ready
                patched.undo()
                await gate.control.patch_traffic("digits", weights={"v3": "1%"})
                history = await gate.control.revisions("digits")
                assert [(r["revision"], r["status"]) for r in history] == [
                    (3, "applied"),
                    (2, "applied"),
                    (1, "applied"),
                ]

    run(body)


def test_a_row_that_cannot_be_understood_keeps_no_other_endpoint_from_starting(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document(SHARED))
            await gate.apply(document(SHARED, name="other"))
            written(gate, 1, "{}")
        (gate.state / NAME).unlink()
        async with gateway(tmp_path) as gate:
            assert list(gate.native.served) == ["other"]
            assert "a stored revision is damaged: its body has no format" in gate.native.excused["digits"]
            assert gate.control.readiness().ready

    run(body)


def test_endpoints_are_read_one_by_one_if_they_cannot_be_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Store.start_records

    def fails(store: Store, endpoint: str | None = None) -> list[StartRecord]:
        if endpoint != "other":
            raise StorageFailed("a page of the database is damaged")
        return read(store, endpoint)

    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document(SHARED))
            await gate.apply(document(SHARED, name="other"))
        with monkeypatch.context() as patched:
            patched.setattr(Store, "start_records", fails)
            async with gateway(tmp_path) as gate:
                assert list(gate.native.served) == ["other"]
                assert "a page of the database is damaged" in gate.native.excused["digits"]

    run(body)


def test_a_revision_of_a_newer_build_is_named_and_no_older_one_takes_its_place(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document(SHARED))
            await gate.control.rollback("digits")
            found = gate.store.revision("digits", 2)
            assert found is not None
            written(gate, 2, json.dumps({**json.loads(found.body), "format": 2, "more": {}}))
            assert gate.live()[0] == "v1", "a gateway that runs goes on with what it serves"
        (gate.state / NAME).unlink()
        async with gateway(tmp_path) as gate:
            assert list(gate.native.served) == []
            reason = gate.native.excused["digits"]
            assert (
                "revision 2 of digits was written by a newer Headgate (format 2; this one reads 1)" in reason
            )

    run(body)


def test_a_default_that_a_later_build_fills_in_changes_no_endpoint(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document(SHARED))
            found = gate.store.revision("digits", 1)
            assert found is not None
            body = json.loads(found.body)
            del body["spec"]["answers"]
            written(gate, 1, json.dumps(body))
        (gate.state / NAME).unlink()
        async with gateway(tmp_path) as gate:
            assert "answers" not in gate.native.given[-1]["spec"], "a stored spec is handed over as it is"
            planned = await gate.apply(document(SHARED), dry_run=True)
            assert planned["plan"]["changes"] is False
            again = await gate.apply(document(SHARED))
            assert (again["status"], again["revision"]) == ("unchanged", 1)

    run(body)


def test_a_version_that_is_kept_stays_so_after_a_restart(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document("{champion: v1}", "v1"))
            await gate.apply(document("{champion: v2}", "v2").replace("0.5", "1.5"))
        async with gateway(tmp_path) as gate:
            versions = (await gate.control.get("digits"))["versions"]
            assert {name: v["in_document"] for name, v in versions.items()} == {"v1": False, "v2": True}
            again = await gate.apply(document("{champion: v2}", "v2").replace("0.5", "1.5"))
            assert again["status"] == "unchanged"
            await gate.control.rollback("digits")
            assert (await gate.control.get("digits"))["traffic"]["champion"] == "v1"

    run(body)


def test_a_first_revision_that_was_never_confirmed_leaves_no_endpoint(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            gate.native.held.add("v1")
            task = asyncio.create_task(gate.apply(document(SHARED)))
            await until(lambda: bool(gate.native.applied))
        with pytest.raises(Draining):
            await task
        async with gateway(tmp_path) as gate:
            assert gate.native.served == {}
            assert await gate.control.list() == []
            assert [r["status"] for r in await gate.control.revisions("digits")] == ["failed"]
            assert (await gate.apply(document(SHARED)))["revision"] == 2

    run(body)


def test_a_crash_between_swap_and_commit(tmp_path: Path) -> None:
    """The data plane had swapped, the store had not confirmed: nobody was told, so the earlier revision is served."""

    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document(SHARED))
            before = await assignment(gate)

            def crash(_commit: Commit) -> Any:
                raise StorageFailed("the process ended here")

            gate.store.commit = crash  # type: ignore[method-assign,assignment]
            with pytest.raises(StorageFailed):
                await gate.control.patch_traffic("digits", weights={"v2": "50%"})
        async with gateway(tmp_path) as gate:
            assert await assignment(gate) == before

    run(body)


def test_a_challenger_that_does_not_load_is_left_out(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document("{champion: v1, weights: {v2: 10%, v3: 5%}, sticky: header.x-user-id}"))
            await gate.apply(document(name="other"))
            before = await assignment(gate)
        native = FakeNative()
        native.failing["v2"] = "file is truncated"
        async with gateway(tmp_path, native) as gate:
            now = await assignment(gate)
            assert now == ["v1" if version == "v2" else version for version in before]
            assert gate.control.readiness().ready
            view = await gate.control.get("digits")
            assert view["versions"]["v2"]["state"] == "failed"
            assert view["alarms"] == ["v2 is left out, because it did not load: file is truncated"]
            assert "alarm" in [event.type for event in gate.store.events_after(0, limit=50)]
            assert view["traffic"]["weights"] == {"v2": "10%", "v3": "5%"}
            key = next(key for key, version in zip(KEYS, before, strict=True) if version == "v2")
            answer = await gate.control.explain("digits", HypotheticalRequest(key=key))
            assert answer["version"] == "v1"
            assert "belongs to v2, which did not load" in answer["why"]
            await gate.control.patch_traffic("digits", weights={"v3": "4%"})
            with pytest.raises(ModelLoadFailed, match="file is truncated"):
                await gate.control.patch_traffic("digits", weights={"v2": "11%"})
            await gate.control.patch_traffic("digits", weights={"v3": "5%"})
            native.failing.clear()
            await gate.apply(document("{champion: v1, weights: {v2: 10%, v3: 5%}, sticky: header.x-user-id}"))
            assert await assignment(gate) == before

    run(body)


def test_one_broken_endpoint_keeps_no_other_from_starting(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document("{champion: v1}", "v1"))
            await gate.apply(document("{champion: w1}", "w1", name="other"))
        native = FakeNative()
        native.failing["v1"] = "file is truncated"
        async with gateway(tmp_path, native) as gate:
            assert list(gate.native.served) == ["other"]
            assert gate.control.readiness().ready
            assert "champion v1 did not load: file is truncated" in gate.native.excused["digits"]
            assert [one["state"] for one in await gate.control.list()] == ["failed", "ready"]
            native.failing.clear()
            await gate.apply(document("{champion: v1}", "v1"))
            assert gate.control.readiness().ready
        native = FakeNative()
        native.failing["v1"] = "file is truncated"
        async with gateway(tmp_path, native) as gate:
            await gate.control.delete("digits")
            assert [one["name"] for one in await gate.control.list()] == ["other"]
            assert gate.control.readiness().ready

    run(body)


def test_a_load_of_a_start_that_is_taken_over_is_told_as_such(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document("{champion: v1}", "v1"))
            await gate.apply(document("{champion: w1}", "w1", name="other"))
        native = FakeNative()
        native.held.add("v1")

        async def ends_it() -> None:
            await until(lambda: any(one["name"] == "digits" for _, one in native._pending))
            native.cancel("digits")

        ending = asyncio.create_task(ends_it())
        async with gateway(tmp_path, native) as gate:
            await ending
            assert list(native.served) == ["other"]
            why = "digits does not answer: its load was ended before its time"
            assert (await gate.control.get("digits"))["alarms"] == [why]
            assert native.excused["digits"] == "its load was ended before its time"
            native.release()
            assert (await gate.apply(document("{champion: v1}", "v1")))["status"] == "applied"

    run(body)


def test_what_was_not_durable_is_written_before_what_follows(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document(SHARED))
            heal = gate.full_disk()
            await gate.control.rollback("digits")
            await gate.control.freeze("digits")
            heal()
            await gate.flush_healed()
            assert [
                (r["revision"], r["kind"], r["status"]) for r in await gate.control.revisions("digits")
            ] == [
                (3, "freeze", "applied"),
                (2, "rollback", "applied"),
                (1, "apply", "applied"),
            ]
        async with gateway(tmp_path) as gate:
            assert gate.live() == ("v1", [], "")
            assert (await gate.control.list())[0]["frozen"]

    run(body)


def test_a_removed_endpoint_stays_removed_and_its_blocks_stay(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document(SHARED))
            await gate.control.block("digits", "v3")
            await gate.control.delete("digits")
        async with gateway(tmp_path) as gate:
            assert gate.native.served == {}
            assert len(await gate.control.revisions("digits")) == 3
            result = await gate.apply(document(SHARED))
            assert result["plan"]["load"] == ["v1", "v2"]

    run(body)


def test_operations_left_running_are_ended(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            gate.store.put_operation(
                OperationRecord("op1", "digits", "apply", "running", "2027-03-01T03:12:04Z")
            )
        async with gateway(tmp_path) as gate:
            ended = await gate.control.operations.get("op1")
            assert ended["status"] == "failed"
            assert ended["problem"] is not None
            assert ended["problem"]["code"] == "draining"

    run(body)


def test_a_second_gateway_is_refused(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            with pytest.raises(Conflict, match="another gateway \\(process \\d+\\) runs on the state folder"):
                open_store(gate.state)

    run(body)

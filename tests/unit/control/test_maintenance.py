"""What goes on behind the calls: use, late writes, forgetting; and outcomes that come in a way they should not."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from headgate.control import Call, IdempotencyKey
from headgate.control.reads.explanation import HypotheticalRequest
from headgate.control.writes.tickets import Ticket, Tickets
from headgate.errors import Conflict, ModelLoadFailed, ModelNotFound
from headgate.store import EventRecord, OperationRecord, RetentionLimits
from unit.control.test_models import model, text
from unit.control_harness import Gate, at, document, gateway, run, until
from unit.fake_native import FakeNative

SHARED = "{champion: v1, weights: {v2: 10%}, sticky: header.x-user-id}"


def lose_events(native: FakeNative) -> None:
    """The next drain finds that everything before it gave way."""
    events = native.events

    def lost() -> bytes:
        count = len(json.loads(events()))
        native.events = events  # type: ignore[method-assign]
        return json.dumps([{"event": "lost", "count": count}]).encode()

    native.events = lost  # type: ignore[method-assign]


def test_a_lost_outcome_is_read_from_what_is_live(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document(SHARED))
            lose_events(gate.native)
            # The write drains once before it decides, so the loss is told to nobody; the second one is what counts.
            gate.control.pump()
            gate.native.held.add("v4")
            slow = asyncio.create_task(gate.apply(document(SHARED, "v1 v2 v3 v4")))
            await until(lambda: len(gate.native.applied) == 2)
            lose_events(gate.native)
            gate.native.release()
            async with asyncio.timeout(60):
                assert (await slow)["revision"] == 2
            lose_events(gate.native)
            with pytest.raises(ModelNotFound):
                await gate.control.get("other")

    run(body)


def test_a_lost_outcome_that_is_not_live_is_a_failure(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document(SHARED))
            gate.native.held.add("v4")
            slow = asyncio.create_task(gate.apply(document(SHARED, "v1 v2 v3 v4")))
            await until(lambda: len(gate.native.applied) == 2)
            gate.native.failing["v4"] = "broken"
            lose_events(gate.native)
            gate.native.release()
            with pytest.raises(Exception, match="had no room to tell the outcome"):
                async with asyncio.timeout(60):
                    await slow
            assert [r["status"] for r in await gate.control.revisions("digits")] == ["failed", "applied"]

    run(body)


def test_one_receiver_that_fails_keeps_no_other_from_its_outcome() -> None:
    class Plane:
        def events(self) -> bytes:
            return json.dumps([{"event": "applied", "ticket": n} for n in (1, 2)]).encode()

    def broken(_event: dict[str, Any]) -> None:
        raise KeyError("a defect")

    async def body() -> None:
        tickets = Tickets(Plane())  # type: ignore[arg-type]
        first = tickets.expect(Ticket(1, "a", 1), broken)
        second = tickets.expect(Ticket(2, "b", 1), lambda _event: None)
        tickets.pump()
        assert (await second)["ticket"] == 2
        with pytest.raises(KeyError):
            await first

    run(body)


def test_the_late_writer_outlives_new_endpoints_and_defects(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path, retry_seconds=0.001) as gate:
            await gate.apply(document(SHARED))
            await gate.apply(document(SHARED, name="other"))
            heal = gate.full_disk()
            await gate.control.rollback("digits")
            await gate.control.rollback("other")
            append = gate.store.append_ended
            calls: list[str] = []

            def once_a_defect(*given: Any) -> Any:
                calls.append("append")
                if len(calls) == 1:
                    gate.control._state("new")
                    raise RuntimeError("a defect")
                return append(*given)

            gate.store.append_ended = once_a_defect  # type: ignore[method-assign]
            heal()
            await until(lambda: not any(state.unsaved for state in gate.control._endpoints.values()))
            assert gate.store.endpoints()[0].applied == 2

    run(body)


def test_a_version_that_is_unloaded_hides_no_requests(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document(SHARED))
            gate.native.requests = {("digits", "v1"): 5, ("digits", "v2"): 1000}
            await gate.control._maintenance.sample()
            gate.clock.forward(61)
            await gate.control.rollback("digits")
            gate.native.requests["digits", "v1"] = 7
            with pytest.raises(Conflict, match="answered a request 0 s ago"):
                await gate.control.delete("digits")
            gate.clock.forward(61)
            await gate.control.delete("digits")

    run(body)


def test_old_events_and_ended_operations_are_forgotten(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.control._maintenance.retention.drop()
            for n in range(8):
                gate.store.add_event(EventRecord("alarm", "2027-03-01T03:12:04Z", None, n, "", "", {}))
                status = "running" if n == 0 else "done"
                when = f"2027-03-01T03:12:0{n}Z"
                gate.store.put_operation(OperationRecord(f"op{n}", "digits", "apply", status, when))  # type: ignore[arg-type]
            gate.store.prune_operations(2)
            assert gate.store.drop_journal("events", RetentionLimits(3)) == 6
            assert gate.store.drop_journal("events", RetentionLimits(3)) == 0
            assert [event.revision for event in gate.store.events_after(0, limit=99)] == [5, 6, 7]
            left = [n for n in range(8) if gate.store.operation(f"op{n}") is not None]
            assert left == [0, 6, 7]

    run(body)


def test_a_cursor_from_another_state_folder_hides_nothing(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            events = gate.control.events(10**6)
            first = asyncio.ensure_future(anext(events))
            await until(lambda: bool(gate.control._context.feed._readers))
            for _ in range(20):
                await asyncio.sleep(0.001)
            await gate.apply(document(SHARED))
            async with asyncio.timeout(60):
                assert (await first).type == "applied"

    run(body)


def test_a_removal_said_again_with_its_key_gives_its_answer(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document(SHARED))
            call = Call("ann", precondition=at(1), key=IdempotencyKey("kid", "DELETE digits", "k", "a"))
            first = await gate.control.delete("digits", call=call)
            again = await gate.control.delete("digits", call=call)
            assert (again["revision"], again.get("replayed")) == (first["revision"], True)
            with pytest.raises(ModelNotFound):
                await gate.control.delete("digits")

    run(body)


async def broken_then_whole(gate: Gate, path: Path) -> None:
    gate.native.failing["v2"] = "unsupported operator"
    with pytest.raises(ModelLoadFailed):
        await gate.control.apply_file(path)


def test_a_refused_document_stands_for_nothing(tmp_path: Path) -> None:
    async def body() -> None:
        model(tmp_path / "models" / "v1", 1.0)
        model(tmp_path / "models" / "v2", 2.0)
        path = tmp_path / "scale.yaml"
        path.write_text(text(versions="v1 v2"))
        async with gateway(tmp_path) as gate:
            await broken_then_whole(gate, path)
            assert (await gate.control.models())["models"] == []
            gate.native.failing.clear()
            model(tmp_path / "models" / "v2", 3.0)
            await gate.control.apply_file(path)
            assert [m["version"] for m in (await gate.control.models())["models"]] == ["v1", "v2"]

    run(body)


def test_one_damaged_manifest_hides_no_model(tmp_path: Path) -> None:
    async def body() -> None:
        model(tmp_path / "models" / "v1", 1.0)
        model(tmp_path / "models" / "v2", 2.0)
        path = tmp_path / "scale.yaml"
        path.write_text(text(versions="v1 v2"))
        async with gateway(tmp_path) as gate:
            await gate.control.apply_file(path)
            manifest = Path(gate.native.served["scale"]["versions"][0]["artifact"]).with_name("manifest.json")
            manifest.chmod(0o600)
            manifest.write_bytes(b"{}")
            first, second = (await gate.control.models())["models"]
            assert first["size"] is None
            assert second["size"]

    run(body)


def test_a_key_of_spaces_is_no_key(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document(SHARED))
            answer = await gate.control.explain("digits", HypotheticalRequest(headers={"x-user-id": "  "}))
            assert (answer["key"], answer["by"]) == (None, "draw")

    run(body)


def test_a_file_is_known_by_the_path_it_was_given(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            for name in ("one", "two"):
                (tmp_path / f"{name}.yaml").write_text(document(SHARED, name=name))
            link = tmp_path / "current.yaml"
            link.symlink_to(tmp_path / "one.yaml")
            await gate.control.apply_file(link)
            assert [name for name, _ in gate.store.applied_from(str(link))] == ["one"]
            assert (await gate.control.get("one"))["source"] == str(link)

    run(body)

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from headgate.admin import tokens
from headgate.control.writes.resolve import Resolver
from headgate.errors import Conflict, Draining, PolicyInvalid, StorageFailed
from headgate.gateway import process
from headgate.gateway.process import DataPlaneSource, run
from headgate.gateway.sockets import bind
from headgate.gateway.units import Address
from headgate.store.transactions import Transactions
from unit.control_harness import document, until
from unit.gateway.process_harness import Announcer, Module, Plane, Running, play, settings, written


def test_it_serves_health_metrics_and_admin_at_the_announced_addresses(tmp_path: Path) -> None:
    async def work() -> None:
        async with Running(settings(tmp_path, written(tmp_path, document()))) as gate:
            assert gate.announcer.addresses["http"] == "127.0.0.1:18000"
            assert (await gate.get("observe", "/healthz")).status_code == 200
            assert (await gate.get("observe", "/readyz")).json() == {"ready": True, "reasons": []}
            assert (
                'headgate_endpoint_revision{endpoint="digits"} 1.0'
                in (await gate.get("observe", "/metrics")).text
            )
            listed = (await gate.get("admin", "/v1/endpoints")).json()["endpoints"]
            assert [one["name"] for one in listed] == ["digits"]
            left = json.loads((tmp_path / "state" / "addresses.json").read_text())
            assert left == gate.announcer.addresses
        assert not (tmp_path / "state" / "addresses.json").exists()

    play(work)


def test_the_socket_opens_when_everything_is_loaded_and_closes_after_readiness(tmp_path: Path) -> None:
    async def work() -> None:
        given = settings(tmp_path, written(tmp_path, document()), drain_delay="1s", drain_grace="2s")
        async with Running(given) as gate:
            pass
        assert gate.plane.calls == [
            ("apply", "digits"),
            "start",
            ("ready", True),
            ("ready", False),
            ("stop", 1000, 2000),
        ]

    play(work)


def test_the_admin_port_answers_until_the_data_plane_has_drained(tmp_path: Path) -> None:
    async def work() -> None:
        drained = threading.Event()
        given = settings(tmp_path, written(tmp_path, document()), drain_idle="20s")
        async with Running(given) as gate:
            gate.plane.drained = drained
            headers = {"authorization": f"Bearer {gate.announcer.tokens[0]}"}
            async with httpx.AsyncClient(
                base_url=f"http://{gate.announcer.addresses['admin']}", headers=headers
            ) as admin:
                assert (await admin.get("/v1/endpoints")).status_code == 200
                gate.process.stop()
                await until(lambda: any("stop" in call for call in gate.plane.calls))
                listed = await admin.get("/v1/endpoints")
                refused = await admin.post("/v1/endpoints/digits:rollback", json={"reason": "test"})
                drained.set()
            for answer in (listed, refused):
                assert (answer.status_code, answer.json()["code"]) == (503, "draining")
                assert answer.headers["connection"] == "close"

    play(work)


def test_the_data_plane_gets_the_settings(tmp_path: Path) -> None:
    async def work() -> None:
        given = settings(tmp_path, max_body="1MiB", sketches="off", io_threads="3", sketch_memory="2MiB")
        async with Running(given) as gate:
            (config,) = gate.module.configs
            assert (config["max_body_bytes"], config["sketches"], config["io_threads"]) == (1 << 20, False, 3)
            assert (config["sketch_memory_bytes"], config["library"]) == (2 << 20, None)

    play(work)


def test_the_first_token_is_told_once_and_works(tmp_path: Path) -> None:
    async def work() -> None:
        async with Running(settings(tmp_path)) as gate:
            assert len(gate.announcer.tokens) == 1
            assert (await gate.get("admin", "/v1/endpoints")).status_code == 200
            assert oct((tmp_path / "state" / "admin-token").stat().st_mode & 0o777) == "0o600"
        async with Running(settings(tmp_path)) as gate:
            assert gate.announcer.tokens == []

    play(work)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_is_not_raised_again(tmp_path: Path, number: signal.Signals) -> None:
    announcer, plane = Announcer(), Plane()
    before = signal.getsignal(number)
    announcer.ready = lambda: os.kill(os.getpid(), number)
    run(settings(tmp_path), DataPlaneSource(Module(plane), None), announcer)
    assert ("stop", 0, 30_000) in plane.calls
    assert signal.getsignal(number) is before


def test_an_open_event_stream_does_not_hold_up_the_end(tmp_path: Path) -> None:
    async def work() -> None:
        async with Running(settings(tmp_path)) as gate:
            headers = {"authorization": f"Bearer {gate.announcer.tokens[0]}"}
            http = httpx.AsyncClient(base_url=f"http://{gate.announcer.addresses['admin']}", headers=headers)
            stream = await http.send(http.build_request("GET", "/v1/events"), stream=True)
            assert stream.status_code == 200
            gate.process.stop()
            # Less than the grace, which is 30 s.
            async with asyncio.timeout(25):
                await stream.aread()
            await http.aclose()

    play(work)


def test_a_second_gateway_on_the_same_state_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    async def work() -> None:
        async with Running(settings(tmp_path)) as gate:
            with pytest.raises(Conflict, match="another gateway"):
                await Running(settings(tmp_path)).__aenter__()
            assert (await gate.get("observe", "/readyz")).status_code == 200

    play(work)


@pytest.mark.parametrize("port", ["http", "observe", "admin"])
def test_a_taken_port_is_refused_before_anything_is_loaded_and_frees_the_state(
    tmp_path: Path, port: str
) -> None:
    async def work() -> None:
        with bind(Address("127.0.0.1", 0), port) as taken:
            taken.listen()
            address = Address("127.0.0.1", taken.getsockname()[1])
            plane = Plane()
            with pytest.raises(Conflict, match=f"--{port}"):
                await Running(replace(settings(tmp_path), **{port: address}), plane).__aenter__()
        assert "start" not in plane.calls
        async with Running(settings(tmp_path)):
            pass

    play(work)


def test_a_document_at_fault_stops_a_start_that_has_nothing_else_to_serve(tmp_path: Path) -> None:
    async def work() -> None:
        bad = written(tmp_path, document().replace("champion: v1", "champion: v9"))
        with pytest.raises(PolicyInvalid, match=r"traffic\.champion"):
            await Running(settings(tmp_path, bad)).__aenter__()

    play(work)


def test_a_document_at_fault_leaves_what_the_next_one_describes(tmp_path: Path) -> None:
    async def work() -> None:
        bad = written(tmp_path, document().replace("champion: v1", "champion: v9")).rename(
            tmp_path / "bad.yaml"
        )
        async with Running(settings(tmp_path, bad, written(tmp_path, document()))) as gate:
            assert gate.plane.served["digits"]["champion"] == "v1"
            assert any(f"{bad} was not applied" in text for text in gate.said)

    play(work)


def test_a_document_at_fault_leaves_what_was_served_last(tmp_path: Path) -> None:
    async def work() -> None:
        async with Running(settings(tmp_path, written(tmp_path, document()))):
            pass
        bad = written(tmp_path, document().replace("champion: v1", "champion: v9"))
        async with Running(settings(tmp_path, bad)) as gate:
            assert gate.plane.served["digits"]["champion"] == "v1"
            assert any("was not applied" in text for text in gate.said)

    play(work)


def test_a_file_is_applied_again_only_when_it_changed(tmp_path: Path) -> None:
    async def work() -> None:
        path = written(tmp_path, document())
        async with Running(settings(tmp_path, path)) as gate:
            control = gate.process._control
            assert control is not None
            await control.patch_traffic("digits", weights={"v2": "5%"})
        async with Running(settings(tmp_path, path)) as gate:
            assert gate.plane.served["digits"]["revision"] == 2
            assert gate.plane.served["digits"]["table"]["given"] == [["v2", 0, 499]]
            assert any("applied from there before" in text for text in gate.said)
        written(tmp_path, document("{champion: v3}"))
        async with Running(settings(tmp_path, path)) as gate:
            assert gate.plane.served["digits"]["champion"] == "v3"

    play(work)


def test_a_signal_during_a_long_load_ends_the_start(tmp_path: Path) -> None:
    async def work() -> None:
        async with Running(settings(tmp_path, written(tmp_path, document()))):
            pass
        plane = Plane()
        plane.held.add("v1")
        gate = Running(settings(tmp_path), plane)
        task = gate.begin()
        await until(lambda: ("apply", "digits") in plane.calls)
        assert gate.process.reasons()[0].startswith("starting")
        gate.process.stop()
        assert gate.process.reasons() == ["draining: the gateway is about to stop"]
        async with asyncio.timeout(20):
            await task
        assert "start" not in plane.calls
        assert gate.announcer.addresses == {}

    play(work)


def test_a_models_folder_that_is_gone_leaves_what_was_served_last(tmp_path: Path) -> None:
    async def work() -> None:
        gone = str(tmp_path / "none")
        with pytest.raises(StorageFailed, match="does not exist"):
            await Running(settings(tmp_path, models=gone)).__aenter__()
        async with Running(settings(tmp_path, written(tmp_path, document()))):
            pass
        async with Running(settings(tmp_path, models=gone)) as gate:
            assert gate.plane.served["digits"]["champion"] == "v1"
            assert any("does not exist" in text for text in gate.said)

    play(work)


def test_a_full_disk_keeps_no_gateway_from_starting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        async with Running(settings(tmp_path, written(tmp_path, document()))):
            pass
        (tmp_path / "state" / "admin-token").unlink()

        def full(*_: object, **__: object) -> None:
            raise StorageFailed("the disk is full")

        def no_room(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Transactions, "write", full)
        monkeypatch.setattr(os, "pwrite", no_room)
        monkeypatch.setattr(process, "_write_addresses", no_room)
        monkeypatch.setattr(tokens, "_write_secret", full)
        async with Running(settings(tmp_path)) as gate:
            assert gate.plane.served["digits"]["champion"] == "v1"
            assert (await gate.get("observe", "/readyz")).status_code == 200
            assert any("no admin token could be made" in text for text in gate.said)

    play(work)


def test_a_model_that_is_being_read_does_not_hold_up_the_drain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        reading, go = threading.Event(), threading.Event()

        def slow(*_: object) -> str:
            reading.set()
            assert go.wait(120)
            return ""

        monkeypatch.setattr(Resolver, "resolve", slow)
        try:
            async with Running(settings(tmp_path)) as gate:
                control = gate.process._control
                assert control is not None
                parsed = await control.parse("digits", document().encode())
                applying = asyncio.create_task(control.apply(parsed))
                await until(reading.is_set)
                gate.process.stop()
                async with asyncio.timeout(60):
                    await asyncio.gather(*filter(None, [gate.task]))
                with pytest.raises(Draining):
                    await applying
            assert ("stop", 0, 30_000) in gate.plane.calls
        finally:
            go.set()

    play(work)


def test_the_root_is_kept_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert settings(tmp_path, root="models").root == tmp_path / "models"

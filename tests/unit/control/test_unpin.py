"""Names that are taken from the bytes they stood for."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from headgate.control import Call
from headgate.errors import Conflict, VersionNotFound
from unit.control_harness import document, gateway, run, until

CALL = Call(principal="ann", role="admin", reason="trained again")


def test_a_version_in_use_keeps_its_name(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document("{champion: v1}", "v1 v2"))
            for version in ("v1", "v2"):
                with pytest.raises(Conflict, match="what is served never changes"):
                    await gate.control.unpin("digits", version, call=CALL)
            gate.native.held.add("v4")
            write = asyncio.create_task(gate.apply(document("{champion: v1}", "v1 v2 v4")))
            await until(lambda: len(gate.native.applied) == 2)
            with pytest.raises(Conflict, match="in progress"):
                await gate.control.unpin("digits", "v4", call=CALL)
            gate.native.release("v4")
            await write

    run(body)


def test_a_name_that_is_free_may_stand_for_other_bytes_and_the_audit_says_what_it_was(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document("{champion: v1}", "v1 v2"))
            await gate.apply(document("{champion: v1}", "v1"))
            before = {pin.version: pin.digest for pin in gate.control.registry._pins.all()}  # type: ignore[attr-defined]
            pin = await gate.control.unpin("digits", "v2", call=CALL)
            assert (pin["endpoint"], pin["version"], pin["digest"]) == ("digits", "v2", before["v2"])
            entry = (await gate.control.audit(endpoint="digits", limit=1, before=None))[0]
            assert (entry["action"], entry["who"], entry["reason"], entry["outcome"]) == (
                "unpin",
                "ann",
                "trained again",
                "applied",
            )
            assert entry["detail"]["digest"] == before["v2"]
            other = document("{champion: v1}", "v1 v2").replace("score: 1.5", "score: 9.5")
            assert (await gate.apply(other))["status"] == "applied"
            with pytest.raises(VersionNotFound):
                await gate.control.unpin("digits", "v7", call=CALL)
            with pytest.raises(VersionNotFound):
                await gate.control.unpin("nothing", "v1", call=CALL)

    run(body)

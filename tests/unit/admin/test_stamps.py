"""Times that people and clients read have whole seconds; stored ones have microseconds."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from headgate.admin import Tokens
from headgate.admin.stream import view
from headgate.control import Call
from unit.control_harness import document, gateway, run

FRACTION = re.compile(r"\d{2}:\d{2}:\d{2}\.\d+")
WHOLE = re.compile(r"2027-03-01T03:12:04Z")


def test_what_is_shown_has_whole_seconds(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            gate.clock.forward(0.123456)
            control, call = gate.control, Call("ann")
            await gate.apply(document("{champion: v1, weights: {v2: 5%}}"))
            said: list[Any] = [
                await control.block("digits", "v2", call=call),
                await control.block("digits", "v2", call=call),
            ]
            said += [await control.freeze("digits", call=call), await control.freeze("digits", call=call)]
            said += [await control.abort("digits", call=call), await control.rollback("digits", call=call)]
            tokens = Tokens(gate.store)
            tokens.authenticate(tokens.create(name="ann", role="viewer", expires_seconds=60)[1])
            tokens.revoke(tokens.list()[0]["id"], "ann")
            shown = {
                "list": await control.list(),
                "get": await control.get("digits"),
                "traffic": await control.traffic("digits"),
                "history": await control.revisions("digits"),
                "revision": await control.revision("digits", 3),
                "models": await control.models(),
                "audit": await control.audit(endpoint=None, limit=99, before=None),
                "tokens": tokens.list(),
                "events": [view(event) for event in gate.store.events_after(0, limit=99)],
            }
            assert [name for name, what in shown.items() if not WHOLE.search(json.dumps(what))] == []
            assert FRACTION.findall(json.dumps([said, shown])) == []
            found = gate.store.revision("digits", 1)
            assert found is not None
            assert found.when == "2027-03-01T03:12:04.123456Z"

    run(body)

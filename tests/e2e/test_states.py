"""State folders that earlier builds made: a gateway of this tree finds all that was in them, and serves it as before."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.models import TESTS
from support.tools import need_native, need_program

STATES = TESTS / "states"
SECONDS = 180


@pytest.mark.parametrize(
    "made", sorted(STATES.glob("*.tar.xz")), ids=lambda path: path.name.removesuffix(".tar.xz")
)
def test_a_state_of_an_earlier_build_is_served_as_before(made: Path) -> None:
    need_native()
    need_program("unshare")
    name = made.name.removesuffix(".tar.xz")
    command = [
        "unshare",
        "--map-root-user",
        "--mount",
        sys.executable,
        str(STATES / "folder.py"),
        "read",
        name,
    ]
    said = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert said.returncode == 0, said.stderr[-4000:]
    recorded = json.loads((STATES / f"{name}.json").read_text())
    found = json.loads(said.stdout)
    # A start leaves rows of its own for what it completes.
    rows = {row["id"] for row in recorded["audit"]}
    found["audit"] = [row for row in found["audit"] if row["id"] in rows]
    assert without_additions(found, recorded) == recorded


def without_additions(found: Any, recorded: Any) -> Any:
    """What was found, without the fields that the earlier build did not show."""
    if isinstance(found, dict) and isinstance(recorded, dict):
        return {
            name: without_additions(value, recorded[name])
            for name, value in found.items()
            if name in recorded
        }
    if isinstance(found, list) and isinstance(recorded, list) and len(found) == len(recorded):
        return [without_additions(one, other) for one, other in zip(found, recorded, strict=True)]
    return found

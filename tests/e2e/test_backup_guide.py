"""The guide on backups, its commands executed as they are written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support.gateway import GatewayProcess
from support.models import ROOT
from support.tools import need_digits, need_native

GUIDE = ROOT / "docs" / "guides" / "backup.md"
SECONDS = 120


def blocks() -> list[list[str]]:
    """The commands of each ``console`` block."""
    parts = GUIDE.read_text().split("```console\n")[1:]
    return [
        [line.removeprefix("$ ") for line in part.split("```")[0].splitlines() if line.startswith("$ ")]
        for part in parts
    ]


def shell(folder: Path, line: str) -> str:
    command = f'headgate() {{ "{sys.executable}" -m headgate "$@"; }}; {line}'
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env={**os.environ, "HOME": str(folder)},
    )
    assert done.returncode == 0, (line, done.stdout, done.stderr)
    return done.stdout + done.stderr


def play(folder: Path, lines: list[str]) -> dict[str, object]:
    """Runs a block; one that ends in ``serve`` gives what its gateway says of the endpoint."""
    for line in lines:
        if not line.startswith("headgate serve"):
            shell(folder, line)
    if not lines[-1].startswith("headgate serve"):
        return {}
    with GatewayProcess(folder / lines[-1].rsplit(" ", 1)[1]) as gateway, gateway.admin() as admin:
        return dict(admin.traffic("digits"))


def test_the_guide_on_backups_does_what_it_says(tmp_path: Path) -> None:
    need_native()
    _, making, bringing_back, lost = blocks()
    with GatewayProcess(tmp_path / "state", [str(need_digits() / "digits.yaml")]) as gateway:
        with gateway.admin() as admin:
            admin.set_weights("digits", {"2": "12.5%"})
            before = dict(admin.traffic("digits"))
        play(tmp_path, making)
    kept = ("champion", "weights", "salt", "table", "last_good")
    after = play(tmp_path, bringing_back)
    assert {name: after[name] for name in (*kept, "revision")} == {
        name: before[name] for name in (*kept, "revision")
    }
    (tmp_path / "state" / "headgate.db").unlink()
    anew = play(tmp_path, lost)
    assert {name: anew[name] for name in kept} == {name: before[name] for name in kept}

"""``headgate bench sweep`` with real gateways, the real generator and the engine's own policy. What holds more is no part of it: every
rate that is tried passes an objective that is never missed.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from headgate.bench.results import read_result
from support import models
from support.bench_command import ended, start
from support.tools import need_native

DOCUMENT = """\
apiVersion: headgate/v1
kind: Endpoint
name: scale
versions: {"1": "file:scale/1"}  # the only one
traffic: {champion: "1"}
"""
WORDS = [
    "--slo",
    "p50=2s",
    "--start",
    "1500/s",
    "--highest",
    "1500/s",
    "--measured",
    "1",
    "--rounds",
    "1",
    "--budget",
    "26s",
]


@pytest.fixture
def document(tmp_path: Path) -> Path:
    need_native()
    models.place(models.scale(2.0), tmp_path / "documents", "scale", "1")
    path = tmp_path / "documents" / "scale.yaml"
    path.write_text(DOCUMENT)
    return path


def gateways(folder: Path) -> list[str]:
    """Processes that serve a document of a sweep below ``folder``."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            words = (process / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(folder) in words and "serve" in words:
            found.append(words)
    return found


def test_settings_are_calibrated_simulated_and_measured(
    document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))

    code, out, said = ended(
        start(
            ["sweep", "scale", "--spawn", str(document), *WORDS, "--no-live", "--apply", "--json"], tmp_path
        )
    )

    assert out, said
    found = json.loads(out)
    # Beside other work the client may be the limit; a rate that passed has passed all the same.
    assert (code, found["verdict"]) in ((0, "pass"), (3, "client_limited"), (3, "undecided")), said
    facts = found["sweep"]
    assert [one["rows"] for one in _calibrated(found)] == [1, 2, 4, 8, 16] * len(facts["calibrations"])
    assert all(one["base_ns"] > 0 for one in facts["calibrations"])
    assert len(facts["simulated"]) > 5
    present, other = facts["measured"]
    assert present["present"]
    assert present["run"] == {}
    assert not other["present"]
    assert other["refused"] is None
    assert {
        probe["rate"] for one in facts["measured"] for two in one["rounds"] for probe in two["probes"]
    } <= {1500.0, 1425.0}
    # Both hold at least the highest rate, and so the present settings stay.
    assert facts["changed"] is False
    assert facts["patch"] == ""
    assert document.read_text() == DOCUMENT
    assert sorted(path.name for path in document.parent.iterdir()) == ["scale", "scale.yaml"]
    assert list(temporary.iterdir()) == []
    assert gateways(temporary) == []


def _calibrated(found: dict[str, object]) -> list[dict[str, int]]:
    windows = found["windows"]
    assert isinstance(windows, list)
    names = [one["name"] for one in windows if one["clients"] == 1]
    return [{"rows": int(name.split(",")[1].split()[0])} for name in names]


def test_ctrl_c_ends_every_gateway_and_leaves_no_file(
    document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    words = ["sweep", "scale", "--spawn", str(document), *WORDS, "--out", str(tmp_path / "out")]
    child = start(words, tmp_path)
    assert child.stderr is not None
    # The second calibration has begun: a gateway runs.
    assert any("with 2 rows" in line for line in child.stderr)
    assert gateways(temporary)

    os.kill(child.pid, signal.SIGINT)
    code, out, said = ended(child)

    assert code == 130, said
    assert out.startswith("Interrupted: the settings of scale 1 stay as they are.")
    assert read_result(tmp_path / "out").verdict == "interrupted"
    assert gateways(temporary) == []
    assert list(temporary.iterdir()) == []
    assert document.read_text() == DOCUMENT

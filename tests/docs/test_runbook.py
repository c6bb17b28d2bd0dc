"""The runbook leads on from every alert, and from every reason for which a rollout pauses."""

from __future__ import annotations

import re
from typing import get_args

from ruamel.yaml import YAML

from headgate.control.domain.rollout.state import PauseReason
from support.models import ROOT

TEXT = (ROOT / "docs" / "guides" / "runbook.md").read_text()


def first_cells(heading: str) -> list[str]:
    """The code in the first cells of the table below a heading, row by row."""
    section = re.split(r"^## ", TEXT.partition(f"\n## {heading}\n")[2], flags=re.MULTILINE)[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return [name for row in rows for name in re.findall(r"`(\w+)`", row)]


def test_every_alert_leads_somewhere_once() -> None:
    rules = YAML(typ="safe").load(ROOT / "packaging" / "monitoring" / "alerts.yml")
    alerts = [rule["alert"] for group in rules["groups"] for rule in group["rules"]]
    assert sorted(first_cells("Which alert leads where")) == sorted(alerts)


def test_every_pause_of_a_rollout_has_a_row() -> None:
    assert sorted(first_cells("A rollout is paused")) == sorted(get_args(PauseReason))

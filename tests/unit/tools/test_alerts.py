"""The alerts for Prometheus, by Prometheus' own tool: they are valid, each fires when it should, and its test can fail.

Not here: whether their metrics are those of a gateway (``e2e/test_monitoring``).
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from support.models import ROOT
from support.tools import need_program
from tools import dashboard

FOLDER = ROOT / "packaging" / "monitoring"
RULES = YAML(typ="safe").load(FOLDER / "alerts.yml")
ALERTS = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"]}
TESTS = [
    one for test in YAML(typ="safe").load(FOLDER / "alerts_test.yml")["tests"] for one in test["alert_rule_test"]
]  # fmt: skip


def promtool(*arguments: str, folder: Path = FOLDER) -> subprocess.CompletedProcess[str]:
    program = need_program("promtool", "prometheus")
    return subprocess.run([program, *arguments], cwd=folder, capture_output=True, text=True, timeout=120)


def test_prometheus_takes_the_rules() -> None:
    done = promtool("check", "rules", "alerts.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(ALERTS)} rules found" in done.stdout


def test_each_alert_fires_when_it_should_and_not_otherwise() -> None:
    done = promtool("test", "rules", "alerts_test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_test_in_which_it_fires() -> None:
    assert ALERTS.keys() == {one["alertname"] for one in TESTS if one["exp_alerts"]}


@pytest.mark.parametrize("expression", ["vector(0) > 1", "vector(1)"], ids=["never", "always"])
def test_no_alert_can_be_broken_unnoticed(expression: str, tmp_path: Path) -> None:
    """One run of the tool: the test of each alert fails once its expression is another one."""
    changed: Any = YAML(typ="safe").load(FOLDER / "alerts.yml")
    for group in changed["groups"]:
        for rule in group["rules"]:
            rule["expr"] = expression
    with (tmp_path / "alerts.yml").open("w") as file:
        YAML(typ="safe").dump(changed, file)
    shutil.copy(FOLDER / "alerts_test.yml", tmp_path)
    done = promtool("test", "rules", "alerts_test.yml", folder=tmp_path)
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert [name for name in ALERTS if f"alertname: {name}," not in said] == []


def test_prometheus_takes_the_queries_of_the_dashboard(tmp_path: Path) -> None:
    drawn = json.loads((FOLDER / "dashboard.json").read_text())
    asked = [one["expr"] for panel in drawn["panels"] for one in panel.get("targets", [])]
    asked = [one.replace("$__rate_interval", "5m").replace("$instance", ".*").replace("$endpoint", ".*") for one in asked]  # fmt: skip
    rules = [{"record": f"q:{place}", "expr": one} for place, one in enumerate(asked)]
    with (tmp_path / "queries.yml").open("w") as file:
        YAML(typ="safe").dump({"groups": [{"name": "queries", "rules": rules}]}, file)
    done = promtool("check", "rules", "queries.yml", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(asked) > 50


def test_the_dashboard_is_as_its_program_makes_it() -> None:
    assert json.loads((FOLDER / "dashboard.json").read_text()) == dashboard.dashboard()


def test_the_guide_says_what_to_do_about_each_alert() -> None:
    page = (ROOT / "docs" / "guides" / "monitoring.md").read_text()
    shown = dict(re.findall(r"^\| `(Headgate\w+)` \| (\w+) \|", page, re.MULTILINE))
    assert shown == {name: rule["labels"]["severity"] for name, rule in ALERTS.items()}


def test_an_alert_says_how_urgent_it_is_and_what_is_wrong() -> None:
    for name, rule in ALERTS.items():
        assert name.startswith("Headgate")
        assert rule["labels"]["severity"] in ("page", "ticket", "info")
        assert rule["annotations"]["summary"].endswith((".", "}}", "headgate state check")), name

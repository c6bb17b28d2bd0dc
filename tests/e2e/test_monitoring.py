"""Alerts and dashboard against the page of a real gateway: every metric, label and label's value that they name is on it.

Not here: when an alert fires (``unit/tools/test_alerts``).
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import time
from pathlib import Path
from typing import Any, get_args

import httpx
import numpy as np
import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from ruamel.yaml import YAML

from headgate.control.domain.rollout.state import PauseReason, Phase
from headgate.control.writes.notifications import WebhookFigures
from headgate.observe import declared
from headgate.observe.facts import Facts
from support.gateway import GatewayProcess
from support.models import DIGITS, ROOT
from support.tools import need_digits, need_native
from unit.control.test_rollouts import answer, look, on_trial, trial
from unit.control_harness import gateway

SECONDS = 120.0
FOLDER = ROOT / "packaging" / "monitoring"
DOCUMENT = """\
apiVersion: headgate/v1
kind: Endpoint
name: digits
versions:
  "1": "file:models/digits/1"
  "2": "file:models/digits/2"
traffic:
  champion: "1"
  weights: {"2": 10%}
  sticky: header.x-user-id
  shadow: [{to: "2", share: 100%}]
capture: {share: 100%}
drift: {baseline: "file:baseline/digits.npz"}
limits: {rate: {per_second: 100000}, breaker: {consecutive: 5}}
"""
OTHERS = {
    "up": {"job"},
    "process_resident_memory_bytes": set[str](),
    "process_cpu_seconds_total": set[str](),
}
"""Metrics that Prometheus itself or the client library makes."""
REFUSED = {"endpoint": "digits", "version": "2", "count": 1}
"""As ``GET /v1/models`` tells of a model that was refused."""
RECEIVER = ("digits", "hooks.example")
MESSAGES = WebhookFigures(
    {RECEIVER: 1}, {RECEIVER: 1}, {RECEIVER: 1}, {RECEIVER: 1.0}, {(*RECEIVER, "unsubscribed"): 1}
)
ADDED = {"instance", "job"}
"""Labels that a scrape adds."""
SELECTOR = re.compile(r"(?<![\w.:])([a-z_]\w*)(\{[^}]*\})?")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
GROUPED = re.compile(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)")
WORDS = {
    "by", "on", "and", "or", "unless", "sum", "count", "rate", "increase", "histogram_quantile", "max_over_time", "offset", "time",
    "vector", "label_values",
}  # fmt: skip
DURATION = re.compile(r"\[[^\]]*\]|\boffset \w+")

Names = dict[str, dict[str, set[str]]]
"""Labels of each metric, and what was seen under them."""


def names(families: list[Metric]) -> Names:
    found: Names = {}
    for family in families:
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    return found


async def rollouts(folder: Path) -> list[Metric]:
    """The families of a control plane with rollouts under way, paused and ended."""
    async with gateway(folder) as gate:
        await on_trial(gate)
        gate.native.running["digits"] = trial(gate, 30)
        gate.native.answer = answer("undecided", 30)
        gate.native.answer["gates"][0] |= {"interval": [0.5, 4.0], "e_value": 1.8, "threshold": 100.0}
        await look(gate)
        under_way = await gate.control.rollout_figures()
        await gate.control.rollout_pause("digits")
        paused = await gate.control.rollout_figures()
        await gate.control.rollout_abort("digits")
        ended = await gate.control.rollout_figures()
    found = []
    for one in (under_way, paused, ended):
        facts = Facts(
            [], [REFUSED], True, 0, {}, rollouts=one.views, rollout_ends=one.ends, rollout_pauses=one.pauses,
            drift={("digits", "1", "fail"): 1}, webhooks=MESSAGES,
        )  # fmt: skip
        found += declared.families(facts)
    return found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Names:
    """What a gateway shows that has everything which the alerts watch."""
    need_native()
    need_digits()
    folder = tmp_path_factory.mktemp("monitoring")
    for name in ("models", "baseline"):
        shutil.copytree(DIGITS / name, folder / name)
    (folder / "digits.yaml").write_text(DOCUMENT)
    rows = np.load(DIGITS / "baseline" / "digits.npz")["X"][:2]
    body = {"inputs": [{"name": "X", "shape": [2, 64], "datatype": "FP32", "data": rows.ravel().tolist()}]}
    options = [str(folder / "digits.yaml"), "--memory-budget", "1GiB"]
    with GatewayProcess(folder / "state", options) as served, httpx.Client() as client:
        url = f"http://{served.http}/v2/models"
        for user in range(30):
            headers = {"x-user-id": str(user)}
            assert client.post(f"{url}/digits/infer", json=body, headers=headers).is_success
        assert client.post(f"{url}/nothing/infer", json=body).status_code == 404
        deadline = time.monotonic() + SECONDS
        while True:
            found = names(list(text_string_to_metric_families(served.observe("/metrics").text)))
            if "headgate_shadow_pairs_total" in found and "headgate_capture_rows_total" in found:
                break
            assert time.monotonic() < deadline, sorted(found)
    shown = names(asyncio.run(rollouts(folder)))
    for metric, labels in shown.items():
        for label, values in labels.items():
            found.setdefault(metric, {}).setdefault(label, set()).update(values)
        found.setdefault(metric, {})
    return found


def queries() -> list[tuple[str, str]]:
    """Every expression with the place where it stands."""
    rules = YAML(typ="safe").load(FOLDER / "alerts.yml")
    found = [(rule["alert"], rule["expr"]) for group in rules["groups"] for rule in group["rules"]]
    drawn = json.loads((FOLDER / "dashboard.json").read_text())
    found += [(panel["title"], one["expr"]) for panel in drawn["panels"] for one in panel.get("targets", [])]
    return found + [
        (one["name"], one["definition"]) for one in drawn["templating"]["list"] if one["type"] == "query"
    ]


def selected(expression: str) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """The metrics of an expression, each with what it is limited to."""
    bare = GROUPED.sub("", DURATION.sub("", expression))
    bare = re.sub(r"label_values\((.*), \w+\)", r"\1", bare)
    found = [(name, MATCHER.findall(matchers or "")) for name, matchers in SELECTOR.findall(bare)]
    return [(name, matchers) for name, matchers in found if name not in WORDS and name.lower() != "inf"]


def grouped(expression: str) -> set[str]:
    return {label.strip() for group in GROUPED.findall(expression) for label in group.split(",")}


def test_the_expressions_are_taken_apart_rightly() -> None:
    text = 'sum by (a, le) (rate(headgate_x_bucket{b=~"c|d", e!="f"}[5m] offset 1h)) / on (g) headgate_y < +Inf and time() - 7 * 86400'
    assert selected(text) == [
        ("headgate_x_bucket", [("b", "=~", "c|d"), ("e", "!=", "f")]),
        ("headgate_y", []),
    ]
    assert grouped(text) == {"a", "le", "g"}


def test_every_metric_and_label_is_on_the_page(page: Names) -> None:
    asked = [(where, one) for where, expression in queries() for one in selected(expression)]
    assert len(asked) > 80
    wrong = []
    for where, (name, matchers) in asked:
        labels = OTHERS.get(name, page.get(name))
        if labels is None:
            wrong.append(f"{where}: no gateway shows {name}")
            continue
        wrong += [
            f"{where}: {name} has no label {one}" for one, _, _ in matchers if one not in {*labels, *ADDED}
        ]
    assert wrong == []


def test_every_label_that_is_grouped_by_is_that_of_each_metric_beside_it(page: Names) -> None:
    wrong = []
    for where, expression in queries():
        known = [{*OTHERS.get(name, page.get(name, {})), *ADDED} for name, _ in selected(expression)]
        wrong += [f"{where}: {label}" for label in grouped(expression) if not any(label in one for one in known)]  # fmt: skip
    assert wrong == []


def test_every_value_that_a_label_is_compared_with_is_one_that_it_has(page: Names) -> None:
    codes = set(
        re.findall(r"^\| `(\w+)`", (ROOT / "docs" / "reference" / "errors.md").read_text(), re.MULTILINE)
    )
    known: dict[str, set[str]] = {
        "code": codes | {"ok"},
        "phase": set(get_args(Phase)),
        "verdict": {"pass", "fail", "undecided", "error"},
    }
    wrong = []
    for where, expression in queries():
        for name, matchers in selected(expression):
            for label, _, text in matchers:
                if text.startswith("$") or label in ADDED:
                    continue
                pauses = set(get_args(PauseReason)) if name == "headgate_rollout_paused" else set()
                values = known.get(label, set()) | page[name].get(label, set()) | pauses
                wrong += [f'{where}: {name}{{{label}="{one}"}}' for one in text.split("|") if one not in values]  # fmt: skip
    assert wrong == []


def test_words_of_alerts_name_labels_that_the_expression_leaves(page: Names) -> None:
    rules = YAML(typ="safe").load(FOLDER / "alerts.yml")
    wrong = []
    for rule in [rule for group in rules["groups"] for rule in group["rules"]]:
        first = selected(rule["expr"])[0][0]
        sums = re.findall(r"sum by \(([^)]*)\)", rule["expr"])
        left = {*sums[0].split(", ")} - {"le"} if sums else {*OTHERS.get(first, page.get(first, {})), *ADDED}
        named = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        wrong += [f"{rule['alert']}: {label}" for label in named - left]
    assert wrong == []


def test_the_dashboard_is_one_that_grafana_can_draw() -> None:
    drawn: dict[str, Any] = json.loads((FOLDER / "dashboard.json").read_text())
    numbers = [panel["id"] for panel in drawn["panels"]]
    assert len(set(numbers)) == len(numbers)
    taken: set[tuple[int, int]] = set()
    for panel in drawn["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, f"{panel['title']} lies over another panel"
        taken |= cells
        refs = [one["refId"] for one in panel.get("targets", [])]
        assert len(set(refs)) == len(refs)
        assert panel["type"] == "row" or all(one["expr"] for one in panel["targets"])

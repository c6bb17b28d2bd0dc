"""Writes packaging/monitoring/dashboard.json, a dashboard for Grafana, as ``python -m tools.dashboard``; ``--check`` compares instead
(`make lint`).

Not here: the panels (dashboard_panels.py), the alerts (packaging/monitoring/alerts.yml). A test looks every metric and label up on the
page of a gateway.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from tools.dashboard_panels import ROWS, Panel

PATH = Path(__file__).resolve().parents[1] / "packaging" / "monitoring" / "dashboard.json"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24
HEIGHT = 8


def target(panel: Panel, place: int) -> dict[str, Any]:
    """A query of a panel."""
    asked, legend = panel.queries[place]
    form = {"format": "table", "instant": True} if panel.kind == "table" else {}
    return {"refId": chr(65 + place), "datasource": SOURCE, "expr": asked, "legendFormat": legend, **form}


def drawn(panel: Panel, number: int, x: int, y: int) -> dict[str, Any]:
    """A panel as Grafana reads it."""
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.red_above is not None:
        steps.append({"color": "red", "value": panel.red_above})
    if panel.red_below is not None:
        steps = [{"color": "red", "value": None}, {"color": "green", "value": panel.red_below}]
    defaults = {"unit": panel.unit, "min": 0, "thresholds": {"mode": "absolute", "steps": steps}}
    made: dict[str, Any] = {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "datasource": SOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": 4 if panel.kind == "stat" else HEIGHT},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": [target(panel, place) for place in range(len(panel.queries))],
    }
    if panel.kind == "table":
        hidden = {"Time": True, "Value": True, "__name__": True, "job": True}
        made["transformations"] = [
            {"id": "merge", "options": {}},
            {"id": "organize", "options": {"excludeByName": hidden}},
        ]
    return made


def panels() -> list[dict[str, Any]]:
    """All panels, row by row from the top."""
    found: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS:
        place = {"x": 0, "y": y, "w": WIDTH, "h": 1}
        found.append(
            {"id": len(found) + 1, "type": "row", "title": title, "collapsed": False, "gridPos": place}
        )
        x, y = 0, y + 1
        height = 0
        for panel in row:
            if x + panel.width > WIDTH:
                x, y = 0, y + height
            found.append(drawn(panel, len(found) + 1, x, y))
            x, height = x + panel.width, found[-1]["gridPos"]["h"]
        y += height
    return found


def variable(name: str, query: str) -> dict[str, Any]:
    """A choice above the panels: the values of a label."""
    return {
        "name": name,
        "type": "query",
        "datasource": SOURCE,
        "definition": query,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def dashboard() -> dict[str, Any]:
    """The dashboard."""
    source = {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}
    return {
        "title": "Headgate",
        "uid": "headgate",
        "tags": ["headgate"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {
            "list": [
                source,
                variable("instance", "label_values(headgate_ready, instance)"),
                variable(
                    "endpoint", 'label_values(headgate_endpoint_ready{instance=~"$instance"}, endpoint)'
                ),
            ]
        },
        "panels": panels(),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Writes the dashboard for Grafana.")
    parser.add_argument("--check", action="store_true", help="compare with the committed file instead")
    text = json.dumps(dashboard(), indent=1) + "\n"
    if not parser.parse_args().check:
        PATH.write_text(text)
    elif not PATH.exists() or PATH.read_text() != text:
        sys.exit(f"{PATH.name} differs from the program; run: python -m tools.dashboard")


if __name__ == "__main__":
    main()

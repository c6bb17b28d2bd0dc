"""Blocks of data on all pages: documents go through ``validate``, settings through the settings of ``serve``, JSON is JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from headgate.bench.scenario import parse_scenario
from headgate.documents import Endpoint, Kinds, parse_each
from headgate.gateway.settings import configuration_file, validate
from headgate.gateway.settings_table import BY_NAME
from support.models import ROOT
from support.pages import PAGES, Block, blocks

ALL = [block for page in PAGES for block in blocks(page)]
OTHERS = ("RolloutPlan", "Defaults")
FIELDS = {field.alias or name for name, field in Endpoint.model_fields.items()}


def of(language: str) -> list[Any]:
    return [
        pytest.param(block, id=f"{block.page}:{block.line}") for block in ALL if block.language == language
    ]


def completed(part: dict[str, Any]) -> dict[str, Any]:
    """A document with what a part of one leaves out: its head, a champion, and constants for versions that it only names."""
    versions = part.get("versions", {})
    traffic = {"champion": next(iter(versions), "v1"), **part.get("traffic", {})}
    named = {traffic["champion"], *traffic.get("weights", {})} - {*versions}
    versions = versions | {name: {"constant": {"y": [0.0]}} for name in named}
    head = {"apiVersion": "headgate/v1", "kind": "Endpoint", "name": "e"}
    return {**head, **part, "versions": versions, "traffic": traffic}


def check_document(block: Block, data: dict[str, Any]) -> None:
    """As ``headgate validate`` does, except that the models of examples need not be there."""
    text = block.text if "apiVersion" in data else json.dumps(completed(data))
    parsed = parse_each(text.encode(), source=f"{block.page}:{block.line}", root=ROOT, kinds=Kinds.ALL)
    if parsed.refused is not None:
        raise parsed.refused


@pytest.mark.parametrize("block", of("yaml"))
def test_yaml(block: Block, tmp_path: Path) -> None:
    for data in YAML(typ="safe").load_all(block.text):
        if data.get("apiVersion", "headgate/v1") != "headgate/v1":
            continue  # of Kubernetes or a proxy: nothing here reads it
        if "scrape_configs" in data:
            continue  # of Prometheus: its own tool reads it, in the page
        if {*data} <= {*BY_NAME}:
            (tmp_path / "settings.yaml").write_text(block.text)
            validate([configuration_file(tmp_path / "settings.yaml")])
        elif data.get("kind") == "Scenario":
            parse_scenario(block.text.encode(), f"{block.page}:{block.line}")
        else:
            assert data.get("kind") in OTHERS or {*data} <= FIELDS, f"no document, no settings: {[*data]}"
            check_document(block, data)


@pytest.mark.parametrize("block", of("json"))
def test_json(block: Block) -> None:
    json.loads(block.text)


def test_there_is_something_to_check() -> None:
    assert len(of("yaml")) > 2
    assert len(of("json")) > 0
    assert not [f"{block.page}:{block.line}" for block in ALL if block.language in ("yml", "jsonc")]

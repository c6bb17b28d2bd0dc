"""What documents hold, their files, the JSON Schema, and documents made for a model tree."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from headgate.documents import (
    Endpoint,
    from_models_tree,
    json_schema,
    locate_files,
    parse_one,
)
from headgate.errors import PolicyInvalid

TEXT = """\
apiVersion: headgate/v1
kind: Endpoint
name: digits
versions:
  v1: "file:models/1"
  v2: {model: "file:models/2/model.onnx"}
  prior: {constant: {score: [0.03, 1]}}
traffic: {champion: v1, weights: {v2: 10.00%}, sticky: header.X-User-Id}
drift: {baseline: "file:sample.npz"}
limits: {timeout: 1500ms}
columns: {X: [a, b]}
"""


def endpoint(text: str, root: Path) -> Endpoint:
    return parse_one(text.encode(), source="x.yaml", root=root).endpoint


DIGESTS = {"v1": "sha256:1", "v2": "sha256:2", "prior": "sha256:p"}


def spec(text: str, root: Path, baseline: str | None = "sha256:b") -> dict[str, Any]:
    return endpoint(text, root).spec(DIGESTS, baseline)


def test_the_spec_holds_the_document_with_digests_for_references(tmp_path: Path) -> None:
    text = TEXT.replace("weights: {v2: 10.00%}", "weights: {v2: 10.00%, prior: 0%}")
    assert spec(text + "owner: {team: us}\n", tmp_path) == {
        "versions": {
            "v1": {"digest": "sha256:1", "compatible": True},
            "v2": {"digest": "sha256:2", "compatible": True},
            "prior": {"digest": "sha256:p", "constant": {"score": [0.03, 1]}, "compatible": True},
        },
        "traffic": {
            "champion": "v1",
            "weights": {"v2": 1000},
            "sticky": "header.x-user-id",
            "keep_warm": False,
        },
        "columns": {"X": ["a", "b"]},
        "labels": {},
        "drift": {"baseline": "sha256:b"},
        "limits": {"timeout": 1500},
        "answers": {"non_finite": "error"},
    }
    canonical = "sha256:" + hashlib.sha256(b'{"score":[0.03,1]}').hexdigest()
    assert endpoint(text, tmp_path).versions["prior"].constant_digest == canonical
    without = spec(TEXT.replace('drift: {baseline: "file:sample.npz"}\n', ""), tmp_path, baseline=None)
    assert "drift" not in without
    bare = TEXT.replace("limits: {timeout: 1500ms}\n", "")
    assert spec(bare, tmp_path)["limits"] == {"timeout": 30_000}


RUN = {
    "placement": "auto",
    "threads": 1,
    "max_batch": 1,
    "max_delay": 0,
    "arena": False,
    "graph_optimization": "all",
    "device": ["cpu"],
}


@pytest.mark.parametrize(
    ("written", "differs"),
    [
        ("{}", {}),
        ("{placement: pool, instances: 2}", {"placement": "pool", "instances": 2}),
        ("{threads: auto}", {"threads": 0}),
        (
            "{threads: 4, arena: true, graph_optimization: basic}",
            {"threads": 4, "arena": True, "graph_optimization": "basic"},
        ),
        ("{max_batch: 16, max_delay: 500us}", {"max_batch": 16, "max_delay": 500}),
        ("{max_batch: 16, max_delay: 1.5ms}", {"max_batch": 16, "max_delay": 1500}),
        ("{device: 'cuda:0'}", {"device": ["cuda:0"]}),
        (
            "{device: [cuda:1, cpu], device_memory: 4GiB, instances: 2}",
            {"device": ["cuda:1", "cpu"], "device_memory": 4 << 30, "instances": 2},
        ),
        ("{max_batch: 8, buckets: [1, 4, 8]}", {"max_batch": 8, "buckets": [1, 4, 8]}),
    ],
)
def test_the_spec_says_how_a_model_is_run(written: str, differs: dict[str, Any], tmp_path: Path) -> None:
    text = TEXT.replace('"file:models/1"', f'{{model: "file:models/1", run: {written}}}')
    assert spec(text, tmp_path)["versions"]["v1"]["run"] == RUN | differs


def test_every_file_is_located(tmp_path: Path) -> None:
    document = parse_one(TEXT.encode(), source="x.yaml", root=tmp_path)
    with pytest.raises(PolicyInvalid) as caught:
        locate_files(document)
    paths = [fault["path"] for fault in caught.value.detail["faults"]]
    assert paths == ["versions.v1.model", "versions.v2.model", "drift.baseline"]
    (tmp_path / "models" / "1").mkdir(parents=True)
    (tmp_path / "models" / "2").mkdir()
    (tmp_path / "models" / "2" / "model.onnx").touch()
    (tmp_path / "sample.npz").touch()
    located = locate_files(document)
    models = {"v1": tmp_path / "models/1", "v2": tmp_path / "models/2/model.onnx"}
    assert located.models == {name: path.resolve() for name, path in models.items()}
    assert located.baseline == (tmp_path / "sample.npz").resolve()


def test_a_link_swapped_after_parsing_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "models" / "1").mkdir(parents=True)
    document = parse_one(TEXT.encode(), source="x.yaml", root=root)
    (root / "models" / "1").rmdir()
    (root / "models" / "1").symlink_to(tmp_path)
    with pytest.raises(PolicyInvalid, match=r"versions\.v1\.model: .*outside"):
        locate_files(document)


def test_as_written_parses_to_the_same_endpoint(tmp_path: Path) -> None:
    first = endpoint(TEXT, tmp_path)
    written = first.as_written()
    assert written["versions"] == {
        "v1": "file:models/1",
        "v2": "file:models/2/model.onnx",
        "prior": {"constant": {"score": [0.03, 1]}},
    }
    assert written["traffic"] == {"champion": "v1", "weights": {"v2": "10%"}, "sticky": "header.x-user-id"}
    assert written["limits"] == {"timeout": "1500ms"}
    assert endpoint(json.dumps(written), tmp_path) == first


def test_another_spelling_is_the_same_endpoint(tmp_path: Path) -> None:
    other = TEXT.replace("10.00%", "10%").replace("1500ms", "1.5s").replace("X-User-Id", "x-user-id")
    assert endpoint(other, tmp_path).as_written() == endpoint(TEXT, tmp_path).as_written()


def resolve_reference(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        node = schema["$defs"][node["$ref"].removeprefix("#/$defs/")]
    return node


def _nodes(node: Any) -> list[Any]:
    """Every value in a JSON document."""
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else []
    return [node, *(inner for child in children for inner in _nodes(child))]


def test_the_schema_describes_documents_as_written() -> None:
    schema = json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["required"] == ["apiVersion", "kind", "name", "versions", "traffic"]
    assert schema["additionalProperties"] is False
    assert {"type": "null"} not in _nodes(schema), "an absent field is left out, not null"
    undescribed = [name for name, node in schema["properties"].items() if not node.get("description")]
    assert undescribed == []
    defaults = {
        (part, name): field["default"]
        for part, definition in schema["$defs"].items()
        for name, field in definition.get("properties", {}).items()
        if "default" in field
    }
    assert defaults["Breaker", "success_rate"] == "80%", "a default is written as one would write it"
    assert (defaults["Breaker", "window"], defaults["Limits", "timeout"]) == ("10s", "30s")
    traffic = resolve_reference(schema, schema["properties"]["traffic"])
    weight = resolve_reference(schema, *traffic["properties"]["weights"]["patternProperties"].values())
    assert re.search(weight["pattern"], "2.5%")
    assert not re.search(weight["pattern"], "2.5")
    assert traffic["properties"]["weights"]["additionalProperties"] is False
    version = schema["$defs"]["Version"]["anyOf"]
    assert version[0]["type"] == "string"
    assert version[1]["oneOf"] == [{"required": ["model"]}, {"required": ["constant"]}]
    for definition in (schema, *schema["$defs"].values()):
        if definition.get("type") == "object":
            assert definition["additionalProperties"] is False


def test_a_tree_becomes_the_smallest_document(tmp_path: Path) -> None:
    folders = {version: tmp_path / "digits" / version for version in ("9", "10", "2")}
    document = from_models_tree("digits", folders, root=tmp_path)
    assert document.endpoint.traffic.champion == "10"
    assert list(document.endpoint.versions) == ["2", "9", "10"]
    assert document.endpoint.versions["9"].model == "file:digits/9"
    assert document.endpoint.traffic.weights == {}
    assert parse_one(document.raw, source="again", root=tmp_path).endpoint == document.endpoint


def test_a_folder_that_appears_later_gets_no_traffic(tmp_path: Path) -> None:
    folders = {version: tmp_path / "digits" / version for version in ("1", "2")}
    document = from_models_tree("digits", folders, root=tmp_path, champion="1")
    assert document.endpoint.traffic.champion == "1"
    assert document.endpoint.traffic.weights == {}
    with pytest.raises(PolicyInvalid, match="has no folder"):
        from_models_tree("digits", folders, root=tmp_path, champion="3")
    with pytest.raises(PolicyInvalid, match="model.onnx"):
        from_models_tree("digits", {}, root=tmp_path)
    with pytest.raises(PolicyInvalid, match="outside"):
        from_models_tree("digits", {"1": tmp_path.parent}, root=tmp_path)


def test_labels_and_the_word_for_what_is_no_number(tmp_path: Path) -> None:
    text = TEXT + "labels: {probabilities: [zero, one]}\nanswers: {non_finite: string}\n"
    read = endpoint(text, tmp_path)
    assert (read.labels, read.answers.non_finite) == ({"probabilities": ("zero", "one")}, "string")
    assert endpoint(json.dumps(read.as_written()), tmp_path) == read
    assert endpoint(TEXT, tmp_path).answers.non_finite == "error"
    with pytest.raises(PolicyInvalid, match="answers.non_finite"):
        endpoint(TEXT + "answers: {non_finite: nan}\n", tmp_path)


LIMITS = """\
limits:
  timeout: 1s
  rate: {by: header.X-Tenant, per_second: 0.5, burst: 3}
  breaker: {success_rate: 62.5%, window: 20s}
  priority: {by: header.x-class, classes: [gold, batch]}
"""


def test_the_spec_holds_limits_and_the_fallback_in_slots_and_milliseconds(tmp_path: Path) -> None:
    text = TEXT.replace("limits: {timeout: 1500ms}\n", LIMITS)
    text = text.replace("sticky:", "fallback: {to: [v1, prior], after: 120ms}, keep_warm: true, sticky:")
    made = spec(text, tmp_path)
    assert made["limits"] == {
        "timeout": 1000,
        "rate": {"by": "header.x-tenant", "per_second": 0.5, "burst": 3},
        "breaker": {"consecutive": 5, "success_rate": 6250, "window": 20_000, "min_requests": 20},
        "priority": {"by": "header.x-class", "classes": ["gold", "batch"]},
    }
    assert made["traffic"]["keep_warm"]
    assert made["traffic"]["fallback"] == {"to": ["v1", "prior"], "after": 120}
    read = endpoint(text, tmp_path)
    assert endpoint(json.dumps(read.as_written()), tmp_path) == read


def test_a_document_may_say_that_nobody_answers_for_another_version(tmp_path: Path) -> None:
    read = endpoint(TEXT.replace("sticky:", "fallback: none, sticky:"), tmp_path)
    assert read.traffic.fallback == "none"
    assert read.spec(DIGESTS, None)["traffic"]["fallback"] == "none"
    assert endpoint(json.dumps(read.as_written()), tmp_path) == read


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("timeout: 1500ms", "rate: {by: x-tenant, per_second: 1}", "limits.rate.by: .*names no header"),
        ("timeout: 1500ms", "rate: {per_second: 0}", "limits.rate.per_second"),
        ("timeout: 1500ms", "rate: {burst: 1}", "limits.rate.per_second: is required"),
        ("timeout: 1500ms", "breaker: {success_rate: 80}", "limits.breaker.success_rate.*percent sign"),
        ("timeout: 1500ms", "breaker: {window: 10}", "limits.breaker.window.*unit"),
        ("timeout: 1500ms", "priority: {by: header.x, classes: [a, a]}", "limits.priority.classes.1.*twice"),
        (
            "timeout: 1500ms",
            "priority: {by: header.x, classes: [a], unnamed: b}",
            'limits.priority.unnamed.*"b" is not among the classes',
        ),
        ("sticky:", "fallback: {to: [v9]}, sticky:", 'traffic.fallback.to.0.*"v9" is not among the versions'),
        ("sticky:", "fallback: {to: [v1, v1]}, sticky:", "traffic.fallback.to.1.*twice"),
        ("sticky:", "fallback: {to: []}, sticky:", "traffic.fallback.to.*empty"),
        ("sticky:", "fallback: {to: [v1], when: now}, sticky:", "traffic.fallback.when.*not known here"),
        ("sticky:", "fallback: {after: 1s}, sticky:", "traffic.fallback.to: is required"),
        ("sticky:", "fallback: v1, sticky:", 'traffic.fallback: must be "none" or a mapping.*not "v1"'),
        ("sticky:", "fallback: [v1], sticky:", 'traffic.fallback: must be "none" or a mapping'),
        ("{constant: {score: [0.03, 1]}}", "{constant: {score: 1}, compatible: false}", "compatible"),
    ],
)
def test_limits_that_contradict_themselves_are_refused(old: str, new: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(PolicyInvalid, match=f"(?s){says}"):
        endpoint(TEXT.replace(old, new), tmp_path)


def test_a_version_may_say_that_it_is_not_for_everybody(tmp_path: Path) -> None:
    text = TEXT.replace('"file:models/1"', '{model: "file:models/1", compatible: false}')
    read = endpoint(text, tmp_path)
    assert [version.compatible for version in read.versions.values()] == [False, True, True]
    assert endpoint(json.dumps(read.as_written()), tmp_path) == read

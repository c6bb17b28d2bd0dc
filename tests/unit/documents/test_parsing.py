"""Documents from bytes: syntax, limits, what is refused and how it is said."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from headgate.documents import Endpoint, Files, parse, parse_each, parse_one
from headgate.documents.reading import MAX_BYTES
from headgate.errors import PolicyInvalid

SMALLEST = """\
apiVersion: headgate/v1
kind: Endpoint
name: digits
versions: {v1: "file:models/digits/1"}
traffic: {champion: v1}
"""


def faults(text: str | bytes, root: Path) -> dict[str, str]:
    """Path to message of every fault; a path with several keeps them joined."""
    data = text.encode() if isinstance(text, str) else text
    with pytest.raises(PolicyInvalid) as caught:
        parse(data, source="x.yaml", root=root)
    out: dict[str, str] = {}
    for fault in caught.value.detail["faults"]:
        out[fault["path"]] = "; ".join(filter(None, [out.get(fault["path"]), fault["message"]]))
    return out


def line_of(text: str, path: str, root: Path) -> int | None:
    with pytest.raises(PolicyInvalid) as caught:
        parse(text.encode(), source="x.yaml", root=root)
    lines: dict[str, int | None] = {f["path"]: f["line"] for f in caught.value.detail["faults"]}
    return lines[path]


def with_(text: str) -> str:
    return SMALLEST + text


def test_the_smallest_document(tmp_path: Path) -> None:
    document = parse_one(SMALLEST.encode(), source="x.yaml", root=tmp_path)
    endpoint = document.endpoint
    assert document.name == "digits"
    assert endpoint.versions["v1"].model == "file:models/digits/1"
    assert endpoint.traffic.champion == "v1"
    assert endpoint.traffic.weights == {}
    assert endpoint.traffic.sticky is None
    assert endpoint.limits.timeout == 30_000
    assert document.raw == SMALLEST.encode()
    assert document.digest == "sha256:" + hashlib.sha256(SMALLEST.encode()).hexdigest()


def test_all_fields(tmp_path: Path) -> None:
    text = """\
apiVersion: headgate/v1
kind: Endpoint
name: fraud-score
owner: {team: risk-ml, tier: 1, review_by: 2027-03-01}
columns: {X: [amount, age]}
versions:
  7: "file:a"
  v8: {model: "file:b/model.onnx"}
  prior: {constant: {score: 0.03, label: [yes, "no"], n: [1, 2.5], ok: true}}
traffic: {champion: 7, weights: {v8: 2.5%, prior: 0%}, sticky: header.X-User-Id}
drift: {baseline: "file:reference.npz"}
limits: {timeout: 200ms}
"""
    endpoint = parse_one(text.encode(), source="x.yaml", root=tmp_path).endpoint
    assert list(endpoint.versions) == ["7", "v8", "prior"]
    assert endpoint.traffic.champion == "7"
    assert endpoint.traffic.weights == {"v8": 250, "prior": 0}
    assert endpoint.traffic.sticky == "header.x-user-id"
    assert endpoint.limits.timeout == 200
    assert endpoint.columns == {"X": ("amount", "age")}
    constant = endpoint.versions["prior"].constant
    assert constant == {"score": 0.03, "label": ("yes", "no"), "n": (1, 2.5), "ok": True}
    assert (
        endpoint.versions["prior"].constant_digest
        == "sha256:"
        + hashlib.sha256(b'{"label":["yes","no"],"n":[1,2.5],"ok":true,"score":0.03}').hexdigest()
    )
    assert endpoint.owner is not None
    assert str(endpoint.owner.review_by) == "2027-03-01"
    with pytest.raises(ValueError, match="frozen"):
        endpoint.name = "other"  # type: ignore[misc]


def test_every_fault_at_once_with_path_and_line(tmp_path: Path) -> None:
    text = """\
apiVersion: headgate/v2
kind: Endpoint
nam: x
weights: {a: 1}
versions:
  1.10: "file:a"
  v1: "file:../etc"
  v2: {model: "models:/x/1", run: {max_batch: 8, placement: inline, buckets: [4, 2], threads: 0, device: [cuda:0, gpu]}}
  v3: {constant: {x: 1}, run: {max_delay: 2ms}}
  v4: {}
  v5: {model: "file:a", constant: {x: .nan, y: [1, a], z: [[1]]}}
  v6: a/b
  -x: file:a
traffic:
  champion: v8
  weights: {v1: 60, v2: 60%, v9: 60.001%, v4: 50%}
  sticky: cookie.a
drift: {baseline: "file:x.parquet"}
limits: {timeout: 30}
owner: {team: "${env:X}", tier: x}
columns: {X: a, Y: [], Z: [1, 1.5]}
"""
    found = faults(text, tmp_path)
    expected = {
        "apiVersion": 'must be "headgate/v1", not "headgate/v2"',
        "name": "is required",
        "nam": 'did you mean "name"?',
        "weights": "belongs under traffic",
        'versions["1.10"]': 'quote it: "1.10"',
        "versions.v1.model": "outside",
        "versions.v2.model": "models: references are not supported yet",
        "versions.v2.run.placement": "is inline, where nothing is batched",
        "versions.v2.run.buckets": "must grow",
        "versions.v2.run.threads": "must be",
        "versions.v2.run.device": '"gpu" is no device',
        "versions.v3.run": "a constant is never run",
        "versions.v3.run.max_delay": "write max_batch as well",
        "versions.v4": "names no model and no constant",
        "versions.v5": "constant and model; keep one",
        "versions.v5.constant.x": "not finite",
        "versions.v5.constant.y": "mixes number and string",
        "versions.v5.constant.z": "flat list",
        "versions.v6.model": 'write "file:a/b"',
        "versions.-x": "version name",
        "traffic.champion": "not among the versions",
        "traffic.weights": "add up to 110.00%",
        "traffic.weights.v1": 'write "60%"',
        "traffic.weights.v9": "not among the versions",
        "traffic.sticky": "names no header",
        "drift.baseline": ".parquet are not supported yet",
        "limits.timeout": "needs a unit",
        "owner.team": "takes none",
        "owner.tier": "whole number",
        "columns.X": "must be a list",
        "columns.Y": "is empty",
        "columns.Z[1]": "quote it",
    }
    assert found.keys() == expected.keys()
    assert {path: says in found[path] for path, says in expected.items()} == dict.fromkeys(expected, True)
    assert "steps of 0.01%" in found["traffic.weights.v9"]
    assert line_of(text, "versions.v5.constant.y", tmp_path) == 11
    assert line_of(text, "traffic.sticky", tmp_path) == 17
    assert line_of(text, "name", tmp_path) == 1


LATER = [
    ("source: {mlflow: x}", "source"),
    ("drift: {window: 24h}", "drift.window"),
    ("drift: {tolerate: auto}", "drift.tolerate"),
    ("drift: {false_alarms_per_month: 1}", "drift.false_alarms_per_month"),
    ("drift: {baseline: artifact}", "drift.baseline"),
    ("drift: {baseline: live}", "drift.baseline"),
]


@pytest.mark.parametrize(("line", "path"), LATER)
def test_what_is_not_built_is_refused_as_such(line: str, path: str, tmp_path: Path) -> None:
    found = faults(with_(line + "\n"), tmp_path)
    assert found.keys() == {path}
    assert "not supported yet" in found[path]


@pytest.mark.parametrize(
    ("version", "path"),
    [
        ("{upstream: 'http://10.0.0.5'}", "versions.v1.upstream"),
        ("'models:/fraud/7'", "versions.v1.model"),
        ("{model: 's3://b/k'}", "versions.v1.model"),
    ],
)
def test_versions_that_are_not_built_are_refused_as_such(version: str, path: str, tmp_path: Path) -> None:
    found = faults(SMALLEST.replace('"file:models/digits/1"', version), tmp_path)
    assert found.keys() == {path}
    assert "not supported yet" in found[path]


@pytest.mark.parametrize("kind", ["RolloutPlan", "Defaults"])
def test_another_kind_is_refused_where_an_endpoint_is_expected(kind: str, tmp_path: Path) -> None:
    assert faults(f"apiVersion: headgate/v1\nkind: {kind}\nname: a\nsteps: []\n", tmp_path) == {
        "kind": f"a document of kind Endpoint is expected here, not {kind}"
    }


def test_unknown_keys_name_the_nearest(tmp_path: Path) -> None:
    found = faults(with_("limit: {timeout: 1s}\nAPIversion: 1\nzzz: 1\nlimits: {time_out: 1s}\n"), tmp_path)
    assert 'did you mean "limits"?' in found["limit"]
    assert 'did you mean "apiVersion"?' in found["APIversion"]
    assert "known here: apiVersion, kind" in found["zzz"]
    assert 'did you mean "timeout"?' in found["limits.time_out"]


def unbuilt(part: type[BaseModel]) -> Iterator[str]:
    """The names of all fields that are not built, below a part of the document."""
    yield from getattr(part, "not_yet", ())
    for field in part.model_fields.values():
        for inner in parts_of(field.annotation):
            yield from unbuilt(inner)


def parts_of(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from parts_of(argument)


def test_no_hint_names_what_is_not_built(tmp_path: Path) -> None:
    names = sorted({*unbuilt(Endpoint)})
    assert {"window", "upstream"} <= {*names}
    wrong = ", ".join(f"{name}x: 1" for name in names)
    text = with_(f"drift: {{{wrong}}}\nlimits: {{{wrong}}}\n{wrong.replace(', ', chr(10))}\n")
    text = text.replace("champion: v1", f"champion: v1, {wrong}")
    found = faults(text, tmp_path)
    assert len(found) == 4 * len(names)
    for path, message in found.items():
        assert not {*names} & {*re.findall(r"\w+", message)}, path


def test_absence_never_promotes(tmp_path: Path) -> None:
    assert (
        "never guessed"
        in faults(SMALLEST.replace("{champion: v1}", "{weights: {}}"), tmp_path)["traffic.champion"]
    )
    assert (
        "is empty" in faults(SMALLEST.replace("{champion: v1}", "{champion: }"), tmp_path)["traffic.champion"]
    )


def test_weights_never_reach_the_champion_or_pass_100(tmp_path: Path) -> None:
    two = SMALLEST.replace('{v1: "file:models/digits/1"}', '{v1: "file:a", v2: "file:b", v3: "file:c"}')
    assert (
        "remove its weight"
        in faults(two.replace("champion: v1", "champion: v1, weights: {v1: 5%}"), tmp_path)[
            "traffic.weights.v1"
        ]
    )
    over = two.replace("champion: v1", "champion: v1, weights: {v2: 50.01%, v3: 50%}")
    assert "100.01%" in faults(over, tmp_path)["traffic.weights"]
    exact = parse_one(over.replace("50.01", "50").encode(), source="x", root=tmp_path)
    assert exact.endpoint.traffic.weights == {"v2": 5000, "v3": 5000}


def test_duplicates_are_refused(tmp_path: Path) -> None:
    assert faults(with_("name: other\n"), tmp_path) == {"name": "is written twice; keep one of them"}
    assert line_of(with_("name: other\n"), "name", tmp_path) == 6
    twice = SMALLEST.replace("{v1:", '{7: "file:a", "7": "file:b", v1:')
    assert "written twice" in faults(twice, tmp_path)["versions.7"]
    same = faults(SMALLEST + "---\n" + SMALLEST, tmp_path)
    assert "described twice in this file; the first is at line 3" in same["name"]
    as_json = '{"apiVersion": "headgate/v1",\n "kind": "Endpoint",\n "kind": "Endpoint"}'
    assert "written twice" in faults(as_json, tmp_path)["kind"]


@pytest.mark.parametrize(
    ("key", "says"), [("1.0", 'quote it: "1.0"'), ("true", 'quote it: "true"'), ("null", 'quote it: "null"')]
)
def test_keys_that_are_not_names_want_quotes(key: str, says: str, tmp_path: Path) -> None:
    text = SMALLEST.replace("{v1:", f'{{{key}: "file:a", v1:')
    assert any(says in message for message in faults(text, tmp_path).values())
    quoted = SMALLEST.replace("{v1:", f'{{"{key}": "file:a", v1:')
    assert key in parse_one(quoted.encode(), source="x", root=tmp_path).endpoint.versions


def test_yaml_is_version_1_2(tmp_path: Path) -> None:
    text = SMALLEST.replace(
        "{v1:", "{c: {constant: {a: yes, b: on, c: 012, d: 0o12, e: 1_000, f: 12:30:00}}, v1:"
    )
    constant = parse_one(text.encode(), source="x", root=tmp_path).endpoint.versions["c"].constant
    assert constant == {"a": "yes", "b": "on", "c": 12, "d": 10, "e": "1_000", "f": "12:30:00"}
    assert "%YAML" in faults("%YAML 1.1\n---\n" + SMALLEST, tmp_path)[""]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no document"),
        ("# only a comment\n", "holds no document"),
        ("---\n---\n", "holds no document"),
        ("- a\n", "must be a mapping"),
        ("text", 'must be a mapping with apiVersion, kind and name, not "text"'),
        ("a: [1\n", "is not YAML"),
        ("a: b: c\n", "is not YAML"),
        ("a: !!python/object:os.system {}\n", "tag"),
        ("a: !thing 1\n", "tag"),
        ("a: &a [*a]\n", "alias *a"),
        ("a: *nowhere\n", "alias *nowhere"),
        ("[" * 10_000, "nests deeper"),
        ('{"a":' * 10_000, "nests deeper"),
        ("a: " + "9" * 5000, "5000 digits"),
        (b"\xff\xfe", "not UTF-8"),
        (b"a: \x00", "is not YAML"),
        ("#\n" * (MAX_BYTES // 2) + "##", f"has {MAX_BYTES // 2 * 2 + 2} bytes"),
        ("a: 1\nb: " + "!" * 100_000, "has a line of 100003 characters"),
        ("- a\n" * 30_000, "expands to more than"),
        ("---\na: 1\n" * 1001, "more than 1000 documents"),
    ],
)
def test_what_cannot_be_read_is_one_fault(text: str | bytes, says: str, tmp_path: Path) -> None:
    found = faults(text, tmp_path)
    assert found.keys() == {""}
    assert says in found[""]


def test_alias_bombs_are_bounded(tmp_path: Path) -> None:
    wide = "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}' if i else 'x'] * 10)}]" for i in range(12))
    assert "expands to more than" in faults(wide, tmp_path)[""]
    deep = "\n".join(f"a{i}: &a{i} {'[' * 9}{f'*a{i - 1}' if i else 'x'}{']' * 9}" for i in range(5))
    assert "nests deeper" in faults(deep, tmp_path)[""]
    shared = with_("columns: {X: &c [a, b], Y: *c}\n")
    assert parse_one(shared.encode(), source="x", root=tmp_path).endpoint.columns == {
        "X": ("a", "b"),
        "Y": ("a", "b"),
    }


def test_merge_keys_and_empty_fields_are_refused(tmp_path: Path) -> None:
    assert "merge keys" in faults(with_("<<: {name: x}\n"), tmp_path)[""]
    assert faults(with_("limits:\n"), tmp_path) == {"limits": "is empty; give it a value or remove the key"}


def test_many_documents_keep_their_own_bytes(tmp_path: Path) -> None:
    other = SMALLEST.replace("digits", "other")
    third = "{apiVersion: headgate/v1, kind: Endpoint, name: third, versions: {a: 'file:x'}, traffic: {champion: a}}"
    data = (
        f"# first\n{SMALLEST}# tail\n---\n# second ä\n{other}...\n---\n---  # nothing\n--- {third}\n".encode()
    )
    documents = parse(data, source="x.yaml", root=tmp_path)
    assert [document.name for document in documents] == ["digits", "other", "third"]
    assert documents[0].raw == f"# first\n{SMALLEST}# tail\n".encode()
    for document in documents:
        assert document.raw in data
        again = parse_one(document.raw, source="again", root=tmp_path)
        assert again.endpoint == document.endpoint
        assert again.digest == document.digest
    with pytest.raises(PolicyInvalid, match="holds 3 documents"):
        parse_one(data, source="x.yaml", root=tmp_path)


def test_faults_of_all_documents_are_listed(tmp_path: Path) -> None:
    data = (SMALLEST + "zzz: 1\n---\n" + SMALLEST.replace("digits\n", "other\n") + "yyy: 1\n").encode()
    with pytest.raises(PolicyInvalid) as caught:
        parse(data, source="x.yaml", root=tmp_path)
    assert [(f["path"], f["line"]) for f in caught.value.detail["faults"]] == [("zzz", 6), ("yyy", 13)]
    assert caught.value.detail["count"] == 2
    assert "x.yaml: 2 faults\n  line 6: zzz: " in caught.value.message


def test_json_is_read_as_json(tmp_path: Path) -> None:
    value: dict[str, Any] = {
        "apiVersion": "headgate/v1",
        "kind": "Endpoint",
        "name": "digits",
        "versions": {"7": "file:a", "c": {"constant": {"s": "😀/", "f": 1e5}}},
        "traffic": {"champion": "7"},
    }
    data = json.dumps(value, indent="\t").replace("/", "\\/").encode()
    document = parse_one(data, source="x.json", root=tmp_path)
    assert document.endpoint.versions["c"].constant == {"s": "😀/", "f": 100_000.0}
    assert document.raw == data
    value["traffic"] = {"champion": "8"}
    text = json.dumps(value, indent=2)
    assert line_of(text, "traffic.champion", tmp_path) == text[: text.index('"champion"')].count("\n") + 1
    half = '{"apiVersion": "headgate/v1", "owner": {"team": "\\ud83d"}}'
    assert "surrogate" in faults(half, tmp_path)["owner.team"]


def test_files_stay_below_the_root(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "in").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    (root / "link").symlink_to(tmp_path / "out")
    (root / "loop").symlink_to(root / "loop")
    (root / "good").symlink_to(root / "in")

    def reads(reference: str) -> dict[str, str]:
        try:
            parse(SMALLEST.replace("file:models/digits/1", reference).encode(), source="x", root=root)
        except PolicyInvalid as error:
            return {f["path"]: f["message"] for f in error.detail["faults"]}
        return {}

    for fine in (
        "file:in",
        "file:good",
        "file:missing/yet",
        f"file:{root}/in",
        f"file://{root}/in",
        "file:a/../in",
    ):
        assert reads(fine) == {}
    for bad in (
        "file:link",
        "file:link/x",
        "file:..",
        "file:in/../../out",
        "file:/etc/passwd",
        f"file:{tmp_path}/out",
    ):
        assert "leads outside" in reads(bad)["versions.v1.model"]
    for bad in ("file:", "file://host/x", "file:a\\0b", "file:" + "a" * 5000, "in"):
        assert reads(bad).keys() == {"versions.v1.model"}
    assert reads("file:loop").keys() == {"versions.v1.model"}
    later = SMALLEST.replace("file:models/digits/1", "file:link").encode()
    assert parse_one(later, source="x", root=root, follow=Files.IGNORED).name == "digits"


def test_faults_are_counted_when_they_are_too_many(tmp_path: Path) -> None:
    with pytest.raises(PolicyInvalid) as caught:
        parse(with_("".join(f"zz{i}: 1\n" for i in range(300))).encode(), source="x", root=tmp_path)
    assert len(caught.value.detail["faults"]) == 100
    assert "more" in caught.value.message


def test_hostile_names_are_quoted_in_messages(tmp_path: Path) -> None:
    text = SMALLEST.replace("name: digits", 'name: "\\e[31m\\n' + "a" * 200 + '"')
    found = faults(text, tmp_path)["name"]
    assert "\x1b" not in found
    assert "\n" not in found
    assert len(found) < 250


def test_the_sound_documents_of_a_file_are_told_apart_from_those_with_faults(tmp_path: Path) -> None:
    named = [SMALLEST.replace("digits\n", f"{name}\n") for name in ("a", "b", "c", "b")]
    text = "---\n".join([named[0], named[1], named[2].replace("champion: v1", "champion: v9"), named[3]])
    parsed = parse_each(text.encode(), source="x.yaml", root=tmp_path)
    assert [one.name for one in parsed.documents] == ["a", "b"]
    assert parsed.refused is not None
    with pytest.raises(PolicyInvalid) as caught:
        parse(text.encode(), source="x.yaml", root=tmp_path)
    assert parsed.refused.detail == caught.value.detail
    assert len(parsed.refused.detail["faults"]) == 2
    assert parse_each(named[0].encode(), source="x.yaml", root=tmp_path).refused is None


@pytest.mark.parametrize("field", ["weights: {%s}", "fallback: {to: [%s]}"])
def test_hints_compare_a_bounded_number_of_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    compared = 0
    ratio = difflib.SequenceMatcher.real_quick_ratio

    def counted(matcher: Any) -> float:
        nonlocal compared
        compared += 1
        assert len(matcher.a) <= 32
        assert len(matcher.b) <= 32
        return float(ratio(matcher))

    monkeypatch.setattr(difflib.SequenceMatcher, "real_quick_ratio", counted)
    names = ", ".join(f"{'known' * 12}{n}: {{constant: {{y: 1}}}}" for n in range(300))
    wrong = ", ".join(f"{'knwon' * 12}{n}" + (": 0%" if "weights" in field else "") for n in range(300))
    text = SMALLEST.replace('v1: "file:models/digits/1"', f"v1: {{constant: {{y: 1}}}}, {names}")
    found = faults(text.replace("champion: v1", f"champion: v1, {field % wrong}"), tmp_path)
    assert len(found) == 101 or len(found) == 100
    assert 0 < compared <= 10 * 50

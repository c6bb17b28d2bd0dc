"""Properties of documents: parsing inverts writing, refuses with faults only, and reads JSON as JSON."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from headgate.control.domain.spec import Spec
from headgate.documents import Document, Endpoint, format_weight, is_name, parse, parse_one, parse_weight
from headgate.errors import PolicyInvalid

ROOT = Path("root-of-the-document")

patient = settings(deadline=None)
"""A loaded machine may be slow; that is no fault of a document."""

names = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,12}", fullmatch=True).filter(is_name)
labels = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=8).filter(
    lambda t: "${" not in t
)
numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(codec="utf-8"), max_size=8)
rows = st.lists(numbers, min_size=1, max_size=4) | st.lists(texts, min_size=1, max_size=4)
constants = st.dictionaries(labels, numbers | st.booleans() | texts | rows, min_size=1, max_size=3)
runs = st.fixed_dictionaries(
    {},
    optional={
        "placement": st.sampled_from(["auto", "pool"]),
        "threads": st.just("auto") | st.integers(1, 64),
        "max_batch": st.integers(2, 64),
        "arena": st.booleans(),
        "device": st.sampled_from(["cpu", "cuda:0", ["cuda:1", "cpu"]]),
    },
)
versions = st.one_of(
    names.map(lambda n: f"file:models/{n}"),
    names.map(lambda n: {"model": f"file:models/{n}"}),
    st.builds(lambda n, run: {"model": f"file:models/{n}", "run": run}, names, runs),
    constants.map(lambda c: {"constant": c}),
)


durations = st.builds(lambda n, unit: f"{n}{unit}", st.integers(1, 1000), st.sampled_from(["ms", "s", "m"]))
limits = st.fixed_dictionaries(
    {},
    optional={
        "timeout": durations | st.just("30s"),
        "rate": st.fixed_dictionaries(
            {"per_second": st.integers(1, 1000) | st.floats(0.001, 1000)},
            optional={"by": st.just("header.X-Caller"), "burst": st.integers(1, 100)},
        ),
        "breaker": st.fixed_dictionaries(
            {},
            optional={
                "consecutive": st.integers(1, 9),
                "success_rate": st.integers(0, 10_000).map(format_weight),
                "window": durations,
            },
        ),
        "priority": st.fixed_dictionaries(
            {"by": st.just("header.X-Class"), "classes": st.just(["first", "second"])},
            optional={"unnamed": st.just("first")},
        ),
    },
)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """A document as written, without faults."""
    behind = draw(st.dictionaries(names, versions, min_size=1, max_size=5))
    champion, *others = draw(st.permutations(list(behind)))
    left, weights = 10_000, {}
    for name in others:
        if draw(st.booleans()):
            slots = draw(st.integers(0, left))
            weights[name] = format_weight(slots)
            left -= slots
    traffic: dict[str, Any] = {"champion": champion, "weights": weights}
    if draw(st.booleans()):
        traffic["sticky"] = "header.X-" + draw(st.from_regex(r"[A-Za-z0-9]{1,8}", fullmatch=True))
    out: dict[str, Any] = {
        "apiVersion": "headgate/v1",
        "kind": "Endpoint",
        "name": draw(names),
        "versions": behind,
        "traffic": traffic,
    }
    if draw(st.booleans()):
        out["columns"] = draw(st.dictionaries(labels, st.lists(labels, min_size=1, max_size=4), max_size=3))
    if draw(st.booleans()):
        out["limits"] = draw(limits)
    if draw(st.booleans()):
        out["answers"] = {"non_finite": draw(st.sampled_from(["error", "null", "string"]))}
    return out


def read(data: bytes) -> Document:
    return parse_one(data, source="generated", root=ROOT)


def as_yaml(value: Any) -> str:
    out = StringIO()
    YAML(typ="safe", pure=True).dump(value, out)
    return out.getvalue()


@patient
@given(documents())
def test_json_and_normal_form_give_the_same_endpoint(value: dict[str, Any]) -> None:
    first = read(json.dumps(value).encode())
    again = read(json.dumps(first.endpoint.as_written()).encode())
    assert again.endpoint == first.endpoint
    for name, version in value["versions"].items():
        if isinstance(version, dict) and "constant" in version:
            held = first.endpoint.as_written()["versions"][name]["constant"]
            assert json.dumps(held) == json.dumps(version["constant"])


@patient
@given(documents())
def test_the_spec_outlives_writing_and_storing(value: dict[str, Any]) -> None:
    def spec(endpoint: Endpoint) -> dict[str, Any]:
        return endpoint.spec({name: f"sha256:{name}" for name in endpoint.versions}, "sha256:baseline")

    first = read(json.dumps(value).encode()).endpoint
    made = spec(first)
    assert spec(read(json.dumps(first.as_written()).encode()).endpoint) == made
    stored = json.loads(json.dumps(Spec.model_validate(made).dumped()))
    assert stored == made
    assert Spec.model_validate(stored) == Spec.model_validate(made)


@patient
@given(st.lists(documents(), min_size=1, max_size=3, unique_by=lambda d: d["name"]), st.booleans())
def test_every_document_of_a_file_reads_alone_from_its_bytes(
    values: list[dict[str, Any]], lead: bool
) -> None:
    data = ("---\n" if lead else "") + "---\n".join(
        f"# ö\n{json.dumps(value, indent=1)}\n" for value in values
    )
    found = parse(data.encode(), source="generated", root=ROOT)
    assert [document.name for document in found] == [value["name"] for value in values]
    for document, value in zip(found, values, strict=True):
        assert read(document.raw).endpoint == document.endpoint
        assert read(json.dumps(value).encode()).endpoint == document.endpoint


@patient
@given(documents())
def test_yaml_written_by_another_hand_reads_the_same(value: dict[str, Any]) -> None:
    value.pop("columns", None)
    value["versions"] = {
        name: v for name, v in value["versions"].items() if not (isinstance(v, dict) and "constant" in v)
    }
    champion = value["traffic"]["champion"]
    value["versions"].setdefault(champion, "file:models/x")
    value["traffic"]["weights"] = {
        n: w for n, w in value["traffic"]["weights"].items() if n in value["versions"]
    }
    assert read(as_yaml(value).encode()).endpoint == read(json.dumps(value).encode()).endpoint


@patient
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda t: t.encode("utf-8", "surrogatepass")))
def test_garbage_gives_faults_and_nothing_else(data: bytes) -> None:
    try:
        parse(data, source="generated", root=ROOT)
    except PolicyInvalid as error:
        assert error.detail["faults"]


YAML_BITS = st.lists(
    st.sampled_from(
        ["a", "b: ", "- ", "? ", "\n", "  ", "[", "]", "{", "}", ",", ": ", "&x ", "*x", "!!str ", "!t ", "|\n", ">-\n",
         "'", '"', "#", "---\n", "...\n", "%YAML 1.2\n", "<<: ", "1.5", "~", "\t", "\\", "é", "null", "0x1F"]
    ),
    max_size=40,
).map("".join)  # fmt: skip


@patient
@given(YAML_BITS)
def test_broken_yaml_gives_faults_and_nothing_else(text: str) -> None:
    try:
        parse(text.encode(), source="generated", root=ROOT)
    except PolicyInvalid as error:
        assert error.detail["faults"]


@patient
@given(documents(), st.data())
def test_one_broken_field_is_found_whatever_else_is_there(value: dict[str, Any], data: st.DataObject) -> None:
    broken = data.draw(
        st.sampled_from(
            [
                (("traffic", "champion"), "not-there-at-all"),
                (("traffic", "sticky"), "cookie"),
                (("traffic", "weights"), {"not-there-at-all": "1%"}),
                (("limits",), {"timeout": 5}),
                (("apiVersion",), "v0"),
                (("unheard-of",), 1),
            ]
        )
    )
    path, wrong = broken
    target = value
    for segment in path[:-1]:
        target = target[segment]
    target[path[-1]] = wrong
    try:
        read(json.dumps(value).encode())
    except PolicyInvalid as error:
        assert any(fault["path"].startswith(".".join(path)) for fault in error.detail["faults"])
    else:
        raise AssertionError("the broken field was not found")


@patient
@given(st.integers(0, 10_000))
def test_weights_survive_their_text(slots: int) -> None:
    assert parse_weight(format_weight(slots)) == slots

"""The rules of an endpoint's traffic as documents write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate import documents
from headgate.documents.traffic import Rule
from headgate.documents.traffic_rules import unreachable
from headgate.errors import PolicyInvalid

DOCUMENT = """\
apiVersion: headgate/v1
kind: Endpoint
name: digits
versions: {v1: {constant: {s: 1.0}}, v8: {constant: {s: 2.0}}}
traffic:
  champion: v1
"""

FULL = """\
  rules:
    - {when: {header.X-Tester: "1"}, to: v8}
    - {when: {header.x-country: [DE, FR], parameter.Tier: {prefix: gold}, parameter.n: 3, parameter.b: true}, to: v8}
  shadow:
    - to: v8
      share: 12.5%
      compare: {s: {within: 0.02}, a: label, b: {within: 1%}, c: {top: 3}, d: {threshold: 0.5}, e: exact}
      slices: [header.X-Region]
      timeout: 2s
      keep_examples: 5
      redact: [X]
columns: {X: [amount, iban]}
capture: {share: 1%, keep: 7d, max_size: 2GiB, redact: [X.iban, other]}
"""


def parse(text: str) -> documents.Document:
    return documents.parse_one((DOCUMENT + text).encode(), source="test", root=Path("/"))


def faults(text: str) -> dict[str, str]:
    with pytest.raises(PolicyInvalid) as caught:
        parse(text)
    return {fault["path"]: fault["message"] for fault in caught.value.detail["faults"]}


def test_a_spec_has_every_short_form_written_out() -> None:
    spec = parse(FULL).endpoint.spec({"v1": "sha256:1", "v8": "sha256:8"}, None)
    assert spec["traffic"]["rules"] == [
        {"when": {"header.x-tester": {"one_of": ["1"]}}, "to": "v8"},
        {
            "when": {
                "header.x-country": {"one_of": ["DE", "FR"]},
                "parameter.Tier": {"prefix": "gold"},
                "parameter.n": {"one_of": ["3"]},
                "parameter.b": {"one_of": ["true"]},
            },
            "to": "v8",
        },
    ]
    assert spec["traffic"]["shadow"] == [
        {
            "to": "v8",
            "share": 1250,
            "by": "request",
            "compare": {
                "s": {"within": {"absolute": 0.02}},
                "a": {"label": True},
                "b": {"within": {"relative": 0.01}},
                "c": {"top": 3},
                "d": {"threshold": 0.5},
                "e": {"exact": True},
            },
            "timeout": 2000,
            "slices": ["header.x-region"],
            "keep_examples": 5,
            "redact": ["X"],
        }
    ]
    assert spec["capture"] == {
        "share": 100,
        "keep": 604_800_000,
        "max_size": 2 << 30,
        "redact": ["X.iban", "other"],
    }


def test_what_is_written_back_reads_the_same() -> None:
    endpoint = parse(FULL).endpoint
    written = endpoint.as_written()
    assert written["traffic"]["shadow"][0]["compare"]["a"] == "label"
    assert written["traffic"]["shadow"][0]["compare"]["b"] == {"within": "1%"}
    assert written["traffic"]["rules"][0]["when"] == {"header.x-tester": "1"}
    again = documents.parse_one(json.dumps(written).encode(), source="test", root=Path("/"))
    assert again.endpoint == endpoint


RULES: list[tuple[str, str, str]] = [
    ('{when: {cookie.a: "1"}, to: v8}', 'when["cookie.a"]', "names no header and no parameter"),
    ("{when: {parameter.timeout: 5}, to: v8}", 'when["parameter.timeout"]', "has a meaning of its own"),
    ("{when: {header.x: 1.5}, to: v8}", 'when["header.x"].one_of[0]', "quote it"),
    ("{when: {header.x: []}, to: v8}", 'when["header.x"].one_of', "is empty"),
    ("{when: {header.x: {prefix: a, one_of: [b]}}, to: v8}", 'when["header.x"]', "has one_of and prefix"),
    ('{when: {header.X: "1", header.x: "2"}, to: v8}', 'when["header.x"]', "is there twice"),
    ("{when: {}, to: v8}", "when", "is empty"),
    ("{to: v8}", "when", "is required"),
    ('{when: {header.x: "1"}}', "to", "is required"),
    ('{when: {header.x: "1"}, to: v9}', "to", "is not among the versions"),
    ('{when: {header.x: "1"}, to: v8, weight: 1%}', "weight", "is not known here"),
]


@pytest.mark.parametrize(("rule", "path", "message"), RULES)
def test_a_wrong_rule_is_named_by_its_place(rule: str, path: str, message: str) -> None:
    found = faults(f"  rules: [{rule}]\n")
    assert message in found[f"traffic.rules[0].{path}"]


SHADOWS: list[tuple[str, str, str]] = [
    ("{to: v1, share: 1%}", "to", "is the champion"),
    ("{to: v9, share: 1%}", "to", "is not among the versions"),
    ("{to: v8}", "share", "is required"),
    ("{to: v8, share: 0%}", "share", "at least 0.01%"),
    ("{to: v8, share: 1%, by: sticky}", "by", "has no sticky key"),
    ("{to: v8, share: 1%, compare: {s: lable}}", "compare.s", "must be exact, label or a mapping"),
    ("{to: v8, share: 1%, compare: {s: {within: -1}}}", "compare.s.within", "0 or more"),
    ("{to: v8, share: 1%, compare: {s: {}}}", "compare.s", "is empty"),
    ("{to: v8, share: 1%, compare: {s: {label: true, top: 3}}}", "compare.s", "has label and top"),
    ("{to: v8, share: 1%, slices: [region]}", "slices[0]", "names no header"),
    ("{to: v8, share: 1%, redact: [X.ibann]}", "redact[0]", 'did you mean "iban"'),
]


@pytest.mark.parametrize(("shadow", "path", "message"), SHADOWS)
def test_a_wrong_shadow_is_named_by_its_place(shadow: str, path: str, message: str) -> None:
    found = faults(f"  shadow: [{shadow}]\ncolumns: {{X: [amount, iban]}}\n")
    assert message in found[f"traffic.shadow[0].{path}"]


def test_a_version_is_a_shadow_once() -> None:
    found = faults("  shadow: [{to: v8, share: 1%}, {to: v8, share: 2%}]\n")
    assert found == {"traffic.shadow[1].to": '"v8" is a shadow already'}


CAPTURES: list[tuple[str, str, str]] = [
    ("{share: 1}", "capture.share", "needs a percent sign"),
    ("{share: 0%}", "capture.share", "at least 0.01%"),
    ("{share: 1%, keep: 7}", "capture.keep", "needs a unit"),
    ("{share: 1%, keep: 1m}", "capture.keep", "must be 1h to 400d"),
    ("{share: 1%, max_size: 2}", "capture.max_size", "needs a unit"),
    ("{share: 1%, redact: [X.name]}", "capture.redact[0]", "is not among the columns of X"),
]


@pytest.mark.parametrize(("capture", "path", "message"), CAPTURES)
def test_a_wrong_capture_is_named(capture: str, path: str, message: str) -> None:
    assert message in faults(f"columns: {{X: [amount, iban]}}\ncapture: {capture}\n")[path]


def rules(*when: dict[str, Any]) -> list[Rule]:
    return [Rule.model_validate({"when": conditions, "to": "v8"}) for conditions in when]


def test_a_rule_that_an_earlier_one_covers_is_warned_of() -> None:
    found = unreachable(
        rules(
            {"header.a": ("1", "2")},
            {"header.a": "2", "header.b": "x"},
            {"header.a": "3"},
            {"header.b": {"prefix": "x"}},
            {"header.b": {"prefix": "xy"}, "header.c": "1"},
            {"header.b": ("x1", "y1")},
        )
    )
    assert [(fault.path, "rules[0]" in fault.message) for fault in found] == [
        ("traffic.rules[1]", True),
        ("traffic.rules[4]", False),
    ]
    assert parse("  rules: [{when: {header.a: b}, to: v8}]\n").warnings == []
    # A prefix holds for no number.
    assert unreachable(rules({"parameter.n": {"prefix": "3"}}, {"parameter.n": "3"})) == []
    assert len(unreachable(rules({"parameter.n": {"prefix": "a"}}, {"parameter.n": "ab"}))) == 1


VALUES = st.text("ab", max_size=3)
MATCHES = st.lists(VALUES, min_size=1, max_size=3).map(lambda values: {"one_of": tuple(values)}) | VALUES.map(
    lambda value: {"prefix": value}
)
CONDITIONS = st.dictionaries(st.sampled_from(["header.a", "header.b"]), MATCHES, min_size=1)


@given(
    st.lists(CONDITIONS, min_size=2, max_size=5),
    st.dictionaries(st.sampled_from(["header.a", "header.b"]), VALUES),
)
def test_a_rule_that_is_warned_of_never_matches_first(
    conditions: list[dict[str, Any]], request: dict[str, str]
) -> None:
    def holds(match: dict[str, Any], value: str | None) -> bool:
        if value is None:
            return False
        return value.startswith(match["prefix"]) if "prefix" in match else value in match["one_of"]

    first = next(
        (
            at
            for at, when in enumerate(conditions)
            if all(holds(match, request.get(subject)) for subject, match in when.items())
        ),
        None,
    )
    warned = {fault.path for fault in unreachable(rules(*conditions))}
    assert f"traffic.rules[{first}]" not in warned

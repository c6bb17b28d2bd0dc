"""``feedback:`` of an endpoint: what is read, what is held, what is refused and with which words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from headgate.documents import json_schema, parse_one
from headgate.errors import PolicyInvalid

HEAD = """\
apiVersion: headgate/v1
kind: Endpoint
name: digits
versions: {v1: {constant: {Y: [1]}}, v2: "file:2"}
traffic: {champion: v2}
"""


def parsed(feedback: str) -> object:
    return parse_one(f"{HEAD}feedback: {feedback}\n".encode(), source="x", root=Path("/")).endpoint


def faults(feedback: str) -> dict[str, str]:
    with pytest.raises(PolicyInvalid) as caught:
        parsed(feedback)
    return {fault["path"]: fault["message"] for fault in caught.value.detail["faults"]}


def test_each_kind_is_read_and_held_with_its_units() -> None:
    rating = "{kind: value, range: [1, 5.5], good: low, within: 12h, coverage: 80%}"
    text = f"{HEAD}feedback: {{sale: {{kind: label, good: high}}, rating: {rating}}}"
    endpoint = parse_one(text.encode(), source="x", root=Path("/")).endpoint
    held = endpoint.spec({"v1": "sha256:1", "v2": "sha256:2"}, None)["feedback"]
    assert held == {
        "sale": {"kind": "label", "good": "high", "within": 604_800_000},
        "rating": {
            "kind": "value",
            "range": [1.0, 5.5],
            "good": "low",
            "within": 43_200_000,
            "coverage": 8_000,
        },
    }
    again = parse_one(json.dumps(endpoint.as_written()).encode(), source="x", root=Path("/")).endpoint
    assert again == endpoint
    assert "feedback" in json_schema()["properties"]


def test_a_document_without_it_has_the_spec_that_it_had() -> None:
    endpoint = parse_one(HEAD.encode(), source="x", root=Path("/")).endpoint
    assert "feedback" not in endpoint.spec({"v1": "sha256:1", "v2": "sha256:2"}, None)
    assert "feedback" not in endpoint.as_written()


@pytest.mark.parametrize(
    ("feedback", "path", "words"),
    [
        ("{sale: {kind: label}}", "feedback.sale.good", "required"),
        ("{sale: {kind: label, good: up}}", "feedback.sale.good", "high"),
        ("{sale: {kind: stars, good: high}}", "feedback.sale.kind", "label"),
        ("{sale: {kind: label, good: high, range: [0, 1]}}", "feedback.sale", "remove range"),
        ("{n: {kind: count, good: high}}", "feedback.n", "needs its range"),
        ("{n: {kind: count, good: high, range: [0, 2.5]}}", "feedback.n", "whole numbers"),
        ("{n: {kind: value, good: high, range: [5, 1]}}", "feedback.n", "lower end first"),
        ("{n: {kind: value, good: high, range: [0, 1e12]}}", "feedback.n.range.1", "1000000000"),
        ("{n: {kind: value, good: high, range: [0]}}", "feedback.n.range.1", "required"),
        ("{sale: {kind: label, good: high, within: 7}}", "feedback.sale.within", "needs a unit"),
        ("{sale: {kind: label, good: high, within: 10s}}", "feedback.sale.within", "1m to 90d"),
        ("{sale: {kind: label, good: high, coverage: 0.8}}", "feedback.sale.coverage", "%"),
        ("{sale: {kind: label, good: high, coverage: 120%}}", "feedback.sale.coverage", "100%"),
        ("{sale: {kind: label, good: high, until: 1d}}", "feedback.sale.until", "within"),
        ("{a b: {kind: label, good: high}}", "feedback.a b", "feedback name"),
    ],
)
def test_what_makes_no_sense_is_refused_at_its_place(feedback: str, path: str, words: str) -> None:
    found = faults(feedback)
    (place,) = found
    assert place.startswith(path.rpartition(".")[0] or path)
    assert words in f"{place} {found[place]}"


def test_an_endpoint_has_a_few_of_them() -> None:
    many = ", ".join(f"f{number}: {{kind: label, good: high}}" for number in range(9))
    assert "8" in next(iter(faults(f"{{{many}}}").values()))

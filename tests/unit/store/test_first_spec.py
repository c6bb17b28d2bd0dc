"""Rows of the first schema become the specs that the same documents have now."""

from __future__ import annotations

import io
import json
import sqlite3
import tarfile
from pathlib import Path
from typing import Any

import pytest

from headgate.documents import Files, parse_one
from headgate.store.migrations.first_spec import spec_of
from support.archives import extract
from support.models import TESTS

ROOT = Path("/srv/example")


def rows(folder: Path) -> list[tuple[str, bytes, dict[str, Any]]]:
    """Endpoint and number, document, and resolved content of each revision that an earlier build wrote."""
    archive = io.BytesIO((TESTS / "states" / "schema-0001.tar.xz").read_bytes())
    with tarfile.open(fileobj=archive) as tar:
        members = [member for member in tar if member.name.startswith("example/state/headgate.db")]
        extract(tar, folder, members)
    with sqlite3.connect(folder / "example" / "state" / "headgate.db") as database:
        found = database.execute("SELECT endpoint, n, document, resolved FROM revisions").fetchall()
    database.close()
    return [(f"{endpoint} {n}", document, json.loads(resolved)) for endpoint, n, document, resolved in found]


def test_a_row_becomes_the_spec_of_its_document(tmp_path: Path) -> None:
    found = rows(tmp_path)
    assert len({name.split()[0] for name, _, _ in found}) == 6
    for name, document, resolved in found:
        spec, kept, root = spec_of(resolved)
        endpoint = parse_one(document, source=name, root=ROOT, follow=Files.IGNORED).endpoint
        digests = {version: entry["digest"] for version, entry in resolved["versions"].items()}
        constants = {v: c.constant_digest for v, c in endpoint.versions.items() if c.constant is not None}
        assert constants.items() <= digests.items()
        assert endpoint.spec(digests, resolved["baseline"]) == spec, name
        assert (kept, root) == ([], str(ROOT)), name


OLDEST: dict[str, Any] = {
    "declared": {"champion": "v2", "weights": {"v3": 500, "v4": 0}, "sticky": None},
    "versions": {
        "v1": {"digest": "sha256:1", "constant": None, "in_document": False},
        "v2": {"digest": "sha256:2", "constant": {"Y": [1, 2]}, "in_document": True},
    },
    "columns": {},
    "timeout_ms": 1000,
    "baseline": None,
    "window_seconds": 86_400,
    "root": None,
}
"""A row of a build that knew neither labels, limits, fallbacks nor settings of runs."""


def test_what_a_row_lacks_was_not_there_then() -> None:
    spec, kept, root = spec_of(OLDEST)
    assert spec == {
        "versions": {
            "v1": {"digest": "sha256:1", "compatible": True},
            "v2": {"digest": "sha256:2", "constant": {"Y": [1, 2]}, "compatible": True},
        },
        "traffic": {"champion": "v2", "weights": {"v3": 500}, "keep_warm": False},
        "columns": {},
        "labels": {},
        "limits": {"timeout": 1000},
        "answers": {"non_finite": "error"},
    }
    assert (kept, root) == (["v1"], None)


@pytest.mark.parametrize(
    ("written", "becomes"),
    [
        ({"fallback": "none"}, ("traffic", "fallback", "none")),
        ({"fallback": {"to": ["v2"], "after_ms": None}}, ("traffic", "fallback", {"to": ["v2"]})),
        (
            {"fallback": {"to": ["v2"], "after_ms": 50}},
            ("traffic", "fallback", {"to": ["v2"], "after": 50}),
        ),
        ({"fallback": None}, ("traffic", "fallback", None)),
        (
            {"limits": {"rate": {"by": None, "per_second": 12.5, "burst": 13}}},
            ("limits", "rate", {"per_second": 12.5}),
        ),
        (
            {"limits": {"rate": {"by": "x-a", "per_second": 12.5, "burst": 40}}},
            ("limits", "rate", {"by": "header.x-a", "per_second": 12.5, "burst": 40}),
        ),
        (
            {"limits": {"priority": {"by": "x-b", "classes": ["a", "b"], "unnamed": "a"}}},
            ("limits", "priority", {"by": "header.x-b", "classes": ["a", "b"], "unnamed": "a"}),
        ),
        ({"baseline": "sha256:3"}, ("drift", "baseline", "sha256:3")),
    ],
)
def test_fields_keep_what_they_say(written: dict[str, Any], becomes: tuple[str, str, Any]) -> None:
    part, name, value = becomes
    spec, _, _ = spec_of(OLDEST | written)
    assert spec[part].get(name) == value


def test_every_share_of_a_breaker_comes_back_exactly() -> None:
    breaker = {"consecutive": 5, "window_ms": 10_000, "min_requests": 20}
    for slots in range(10_001):
        limits = {"breaker": {**breaker, "success_rate": slots / 10_000}}
        spec, _, _ = spec_of(OLDEST | {"limits": limits})
        assert spec["limits"]["breaker"] == {
            "consecutive": 5,
            "success_rate": slots,
            "window": 10_000,
            "min_requests": 20,
        }

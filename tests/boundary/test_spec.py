"""A document's fields arrive in the data plane: each of them is read there, or is known to stay with the control plane."""

from __future__ import annotations

import copy
import json
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
from pydantic import BaseModel

from headgate.control.domain.spec import Spec
from headgate.documents import Endpoint, parse_one
from headgate.documents.model import CONTROL_PLANE_ONLY, NOT_IN_SPEC
from headgate.errors import PolicyInvalid
from support import models
from support import native as plane
from support.tools import need_native

FULL = """\
apiVersion: headgate/v1
kind: Endpoint
name: full
owner: {team: us, tier: 1, review_by: 2027-03-01}
columns: {X: [a, b, c, d]}
labels: {Y: [one, two, three, four]}
versions:
  model:
    model: "file:model.onnx"
    compatible: false
    run:
      placement: pool
      instances: 1
      threads: 2
      max_batch: 8
      max_delay: 500us
      buckets: [4, 8]
      arena: true
      graph_optimization: basic
      device: [cuda:0, cpu]
      device_memory: 1GiB
  other: {constant: {Y: [1, 2, 3, 4]}}
  s1: {constant: {Y: [1, 2, 3, 4]}}
  s2: {constant: {Y: [1, 2, 3, 4]}}
  s3: {constant: {Y: [1, 2, 3, 4]}}
  s4: {constant: {Y: [1, 2, 3, 4]}}
traffic:
  champion: model
  weights: {other: 5%}
  sticky: header.x-user
  keep_warm: true
  rules:
    - {when: {header.x-tester: ["1", "2"], parameter.tier: {prefix: gold}}, to: other}
  shadow:
    - to: other
      share: 10%
      by: sticky
      compare: {Y: {within: 0.02}}
      timeout: 2s
      slices: [header.x-region]
      keep_examples: 5
      redact: [X]
    - {to: s1, share: 1%, compare: {Y: exact}}
    - {to: s2, share: 1%, compare: {Y: label}}
    - {to: s3, share: 1%, compare: {Y: {threshold: 2.5}}}
    - {to: s4, share: 1%, compare: {Y: {top: 2}}}
  fallback: {to: [other], after: 250ms}
capture: {share: 1%, keep: 2d, max_size: 1GiB, redact: [X]}
feedback:
  sale: {kind: label, good: high, within: 1d, coverage: 80%}
  rating: {kind: value, range: [1, 5], good: low, within: 2d}
drift: {baseline: "file:baseline.npz"}
limits:
  timeout: 20s
  rate: {by: header.x-caller, per_second: 12.5, burst: 40}
  breaker: {consecutive: 7, success_rate: 75%, window: 20s, min_requests: 10}
  priority: {by: header.x-class, classes: [gold, batch], unnamed: gold}
answers: {non_finite: string}
"""
"""Every field, and none as it is where it is not written."""

IDENTITY = frozenset({"api_version", "kind", "name"})
"""Fields of an endpoint that say which one it is."""

Path_ = tuple[str | int, ...]
"""Keys of mappings, and places in lists."""


def endpoint(folder: Path) -> Endpoint:
    return parse_one(FULL.encode(), source="full.yaml", root=folder).endpoint


def state(spec: dict[str, Any], model: Path) -> bytes:
    """What the control plane hands over; the model file and no baseline."""
    load = {
        "versions": ["model", "other", "s1", "s2", "s3", "s4"],
        "artifacts": {"model": str(model)},
        "fresh": True,
    }
    traffic = {"champion": "model", "last_good": "other"}
    return json.dumps(
        {"name": "full", "revision": 1, "spec": spec, "traffic": traffic, "load": load}
    ).encode()


def parts(value: BaseModel, path: Path_ = ()) -> Iterator[tuple[Path_, BaseModel]]:
    """Every part of a document with the path to it."""
    yield path, value
    for name in type(value).model_fields:
        for keys, entry in entries(getattr(value, name)):
            if isinstance(entry, BaseModel):
                yield from parts(entry, (*path, name, *keys))


def entries(held: Any) -> Iterator[tuple[Path_, Any]]:
    """What a field holds, with the key or the place of each."""
    if isinstance(held, dict):
        yield from (((key,), entry) for key, entry in held.items())
    elif isinstance(held, tuple):
        yield from (((at,), entry) for at, entry in enumerate(held))
    else:
        yield (), held


def kinds(annotation: Any) -> Iterator[type[BaseModel]]:
    """The parts that an annotation names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    if get_origin(annotation) in (Annotated, Union, types.UnionType, dict, tuple):
        for inner in get_args(annotation):
            yield from kinds(inner)


def known(part: type[BaseModel]) -> Iterator[tuple[type[BaseModel], str]]:
    """Every field of every part there is."""
    for name, field in part.model_fields.items():
        if part is Endpoint and name in CONTROL_PLANE_ONLY:
            continue
        yield part, name
        for inner in kinds(field.annotation):
            yield from known(inner)


def test_the_full_document_is_full(tmp_path: Path) -> None:
    said = {
        (type(part), name)
        for _, part in parts(endpoint(tmp_path))
        for name, field in type(part).model_fields.items()
        if getattr(part, name) != field.get_default(call_default_factory=True)
    }
    missing = {f"{part.__name__}.{name}" for part, name in set(known(Endpoint)) - said}
    assert missing == set(), "a field of a document that this test does not try: add it to FULL"


def test_the_control_plane_keeps_nothing_but_the_owner_to_itself() -> None:
    assert set(NOT_IN_SPEC) == {"owner", *IDENTITY}


def test_what_the_control_plane_alone_acts_on_is_not_handed_over(spec: dict[str, Any]) -> None:
    held = Spec.model_validate({**spec, "rollout": "careful", "notify": [{"webhook": "https://example.com"}]})
    assert held.dumped().keys() - held.served().keys() == CONTROL_PLANE_ONLY
    assert held.served() == Spec.model_validate(spec).dumped()


def fields(folder: Path) -> list[Path_]:
    """The path of every field in the spec of the full document, as its model names them."""
    found = [
        (*path, name)
        for path, part in parts(endpoint(folder))
        for name in part.model_dump(exclude_none=True, by_alias=False)
        if not (path == () and name in NOT_IN_SPEC | CONTROL_PLANE_ONLY) and path[:1] != ("owner",)
    ]
    return [(*path[:-1], "digest") if path[-1] == "model" else path for path in found]


def dotted(path: Path_) -> str:
    """``traffic.rules[0].to``, as the data plane names a place."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")


FIELDS = fields(Path("/"))


@pytest.fixture(scope="module")
def gateway() -> Iterator[Any]:
    need_native()
    with plane.running() as (gateway, _):
        yield gateway


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return models.place(models.scale(2.0), tmp_path, "scale")


@pytest.fixture
def spec(tmp_path: Path) -> dict[str, Any]:
    full = endpoint(tmp_path)
    return full.spec({name: f"sha256:{name}" for name in full.versions}, "sha256:baseline")


def test_the_data_plane_serves_the_full_document(gateway: Any, spec: dict[str, Any], model: Path) -> None:
    event = plane.settle(gateway, gateway.apply(state(spec, model)))
    assert event["event"] == "applied", event
    shown = json.loads(gateway.status())["endpoints"]["full"]["versions"]["model"]
    assert shown["memory"]["pinned"] is True


@pytest.mark.parametrize("path", FIELDS, ids=dotted)
def test_the_data_plane_reads_a_field(gateway: Any, spec: dict[str, Any], model: Path, path: Path_) -> None:
    renamed = copy.deepcopy(spec)
    part: Any = renamed
    for name in path[:-1]:
        part = part[name]
    part["renamed"] = part.pop(path[-1])
    with pytest.raises(PolicyInvalid) as caught:
        gateway.apply(state(renamed, model))
    assert dotted(("spec", *path[:-1])) in caught.value.message

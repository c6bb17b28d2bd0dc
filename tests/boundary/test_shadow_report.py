"""The report on shadows (``shadows``) of a real data plane with real models, compared with what both models answer.

Not here: the counters that metrics have as well (``e2e/test_shadows``).
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from headgate.errors import HeadgateError
from support import models, shadow_models
from support import native as plane
from support.client import Connection
from support.models import TESTS
from support.tools import need_native

SECONDS = 300.0
NAMES = ["ape", "bee", "cat"]


def state(folder: Path, shadows: list[dict[str, Any]], **document: Any) -> bytes:
    """The state of the endpoint ``classes``, whose champion is ``v1``."""
    versions = sorted(path.name for path in (folder / "classes").iterdir())
    files = {name: folder / "classes" / name / "model.onnx" for name in versions}
    return json.dumps(
        {
            "name": "classes",
            "revision": 1,
            "spec": {
                "versions": {name: {"digest": plane.digest(file)} for name, file in files.items()},
                "traffic": {"champion": "v1", "shadow": shadows},
                "limits": {"timeout": 60_000},
                **document,
            },
            "traffic": {"champion": "v1", "last_good": "v1"},
            "load": {"versions": versions, "artifacts": {name: str(file) for name, file in files.items()}},
        }
    ).encode()


@contextmanager
def served(folder: Path, shadows: list[dict[str, Any]], **document: Any) -> Iterator[tuple[Any, Connection]]:
    """A data plane with these shadows, and a connection to it."""
    with plane.running(shadow_cpu=1.0) as (gateway, address):
        applied = plane.settle(gateway, gateway.apply(state(folder, shadows, **document)))
        assert applied["event"] == "applied", applied
        with Connection(address) as connection:
            yield gateway, connection


def settled(gateway: Any, drawn: int, place: int = 0) -> dict[str, Any]:
    """The report on a shadow once all copies are counted."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        found: dict[str, Any] = json.loads(gateway.shadows("classes"))["shadows"][place]
        counted = found["pairs"] + sum(found["dropped"].values()) + sum(found["errors"].values())
        # A pair is counted before the champion is run again for the noise floor.
        if counted == drawn == found["drawn"] and found["in_progress"] == 0:
            return found
    raise AssertionError(f"not all copies were counted: {found}")


def answers(model: Any, values: NDArray[np.float32]) -> list[int]:
    """The labels that a model gives."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    labels: list[int] = session.run(["label"], {"X": values})[0].tolist()
    return labels


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    need_native()
    models.place(shadow_models.classifier(), tmp_path, "classes", "v1")
    models.place(shadow_models.classifier(shadow_models.permuted), tmp_path, "classes", "v2")
    return tmp_path


def test_direction_slices_and_examples_are_those_of_both_models(folder: Path) -> None:
    values = np.random.default_rng(3).uniform(0, 1, size=(60, 4)).astype(np.float32)
    before, after = (
        answers(model, values)
        for model in (shadow_models.classifier(), shadow_models.classifier(shadow_models.permuted))
    )
    shadow = {
        "to": "v2",
        "share": 10_000,
        "compare": {"scores": {"label": True}},
        "slices": ["parameter.region"],
        "keep_examples": 2,
        "redact": ["X.iban"],
    }
    described = {"labels": {"scores": NAMES}, "columns": {"X": ["age", "iban", "sum", "days"]}}
    with served(folder, [shadow], **described) as (gateway, connection):
        for number, row in enumerate(values):
            inputs = [{"name": "X", "datatype": "FP32", "shape": [1, 4], "data": row.tolist()}]
            body = {"inputs": inputs, "parameters": {"region": "eu" if number % 3 else 7}}
            assert connection.infer("classes", body).json["outputs"][1]["data"] == [before[number]]
        found = settled(gateway, len(values))
    moves = Counter(
        (NAMES[one], NAMES[other]) for one, other in zip(before, after, strict=True) if one != other
    )
    direction = found["outputs"]["scores"]["direction"]
    assert {(move["from"], move["to"]): move["rows"] for move in direction["moves"]} == moves
    assert direction["labels"] == {
        "champion": dict(Counter(NAMES[label] for label in before)),
        "shadow": dict(Counter(NAMES[label] for label in after)),
    }
    assert found["outputs"]["label"]["compare"] == {"exact": True}
    assert found["compared"]["differing"] == sum(moves.values())
    assert {value["value"]: value["pairs"] for value in found["slices"][0]["values"]} == {"eu": 40, "7": 20}
    newest = max(number for number, label in enumerate(before) if label != after[number])
    kept = found["examples"]["kept"]
    assert len(kept) == 2
    data = kept[0]["inputs"]["X"]["data"]
    assert (data[1], data[0]) == (None, pytest.approx(float(values[newest][0]), rel=1e-6))
    assert kept[0]["champion"]["label"]["data"] == [before[newest]]
    assert kept[0]["shadow"]["label"]["data"] == [after[newest]]
    assert found["noise_floor"]["pairs"] == len(values)
    low, high = found["excess"]["interval"]
    assert low <= found["excess"]["share"] <= high


def test_a_version_that_does_not_fit_says_which_tensor(folder: Path) -> None:
    models.place(models.scale(2.0), folder, "classes", "v2")
    with served(folder, [{"to": "v2", "share": 10_000}]) as (gateway, connection):
        inputs = [{"name": "X", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]
        assert connection.infer("classes", {"inputs": inputs}).status == 200
        found = settled(gateway, 1)
    assert (found["state"], found["dropped"]["incompatible"]) == ("incompatible", 1)
    assert found["reason"] == "it has no output of the champion's, so that nothing can be compared"


def test_optional_inputs_go_along_and_a_version_without_them_is_no_comparison(tmp_path: Path) -> None:
    need_native()
    optional = models.scale(2.0)
    optional.graph.input.append(onnx.helper.make_tensor_value_info("factor", onnx.TensorProto.FLOAT, []))
    models.place(optional, tmp_path, "classes", "v1")
    models.place(models.scale(2.0), tmp_path, "classes", "v2")
    # The same model by another digest.
    optional.doc_string = "another file"
    models.place(optional, tmp_path, "classes", "v3")
    shadows = [{"to": "v3", "share": 10_000}, {"to": "v2", "share": 10_000}]
    inputs = [{"name": "X", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]
    factor = {"name": "factor", "datatype": "FP32", "shape": [], "data": [5]}
    with served(tmp_path, shadows) as (gateway, connection):
        assert connection.infer("classes", {"inputs": inputs}).json["outputs"][0]["data"] == [2, 4, 6, 8]
        assert connection.infer("classes", {"inputs": [*inputs, factor]}).json["outputs"][0]["data"] == [
            5,
            10,
            15,
            20,
        ]
        found = settled(gateway, 2)
        plain = settled(gateway, 2, place=1)
    assert (found["pairs"], found["compared"]["differing"]) == (2, 0)
    assert (plain["pairs"], plain["compared"]["differing"], plain["dropped"]["incompatible"]) == (1, 0, 1)
    assert plain["last_mismatch"] == 'a request gives the input "factor", which this version does not take'


def test_strings_are_compared(tmp_path: Path) -> None:
    need_native()
    identity = onnx.load(TESTS / "models" / "identity_bytes.onnx")
    for version in ("v1", "v2"):
        identity.doc_string = version
        models.place(identity, tmp_path, "classes", version)
    inputs = [{"name": "x", "datatype": "BYTES", "shape": [3], "data": ["one", "", "drei"]}]
    with served(tmp_path, [{"to": "v2", "share": 10_000}]) as (gateway, connection):
        assert connection.infer("classes", {"inputs": inputs}).status == 200
        found = settled(gateway, 1)
    assert (found["compared"]["rows"], found["compared"]["differing"]) == (3, 0)
    assert found["noise_floor"]["pairs"] == 1


def test_an_endpoint_without_shadows_has_none_and_one_that_is_not_served_is_not_found(folder: Path) -> None:
    with served(folder, []) as (gateway, _):
        assert json.loads(gateway.shadows("classes"))["shadows"] == []
        with pytest.raises(HeadgateError) as refused:
            gateway.shadows("other")
    assert refused.value.code == "model_not_found"

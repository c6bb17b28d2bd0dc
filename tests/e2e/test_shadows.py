"""Shadows of a real gateway with real models: what is counted equals what both models answer when a test runs them itself.

Not here: queues, budgets and limits (``rust/server/tests/gateway/shadows.rs``), the whole report (``boundary/test_shadow_report``).
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from support import models, shadow_models
from support.gateway import GatewayProcess
from support.tools import need_native

DOCUMENT = """\
apiVersion: headgate/v1
kind: Endpoint
name: classes
versions:
  v1: "file:classes/1"
  one-class: "file:classes/2"
  permuted: "file:classes/3"
  nan: "file:classes/4"
  failing: "file:classes/5"
  hanging: "file:classes/6"
traffic:
  champion: v1
  shadow:
    - {to: one-class, share: 100%, compare: {label: exact, scores: label}, timeout: 5m}
    - {to: permuted, share: 100%, timeout: 5m}
    - {to: nan, share: 100%, timeout: 5m}
    - {to: failing, share: 100%, timeout: 5m}
    - {to: hanging, share: 100%, timeout: 10s}
limits: {timeout: 30s}
"""
CHALLENGERS = {
    "one-class": shadow_models.wrong_on_one_class,
    "permuted": shadow_models.permuted,
    "nan": shadow_models.not_a_number,
    "failing": shadow_models.failing,
    "hanging": shadow_models.hanging,
}
#: The rows of each request.
SIZES = [1, 3, 1, 2] * 40
SECONDS = 300.0
WITHIN = 0.001


def requests(seed: int) -> list[NDArray[np.float32]]:
    """The inputs of all requests."""
    rng = np.random.default_rng(seed)
    return [rng.uniform(0, 1, size=(rows, 4)).astype(np.float32) for rows in SIZES]


class Model:
    """A model as a test runs it itself."""

    def __init__(self, model: Any) -> None:
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )

    def __call__(self, values: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The scores and the labels."""
        scores, labels = self._session.run(["scores", "label"], {"X": values})
        return scores, labels


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    need_native()
    folder = tmp_path_factory.mktemp("shadows")
    models.place(shadow_models.classifier(), folder, "classes", "1")
    for number, change in enumerate(CHALLENGERS.values(), start=2):
        models.place(shadow_models.classifier(change), folder, "classes", str(number))
    document = folder / "classes.yaml"
    document.write_text(DOCUMENT)
    with GatewayProcess(folder / "state", [str(document), "--shadow-cpu", "100%"]) as gateway:
        yield gateway


def infer(client: httpx.Client, values: NDArray[np.float32]) -> dict[str, Any]:
    """Sends a request; the outputs of its answer by name."""
    inputs = [{"name": "X", "datatype": "FP32", "shape": list(values.shape), "data": values.ravel().tolist()}]
    answer = client.post("/v2/models/classes/infer", json={"inputs": inputs})
    assert answer.status_code == 200, answer.text
    return {output["name"]: output["data"] for output in answer.json()["outputs"]}


def samples(gateway: GatewayProcess, version: str) -> dict[str, float]:
    """The counters of a shadow, by name and by further labels, without ``headgate_shadow_``."""
    found = {}
    pattern = re.compile(r"^headgate_shadow_(\w+)\{(.*)\} (\S+)$", re.MULTILINE)
    for name, labels, value in pattern.findall(gateway.observe("/metrics").text):
        pairs = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        if pairs.pop("endpoint") == "classes" and pairs.pop("version") == version and "le" not in pairs:
            found[":".join([name.removesuffix("_total"), *pairs.values()])] = float(value)
    return found


def settled(gateway: GatewayProcess, version: str, drawn: int, floor: int = 0) -> dict[str, float]:
    """The counters of a shadow once every copy is counted, and so many were run on the champion again, which comes after that."""
    counted = ("pairs", "champion_failed")
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        found = samples(gateway, version)
        parts = [value for name, value in found.items() if name.split(":")[0] in ("dropped", "errors")]
        ended = sum(parts) + sum(found[name] for name in counted)
        if found["drawn"] == ended == drawn and found["floor_pairs"] >= floor:
            return found
    raise AssertionError(f"not all copies of {version} were counted: {found}")


@pytest.fixture(scope="module")
def asked(gateway: GatewayProcess) -> list[NDArray[np.float32]]:
    """Sends all requests, checks the champion's answers, and returns the inputs."""
    inputs, champion = requests(1), Model(shadow_models.classifier())
    # Only the last one has a row that a challenger hangs on: a copy that waits behind it would be late.
    for values in inputs:
        values[:, 0] = np.minimum(values[:, 0], 0.95)
    inputs[-1][0, 0] = 0.99
    with httpx.Client(base_url=f"http://{gateway.http}") as client:
        for values in inputs:
            outputs = infer(client, values)
            scores, labels = champion(values)
            assert outputs["label"] == labels.tolist()
            assert np.allclose(np.reshape(outputs["scores"], scores.shape), scores, rtol=1e-6)
    return inputs


def differs(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    """Whether scores differ by more than the default tolerance; NaN is the same as NaN."""
    with np.errstate(invalid="ignore"):
        close = np.abs(one - other) <= WITHIN * np.abs(one)
    return not bool(np.all(close | (one == other) | (np.isnan(one) & np.isnan(other))))


@pytest.mark.parametrize("version", ["one-class", "permuted"])
def test_a_challenger_that_answers_differently_is_counted_as_both_models_answer(
    gateway: GatewayProcess, asked: list[NDArray[np.float32]], version: str
) -> None:
    champion = Model(shadow_models.classifier())
    challenger = Model(shadow_models.classifier(CHALLENGERS[version]))
    expected = 0
    for values in asked:
        (scores, labels), (other_scores, other_labels) = champion(values), challenger(values)
        by_label = not np.array_equal(labels, other_labels)
        expected += by_label if version == "one-class" else by_label or differs(scores, other_scores)
    found = settled(gateway, version, len(asked), floor=len(asked))
    assert (found["pairs"], found["differing"]) == (len(asked), expected)
    assert 0 < expected < len(asked) or version == "permuted"
    # The champion, run again, is the same.
    assert (found["floor_pairs"], found["floor_differing"]) == (len(asked), 0)


def test_a_challenger_that_returns_nan_shows(
    gateway: GatewayProcess, asked: list[NDArray[np.float32]]
) -> None:
    challenger = Model(shadow_models.classifier(CHALLENGERS["nan"]))
    expected = sum(bool(np.isnan(challenger(values)[0]).any()) for values in asked)
    found = settled(gateway, "nan", len(asked))
    assert 0 < expected < len(asked)
    assert (found["nan:shadow"], found["nan:champion"], found["differing"]) == (expected, 0, expected)


def test_a_challenger_that_fails_has_errors_and_no_pair(
    gateway: GatewayProcess, asked: list[NDArray[np.float32]]
) -> None:
    challenger = Model(shadow_models.classifier(CHALLENGERS["failing"]))
    failed = 0
    for values in asked:
        try:
            challenger(values)
        except onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument:
            failed += 1
    found = settled(gateway, "failing", len(asked))
    assert 0 < failed < len(asked)
    assert (found["errors:backend_failed"], found["pairs"], found["differing"]) == (
        failed,
        len(asked) - failed,
        0,
    )


def test_a_challenger_that_hangs_is_cut_off_at_its_deadline(
    gateway: GatewayProcess, asked: list[NDArray[np.float32]]
) -> None:
    found = settled(gateway, "hanging", len(asked))
    assert (found["errors:deadline_exceeded"], found["timeouts"]) == (1, 1)
    assert (found["pairs"], found["differing"], found["runs_cancelled"]) == (len(asked) - 1, 0, 1)


def test_nothing_of_a_shadow_is_counted_as_a_request_of_its_version(
    gateway: GatewayProcess, asked: list[NDArray[np.float32]]
) -> None:
    for version in CHALLENGERS:
        settled(gateway, version, len(asked))
    text = gateway.observe("/metrics").text
    for version, expected in [("v1", float(len(asked))), *((version, 0.0) for version in CHALLENGERS)]:
        line = re.escape(
            f'headgate_requests_total{{code="ok",endpoint="classes",version="{version}"}} {expected}'
        )
        assert re.search(f"^{line}$", text, re.MULTILINE), version


def test_a_stop_beside_a_run_that_hangs_is_prompt_and_clean(tmp_path: Path) -> None:
    need_native()
    models.place(shadow_models.classifier(), tmp_path, "classes", "1")
    models.place(shadow_models.classifier(shadow_models.hanging), tmp_path, "classes", "2")
    document = tmp_path / "classes.yaml"
    document.write_text(
        "apiVersion: headgate/v1\nkind: Endpoint\nname: classes\n"
        'versions: {v1: "file:classes/1", hanging: "file:classes/2"}\n'
        "traffic: {champion: v1, shadow: [{to: hanging, share: 100%, timeout: 10m}]}\n"
    )
    with GatewayProcess(tmp_path / "state", [str(document)]) as gateway:
        with httpx.Client(base_url=f"http://{gateway.http}") as client:
            infer(client, np.full((1, 4), 0.99, np.float32))
        deadline = time.monotonic() + SECONDS
        while samples(gateway, "hanging")["queue_length"] > 0 and time.monotonic() < deadline:
            pass
        assert gateway.stop() == 0

"""ONNX's own node tests, asked of the gateway in JSON, in binary and over gRPC: some 1,600 models, most operators there are.

``support.node_cases`` makes them and says which are left out and why. The data plane runs inside this process with one
endpoint for each model; binary and gRPC are asked by Triton's clients, JSON by hand, so that it is read strictly.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conformance import ways
from conformance.clients.arrays import dtype_of, to_array, to_tensor
from conformance.clients.exchange import Case, Failure, Tensor
from support import native, node_cases
from support.client import Answer, Connection
from support.models import TESTS
from support.node_cases import NodeCase, agrees
from support.tools import need_native

pytestmark = pytest.mark.slow

MAKING_SECONDS = 300.0

#: How cases are asked: by hand, and by modes of Triton's clients.
FORMS = ["json", "binary", "infer"]

#: What the protocol has no word for, by onnx 1.23: another release adds tests, and must be looked at.
PROTOCOL = {
    "protocol: no FLOAT4E2M1": 14,
    "protocol: no FLOAT8E4M3FN": 22,
    "protocol: no FLOAT8E4M3FNUZ": 18,
    "protocol: no FLOAT8E5M2": 20,
    "protocol: no FLOAT8E5M2FNUZ": 18,
    "protocol: no FLOAT8E8M0": 4,
    "protocol: no INT2": 17,
    "protocol: no INT4": 17,
    "protocol: no UINT2": 17,
    "protocol: no UINT4": 17,
    "protocol: no optional": 8,
    "protocol: no sequence": 21,
}
#: ONNX Runtime's own gaps. How many depends a little on the processor and on the locales that are installed.
RUNTIME = {node_cases.NO_LOAD, node_cases.NO_RUN, node_cases.OTHER}
TOTAL, SERVED_AT_LEAST = 1884, 1575

FLOATING = {"FP16", "BF16", "FP32", "FP64"}
#: JSON has no number for NaN and the infinities: answers can say them as strings, requests cannot.
NOT_IN_JSON, NOT_IN_JSON_AT_MOST = "JSON: NaN or an infinity among the inputs", 38


@dataclass(frozen=True)
class Nodes:
    """What was asked and answered."""

    cases: Sequence[NodeCase]
    excluded: dict[str, str]
    not_in_json: set[str]
    answers: dict[tuple[str, str], list[Tensor] | Failure]
    """By form (``json``, ``binary``, ``infer``) and case."""


@dataclass(frozen=True)
class InProcess:
    """The data plane inside this process, whose one port speaks everything."""

    http: str

    @property
    def grpc(self) -> str:
        return self.http


def make(folder: Path) -> tuple[list[NodeCase], dict[str, str]]:
    environment = os.environ | {"PYTHONPATH": str(TESTS)}
    command = [sys.executable, "-W", "ignore", "-m", "support.node_cases", str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=MAKING_SECONDS)
    assert done.returncode == 0, f"node_cases ended with {done.returncode}: {done.stderr[-4000:]}"
    return node_cases.read(folder)


def endpoint(name: str, model: Path) -> bytes:
    """The state of an endpoint whose digest is its file's: models with the same digest are loaded once."""
    state = json.loads(native.endpoint(name, model))
    state["spec"]["versions"]["v1"]["digest"] = f"sha256:{hashlib.sha256(model.read_bytes()).hexdigest()}"
    state["spec"]["answers"] = {"non_finite": "string"}
    return json.dumps(state).encode()


def serve(gateway: Any, models: dict[str, Path]) -> None:
    """Applies all endpoints at once and waits until the last one is live."""
    waiting = {gateway.apply(endpoint(name, path)): name for name, path in models.items()}
    with select.epoll() as poll:
        poll.register(gateway.event_fd(), select.EPOLLIN)
        while waiting and poll.poll(native.EVENT_SECONDS):
            for event in json.loads(gateway.events()):
                name = waiting.pop(event["ticket"], None)
                assert name is None or event["event"] == "applied", (name, event)
    assert not waiting, f"not live in time: {sorted(waiting.values())[:10]}"


def finite(tensor: Tensor) -> bool:
    return tensor.datatype not in FLOATING or bool(np.isfinite(to_array(tensor).astype(np.float64)).all())


def one_nan(tensor: Tensor) -> Tensor:
    """The tensor with every NaN as the same one: JSON tells neither its sign nor its payload."""
    if tensor.datatype not in FLOATING:
        return tensor
    array = to_array(tensor).copy()
    array[np.isnan(array)] = np.nan
    return to_tensor(tensor.name, tensor.datatype, array)


def as_json(case: Case) -> dict[str, Any]:
    inputs = [
        {"name": one.name, "shape": one.shape, "datatype": one.datatype, "data": elements(one)}
        for one in case.inputs
    ]
    return {"id": case.id, "inputs": inputs}


def in_json(connection: Connection, case: Case) -> list[Tensor] | Failure:
    answer: Answer = connection.infer(case.model, as_json(case))
    if answer.status != 200:
        return Failure(f"{answer.status} {answer.json}")
    assert (answer.json["id"], answer.json["model_name"]) == (case.id, case.model)
    return [from_json(output) for output in answer.json["outputs"]]


def elements(tensor: Tensor) -> list[Any]:
    found = to_array(tensor).reshape(-1).tolist()
    return [one.decode() for one in found] if tensor.datatype == "BYTES" else found


def from_json(output: dict[str, Any]) -> Tensor:
    datatype = output["datatype"]
    dtype = np.dtype(np.object_) if datatype == "BYTES" else dtype_of(datatype)
    data = [float(one) for one in output["data"]] if datatype in FLOATING else output["data"]
    array = np.empty(len(data), dtype)
    array[:] = data
    return to_tensor(output["name"], datatype, array.reshape(output["shape"]))


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    need_native()
    folder = tmp_path_factory.mktemp("nodes")
    cases, excluded = make(folder)
    not_in_json = {c.request.id for c in cases if not all(map(finite, c.request.inputs))}
    models = {case.request.id: node_cases.model_file(folder, case.request.id) for case in cases}
    for case in cases:
        # Inputs of some operators are sizes and axes, which nobody can make up.
        if case.request.id not in not_in_json:
            beside = models[case.request.id].with_name("warmup.json")
            beside.write_text(json.dumps(as_json(case.request)))
    with native.running() as (gateway, address):
        serve(gateway, models)
        requests = [Case(c.request.id, c.request.model, c.request.inputs, (), FORMS[1:]) for c in cases]
        answers = ways.ask("tritonclient_http", InProcess(address), folder / "http", requests)
        answers |= ways.ask("tritonclient_grpc", InProcess(address), folder / "grpc", requests)
        with Connection(address) as connection:
            for request in requests:
                if request.id not in not_in_json:
                    answers["json", request.id] = in_json(connection, request)
        yield Nodes(cases, excluded, not_in_json, answers)


def asked(nodes: Nodes, form: str) -> list[NodeCase]:
    return [case for case in nodes.cases if form != "json" or case.request.id not in nodes.not_in_json]


@pytest.mark.parametrize("form", FORMS)
def test_every_answer_is_what_onnx_expects(nodes: Nodes, form: str) -> None:
    wrong = {}
    for case in asked(nodes, form):
        answer = nodes.answers[form, case.request.id]
        if isinstance(answer, Failure):
            wrong[case.request.id] = answer.error
        elif len(answer) != len(case.expected) or not all(
            agrees(got, want, case.rtol, case.atol) for got, want in zip(answer, case.expected, strict=True)
        ):
            wrong[case.request.id] = f"answered {answer}, expected {case.expected}"
    assert not wrong, f"{len(wrong)} of {len(asked(nodes, form))}: {dict(list(wrong.items())[:5])}"


def test_binary_and_grpc_carry_the_same_bits(nodes: Nodes) -> None:
    differs = [
        case.request.id
        for case in nodes.cases
        if nodes.answers["infer", case.request.id] != nodes.answers["binary", case.request.id]
    ]
    assert differs == []


def test_json_carries_the_same_values(nodes: Nodes) -> None:
    differs = []
    for case in asked(nodes, "json"):
        in_json, in_binary = (nodes.answers[form, case.request.id] for form in ("json", "binary"))
        assert not isinstance(in_json, Failure)
        assert not isinstance(in_binary, Failure)
        if [one_nan(one) for one in in_json] != [one_nan(one) for one in in_binary]:
            differs.append(case.request.id)
    assert differs == []


def test_what_is_left_out_is_known(nodes: Nodes, capsys: pytest.CaptureFixture[str]) -> None:
    reasons = Counter(nodes.excluded.values())
    table = [f"{len(nodes.cases):5} served in binary and over gRPC", f"{len(asked(nodes, 'json')):5} in JSON"]
    table += [f"{count:5} {reason}" for reason, count in sorted(reasons.items())]
    table += [f"{len(nodes.not_in_json):5} not in {NOT_IN_JSON}"]
    with capsys.disabled():
        print("\nONNX's node tests:", *table, sep="\n")
    assert {reason: count for reason, count in reasons.items() if reason.startswith("protocol")} == PROTOCOL
    assert set(reasons) == set(PROTOCOL) | RUNTIME
    assert len(nodes.cases) + len(nodes.excluded) == TOTAL
    assert len(nodes.cases) >= SERVED_AT_LEAST
    assert 0 < len(nodes.not_in_json) <= NOT_IN_JSON_AT_MOST

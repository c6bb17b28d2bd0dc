"""Whose mistake a failed run is, with models of ONNX Runtime's own operators and over every wire: a client's is a 400 and opens
no breaker, and where only the challenger fails the champion answers.

Not here: how that is found out and every order of versions (``rust/server/tests/gateway/attribution.rs``).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from support.client import Answer, Connection
from support.gateway import GatewayProcess
from support.grpc_wire import fields, frame, request, tensor
from support.h2_client import Http2
from support.models import OPSETS, TESTS, place
from support.tools import need_native
from support.waiting import until

FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING
ROUNDS = 6
BAD_PER_GOOD = 10

Shape = Sequence[str | int]
Values = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Case:
    """A model, inputs that it takes and inputs that it does not."""

    model: onnx.ModelProto
    good: Values
    bad: Values


def model(
    operator: str,
    inputs: dict[str, tuple[int, Shape]],
    output: tuple[int, Shape],
    constants: dict[str, Any] | None = None,
    order: Sequence[str] = (),
    outputs: Sequence[str] = ("y",),
    **attributes: Any,
) -> onnx.ModelProto:
    """One operator; its last output is the model's."""
    node = helper.make_node(operator, list(order or inputs), list(outputs), **attributes)
    graph = helper.make_graph(
        [node],
        operator,
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info("y", *output)],
        [numpy_helper.from_array(np.array(value), name) for name, value in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=OPSETS, ir_version=8)


def embedding(rows: int) -> onnx.ModelProto:
    """ids INT64 [n] -> y FP32 [n, 2]: row i of a table is [i, i]."""
    table = np.repeat(np.arange(rows, dtype=np.float32)[:, None], 2, axis=1)
    return model("Gather", {"ids": (INT64, ["n"])}, (FLOAT, ["n", 2]), {"table": table}, ["table", "ids"])


def ints(*values: Any) -> np.ndarray[Any, Any]:
    return np.array(values, np.int64)


def floats(*values: Any) -> np.ndarray[Any, Any]:
    return np.array(values, np.float32)


ROW = floats([1, 2, 3])

CASES = {
    "gather": Case(embedding(10), {"ids": ints(3, 9)}, {"ids": ints(3, 10)}),
    "gather-elements": Case(
        model("GatherElements", {"x": (FLOAT, ["n", 3]), "at": (INT64, ["n", 3])}, (FLOAT, ["n", 3]), axis=1),
        {"x": ROW, "at": ints([0, 2, 1])},
        {"x": ROW, "at": ints([0, 3, 1])},
    ),
    "topk": Case(
        model(
            "TopK", {"x": (FLOAT, ["n", 3]), "k": (INT64, [1])}, (INT64, ["n", "k"]), outputs=("values", "y")
        ),
        {"x": ROW, "k": ints(2)},
        {"x": ROW, "k": ints(9)},
    ),
    "cumsum": Case(
        model("CumSum", {"x": (FLOAT, ["n", 3]), "axis": (INT64, [1])}, (FLOAT, ["n", 3])),
        {"x": ROW, "axis": ints(1)},
        {"x": ROW, "axis": ints(7)},
    ),
    "pad": Case(
        model("Pad", {"x": (FLOAT, ["n", 3]), "pads": (INT64, [4])}, (FLOAT, ["a", "b"])),
        {"x": ROW, "pads": ints(0, 1, 0, 1)},
        {"x": ROW, "pads": ints(0, -3, 0, -3)},
    ),
    "open-dimensions": Case(
        model("Add", {"a": (FLOAT, ["n", "a"]), "b": (FLOAT, ["n", "b"])}, (FLOAT, ["n", "c"])),
        {"a": ROW, "b": ROW},
        {"a": ROW, "b": floats([1, 2])},
    ),
    "reshape": Case(
        model("Reshape", {"x": (FLOAT, ["n", 3]), "to": (INT64, [2])}, (FLOAT, ["a", "b"])),
        {"x": ROW, "to": ints(3, 1)},
        {"x": ROW, "to": ints(2, 2)},
    ),
    "one-hot": Case(
        model(
            "OneHot",
            {"at": (INT64, ["n"]), "depth": (INT64, [1])},
            (FLOAT, ["n", "depth"]),
            {"off_on": floats(0, 1)},
            ["at", "depth", "off_on"],
        ),
        {"at": ints(1, 0), "depth": ints(3)},
        {"at": ints(1, 0), "depth": ints(-1)},
    ),
    "expand": Case(
        model("Expand", {"x": (FLOAT, ["n", 3]), "to": (INT64, [2])}, (FLOAT, ["a", "b"])),
        {"x": ROW, "to": ints(2, 3)},
        {"x": ROW, "to": ints(2, 2)},
    ),
    "scatter": Case(
        model(
            "ScatterElements",
            {"x": (FLOAT, ["n", 3]), "at": (INT64, ["n", 1]), "by": (FLOAT, ["n", 1])},
            (FLOAT, ["n", 3]),
            axis=1,
        ),
        {"x": ROW, "at": ints([2]), "by": floats([5])},
        {"x": ROW, "at": ints([-4]), "by": floats([5])},
    ),
    "cast": Case(
        model("Cast", {"x": (STRING, ["n"])}, (FLOAT, ["n"]), to=FLOAT),
        {"x": np.array(["1.5"], object)},
        {"x": np.array(["one and a half"], object)},
    ),
}

#: Takes ids from 1000 on, and nothing that is made up.
LATE_TABLE = helper.make_model(
    helper.make_graph(
        [
            helper.make_node("Sub", ["ids", "first"], ["at"]),
            helper.make_node("Gather", ["table", "at"], ["y"]),
        ],
        "late-table",
        [helper.make_tensor_value_info("ids", INT64, ["n"])],
        [helper.make_tensor_value_info("y", FLOAT, ["n"])],
        [
            numpy_helper.from_array(np.arange(10, dtype=np.float32), "table"),
            numpy_helper.from_array(np.array(1000), "first"),
        ],
    ),
    opset_imports=OPSETS,
    ir_version=8,
)
UNWARMED = ("unwarmed", "unwarmed-batched")
ENDLESS = ints(2**63 - 1)

BREAKER = "limits: {breaker: {consecutive: 3, success_rate: 90%, window: 60s}}"


def document(name: str, traffic: str = "", versions: str = '"1": {model: "file:models/NAME/1"}') -> str:
    """An endpoint whose breaker opens soon."""
    return (
        f"apiVersion: headgate/v1\nkind: Endpoint\nname: {name}\n"
        f'versions: {{{versions.replace("NAME", name)}}}\ntraffic: {{champion: "1"{traffic}}}\n{BREAKER}\n'
    )


def in_json(values: Values) -> dict[str, Any]:
    """The inputs of a request."""
    names = {"float32": "FP32", "int64": "INT64", "object": "BYTES"}
    inputs = [
        {"name": name, "datatype": names[str(of.dtype)], "shape": of.shape, "data": of.tolist()}
        for name, of in values.items()
    ]
    return {"inputs": inputs}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    need_native()
    folder = tmp_path_factory.mktemp("attribution")

    def put(name: str, made: onnx.ModelProto, version: str = "1", warm: Values | None = None) -> None:
        path = place(made, folder / "models", name, version)
        if warm:
            path.with_name("warmup.json").write_text(json.dumps(in_json(warm)))

    parts = []
    for name, case in CASES.items():
        put(name, case.model, warm=case.good)
        parts.append(document(name))
    put("batched", embedding(10))
    parts.append(document("batched", versions='"1": {model: "file:models/NAME/1", run: {max_batch: 8}}'))
    put(UNWARMED[0], LATE_TABLE)
    parts.append(document(UNWARMED[0]))
    put(UNWARMED[1], LATE_TABLE)
    parts.append(document(UNWARMED[1], versions='"1": {model: "file:models/NAME/1", run: {max_batch: 8}}'))
    put("count", onnx.load(TESTS / "models" / "count.onnx"))
    parts.append(document("count").replace("limits: {", "limits: {timeout: 3s, "))
    put("log", model("Log", {"x": (FLOAT, ["n"])}, (FLOAT, ["n"])), warm={"x": floats(1)})
    parts.append(document("log"))
    for name, fallback in [("tables", ""), ("alone", ", fallback: none")]:
        put(name, embedding(100))
        put(name, embedding(10), "2")
        both = '"1": "file:models/NAME/1", "2": "file:models/NAME/2"'
        parts.append(document(name, f', weights: {{"2": 50%}}, sticky: header.x-user{fallback}', both))
    (folder / "document.yaml").write_text("---\n".join(parts))
    with GatewayProcess(folder / "state", [str(folder / "document.yaml"), "--root", str(folder)]) as started:
        yield started


def open_breakers(gateway: GatewayProcess) -> dict[str, int]:
    """How often each version's breaker has opened, by endpoint and version."""
    found = {}
    for line in gateway.observe("/metrics").text.splitlines():
        if line.startswith("headgate_breaker_trips_total{"):
            labels, value = line.removeprefix("headgate_breaker_trips_total").split(" ")
            found[labels] = int(float(value))
    return found


def trips(gateway: GatewayProcess, endpoint: str, version: str = "1") -> int:
    return open_breakers(gateway)[f'{{endpoint="{endpoint}",version="{version}"}}']


def message(endpoint: str, values: Values) -> bytes:
    """A gRPC request with raw contents."""
    names = {"float32": "FP32", "int64": "INT64", "object": "BYTES"}
    tensors, raw = [], []
    for name, of in values.items():
        tensors.append(tensor(name, names[str(of.dtype)], list(of.shape)))
        texts = [str(element).encode() for element in of.ravel()] if of.dtype == object else []
        raw.append(b"".join(len(text).to_bytes(4, "little") + text for text in texts) or of.tobytes())
    return frame(request(tensors, raw, model=endpoint))


@pytest.mark.parametrize("name", CASES)
def test_what_the_model_cannot_take_is_a_400_and_hurts_nobody(gateway: GatewayProcess, name: str) -> None:
    case = CASES[name]
    with Connection(gateway.http) as connection:
        for _ in range(ROUNDS):
            for _ in range(BAD_PER_GOOD):
                bad = connection.infer(name, in_json(case.bad))
                assert (bad.status, bad.code) == (400, "invalid_argument"), bad.body
            good = connection.infer(name, in_json(case.good))
            assert good.status == 200, good.body
    with Http2(gateway.grpc) as calls:
        for _ in range(ROUNDS):
            reply = calls.call("ModelInfer", message(name, case.bad))
            assert (reply.grpc_status, reply.code) == (3, "invalid_argument"), reply.grpc_message
        reply = calls.call("ModelStreamInfer", message(name, case.bad) * ROUNDS + message(name, case.good))
        kinds = [next(iter(fields(answer)))[0] for answer in reply.messages]
        assert (reply.grpc_status, kinds) == (0, [1] * ROUNDS + [2])
    assert trips(gateway, name) == 0


def test_a_bad_row_in_a_batch_hurts_nobody(gateway: GatewayProcess) -> None:
    good, bad = message("batched", {"ids": ints(3)}), message("batched", {"ids": ints(30)})
    with Http2(gateway.grpc) as calls:
        for _ in range(ROUNDS):
            reply = calls.call("ModelStreamInfer", (bad + good + bad) * 4)
            kinds = [next(iter(fields(answer)))[0] for answer in reply.messages]
            assert kinds == [1, 2, 1] * 4
    assert trips(gateway, "batched") == 0


def test_what_json_cannot_carry_is_the_caller_s_who_asked_for_json(gateway: GatewayProcess) -> None:
    nothing = {"x": floats(-1)}
    with Connection(gateway.http) as connection:
        for _ in range(ROUNDS):
            answer = connection.infer("log", in_json(nothing))
            assert (answer.status, answer.code) == (400, "invalid_argument")
            assert "answers.non_finite" in answer.json["error"]
        raw = connection.infer("log", {**in_json(nothing), "parameters": {"binary_data_output": True}})
        assert raw.status == 200
    assert trips(gateway, "log") == 0


def ask(connection: Connection, endpoint: str, user: int, at: int) -> Answer:
    return connection.infer(endpoint, in_json({"ids": ints(at)}), {"x-user": f"user-{user}"})


def test_the_champion_answers_for_a_challenger_with_a_smaller_table(gateway: GatewayProcess) -> None:
    with Connection(gateway.http) as connection:
        answers = [ask(connection, "tables", user, user % 100) for user in range(400)]
        assert [answer.status for answer in answers] == [200] * 400
        for user, answer in enumerate(answers):
            assert answer.json["outputs"][0]["data"] == [user % 100] * 2
        labels = {answer.headers.get("x-headgate-fallback") for answer in answers}
        assert labels == {None, "2; cause=error", "2; cause=not_ready"}
        assert {a.version for a in answers if a.headers.get("x-headgate-fallback")} == {"1"}
        # What no version takes is the caller's mistake.
        assert {ask(connection, "tables", user, 1000).status for user in range(20)} == {400}
    assert (trips(gateway, "tables", "2") > 0, trips(gateway, "tables", "1")) == (True, 0)
    with gateway.admin() as admin:
        shown = admin.get("/v1/endpoints/tables")["versions"]
        assert (shown["2"]["breaker"]["trips"] > 0, shown["1"]["breaker"]["trips"]) == (True, 0)
        assert admin.traffic("tables")["weights"] == {"2": "50%"}


def test_a_document_may_say_that_it_does_not(gateway: GatewayProcess) -> None:
    with Connection(gateway.http) as connection:
        answers = [ask(connection, "alone", user, 50) for user in range(100)]
        by_status = {answer.status: answer for answer in answers}
        assert set(by_status) == {200, 400}
        assert (by_status[200].version, by_status[400].version) == ("1", "2")
        assert all("x-headgate-fallback" not in answer.headers for answer in answers)
    assert trips(gateway, "alone", "2") == 0


def test_what_is_shown_of_probes(gateway: GatewayProcess) -> None:
    def probes() -> float:
        lines = gateway.observe("/metrics").text.splitlines()
        found = [line for line in lines if line.startswith('headgate_probes_total{endpoint="gather"')]
        return float(found[0].split(" ")[1])

    before, begun = probes(), time.monotonic()
    with Connection(gateway.http) as connection:
        for _ in range(ROUNDS * BAD_PER_GOOD):
            assert connection.infer("gather", in_json(CASES["gather"].bad)).status == 400
    until(lambda: probes() >= 1)
    # A probe a second at most, and one that was due.
    assert probes() - before <= time.monotonic() - begun + 2
    assert (
        'headgate_probes_failed_total{endpoint="gather",version="1"} 0.0' in gateway.observe("/metrics").text
    )


@pytest.mark.parametrize("name", UNWARMED)
def test_wrong_requests_to_a_version_that_was_not_warmed_shut_it_for_nobody(
    gateway: GatewayProcess, name: str
) -> None:
    good, bad = {"ids": ints(1003)}, {"ids": ints(3)}
    with Connection(gateway.http) as connection:
        # Nobody knows yet whose mistake these are.
        for _ in range(ROUNDS):
            assert connection.infer(name, in_json(bad)).status in {400, 500}
        answer = connection.infer(name, in_json(good))
        assert (answer.status, answer.json["outputs"][0]["data"]) == (200, [3])
        # What it answered is known to be right from now on.
        for _ in range(ROUNDS):
            refused = connection.infer(name, in_json(bad))
            assert (refused.status, refused.code) == (400, "invalid_argument"), refused.body
        assert connection.infer(name, in_json(good)).status == 200
    assert trips(gateway, name) == 0
    metrics = gateway.observe("/metrics").text
    assert f'headgate_version_warnings{{endpoint="{name}",version="1"}} ' in metrics
    assert f'headgate_probes_failed_total{{endpoint="{name}",version="1"}} 0.0' in metrics


def test_a_request_without_an_end_shuts_the_version_for_nobody(gateway: GatewayProcess) -> None:
    endless = {"x": floats(0), "times": ENDLESS}
    with ThreadPoolExecutor(ROUNDS) as clients:

        def ask_for_ever(_: int) -> Answer:
            with Connection(gateway.http) as connection:
                return connection.infer("count", in_json(endless))

        answers = list(clients.map(ask_for_ever, range(ROUNDS)))
    assert {(answer.status, answer.code) for answer in answers} == {(504, "deadline_exceeded")}
    with Connection(gateway.http) as connection:
        tries = (connection.infer("count", in_json({"x": floats(0), "times": ints(3)})) for _ in range(20))
        # A machine that stands still for longer than the time-out says nothing about the breaker.
        good = next(answer for answer in tries if answer.status != 504)
        assert (good.status, good.json["outputs"][0]["data"]) == (200, [3])
    assert trips(gateway, "count") == 0

"""One set of phases: every case of a table through HTTP/1.1, HTTP/2 and gRPC gives the same tensors, codes and counters.

Not here: what only one of them can get wrong (``test_malformed``, ``test_grpc_malformed``).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import pytest

from support import grpc_wire
from support.client import Connection
from support.gateway import GatewayProcess
from support.h2_client import Http2
from support.models import pair, place, scale
from support.tools import need_native

Tensors = dict[str, tuple[list[int], list[float]]]

#: The data types of the tests, with the letter that ``struct`` has for their elements.
LETTERS = {"FP32": "f", "INT64": "q"}


@dataclass(frozen=True)
class Input:
    """One input as the table writes it."""

    name: str
    datatype: str
    shape: list[int]
    data: list[float]


@dataclass(frozen=True)
class Case:
    """A request, and what every wire must make of it: a code, or these outputs."""

    what: str
    endpoint: str
    inputs: list[Input]
    wanted: Tensors | str
    version: str | None = None
    outputs: tuple[str, ...] = ()
    parameters: tuple[tuple[str, int], ...] = ()


def x(*rows: list[float]) -> Input:
    return Input("X", "FP32", [len(rows), 4], [value for row in rows for value in row])


def both(shape: list[int], data: list[float], integers: list[float]) -> list[Input]:
    return [Input("A", "FP32", shape, data), Input("B", "INT64", [len(integers)], integers)]


ROW = [1.0, 2.0, 3.0, -4.0]
CASES = [
    Case("one row", "double", [x(ROW)], {"Y": ([1, 4], [2.0, 4.0, 6.0, -8.0])}),
    Case("two rows", "double", [x(ROW, ROW)], {"Y": ([2, 4], [2.0, 4.0, 6.0, -8.0] * 2)}),
    Case("no row", "double", [x()], {"Y": ([0, 4], [])}),
    Case("the named version", "double", [x(ROW)], {"Y": ([1, 4], [2.0, 4.0, 6.0, -8.0])}, version="1"),
    Case(
        "two inputs",
        "pair",
        both([2, 2], [1.0, 2.0, 3.0, 4.0], [5, 2**53 + 1]),
        {"A2": ([2, 2], [1.0, 2.0, 3.0, 4.0]), "B2": ([2], [5, 2**53 + 1])},
    ),
    Case(
        "inputs in another order, one output",
        "pair",
        both([1, 2], [1.0, 2.0], [3])[::-1],
        {"B2": ([1], [3])},
        outputs=("B2",),
    ),
    Case("no such endpoint", "nobody", [x(ROW)], "model_not_found"),
    Case("no such version", "double", [x(ROW)], "version_not_found", version="7"),
    Case("an input too few", "pair", both([1, 2], [1.0, 2.0], [3])[:1], "invalid_argument"),
    Case("an input too many", "double", [x(ROW), Input("Z", "FP32", [1], [1.0])], "invalid_argument"),
    Case("an input twice", "double", [x(ROW), x(ROW)], "invalid_argument"),
    Case("no input", "double", [], "invalid_argument"),
    Case("another type", "double", [Input("X", "INT64", [1, 4], [1, 2, 3, 4])], "invalid_argument"),
    Case("another width", "double", [Input("X", "FP32", [1, 3], [1.0, 2.0, 3.0])], "invalid_argument"),
    Case("another rank", "double", [Input("X", "FP32", [4], ROW)], "invalid_argument"),
    Case("too few elements", "double", [Input("X", "FP32", [1, 4], ROW[:3])], "invalid_argument"),
    Case("too many elements", "double", [Input("X", "FP32", [1, 4], [*ROW, 5.0])], "invalid_argument"),
    Case("a negative dimension", "double", [Input("X", "FP32", [-1, 4], ROW)], "invalid_argument"),
    Case("rows that do not fit each other", "pair", both([2, 2], [1.0] * 4, [3]), {
        "A2": ([2, 2], [1.0] * 4), "B2": ([1], [3]),
    }),
    Case("no such output", "double", [x(ROW)], "invalid_argument", outputs=("Q",)),
    Case("a deadline that has passed", "double", [x(ROW)], "deadline_exceeded", parameters=(("timeout", 1),)),
    Case("a time-out below zero", "double", [x(ROW)], "invalid_argument", parameters=(("timeout", -1),)),
    Case("a sequence", "double", [x(ROW)], "unsupported", parameters=(("sequence_id", 1),)),
    Case("a reserved parameter", "double", [x(ROW)], "invalid_argument", parameters=(("triton_x", 1),)),
]  # fmt: skip


class Wire(Protocol):
    """One way of asking."""

    def ask(self, case: Case) -> tuple[Tensors | str, str | None]:
        """The outputs or the code, and the version that answered."""


class _Rest:
    """JSON over HTTP/1.1 or HTTP/2."""

    def __init__(self, client: Connection | Http2) -> None:
        self.client = client

    def ask(self, case: Case) -> tuple[Tensors | str, str | None]:
        direct = f"/versions/{case.version}" if case.version else ""
        path = f"/v2/models/{case.endpoint}{direct}/infer"
        answer = self.client.send("POST", path, json.dumps(self.body(case)).encode())
        read = json.loads(answer.body)
        version = answer.headers.get("x-headgate-version")
        if answer.status != 200:
            return str(read["code"]), version
        return {one["name"]: (one["shape"], one["data"]) for one in read["outputs"]}, version

    @staticmethod
    def body(case: Case) -> dict[str, Any]:
        return {
            "inputs": [vars(one) for one in case.inputs],
            "outputs": [{"name": name} for name in case.outputs],
            "parameters": dict(case.parameters),
        }


class _Grpc:
    """``ModelInfer`` with raw or typed contents."""

    def __init__(self, client: Http2, *, raw: bool) -> None:
        self.client, self.raw = client, raw

    def ask(self, case: Case) -> tuple[Tensors | str, str | None]:
        reply = self.client.call("ModelInfer", grpc_wire.frame(self.message(case)))
        version = reply.headers.get("x-headgate-version")
        if reply.grpc_status != 0:
            return str(reply.code), version
        (message,) = reply.messages
        heads, blobs = grpc_wire.all_of(message, 5), grpc_wire.all_of(message, 6)
        return dict(map(self.output, heads, blobs)), version

    def message(self, case: Case) -> bytes:
        inputs = [self.input(one) for one in case.inputs]
        extra = b"".join(grpc_wire.blob(6, grpc_wire.blob(1, name)) for name in case.outputs)
        extra += grpc_wire.blob(2, case.version or "")
        for name, value in case.parameters:
            extra += grpc_wire.blob(4, grpc_wire.entry(name, grpc_wire.int_value(value)))
        raw = [packed(one) for one in case.inputs] if self.raw else []
        return grpc_wire.request(inputs, raw, extra, model=case.endpoint)

    def input(self, one: Input) -> bytes:
        if self.raw:
            return grpc_wire.tensor(one.name, one.datatype, one.shape)
        contents = (
            grpc_wire.blob(6, packed(one))
            if one.datatype == "FP32"
            else grpc_wire.packed(3, [int(value) for value in one.data])
        )
        return grpc_wire.tensor(one.name, one.datatype, one.shape, contents)

    @staticmethod
    def output(head: bytes, blob: bytes) -> tuple[str, tuple[list[int], list[float]]]:
        (name,), (datatype,) = grpc_wire.all_of(head, 1), grpc_wire.all_of(head, 2)
        shape = b"".join(grpc_wire.all_of(head, 3))
        # Dimensions below 128 are a byte each.
        values = [value for (value,) in struct.iter_unpack("<" + LETTERS[datatype.decode()], blob)]
        return name.decode(), (list(shape), values)


def packed(one: Input) -> bytes:
    """The elements of an input, little-endian."""
    return struct.pack(f"<{len(one.data)}{LETTERS[one.datatype]}", *one.data)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    need_native()
    folder = tmp_path_factory.mktemp("phases")
    place(scale(2.0), folder / "models", "double")
    place(pair(), folder / "models", "pair")
    with GatewayProcess(folder / "state", ["--models", str(folder / "models")]) as started:
        yield started


def counters(gateway: GatewayProcess) -> dict[str, float]:
    """Requests by code, and rows.

    By code only: a wire whose envelope tells sizes is refused for a wrong one before a version is chosen, another after.
    """
    found: dict[str, float] = {}
    for line in gateway.observe("/metrics").text.splitlines():
        name, _, value = line.rpartition(" ")
        if name.startswith(("headgate_requests_total{", "headgate_requests_refused_total{")):
            name = name.split('code="')[1].split('"')[0]
        elif not name.startswith("headgate_rows_total{"):
            continue
        found[name] = found.get(name, 0) + float(value)
    return found


def change(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """What was counted between two readings."""
    return {
        name: value - before.get(name, 0) for name, value in after.items() if value != before.get(name, 0)
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)
def test_every_wire_gives_the_same(gateway: GatewayProcess, case: Case) -> None:
    answers, counted = [], []
    with Connection(gateway.http) as one, Http2(gateway.http) as two, Http2(gateway.grpc) as three:
        wires: list[Wire] = [_Rest(one), _Rest(two), _Grpc(three, raw=True), _Grpc(three, raw=False)]
        for wire in wires:
            before = counters(gateway)
            answers.append(wire.ask(case))
            counted.append(change(before, counters(gateway)))
    assert answers[0][0] == case.wanted
    assert [answer[0] for answer in answers] == [case.wanted] * len(wires)
    assert counted == [counted[0]] * len(wires)
    assert counted[0], "nothing was counted"
    versions = {version for _, version in answers if version is not None}
    assert versions == ({"1"} if isinstance(case.wanted, dict) else versions & {"1"})

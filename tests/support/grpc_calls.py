"""What a gRPC call that must fail is, a good one beside it, and the gateway that gets them: for the table ``cases_grpc``.

Not here: how protobuf is written (``grpc_wire``) and how HTTP/2 carries it (``h2_client``).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from support import models
from support.gateway import GatewayProcess
from support.grpc_wire import all_of, frame, request, tensor
from support.h2_client import Http2
from support.tools import need_native

#: The limit of the gateway that gets these requests.
MAX_BODY = 1 << 20

INVALID, DEADLINE, NOT_FOUND, DENIED, EXHAUSTED, UNIMPLEMENTED = 3, 4, 5, 7, 8, 12


@dataclass(frozen=True)
class Call:
    """One call that must fail: the messages with their prefixes, and how it must end."""

    id: str
    body: bytes
    status: int = INVALID
    mentions: str = ""
    """What the message must name."""
    method: str = "ModelInfer"
    headers: Mapping[str, str] = field(default_factory=dict)
    said: bool = False
    """The call goes on: the message is in a streamed answer, and the call itself ends well."""


A = tensor("A", "FP32", [1, 2])
B = tensor("B", "INT64", [1])
RAW = [struct.pack("<2f", 1, 2), struct.pack("<q", 3)]
PAIR = request([A, B], RAW)
GOOD = frame(PAIR)


def infer(name: str, message: bytes, mentions: str = "", status: int = INVALID) -> Call:
    """A well-framed ``ModelInfer``."""
    return Call(name, frame(message), status, mentions)


def identity(datatype: str, contents: bytes | None, raw: Iterable[bytes] = (), count: int = 1) -> bytes:
    """A request to an identity endpoint with ``count`` elements, typed or raw."""
    return request([tensor("x", datatype, [count], contents)], raw, model=f"identity-{datatype.lower()}")


def assert_good(connection: Http2) -> None:
    """A good ``ModelInfer`` gets its answer."""
    reply = connection.call("ModelInfer", GOOD)
    assert reply.grpc_status == 0, reply
    (message,) = reply.messages
    assert all_of(message, 6) == RAW


def _bfloat16() -> onnx.ModelProto:
    """x BF16 [n] -> y, the same values."""
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "identity",
        [info("x", TensorProto.BFLOAT16, ["n"])],
        [info("y", TensorProto.BFLOAT16, ["n"])],
    )
    return helper.make_model(graph, opset_imports=models.OPSETS, ir_version=8)


@contextmanager
def strict(folder: Path) -> Iterator[GatewayProcess]:
    """A gateway with ``pair`` and an identity endpoint for every datatype, which takes no body beyond :data:`MAX_BODY`."""
    need_native()
    models.identities(folder / "models")
    models.place(_bfloat16(), folder / "models", "identity-bf16")
    models.place(models.pair(), folder / "models", "pair")
    arguments = ["--models", str(folder / "models"), "--max-body", f"{MAX_BODY >> 20}MiB"]
    with GatewayProcess(folder / "state", arguments) as gateway:
        yield gateway

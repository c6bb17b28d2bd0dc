"""Plain gRPC without a client of the protocol: every message and call is made from what the server's reflection tells.

Runs in the environment ``grpcio``. Tasks: ``answer`` asks cases as ``exchange`` says, ``describe`` looks at services and
health, ``watch`` unloads and loads a model while its health is watched.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any

import grpc  # type: ignore[import-untyped]
from google.protobuf.descriptor_pool import DescriptorPool  # type: ignore[import-untyped]
from google.protobuf.message_factory import GetMessageClass  # type: ignore[import-untyped]
from grpc_reflection.v1alpha import reflection_pb2  # type: ignore[import-untyped]
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (  # type: ignore[import-untyped]
    ProtoReflectionDescriptorDatabase,
)

from conformance.clients import exchange
from conformance.clients.exchange import Case, Results, Tensor

SECONDS = 120.0
INFERENCE = "inference.GRPCInferenceService"
HEALTH = "grpc.health.v1.Health"
#: The list of typed contents for each datatype, and its elements' form in ``struct``.
CONTENTS = {
    "BOOL": ("bool_contents", "?"), "UINT8": ("uint_contents", "B"), "UINT16": ("uint_contents", "H"),
    "UINT32": ("uint_contents", "I"), "UINT64": ("uint64_contents", "Q"), "INT8": ("int_contents", "b"),
    "INT16": ("int_contents", "h"), "INT32": ("int_contents", "i"), "INT64": ("int64_contents", "q"),
    "FP32": ("fp32_contents", "f"), "FP64": ("fp64_contents", "d"),
}  # fmt: skip


class Server:
    """A server that describes itself."""

    def __init__(self, address: str) -> None:
        unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self.channel = grpc.insecure_channel(address, options=unlimited)
        self.database = ProtoReflectionDescriptorDatabase(self.channel)
        self.pool = DescriptorPool(self.database)

    def message(self, kind: str, /, **fields: Any) -> Any:
        """A message by its full name."""
        return GetMessageClass(self.pool.FindMessageTypeByName(kind))(**fields)

    def method(self, service: str, name: str) -> Any:
        """A call as the channel takes it, made from its descriptor."""
        method = self.pool.FindServiceByName(service).FindMethodByName(name)
        kind = "_".join(
            "stream" if streams else "unary" for streams in (method.client_streaming, method.server_streaming)
        )
        return getattr(self.channel, kind)(
            f"/{service}/{name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )

    def call(self, service: str, method: str, /, **fields: Any) -> Any:
        """A call with one request."""
        kind = self.pool.FindServiceByName(service).FindMethodByName(method).input_type.full_name
        return self.method(service, method)(self.message(kind, **fields), timeout=SECONDS)


def request(server: Server, case: Case, typed: bool) -> Any:
    message = server.message("inference.ModelInferRequest", model_name=case.model, id=case.id)
    for tensor in case.inputs:
        asked = message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        if typed:
            fill(asked.contents, tensor)
        else:
            message.raw_input_contents.append(tensor.data)
    for name in case.outputs:
        message.outputs.add(name=name)
    return message


def fill(contents: Any, tensor: Tensor) -> None:
    if tensor.datatype == "BYTES":
        offset = 0
        while offset < len(tensor.data):
            (size,) = struct.unpack_from("<I", tensor.data, offset)
            contents.bytes_contents.append(tensor.data[offset + 4 : offset + 4 + size])
            offset += 4 + size
        return
    field, form = CONTENTS[tensor.datatype]
    count = len(tensor.data) // struct.calcsize(form)
    getattr(contents, field).extend(struct.unpack(f"<{count}{form}", tensor.data))


def answered(case: Case, response: Any) -> list[Tensor]:
    assert (response.id, response.model_name) == (case.id, case.model), response
    outputs = zip(response.outputs, response.raw_output_contents, strict=True)
    return [Tensor(output.name, output.datatype, tuple(output.shape), raw) for output, raw in outputs]


def answer(server: Server, told: Any) -> None:
    infer = server.method(INFERENCE, "ModelInfer")

    def unary(typed: bool) -> exchange.Mode:
        return exchange.one_by_one(
            lambda case: answered(case, infer(request(server, case, typed), timeout=SECONDS))
        )

    def stream(cases: Sequence[Case]) -> Results:
        requests = iter([request(server, case, typed=False) for case in cases])
        answers = server.method(INFERENCE, "ModelStreamInfer")(requests, timeout=SECONDS)

        def take(case: Case) -> list[Tensor]:
            response = next(answers)
            assert not response.error_message, response.error_message
            return answered(case, response.infer_response)

        return exchange.one_by_one(take)(cases)

    exchange.answer(told.folder, {"raw": unary(typed=False), "typed": unary(typed=True), "stream": stream})


def services_of_v1(server: Server) -> list[str]:
    """The services by the newer reflection, whose messages are the same on the wire."""
    ask = server.channel.stream_stream(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    answers = ask(iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=SECONDS)
    return sorted(service.name for service in next(answers).list_services_response.service)


def health(server: Server, service: str) -> str:
    """The status of a service by Check, or the code that it ends with."""
    try:
        return status(server.call(HEALTH, "Check", service=service))
    except grpc.RpcError as error:
        return str(error.code().name)


def status(response: Any) -> str:
    """The name of a status."""
    return str(response.DESCRIPTOR.fields_by_name["status"].enum_type.values_by_number[response.status].name)


def first_watched(server: Server, service: str) -> str:
    """The first status that Watch tells."""
    statuses = server.call(HEALTH, "Watch", service=service)
    first = status(next(statuses))
    statuses.cancel()
    return first


def describe(server: Server) -> dict[str, Any]:
    names = ["", INFERENCE, "identity-fp32-r1", "none"]
    return {
        "services": sorted(server.database.get_services()),
        "services_of_v1": services_of_v1(server),
        "methods": sorted(server.pool.FindServiceByName(INFERENCE).methods_by_name),
        "ready": server.call(INFERENCE, "ServerReady").ready,
        "live": server.call(INFERENCE, "ServerLive").live,
        "model_ready": [
            server.call(INFERENCE, "ModelReady", name=name).ready for name in ("identity-fp32-r1", "none")
        ],
        "metadata": server.call(INFERENCE, "ServerMetadata").name,
        "check": {name: health(server, name) for name in names},
        "watch": {name: first_watched(server, name) for name in names},
    }


def watch(server: Server, model: str) -> list[str]:
    """The statuses that Watch tells while the model is unloaded and loaded again."""
    statuses = server.call(HEALTH, "Watch", service=model)
    seen = [status(next(statuses))]
    for call in ("RepositoryModelUnload", "RepositoryModelLoad"):
        server.call(INFERENCE, call, model_name=model)
        seen.append(status(next(statuses)))
    statuses.cancel()
    return seen


def main() -> None:
    told = exchange.arguments()
    server = Server(told.grpc)
    if told.task == "answer":
        answer(server, told)
    elif told.task == "describe":
        print(json.dumps(describe(server)))
    else:
        print(json.dumps(watch(server, told.task)))


if __name__ == "__main__":
    main()

"""Requests as bytes on the wire, each encoded once before anything is sent. Not here: the values (``data``). Next: ``loads``."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

import numpy as np

from headgate.bench.tensors import DTYPES, Array, InferRequest, Tensor, bf16_values
from headgate.errors import InvalidArgument

Form = Literal["json", "binary", "grpc"]

EncodeGrpc = Callable[[str, Sequence[bytes]], bytes]
"""The envelope as JSON without data, and the bytes of each input, as a message ``ModelInferRequest``."""

GRPC_METHODS = {
    "grpc": "/inference.GRPCInferenceService/ModelInfer",
    "grpc_stream": "/inference.GRPCInferenceService/ModelStreamInfer",
}


@dataclass(frozen=True)
class Encoded:
    """One request as it is sent."""

    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True)
class Address:
    """Whom a request names: an endpoint, and a version unless routing decides."""

    endpoint: str
    version: str | None

    @property
    def path(self) -> str:
        """The path of its inference."""
        endpoint = quote(self.endpoint, safe="")
        version = "" if self.version is None else f"/versions/{quote(self.version, safe='')}"
        return f"/v2/models/{endpoint}{version}/infer"


def encode(request: InferRequest, address: Address, form: Literal["json", "binary"]) -> Encoded:
    """A request over HTTP; :class:`InvalidArgument` for values that JSON does not have."""
    if form == "json":
        body = json.dumps({"inputs": [_with_data(one) for one in request.inputs]}).encode()
        return Encoded(address.path, (("content-type", "application/json"),), body)
    raws = [raw_bytes(one) for one in request.inputs]
    inputs = [
        {**_head(one), "parameters": {"binary_data_size": len(raw)}}
        for one, raw in zip(request.inputs, raws, strict=True)
    ]
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    headers = (
        ("content-type", "application/octet-stream"),
        ("inference-header-content-length", str(len(head))),
    )
    return Encoded(address.path, headers, head + b"".join(raws))


def encode_grpc(
    request: InferRequest, address: Address, protocol: Literal["grpc", "grpc_stream"], encoder: EncodeGrpc
) -> Encoded:
    """A request as a message of gRPC."""
    envelope: dict[str, Any] = {
        "model_name": address.endpoint,
        "inputs": [_head(one) for one in request.inputs],
    }
    if address.version is not None:
        envelope["model_version"] = address.version
    body = encoder(json.dumps(envelope), [raw_bytes(one) for one in request.inputs])
    return Encoded(GRPC_METHODS[protocol], (), body)


def raw_bytes(tensor: Tensor) -> bytes:
    """The elements in row-major order, little endian; BYTES with the length of each before it."""
    if tensor.datatype == "BYTES":
        return b"".join(struct.pack("<I", len(one)) + one for one in tensor.values.flat)
    found: bytes = np.ascontiguousarray(tensor.values, dtype=DTYPES[tensor.datatype]).tobytes()
    return found


def _head(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}


def _with_data(tensor: Tensor) -> dict[str, Any]:
    head = _head(tensor)
    if tensor.datatype != "BYTES":
        return {**head, "data": _numbers(tensor)}
    try:
        return {**head, "data": [one.decode() for one in tensor.values.flat]}
    except UnicodeDecodeError:
        encoded = [base64.b64encode(one).decode() for one in tensor.values.flat]
        return {**head, "parameters": {"encoding": "base64"}, "data": encoded}


def _numbers(tensor: Tensor) -> list[Any]:
    values: Array = bf16_values(tensor.values) if tensor.datatype == "BF16" else tensor.values
    if values.dtype.kind != "f":
        found: list[Any] = values.ravel().tolist()
        return found
    if not np.isfinite(values).all():
        raise InvalidArgument(
            f'input "{tensor.name}" holds NaN or infinities, which JSON does not have; send it with --tensors binary or over gRPC'
        )
    if values.dtype.itemsize == 8:
        return [float(one) for one in values.flat]
    # The shortest text that gives the same value back, as clients write it; through float64 it would be twice as long.
    return [float(str(one)) for one in values.flat]

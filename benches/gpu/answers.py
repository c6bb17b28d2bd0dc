"""Requests in binary and their answers, and how far two versions' answers may be from each other.

Not here: which models are asked, and how fast they answer. Next: ``compare``.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

DATATYPES = {
    "BOOL": np.bool_,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}
TOLERANCES = {"FP16": 2e-2, "FP32": 2e-2, "FP64": 1e-6}
"""How far an element may be away, as a share of the largest magnitude in its tensor. A device computes FP32 with TF32's ten
bits of mantissa, which are FP16's as well. What is not listed must be equal."""

Tensors = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Request:
    """A request of so many rows in binary."""

    rows: int
    body: bytes
    headers: dict[str, str]


@dataclass(frozen=True)
class Apart:
    """How far an output is from what it should be, and how far it may be."""

    output: str
    datatype: str
    share: float
    """Of the largest magnitude; infinite where the shapes differ, or only one is a number."""
    allowed: float

    @property
    def wrong(self) -> bool:
        """Whether it is too far away."""
        return not self.share <= self.allowed

    def __str__(self) -> str:
        return f"{self.output} ({self.datatype}) {self.share:.2g}, allowed {self.allowed:g}"


def request_of(inputs: Tensors) -> Request:
    """A request for everything that the model gives, in binary."""
    heads = [
        {
            "name": name,
            "datatype": datatype_of(values),
            "shape": list(values.shape),
            "parameters": {"binary_data_size": values.nbytes},
        }
        for name, values in inputs.items()
    ]
    text = json.dumps({"inputs": heads, "parameters": {"binary_data_output": True}}).encode()
    body = text + b"".join(values.tobytes() for values in inputs.values())
    rows = len(next(iter(inputs.values())))
    return Request(rows, body, {"Inference-Header-Content-Length": str(len(text))})


def ask(connection: http.client.HTTPConnection, path: str, request: Request) -> dict[str, np.ndarray]:
    """One answer's tensors by name."""
    connection.request("POST", path, request.body, request.headers)
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != 200:
        raise SystemExit(f"{path}: {answer.status} {content[:300]!r}")
    return decoded(content, int(answer.headers["inference-header-content-length"]))


def decoded(content: bytes, json_length: int) -> dict[str, np.ndarray]:
    """The tensors of an answer in binary."""
    found: dict[str, np.ndarray] = {}
    start = json_length
    for head in json.loads(content[:json_length])["outputs"]:
        end = start + head["parameters"]["binary_data_size"]
        flat: Any = np.frombuffer(content[start:end], DATATYPES[head["datatype"]])
        found[head["name"]] = flat.reshape(head["shape"])
        start = end
    return found


def datatype_of(values: np.ndarray) -> str:
    """The protocol's name of an array's element type."""
    return next(name for name, kind in DATATYPES.items() if values.dtype == kind)


def apart(answer: Tensors, right: Tensors, *, exact: bool = False) -> list[Apart]:
    """How far each output of an answer is from the right one; ``exact`` allows nothing."""
    if answer.keys() != right.keys():
        raise SystemExit(f"the answer has the outputs {sorted(answer)}, not {sorted(right)}")
    found = []
    for name, values in right.items():
        datatype = datatype_of(values)
        allowed = 0.0 if exact else TOLERANCES.get(datatype, 0.0)
        found.append(Apart(name, datatype, _share(answer[name], values), allowed))
    return found


def furthest(found: Iterable[Apart]) -> list[Apart]:
    """Of each output the one that is furthest away."""
    worst: dict[str, Apart] = {}
    for one in found:
        worst[one.output] = max(worst.get(one.output, one), one, key=lambda each: each.share)
    return list(worst.values())


def _share(answer: np.ndarray, right: np.ndarray) -> float:
    if answer.dtype != right.dtype or answer.shape != right.shape:
        return float("inf")
    if np.array_equal(answer, right, equal_nan=_may_be_nan(right)):
        return 0.0
    numbers = [values.astype(np.float64) for values in (answer, right)]
    if not all(np.isfinite(values).all() for values in numbers):
        return float("inf")
    scale = float(np.abs(numbers[1]).max())
    difference: Any = np.abs(numbers[0] - numbers[1]).max()
    return float(difference) / max(scale, 1e-9)


def _may_be_nan(values: np.ndarray) -> bool:
    return bool(np.issubdtype(values.dtype, np.floating))

"""What a malformed request is, for the tables beside this file: a request, and the status and code it must get.

The tables are ``cases_json`` (bodies), ``cases_binary`` (headers and binary tensors), ``cases_routes`` (paths and
methods) and ``cases_http`` (what HTTP itself refuses); ``test_malformed`` sends them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

INVALID = "invalid_argument"


@dataclass(frozen=True)
class Case:
    """One malformed request that reaches the inference protocol: the connection must survive it."""

    id: str
    body: bytes = b""
    path: str = "/v2/models/pair/infer"
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 400
    code: str = INVALID
    mentions: str = ""
    """What the message must name, such as the input that is wrong."""


def a_input(**changes: Any) -> dict[str, Any]:
    """The good input A of the endpoint ``pair``; a value of ``...`` removes a key."""
    good = {"name": "A", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}
    return {key: value for key, value in (good | changes).items() if value is not ...}


def b_input(**changes: Any) -> dict[str, Any]:
    """The good input B of the endpoint ``pair``; a value of ``...`` removes a key."""
    good = {"name": "B", "shape": [1], "datatype": "INT64", "data": [3]}
    return {key: value for key, value in (good | changes).items() if value is not ...}


def request(**changes: Any) -> dict[str, Any]:
    """A good request to ``pair``; a value of ``...`` removes a key."""
    good = {"inputs": [a_input(), b_input()]}
    return {key: value for key, value in (good | changes).items() if value is not ...}


def encode(body: Any) -> bytes:
    """A value as JSON bytes."""
    return json.dumps(body).encode()


GOOD = encode(request())

"""Large tensors through clients that others wrote: 64 MiB as bytes, 1 MiB of elements in JSON, and compressed bodies.

The gateway is started with ``--max-body 256MiB``. What a body beyond that gets is in ``test_limits``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from conformance import ways
from conformance.clients.arrays import to_tensor
from conformance.clients.exchange import Case, Failure
from conformance.ways import Answers
from support.gateway import GatewayProcess

MIB = 1 << 20
RANDOM = np.random.default_rng(7)

#: 64 MiB of bits, not of numbers: NaN with every payload among them.
BITS = RANDOM.integers(0, 2**32, 16 * MIB, np.uint32).view(np.float32)
#: 1 MiB of elements each; integers over the whole range, fractions of every size.
IN_JSON: dict[str, Any] = {
    "INT64": RANDOM.integers(-(2**63), 2**63 - 1, MIB // 8, np.int64, endpoint=True),
    "UINT64": RANDOM.integers(0, 2**64 - 1, MIB // 8, np.uint64, endpoint=True),
    "FP32": (RANDOM.normal(size=MIB // 4) * 10.0 ** RANDOM.integers(-44, 38, MIB // 4)).astype(np.float32),
    "FP64": RANDOM.normal(size=MIB // 8) * 10.0 ** RANDOM.integers(-320, 307, MIB // 8),
    "BOOL": RANDOM.integers(0, 2, MIB, np.uint8).astype(np.bool_),
    "BYTES": np.array([b"x" * (index % 1024) for index in range(2048)], np.object_),
}

#: The modes of each client that carry bytes of any size, that write JSON, and that compress.
AS_BYTES = {
    "tritonclient_http": ["binary"],
    "tritonclient_grpc": ["infer", "stream"],
    "kserve_client": ["grpc_raw"],
    "reflection": ["raw"],
}
AS_JSON = {
    "tritonclient_http": ["json"],
    "tritonclient_http_aio": ["json"],
    "kserve_client": ["rest_json"],
}
COMPRESSED = {"tritonclient_http": ["gzip", "deflate"], "tritonclient_grpc": ["gzip", "deflate"]}


def case(name: str, datatype: str, array: Any, modes: list[str]) -> Case:
    return Case(name, f"identity-{datatype.lower()}-r1", [to_tensor("x", datatype, array)], ["y"], modes)


def cases(client: str) -> list[Case]:
    found = []
    if client in AS_BYTES:
        found.append(case("bits", "FP32", BITS, AS_BYTES[client]))
    if client in AS_JSON:
        found += [
            case(f"json-{datatype}", datatype, array, AS_JSON[client]) for datatype, array in IN_JSON.items()
        ]
    if client in COMPRESSED:
        found += [
            case(f"compressed-{datatype}", datatype, IN_JSON[datatype], COMPRESSED[client])
            for datatype in ("INT64", "BYTES")
        ]
    return found


@pytest.fixture(scope="module")
def answers(mirror: GatewayProcess, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Answers]:
    return ways.once(mirror, tmp_path_factory.mktemp("large"), cases)


def each(table: dict[str, list[str]]) -> list[Any]:
    return [
        pytest.param(client, mode, id=f"{client}-{mode}") for client, modes in table.items() for mode in modes
    ]


def assert_came_back(answers: Callable[[str], Answers], client: str, mode: str, name: str) -> None:
    answer = answers(client)[mode, name]
    assert not isinstance(answer, Failure), answer
    (sent,) = next(one for one in cases(client) if one.id == name).inputs
    (got,) = answer
    assert got == replace(sent, name="y")


@pytest.mark.parametrize(("client", "mode"), each(AS_BYTES))
def test_64_mib_of_any_bits_come_back(answers: Callable[[str], Answers], client: str, mode: str) -> None:
    assert_came_back(answers, client, mode, "bits")


@pytest.mark.parametrize("datatype", IN_JSON)
@pytest.mark.parametrize(("client", "mode"), each(AS_JSON))
def test_1_mib_comes_back_through_json(
    answers: Callable[[str], Answers], client: str, mode: str, datatype: str
) -> None:
    assert_came_back(answers, client, mode, f"json-{datatype}")


@pytest.mark.parametrize("datatype", ["INT64", "BYTES"])
@pytest.mark.parametrize(("client", "mode"), each(COMPRESSED))
def test_compressed_bodies_are_read(
    answers: Callable[[str], Answers], client: str, mode: str, datatype: str
) -> None:
    assert_came_back(answers, client, mode, f"compressed-{datatype}")

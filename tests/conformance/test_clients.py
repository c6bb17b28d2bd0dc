"""Every datatype in every kind of shape through clients that others wrote, compared bit by bit.

The models give back what they get (``support.identities``); ``ways`` lists the clients. Not here: what clients ask besides
inference (``test_control``), and tensors of many MiB (``test_large_tensors``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from conformance import ways
from conformance.clients.arrays import to_tensor
from conformance.clients.exchange import Case, Failure, Tensor
from conformance.ways import WAYS, Answers, Way
from support import identities
from support.gateway import GatewayProcess
from support.identities import BEYOND_JSON, ONNX_TYPES, SHAPES

Ask = Callable[[str], Answers]

#: Each version of reflection lists itself.
SERVICES = ["grpc.health.v1.Health", "grpc.reflection.{}.ServerReflection", "inference.GRPCInferenceService"]
METHODS = [
    "CudaSharedMemoryRegister", "CudaSharedMemoryStatus", "CudaSharedMemoryUnregister", "LogSettings", "ModelConfig",
    "ModelInfer", "ModelMetadata", "ModelReady", "ModelStatistics", "ModelStreamInfer", "RepositoryIndex",
    "RepositoryModelLoad", "RepositoryModelUnload", "ServerLive", "ServerMetadata", "ServerReady",
    "SystemSharedMemoryRegister", "SystemSharedMemoryStatus", "SystemSharedMemoryUnregister", "TraceSetting",
]  # fmt: skip


def sent(datatype: str, shape: str) -> Tensor:
    beyond = shape == "beyond_json"
    array = BEYOND_JSON[datatype] if beyond else identities.corners(datatype, SHAPES[shape])
    return to_tensor("x", datatype, array)


SHAPES_OF = {
    datatype: [*SHAPES, *(["beyond_json"] if datatype in BEYOND_JSON else [])] for datatype in ONNX_TYPES
}
TENSORS = {
    (datatype, shape): sent(datatype, shape) for datatype, shapes in SHAPES_OF.items() for shape in shapes
}


#: Requests that must be refused, and what the message names. They stand between good ones, which must not suffer.
REFUSED = {
    "unknown-model": ("none", TENSORS["FP32", "vector"], '"none"'),
    "other-rank": ("identity-fp32-r1", TENSORS["FP32", "scalar"], "shape"),
    "other-datatype": ("identity-fp32-r1", TENSORS["INT32", "vector"], "INT32"),
    "other-name": ("identity-fp32-r1", replace(TENSORS["FP32", "vector"], name="z"), '"z"'),
}


def carries(way: Way, datatype: str, shape: str) -> bool:
    return datatype not in way.lacks and (way.bytes_only or shape != "beyond_json")


def cases(client: str) -> list[Case]:
    """All that a client can carry, each with the modes that can."""
    of_client = [way for way in WAYS if way.client == client]
    found: list[Case] = []
    for (datatype, shape), tensor in TENSORS.items():
        modes = [way.mode for way in of_client if carries(way, datatype, shape)]
        model = identities.name(datatype, len(tensor.shape))
        if modes:
            found.append(Case(f"{datatype}-{shape}", model, [tensor], ["y"], modes))
    modes = [way.mode for way in of_client]
    for place, (name, (model, tensor, _)) in enumerate(REFUSED.items()):
        found.insert(5 * place, Case(name, model, [tensor], ["y"], modes))
    return found


@pytest.fixture(scope="module")
def answers(mirror: GatewayProcess, tmp_path_factory: pytest.TempPathFactory) -> Ask:
    return ways.once(mirror, tmp_path_factory.mktemp("clients"), cases)


def carried() -> Sequence[object]:
    return [
        pytest.param(way, datatype, shape, id=f"{way.id}-{datatype}-{shape}")
        for way in WAYS
        for datatype, shape in TENSORS
        if carries(way, datatype, shape)
    ]


@pytest.mark.parametrize(("way", "datatype", "shape"), carried())
def test_every_value_comes_back(answers: Ask, way: Way, datatype: str, shape: str) -> None:
    answer = answers(way.client)[way.mode, f"{datatype}-{shape}"]
    want = replace(TENSORS[datatype, shape], name="y")
    assert answer == [want]


@pytest.mark.parametrize("refused", REFUSED)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.id)
def test_a_refused_request_says_why_and_harms_no_other(answers: Ask, way: Way, refused: str) -> None:
    answer = answers(way.client)[way.mode, refused]
    assert isinstance(answer, Failure)
    assert REFUSED[refused][2] in answer.error


def test_the_kserve_client_reads_health(mirror: GatewayProcess) -> None:
    healthy = {"live": True, "ready": True, "model": True, "unknown": False}
    assert ways.task("kserve_client", mirror, "health") == {"rest": healthy, "grpc": healthy}


def test_reflection_and_health_tell_what_is_served(mirror: GatewayProcess) -> None:
    told = ways.task("reflection", mirror, "describe")
    assert told == {
        "services": [name.format("v1alpha") for name in SERVICES],
        "services_of_v1": [name.format("v1") for name in SERVICES],
        "methods": METHODS,
        "ready": True,
        "live": True,
        "model_ready": [True, False],
        "metadata": "headgate",
        "check": {
            "": "SERVING",
            "inference.GRPCInferenceService": "SERVING",
            "identity-fp32-r1": "SERVING",
            "none": "NOT_FOUND",
        },
        "watch": {
            "": "SERVING",
            "inference.GRPCInferenceService": "SERVING",
            "identity-fp32-r1": "SERVING",
            "none": "SERVICE_UNKNOWN",
        },
    }

"""tritonclient against the gateway, in JSON and in binary, for every datatype; the truth is onnxruntime in Python."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tritonclient.http as triton

from support.gateway import GatewayProcess
from support.models import DATATYPES, DIGITS, TESTS

#: The corners of each datatype: what is lost first when a value takes a detour over another type.
VALUES: dict[str, Any] = {
    "BOOL": np.array([True, False, True]),
    "UINT8": np.array([0, 1, 255], np.uint8),
    "UINT16": np.array([0, 1, 65_535], np.uint16),
    "UINT32": np.array([0, 2**31, 2**32 - 1], np.uint32),
    "UINT64": np.array([0, 2**53 + 1, 2**64 - 1], np.uint64),
    "INT8": np.array([-128, 0, 127], np.int8),
    "INT16": np.array([-32_768, 0, 32_767], np.int16),
    "INT32": np.array([-(2**31), 0, 2**31 - 1], np.int32),
    "INT64": np.array([-(2**63), 2**53 + 1, 2**63 - 1], np.int64),
    "FP16": np.array([-65_504, 0.1, 6e-8], np.float16),
    "FP32": np.array([-3.4028235e38, 0.1, 1e-45, 16_777_217, -0.0], np.float32),
    "FP64": np.array([-1.7976931348623157e308, 0.1, 5e-324, 2**53 + 2, -0.0], np.float64),
    "BYTES": np.array([b"", b"plain", "ümläut \U0001f600".encode(), b'"quoted"\n\\'], np.object_),
}
JSON_DATATYPES = [datatype for datatype in DATATYPES if datatype != "FP16"]


@pytest.fixture(scope="module")
def client(zoo: GatewayProcess) -> Iterator[Any]:
    made = triton.InferenceServerClient(zoo.http)
    yield made
    made.close()


def infer(
    client: Any, name: str, inputs: dict[str, Any], outputs: list[str], binary: bool, **more: Any
) -> Any:
    asked = []
    for tensor, values in inputs.items():
        datatype = triton_type(values)
        asked.append(triton.InferInput(tensor, list(values.shape), datatype))
        asked[-1].set_data_from_numpy(values, binary_data=binary)
    wanted = [triton.InferRequestedOutput(output, binary_data=binary) for output in outputs]
    return client.infer(name, asked, outputs=wanted, **more)


def triton_type(values: Any) -> str:
    names = {"f": "FP", "u": "UINT", "i": "INT"}
    if values.dtype == np.object_:
        return "BYTES"
    return "BOOL" if values.dtype == np.bool_ else f"{names[values.dtype.kind]}{values.dtype.itemsize * 8}"


def truth(model: Path, inputs: dict[str, Any]) -> dict[str, Any]:
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    feed = {name: decoded(values) for name, values in inputs.items()}
    return dict(zip(names, session.run(names, feed), strict=True))


def decoded(values: Any) -> Any:
    return (
        np.array([value.decode() for value in values], np.object_) if values.dtype == np.object_ else values
    )


def assert_same(have: Any, want: Any) -> None:
    if want.dtype == np.object_:
        want = np.array([value.encode() for value in want.ravel()], np.object_).reshape(want.shape)
        have = np.array(
            [value.encode() if isinstance(value, str) else value for value in have.ravel()], np.object_
        )
        assert have.tolist() == want.ravel().tolist()
        return
    assert have.dtype == want.dtype
    assert have.shape == want.shape
    assert have.tobytes() == want.tobytes()


@pytest.mark.parametrize("datatype", DATATYPES)
def test_every_datatype_in_binary(client: Any, datatype: str) -> None:
    values = VALUES[datatype]
    want = truth(TESTS / "models" / f"identity_{datatype.lower()}.onnx", {"x": values})["y"]
    answer = infer(client, f"identity-{datatype.lower()}", {"x": values}, ["y"], binary=True)
    assert_same(answer.as_numpy("y"), want)


@pytest.mark.parametrize("datatype", JSON_DATATYPES)
def test_every_datatype_in_json(client: Any, datatype: str) -> None:
    values = VALUES[datatype]
    want = truth(TESTS / "models" / f"identity_{datatype.lower()}.onnx", {"x": values})["y"]
    answer = infer(client, f"identity-{datatype.lower()}", {"x": values}, ["y"], binary=False)
    assert_same(answer.as_numpy("y"), want)


@pytest.mark.parametrize("datatype", DATATYPES)
def test_no_element_at_all(client: Any, datatype: str) -> None:
    values = VALUES[datatype][:0]
    answer = infer(client, f"identity-{datatype.lower()}", {"x": values}, ["y"], binary=True)
    assert answer.as_numpy("y").shape == (0,)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("rows", [1, 7, 1000])
@pytest.mark.parametrize("version", ["1", "2"])
def test_digits_as_onnxruntime_says(client: Any, version: str, rows: int, binary: bool) -> None:
    images = np.random.default_rng(rows).integers(0, 17, (rows, 64)).astype(np.float32)
    want = truth(DIGITS / "models" / "digits" / version / "model.onnx", {"X": images})
    answer = infer(client, "digits", {"X": images}, list(want), binary, model_version=version)
    assert answer.get_response()["model_version"] == version
    assert_same(answer.as_numpy("label"), want["label"])
    np.testing.assert_allclose(answer.as_numpy("probabilities"), want["probabilities"], rtol=1e-5, atol=1e-7)


def test_without_a_list_of_outputs_all_come_in_binary(client: Any) -> None:
    images = np.zeros((3, 64), np.float32)
    asked = triton.InferInput("X", [3, 64], "FP32")
    asked.set_data_from_numpy(images)
    answer = client.infer("digits", [asked], request_id="r-1")
    assert answer.get_response()["id"] == "r-1"
    assert answer.as_numpy("label").shape == (3,)
    assert answer.as_numpy("probabilities").shape == (3, 10)
    assert all("binary_data_size" in output["parameters"] for output in answer.get_response()["outputs"])


def test_one_output_in_binary_and_one_in_json(client: Any) -> None:
    asked = triton.InferInput("X", [1, 64], "FP32")
    asked.set_data_from_numpy(np.zeros((1, 64), np.float32), binary_data=False)
    outputs = [
        triton.InferRequestedOutput("label", binary_data=False),
        triton.InferRequestedOutput("probabilities", binary_data=True),
    ]
    answer = client.infer("digits", [asked], outputs=outputs)
    described = {output["name"]: output for output in answer.get_response()["outputs"]}
    assert "data" in described["label"]
    assert described["probabilities"]["parameters"]["binary_data_size"] == 40
    assert answer.as_numpy("probabilities").shape == (1, 10)


def test_not_a_number_survives_in_binary_and_never_makes_json_that_is_none(
    client: Any, zoo: GatewayProcess
) -> None:
    values = np.array([np.nan, np.inf, -np.inf], np.float32)
    answer = infer(client, "identity-fp32", {"x": values}, ["y"], binary=True)
    assert answer.as_numpy("y").tobytes() == values.tobytes()

    from support.client import Connection

    tensor = b'{"inputs":[{"name":"x","shape":[3],"datatype":"FP32","parameters":{"binary_data_size":12}}]}'
    with Connection(zoo.http) as connection:
        plain = connection.send(
            "POST",
            "/v2/models/identity-fp32/infer",
            tensor + values.tobytes(),
            {"Inference-Header-Content-Length": str(len(tensor))},
        )
    assert (plain.status, plain.code) == (400, "invalid_argument")
    assert "NaN" in plain.json["error"]
    assert "binary" in plain.json["error"]


def test_the_client_reads_health_and_metadata(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert not client.is_model_ready("none")
    assert client.get_server_metadata()["name"] == "headgate"
    assert client.get_model_metadata("digits", "2")["inputs"][0]["name"] == "X"


def test_the_client_gets_the_message_of_an_error(client: Any) -> None:
    asked = triton.InferInput("X", [1, 63], "FP32")
    asked.set_data_from_numpy(np.zeros((1, 63), np.float32))
    with pytest.raises(triton.InferenceServerException, match="X") as refused:
        client.infer("digits", [asked])
    assert refused.value.status() == "400"

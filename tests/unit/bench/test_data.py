"""Requests come from every kind of source as they stand there, and what does not fit is refused before anything is sent."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from headgate.bench.data import Requests, Source, load
from headgate.bench.encoding import Address, encode, encode_grpc, raw_bytes
from headgate.bench.tensors import InferRequest, Tensor, TensorSpec, bf16_bits, bf16_values, from_json
from headgate.errors import InvalidArgument

X = TensorSpec("X", "FP32", (-1, 2))
LABEL = TensorSpec("label", "BYTES", (-1,), optional=True)


def source(*inputs: TensorSpec, shares: dict[int, int] | None = None) -> Source:
    return Source("digits", None, inputs or (X,), shares, 1)


def from_file(
    path: Path, content: str | bytes, *inputs: TensorSpec, shares: dict[int, int] | None = None
) -> Requests:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return load(f"file:{path}", source(*inputs, shares=shares), None)


def values(found: Requests) -> list[Any]:
    return [row.request.inputs[0].values.tolist() for row in found.rows]


@pytest.mark.parametrize(
    "datatype",
    ["BOOL", "UINT8", "UINT64", "INT8", "INT64", "FP16", "BF16", "FP32", "FP64", "BYTES"],
)
def test_made_up_values_are_of_their_datatype_and_seeded(datatype: str) -> None:
    spec = TensorSpec("X", datatype, (-1, 3))
    one, two = (load("synthetic", source(spec, shares={2: 9000, 5: 1000}), None) for _ in range(2))
    assert [row.request.inputs[0].values.tolist() for row in one.rows] == values(two)
    assert {row.request.inputs[0].shape for row in one.rows} == {(2, 3), (5, 3)}
    assert sum(row.weight for row in one.rows if row.request.rows == 5) == pytest.approx(1000)
    json.loads(encode(one.rows[0].request, Address("d", "1"), "json").body)


def test_optional_inputs_are_left_out_and_open_dimensions_are_told() -> None:
    found = load("synthetic", source(TensorSpec("T", "INT64", (-1, -1)), LABEL), None)
    assert [tensor.name for tensor in found.rows[0].request.inputs] == ["T"]
    assert "open dimensions of T" in found.notes[0]


def test_rows_need_an_open_first_dimension() -> None:
    with pytest.raises(InvalidArgument, match=r"its first dimension is not open"):
        load("synthetic", source(TensorSpec("X", "FP32", (1, 2)), shares={4: 10_000}), None)


def test_a_line_is_a_request_or_a_row(tmp_path: Path) -> None:
    request = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 2], "data": [1, 2.5]}]}
    found = from_file(tmp_path / "a.jsonl", f"{json.dumps(request)}\n\n{json.dumps(request)}\n")
    assert values(found) == [[[1.0, 2.5]], [[1.0, 2.5]]]
    found = from_file(tmp_path / "b.jsonl", "[1, 2]\n[3, 4]\n[5, 6]\n", shares={2: 10_000})
    assert values(found) == [[[1, 2], [3, 4]]]
    found = from_file(tmp_path / "c.jsonl", '{"X": [1, 2]}\n', X, LABEL)
    assert values(found) == [[[1, 2]]]


def test_warmup_json_is_a_file_of_requests(tmp_path: Path) -> None:
    text = json.dumps(
        [
            {
                "inputs": [
                    {"name": "X", "datatype": "FP32", "shape": [2, 2], "data": [[1, None], [3, "Infinity"]]}
                ]
            },
            {"id": "a", "inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]},
        ]
    )
    found = from_file(tmp_path / "warmup.json", text)
    assert np.isnan(found.rows[0].request.inputs[0].values[0, 1])
    assert found.rows[0].request.rows == 2
    with pytest.raises(InvalidArgument, match="NaN or infinities"):
        encode(found.rows[0].request, Address("d", None), "json")
    assert encode(found.rows[0].request, Address("d", None), "binary").body.endswith(
        struct.pack("<f", np.inf)
    )


def test_numpy_and_parquet_rows(tmp_path: Path) -> None:
    rows = np.arange(8, dtype=np.float32).reshape(4, 2)
    np.save(tmp_path / "rows.npy", rows)
    found = load(f"file:{tmp_path / 'rows.npy'}", source(), None)
    assert values(found) == [[row] for row in rows.tolist()]
    np.savez(tmp_path / "rows.npz", X=rows, label=np.array(["a", "b", "c", "d"]))
    found = load(f"file:{tmp_path / 'rows.npz'}", source(X, LABEL, shares={4: 10_000}), None)
    assert found.rows[0].request.inputs[1].values.tolist() == [b"a", b"b", b"c", b"d"]
    pa.parquet.write_table(pa.table({"X": rows.tolist()}), tmp_path / "named.parquet")
    pa.parquet.write_table(pa.table({"a": rows[:, 0], "b": rows[:, 1]}), tmp_path / "wide.parquet")
    for name in ("named", "wide"):
        assert values(load(f"file:{tmp_path / name}.parquet", source(), None)) == [
            [row] for row in rows.tolist()
        ]


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("a.jsonl", "", "is empty"),
        ("a.jsonl", "[1, 2]\n[1\n", "line 2 is not JSON"),
        ("a.jsonl", "[1, 2, 3]\n", 'a row of input "X" must be FP32 [2], got [3]'),
        ("a.jsonl", '{"Y": [1, 2]}\n', '"Y" is no input; known here: X'),
        ("a.jsonl", "{}\n", 'input "X" must be FP32 [-1, 2], got none'),
        ("a.jsonl", '["a", "b"]\n', "no numbers"),
        ("a.jsonl", "[1, 2]\n" + '{"inputs": []}\n', "has no inputs"),
        (
            "a.json",
            '{"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 2], "data": [1]}]}',
            "1 elements, and its shape 2",
        ),
        (
            "a.json",
            '{"inputs": [{"name": "X", "datatype": "FP64", "shape": [1, 2], "data": [1, 2]}]}',
            'input "X" must be FP32 [-1, 2], got FP64',
        ),
        (
            "a.json",
            '{"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]}',
            "got FP32 [1, 3]",
        ),
        (
            "a.json",
            '{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}',
            'did you mean "X"?',
        ),
        (
            "a.json",
            '{"inputs": [{"name": "X", "datatype": "FP23", "shape": [1], "data": [1]}]}',
            'did you mean "FP32"?',
        ),
        ("a.npy", b"no numpy", "is no NumPy file"),
        ("a.parquet", b"no parquet", "is no Parquet file"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(
    tmp_path: Path, name: str, content: str | bytes, part: str
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        from_file(tmp_path / name, content)
    assert part in refused.value.message
    assert name in refused.value.message


def test_a_file_that_is_not_there_or_is_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe.jsonl")
    for name in ("none.jsonl", "pipe.jsonl"):
        with pytest.raises(InvalidArgument, match="cannot be read"):
            load(f"file:{tmp_path / name}", source(), None)


def test_integers_out_of_range_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="300 fits no UINT8"):
        from_json([1, 300], "UINT8", "here")
    with pytest.raises(InvalidArgument, match="wanted INT64, got numbers with fractions"):
        from_json([1.5], "INT64", "here")
    with pytest.raises(InvalidArgument, match="wanted FP32, got true and false"):
        from_json([True], "FP32", "here")
    assert from_json([2**64 - 1], "UINT64", "here").tolist() == [2**64 - 1]


def test_bf16_rounds_to_the_nearest_even() -> None:
    given = np.array([1.0, 1.00390625, 1.01171875, np.inf, np.nan, -2.5], dtype=np.float32)
    back = bf16_values(bf16_bits(given))
    assert back[:4].tolist() == [1.0, 1.0, 1.015625, np.inf]
    assert np.isnan(back[4])
    assert back[5] == -2.5


def request_of(*tensors: Tensor) -> InferRequest:
    return InferRequest(tensors)


def test_bodies_are_those_of_the_protocol() -> None:
    request = request_of(
        Tensor("X", "FP32", np.array([[0.1, 2]], dtype="<f4")),
        Tensor("s", "BYTES", np.array([b"ab", b"\xff"], dtype=object)),
    )
    address = Address("di/gits", "2")
    sent = encode(request, address, "json")
    assert sent.path == "/v2/models/di%2Fgits/versions/2/infer"
    inputs = json.loads(sent.body)["inputs"]
    assert inputs[0] == {"name": "X", "datatype": "FP32", "shape": [1, 2], "data": [0.1, 2.0]}
    assert inputs[1]["parameters"] == {"encoding": "base64"}
    binary = encode(request, address, "binary")
    length = int(dict(binary.headers)["inference-header-content-length"])
    head, raw = json.loads(binary.body[:length]), binary.body[length:]
    assert [one["parameters"]["binary_data_size"] for one in head["inputs"]] == [8, 11]
    assert raw == struct.pack("<ff", np.float32(0.1), 2) + b"\x02\0\0\0ab\x01\0\0\0\xff"
    seen: list[Any] = []
    grpc = encode_grpc(
        request,
        Address("digits", "2"),
        "grpc",
        lambda envelope, raws: seen.append((json.loads(envelope), raws)) or b"m",
    )
    assert grpc.path == "/inference.GRPCInferenceService/ModelInfer"
    assert grpc.body == b"m"
    envelope, raws = seen[0]
    assert (envelope["model_name"], envelope["model_version"]) == ("digits", "2")
    assert raws == [raw_bytes(one) for one in request.inputs]

"""Initialisers that a graph lists among its inputs: a request may give a value in their place, over every wire, for itself alone.

The right values are ONNX Runtime's own. Not here: what else signatures say (``test_signatures``).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

import httpx
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from support.gateway import GatewayProcess
from support.grpc_wire import all_of, blob, fields, frame, request, tensor, whole
from support.h2_client import Http2
from support.place import Place, model, value
from support.tools import need_native

Values = Mapping[str, np.ndarray]

TYPES = {
    "FP32": (np.float32, TensorProto.FLOAT),
    "INT64": (np.int64, TensorProto.INT64),
    "BYTES": (np.object_, TensorProto.STRING),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    need_native()
    folder = tmp_path_factory.mktemp("optional")
    with GatewayProcess(folder / "state", ["--root", str(folder)]) as gateway:
        yield Place(gateway, folder)


# --- the wires ---


def datatype(array: np.ndarray) -> str:
    return next(name for name, (kind, _) in TYPES.items() if array.dtype == kind)


def described(name: str, array: np.ndarray) -> dict[str, Any]:
    return {"name": name, "datatype": datatype(array), "shape": list(array.shape)}


def packed(array: np.ndarray) -> bytes:
    if array.dtype == np.object_:
        texts = [one.encode() for one in array.ravel()]
        return b"".join(struct.pack("<I", len(one)) + one for one in texts)
    return array.tobytes()


def unpacked(data: bytes, kind: str, shape: list[int]) -> np.ndarray:
    if kind != "BYTES":
        return np.frombuffer(data, TYPES[kind][0]).reshape(shape)
    found, at = [], 0
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at)
        found.append(data[at + 4 : at + 4 + length].decode())
        at += 4 + length
    return np.array(found, np.object_).reshape(shape)


class Client:
    """Asks an endpoint over each wire, on connections that stay."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self.http = httpx.Client(base_url=f"http://{gateway.http}")
        self.calls = Http2(gateway.grpc)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
        self.calls.sock.close()

    def over_json(self, name: str, inputs: Values) -> dict[str, np.ndarray]:
        listed = [described(key, one) | {"data": one.ravel().tolist()} for key, one in inputs.items()]
        answer = self.http.post(f"/v2/models/{name}/infer", json={"inputs": listed})
        assert answer.status_code == 200, answer.text
        return {
            one["name"]: np.array(one["data"], TYPES[one["datatype"]][0]).reshape(one["shape"])
            for one in answer.json()["outputs"]
        }

    def over_binary(self, name: str, inputs: Values) -> dict[str, np.ndarray]:
        blobs = [packed(one) for one in inputs.values()]
        listed = [
            described(key, one) | {"parameters": {"binary_data_size": len(data)}}
            for (key, one), data in zip(inputs.items(), blobs, strict=True)
        ]
        head = json.dumps({"inputs": listed, "parameters": {"binary_data_output": True}}).encode()
        answer = self.http.post(
            f"/v2/models/{name}/infer",
            content=head + b"".join(blobs),
            headers={"inference-header-content-length": str(len(head))},
        )
        assert answer.status_code == 200, answer.text
        length = int(answer.headers["inference-header-content-length"])
        found, at = {}, length
        for one in json.loads(answer.content[:length])["outputs"]:
            size = one["parameters"]["binary_data_size"]
            found[one["name"]] = unpacked(answer.content[at : at + size], one["datatype"], one["shape"])
            at += size
        return found

    def over_grpc(self, name: str, inputs: Values) -> dict[str, np.ndarray]:
        tensors = [tensor(key, datatype(one), one.shape) for key, one in inputs.items()]
        message = request(tensors, [packed(one) for one in inputs.values()], model=name)
        reply = self.calls.call("ModelInfer", frame(message))
        assert reply.grpc_status == 0, reply
        (message,) = reply.messages
        found = {}
        for output, raw in zip(all_of(message, 5), all_of(message, 6), strict=True):
            (key,), (kind,) = all_of(output, 1), all_of(output, 2)
            sizes = [number for known, number in fields(output) if known == 3 and isinstance(number, int)]
            shape = sizes or [*varints(b"".join(all_of(output, 3)))]
            found[key.decode()] = unpacked(raw, kind.decode(), shape)
        return found

    def over_predict(self, name: str, inputs: Values) -> dict[str, np.ndarray]:
        columns = {key: one.tolist() for key, one in inputs.items()}
        answer = self.http.post(f"/v1/models/{name}:predict", json={"inputs": columns})
        assert answer.status_code == 200, answer.text
        outputs = answer.json()["outputs"]
        return {key: np.array(one) for key, one in outputs.items()} if isinstance(outputs, dict) else outputs


@pytest.fixture
def client(place: Place) -> Iterator[Client]:
    with Client(place.gateway) as client:
        yield client


def varints(data: bytes) -> Iterator[int]:
    number = shift = 0
    for byte in data:
        number, shift = number | (byte & 0x7F) << shift, shift + 7
        if byte < 0x80:
            yield number
            number = shift = 0


WIRES: list[Callable[[Client, str, Values], dict[str, np.ndarray]]] = [
    Client.over_json,
    Client.over_binary,
    Client.over_grpc,
]


# --- the models ---


@dataclass(frozen=True)
class Case:
    """A model, and requests that it takes: with optional inputs and without."""

    id: str
    made: onnx.ModelProto
    requests: list[dict[str, np.ndarray]]
    optional: list[str]

    def wanted(self) -> list[dict[str, np.ndarray]]:
        """What ONNX Runtime answers."""
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(self.made.SerializeToString(), options)
        names = [output.name for output in session.get_outputs()]
        return [dict(zip(names, session.run(None, one), strict=True)) for one in self.requests]


def f32(*values: float, shape: Any = None) -> np.ndarray:
    array = np.array(values, np.float32)
    return array if shape is None else array.reshape(shape)


def i64(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def text(*values: str) -> np.ndarray:
    return np.array(values, np.object_)


def own(**values: np.ndarray) -> list[TensorProto]:
    """The model's own values."""
    return [
        helper.make_tensor(name, TensorProto.STRING, array.shape, [one.encode() for one in array])
        if array.dtype == np.object_
        else numpy_helper.from_array(array, name)
        for name, array in values.items()
    ]


X = f32(1, 2, 3, 4, 5, 6)
RESHAPE = model(
    [helper.make_node("Reshape", ["x", "shape"], ["r"]), helper.make_node("Neg", ["r"], ["y"])],
    [value("x", [6]), value("shape", [2], TensorProto.INT64)],
    [value("y", [2, 3])],
    initializer=own(shape=i64(2, 3)),
)
TOP = model(
    [helper.make_node("TopK", ["x", "k"], ["best", "at"])],
    [value("k", [1], TensorProto.INT64), value("x", ["n"])],
    [value("best", [2]), value("at", [2], TensorProto.INT64)],
    initializer=own(k=i64(2)),
)
LINEAR = model(
    [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Add", ["m", "b"], ["y"])],
    [value("w", [3, 2]), value("x", ["n", 3]), value("b", [2]), value("unused", [1])],
    [value("y", ["n", 2])],
    initializer=own(w=f32(1, 2, 3, 4, 5, 6, shape=(3, 2)), b=f32(10, 20), unused=f32(0)),
)
ECHO = model(
    [helper.make_node("Mul", ["x", "k"], ["y"])],
    [value("x", ["n"]), value("k", [1])],
    [value("y", ["n"]), value("k", [1])],
    initializer=own(k=f32(3)),
)
WORDS = model(
    [helper.make_node("Identity", ["t"], ["y"])],
    [value("t", ["n"], TensorProto.STRING)],
    [value("y", ["n"], TensorProto.STRING)],
    initializer=own(t=text("own", "words")),
)
SHARED = model(
    [helper.make_node("Add", ["x", "more"], ["y"])],
    [value("x", ["n"]), value("more", ["n"])],
    [value("y", ["n"])],
    initializer=own(more=f32(1, 1, 1)),
)
EXPAND = model(
    [helper.make_node("Expand", ["x", "to"], ["y"])],
    [value("x", [1]), value("to", ["rank"], TensorProto.INT64)],
    [value("y")],
    initializer=own(to=i64(2)),
)
SLICE = model(
    [helper.make_node("Slice", ["x", "first", "last"], ["y"])],
    [value("x", [6]), value("first", [1], TensorProto.INT64), value("last", [1], TensorProto.INT64)],
    [value("y", [4])],
    initializer=own(first=i64(1), last=i64(5)),
)
ROWS = f32(1, 0, 0, 0, 1, 0, shape=(2, 3))
CASES = [
    Case(
        "reshape",
        RESHAPE,
        [{"x": X}, {"x": X, "shape": i64(3, 2)}, {"shape": i64(6, 1), "x": -X}, {"x": X, "shape": i64(2, 3)}],
        ["shape"],
    ),
    Case("top", TOP, [{"x": X}, {"x": X, "k": i64(5)}, {"x": X, "k": i64(0)}, {"k": i64(1), "x": -X}], ["k"]),
    Case(
        "linear",
        LINEAR,
        [
            {"x": ROWS},
            {"x": ROWS, "b": f32(0, 0)},
            {"b": f32(1, 2), "x": ROWS[:1], "w": f32(6, 5, 4, 3, 2, 1, shape=(3, 2)), "unused": f32(9)},
            {"x": ROWS, "unused": f32(4)},
        ],
        ["w", "b", "unused"],
    ),
    Case("echo", ECHO, [{"x": X}, {"x": X, "k": f32(7)}, {"x": X[:2], "k": f32(-1)}], ["k"]),
    Case("words", WORDS, [{}, {"t": text("given")}, {"t": text("a", "", "\u00e4")}], ["t"]),
    Case(
        "shared", SHARED, [{"x": X[:1]}, {"x": X[:3]}, {"x": X, "more": X}, {"x": X[:1], "more": X}], ["more"]
    ),
    Case(
        "expand", EXPAND, [{"x": X[:1]}, {"x": X[:1], "to": i64(2, 1, 3)}, {"x": X[:1], "to": i64(5)}], ["to"]
    ),
    Case(
        "slice",
        SLICE,
        [
            {"x": X},
            {"x": X, "last": i64(2)},
            {"x": X, "first": i64(5), "last": i64(6)},
            {"x": X, "first": i64(0)},
        ],
        ["first", "last"],
    ),
]


def assert_same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert found.keys() == wanted.keys()
    for name, right in wanted.items():
        assert found[name].shape == right.shape, name
        assert np.array_equal(found[name], right), name


@pytest.mark.parametrize("placement", ["inline", "pool", "auto"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_given_value_holds_for_its_request_alone_on_every_wire(
    place: Place, client: Client, case: Case, placement: str
) -> None:
    name = place.serve(case.made, f", run: {{placement: {placement}}}")
    wanted = case.wanted()
    # Twice: the second time on buffers that have been used for all of them.
    for _ in range(2):
        for asked, right in zip(case.requests, wanted, strict=True):
            for wire in WIRES:
                assert_same(wire(client, name, asked), right)
                assert_same(wire(client, name, case.requests[0]), wanted[0])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_columns_of_predict_give_optional_inputs(place: Place, client: Client, case: Case) -> None:
    name = place.serve(case.made)
    for asked, right in zip(case.requests, case.wanted(), strict=True):
        found = client.over_predict(name, asked)
        found = found if isinstance(found, dict) else {"y": np.array(found)}
        assert {key: one.tolist() for key, one in found.items()} == {
            key: one.tolist() for key, one in right.items()
        }


def test_rows_of_predict_have_no_values_for_optional_inputs(place: Place, client: Client) -> None:
    name = place.serve(LINEAR)
    path = f"/v1/models/{name}:predict"
    answer = client.http.post(path, json={"instances": [[1, 0, 0], [0, 1, 0]]})
    assert answer.json() == {"predictions": [[11, 22], [13, 24]]}
    answer = client.http.post(path, json={"instances": [{"x": [1, 0, 0], "b": [0, 0]}]})
    assert answer.status_code == 400
    assert '"b", an optional input' in answer.json()["error"]
    assert 'column form (\\"inputs\\")' in answer.text


def test_a_request_that_gives_an_optional_input_is_never_run_with_others(place: Place) -> None:
    name = place.serve(LINEAR, ", run: {max_batch: 8, max_delay: 5ms, placement: pool}")
    case = next(case for case in CASES if case.id == "linear")
    wanted = case.wanted()

    def ask(first: int) -> None:
        wire = WIRES[first % len(WIRES)]
        with Client(place.gateway) as client:
            for at in range(first, first + 60):
                asked = at % len(wanted)
                assert_same(wire(client, name, case.requests[asked]), wanted[asked])

    with ThreadPoolExecutor(8) as clients:
        for done in [clients.submit(ask, first) for first in range(8)]:
            done.result()
    with place.gateway.admin() as admin:
        (version,) = admin.http.get(f"/v1/endpoints/{name}").json()["versions"].values()
    assert version["batches"]["count"] > 0


def test_metadata_and_configuration_mark_what_may_be_left_out(place: Place, client: Client) -> None:
    name = place.serve(LINEAR)
    shown = place.get(f"/v2/models/{name}")["inputs"]
    optional = {"parameters": {"optional": True}}
    assert shown == [
        {"name": "x", "datatype": "FP32", "shape": [-1, 3]},
        {"name": "w", "datatype": "FP32", "shape": [3, 2]} | optional,
        {"name": "b", "datatype": "FP32", "shape": [2]} | optional,
        {"name": "unused", "datatype": "FP32", "shape": [1]} | optional,
    ]
    shown = place.get(f"/v2/models/{name}/config")["input"]
    assert [(one["name"], one.get("optional", False)) for one in shown] == [
        ("x", False),
        ("w", True),
        ("b", True),
        ("unused", True),
    ]
    (message,) = client.calls.call("ModelMetadata", frame(blob(1, name))).messages
    marked = blob(1, "optional") + blob(2, whole(1, 1))
    assert [(all_of(one, 1), all_of(one, 4)) for one in all_of(message, 4)] == [
        ([b"x"], []),
        ([b"w"], [marked]),
        ([b"b"], [marked]),
        ([b"unused"], [marked]),
    ]
    (message,) = client.calls.call("ModelConfig", frame(blob(1, name))).messages
    inputs = all_of(all_of(message, 1)[0], 5)
    assert [(all_of(one, 1), [by for at, by in fields(one) if at == 8]) for one in inputs] == [
        ([b"x"], []),
        ([b"w"], [1]),
        ([b"b"], [1]),
        ([b"unused"], [1]),
    ]
    with place.gateway.admin() as admin:
        (version,) = admin.http.get(f"/v1/endpoints/{name}").json()["versions"].values()
    signature = version["signature"]
    assert [one["name"] for one in signature["inputs"]] == ["x"]
    assert [one["name"] for one in signature["optional_inputs"]] == ["w", "b", "unused"]
    assert version["message"] is None


def test_what_does_not_fit_is_the_client_s_and_says_what_would(place: Place, client: Client) -> None:
    name = place.serve(LINEAR)
    x = described("x", ROWS) | {"data": ROWS.ravel().tolist()}
    b = {"name": "b", "datatype": "FP32", "shape": [2], "data": [0, 0]}
    known = '"x", optional "w", "b", "unused"'
    for listed, says in (
        ([b], f'input "x" is missing; the model takes {known}'),
        ([b, b | {"name": "w"}], f'input "x" is missing; the model takes {known}'),
        ([x, b | {"name": "z"}], f'input "z" is not one of the model\'s: {known}'),
        ([b | {"name": "z"}], f'input "z" is not one of the model\'s: {known}'),
        ([x, b | {"shape": [1], "data": [0]}], 'input "b" has shape [1], the model takes [2]'),
        ([x, b | {"datatype": "INT64"}], 'input "b" is FP32, the request says INT64'),
        ([x, b, b], '"b"'),
        ([x, b | {"data": [0]}], 'input "b"'),
    ):
        answer = client.http.post(f"/v2/models/{name}/infer", json={"inputs": listed})
        assert answer.status_code == 400, answer.text
        assert says in answer.json()["error"]
    assert_same(
        client.over_json(name, {"x": ROWS}), {"y": ROWS @ f32(1, 2, 3, 4, 5, 6, shape=(3, 2)) + f32(10, 20)}
    )


def test_a_request_without_json_is_the_only_required_input(place: Place, client: Client) -> None:
    name = place.serve(LINEAR)
    answer = client.http.post(
        f"/v2/models/{name}/infer", content=ROWS.tobytes(), headers={"inference-header-content-length": "0"}
    )
    assert answer.status_code == 200, answer.text
    length = int(answer.headers["inference-header-content-length"])
    assert np.frombuffer(answer.content[length:], np.float32).tolist() == [11, 22, 13, 24]


def test_a_model_may_have_more_optional_inputs_than_a_request_can_list(place: Place, client: Client) -> None:
    names = [f"w{at}" for at in range(1500)]
    made = model(
        [helper.make_node("Sum", ["x", *names], ["y"])],
        [value("x", [1]), *(value(name, [1]) for name in names)],
        [value("y", [1])],
        initializer=own(**{name: f32(1) for name in names}),
    )
    name = place.serve(made)
    assert client.over_json(name, {"x": f32(1)})["y"] == 1501
    given = {"x": f32(1)} | {f"w{at}": f32(2) for at in range(300, 1323)}
    assert client.over_json(name, given)["y"] == 1501 + 1023
    assert len(place.get(f"/v2/models/{name}")["inputs"]) == 1501
    answer = client.http.post(f"/v2/models/{name}/infer", json={"inputs": []})
    assert 'optional "w0", ' in answer.json()["error"]
    assert "and 1492 more" in answer.json()["error"]


def test_what_no_request_can_carry_keeps_the_model_s_value_and_is_noted(place: Place, client: Client) -> None:
    float8 = helper.make_tensor("scale", TensorProto.FLOAT8E4M3FN, [1], [1.0])
    deep = numpy_helper.from_array(np.ones([1] * 17, np.float32), "deep")
    opsets = [helper.make_opsetid("", 19)]
    made = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Cast", ["scale"], ["s"], to=TensorProto.FLOAT),
                helper.make_node("Mul", ["x", "s"], ["y"]),
            ],
            "graph",
            [value("x", ["n"]), value("scale", [1], TensorProto.FLOAT8E4M3FN), value("deep", [1] * 17)],
            [value("y", ["n"])],
            initializer=[float8, deep],
        ),
        opset_imports=opsets,
        ir_version=9,
    )
    name = place.serve(made)
    assert_same(client.over_json(name, {"x": X}), {"y": X})
    assert [one["name"] for one in place.get(f"/v2/models/{name}")["inputs"]] == ["x"]
    with place.gateway.admin() as admin:
        (version,) = admin.http.get(f"/v1/endpoints/{name}").json()["versions"].values()
    said = version["message"]
    assert 'input "scale" has ONNX element type' in said
    assert 'input "deep" has 17 dimensions' in said
    assert said.startswith("optional inputs that are not offered")


def test_sparse_values_are_given_as_dense_ones_and_a_value_without_a_name_cannot_be_given(
    place: Place, client: Client
) -> None:
    sparse = helper.make_sparse_tensor(
        helper.make_tensor("s", TensorProto.FLOAT, [1], [5.0]),
        helper.make_tensor("at", TensorProto.INT64, [1], [1]),
        [2],
    )
    made = model(
        [helper.make_node("Add", ["x", "s"], ["y"])],
        [value("x", [2]), value("s", [2]), value("", [1])],
        [value("y", [2])],
        initializer=[helper.make_tensor("", TensorProto.FLOAT, [1], [1.0])],
        sparse_initializer=[sparse],
    )
    name = place.serve(made)
    for given, right in (({}, f32(1, 7)), ({"s": f32(3, 4)}, f32(4, 6)), ({}, f32(1, 7))):
        assert_same(client.over_grpc(name, {"x": f32(1, 2)} | given), {"y": right})
    assert [one["name"] for one in place.get(f"/v2/models/{name}")["inputs"]] == ["x", "s"]


def add_sum(place: Place, folder: str, own_values: Values) -> None:
    """A model that adds its optional inputs, whose own values these are, to ``x``."""
    path = place.folder / folder / "model.onnx"
    path.parent.mkdir()
    made = model(
        [helper.make_node("Sum", ["x", *own_values], ["y"])],
        [value("x", ["n"]), *(value(name, [1]) for name in own_values)],
        [value("y", ["n"])],
        initializer=own(**own_values),
    )
    path.write_bytes(made.SerializeToString())


def create(place: Place, name: str, document: str) -> None:
    headers = {"content-type": "application/yaml", "if-none-match": "*"}
    with place.gateway.admin() as admin:
        answer = admin.http.put(f"/v1/endpoints/{name}", content=document, headers=headers)
    assert answer.status_code == 201, answer.text


def test_versions_may_differ_in_optional_inputs(place: Place, client: Client) -> None:
    for version, own_values in (("one", {"b": f32(1)}), ("two", {"b": f32(2), "c": f32(3)})):
        add_sum(place, version, own_values)
    document = (
        "apiVersion: headgate/v1\nkind: Endpoint\nname: both\n"
        'versions: {"1": {model: "file:one"}, "2": {model: "file:two"}}\ntraffic: {champion: "1"}\n'
    )
    create(place, "both", document)
    x = described("x", f32(0)) | {"data": [0]}
    c = described("c", f32(0)) | {"data": [7]}
    for version, listed, status, right in (
        ("1", [x], 200, 1),
        ("2", [x], 200, 5),
        ("2", [x, c], 200, 9),
        ("1", [x, c], 400, 'input "c" is not one of the model\'s: "x", optional "b"'),
    ):
        answer = client.http.post(f"/v2/models/both/versions/{version}/infer", json={"inputs": listed})
        assert answer.status_code == status, answer.text
        said = answer.json()
        assert (said["error"] if status == 400 else said["outputs"][0]["data"][0]) == right


def test_the_champion_answers_for_a_challenger_that_lacks_an_optional_input(
    place: Place, client: Client
) -> None:
    for version, own_values in (("with", {"b": f32(1)}), ("without", {})):
        add_sum(place, version, own_values)
    x = described("x", f32(0)) | {"data": [0]}
    b = described("b", f32(0)) | {"data": [5]}
    for name, fallback in (("lacks", ""), ("lacks-alone", "fallback: none, ")):
        document = (
            f"apiVersion: headgate/v1\nkind: Endpoint\nname: {name}\n"
            'versions: {"1": {model: "file:with"}, "2": {model: "file:without"}}\n'
            f'traffic: {{champion: "1", {fallback}weights: {{"2": 50%}}}}\n'
        )
        create(place, name, document)
        url = f"/v2/models/{name}/infer"
        answers = [client.http.post(url, json={"inputs": [x, b]}) for _ in range(60)]
        labels = {answer.headers.get("x-headgate-fallback") for answer in answers}
        if fallback:
            assert {answer.status_code for answer in answers} == {200, 400}
            assert labels == {None}
        else:
            assert [answer.json()["outputs"][0]["data"] for answer in answers] == [[5]] * 60
            assert labels == {None, "2; cause=incompatible"}
        # What the champion does not take either is told in its words.
        wrong = [client.http.post(url, json={"inputs": [x, b | {"name": "c"}]}) for _ in range(20)]
        assert {answer.status_code for answer in wrong} == {400}
        if not fallback:
            assert {answer.json()["error"] for answer in wrong} == {
                'input "c" is not one of the model\'s: "x", optional "b"'
            }


def test_a_warm_up_may_give_optional_inputs(place: Place, client: Client) -> None:
    path = place.folder / "warmed" / "model.onnx"
    path.parent.mkdir()
    path.write_bytes(LINEAR.SerializeToString())
    rows = [described("x", ROWS[:1]) | {"data": [float(at), 1, 2]} for at in range(4)]
    b = described("b", f32(0, 0)) | {"data": [0, 0]}
    warmup = [{"inputs": [b, rows[0]]}, *({"inputs": [row]} for row in rows)]
    path.with_name("warmup.json").write_text(json.dumps(warmup))
    document = (
        "apiVersion: headgate/v1\nkind: Endpoint\nname: warmed\n"
        'versions: {"1": {model: "file:warmed", run: {max_batch: 4}}}\ntraffic: {champion: "1"}\n'
    )
    headers = {"content-type": "application/yaml", "if-none-match": "*"}
    with place.gateway.admin() as admin:
        answer = admin.http.put("/v1/endpoints/warmed", content=document, headers=headers)
        assert answer.status_code == 201, answer.text
        (version,) = admin.http.get("/v1/endpoints/warmed").json()["versions"].values()
    assert (version["message"], version["batches"]["max_batch"]) == (None, 4)
    assert client.over_json("warmed", {"x": ROWS[:1]})["y"].tolist() == [[11, 22]]


def test_a_value_of_an_old_file_is_no_input(place: Place) -> None:
    """Before version 4 of the format every initialiser was listed among the inputs, and none could be replaced."""
    old = onnx.ModelProto()
    old.CopyFrom(RESHAPE)
    old.ir_version = 3
    assert [one["name"] for one in place.get(f"/v2/models/{place.serve(old)}")["inputs"]] == ["x"]

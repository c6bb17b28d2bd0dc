"""Forms in which real clients write the same request: null for what is absent, scalars, missing values, escapes, codings.

Each wire is tried where the form exists on it. Not here: what is malformed in any reading (``test_malformed``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from support import grpc_calls, models
from support.client import Answer, Connection
from support.gateway import GatewayProcess
from support.grpc_wire import blob, frame
from support.h2_client import Http2
from support.tools import need_native

MARK = b"\xef\xbb\xbf"
DOCUMENT = """\
---
apiVersion: headgate/v1
kind: Endpoint
name: {word}-{name}
versions: {{"1": "file:models/strict-{name}/1"}}
traffic: {{champion: "1"}}
answers: {{non_finite: "{word}"}}
"""
ELEMENTS = {
    "float": TensorProto.FLOAT,
    "double": TensorProto.DOUBLE,
    "half": TensorProto.FLOAT16,
    "whole": TensorProto.INT64,
}


def copy(element: int, shape: list[str | int]) -> onnx.ModelProto:
    """x -> y, the same values."""
    x, y = (helper.make_tensor_value_info(name, element, shape) for name in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "copy", [x], [y])
    return helper.make_model(graph, opset_imports=models.OPSETS, ir_version=8)


def shifted() -> onnx.ModelProto:
    """rows FP32 [n, 2] and by FP32 [] -> y = rows + by."""
    rows = helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", 2])
    by = helper.make_tensor_value_info("by", TensorProto.FLOAT, [])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])
    graph = helper.make_graph([helper.make_node("Add", ["rows", "by"], ["y"])], "shifted", [rows, by], [y])
    return helper.make_model(graph, opset_imports=models.OPSETS, ir_version=8)


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """Scalars of three kinds, and floats whose endpoint has a word for missing values, or none."""
    need_native()
    folder = tmp_path_factory.mktemp("forms")
    served = folder / "models"
    models.place(models.pair(), served, "pair")
    models.place(shifted(), served, "shifted")
    for name, element in (
        ("float", TensorProto.FLOAT),
        ("flag", TensorProto.BOOL),
        ("text", TensorProto.STRING),
    ):
        models.place(copy(element, []), served, f"scalar-{name}")
    for name, element in ELEMENTS.items():
        models.place(copy(element, ["n"]), served, f"strict-{name}")
    documents = [DOCUMENT.format(name=name, word=word) for name in ELEMENTS for word in ("null", "string")]
    (folder / "documents.yaml").write_text("".join(documents))
    arguments = [str(folder / "documents.yaml"), "--models", str(served), "--allow-repository-control"]
    with GatewayProcess(folder / "state", arguments) as gateway:
        yield gateway


@pytest.fixture
def ask(forms: GatewayProcess) -> Iterator[Connection]:
    with Connection(forms.http) as connection:
        yield connection


def data(answer: Answer) -> dict[str, Any]:
    """The elements of each output."""
    assert answer.status == 200, answer.body
    return {output["name"]: output["data"] for output in answer.json["outputs"]}


PAIR: dict[str, Any] = {
    "inputs": [
        {"name": "A", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]},
        {"name": "B", "shape": [1], "datatype": "INT64", "data": [3]},
    ]
}


def with_nulls() -> dict[str, dict[str, Any]]:
    """Requests to ``pair`` with null for every field that may be left out."""
    a, b = PAIR["inputs"]
    output = {"name": "A2", "parameters": None}
    parameters = {
        "binary_data_output": None,
        "timeout": None,
        "priority": None,
        "sequence_id": None,
        "x": None,
    }
    tensor = {"binary_data_size": None, "encoding": None, "shared_memory_region": None, "content_type": None}
    chosen = {"binary_data": None, "classification": None, "shared_memory_region": None}
    return {
        "id": PAIR | {"id": None},
        "parameters": PAIR | {"parameters": None},
        "outputs": PAIR | {"outputs": None},
        "each parameter": PAIR | {"parameters": parameters},
        "an input's parameters": {"inputs": [a | {"parameters": None}, b]},
        "each parameter of an input": {"inputs": [a | {"parameters": tensor}, b]},
        "an output's parameters": PAIR | {"outputs": [output, {"name": "B2"}]},
        "each parameter of an output": PAIR
        | {"outputs": [{"name": "A2", "parameters": chosen}, {"name": "B2"}]},
        "everything": PAIR | {"id": None, "model_name": None, "parameters": None, "outputs": None},
    }


@pytest.mark.parametrize("name", with_nulls())
def test_null_is_as_good_as_absent(ask: Connection, name: str) -> None:
    assert data(ask.infer("pair", with_nulls()[name])) == {"A2": [1, 2], "B2": [3]}


def test_null_beside_binary_data_is_as_good_as_absent(ask: Connection) -> None:
    inputs = [
        {
            "name": "A",
            "shape": [1, 2],
            "datatype": "FP32",
            "data": None,
            "parameters": {"binary_data_size": 8},
        },
        PAIR["inputs"][1],
    ]
    head = json.dumps({"id": None, "outputs": None, "inputs": inputs}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    answer = ask.send("POST", "/v2/models/pair/infer", head + b"\0\0\x80\x3f\0\0\0\x40", headers)
    assert data(answer) == {"A2": [1, 2], "B2": [3]}


@pytest.mark.parametrize("name", ["inputs", "name", "shape", "datatype", "data"])
def test_null_for_what_is_needed_is_missing(ask: Connection, name: str) -> None:
    a, b = PAIR["inputs"]
    body = {"inputs": None} if name == "inputs" else {"inputs": [a | {name: None}, b]}
    answer = ask.infer("pair", body)
    assert (answer.status, answer.code) == (400, "invalid_argument")
    assert f'"{name}"' in answer.json["error"]


def test_null_is_as_good_as_absent_around_inference(ask: Connection) -> None:
    predict = {"instances": None, "inputs": {"A": [[1, 2]], "B": [3]}, "signature_name": None}
    answer = ask.send("POST", "/v1/models/pair:predict", json.dumps(predict).encode())
    assert answer.json == {"outputs": {"A2": [[1, 2]], "B2": [3]}}
    for path, body in (
        ("/v2/repository/index", {"ready": None}),
        ("/v2/repository/models/pair/load", {"parameters": None}),
        ("/v2/repository/models/pair/load", {"parameters": {"config": None}}),
        ("/v2/repository/models/pair/load", None),
        ("/v2/trace/setting", {"trace_level": None}),
        ("/v2/logging", {"log_info": None}),
    ):
        answer = ask.send("POST", path, json.dumps(body).encode())
        assert answer.status == 200, (path, answer.body)


SCALARS = [("float", "FP32", 1.5), ("flag", "BOOL", True), ("text", "BYTES", 'a [b] \u00e9"')]


@pytest.mark.parametrize(("name", "datatype", "value"), SCALARS)
def test_a_scalar_is_written_without_brackets(ask: Connection, name: str, datatype: str, value: Any) -> None:
    for written in (value, [value]):
        x = {"name": "x", "shape": [], "datatype": datatype, "data": written}
        answer = ask.infer(f"scalar-{name}", {"inputs": [x]})
        assert data(answer) == {"y": [value]}
        assert answer.json["outputs"][0]["shape"] == []
    for body in ({"inputs": value}, {"inputs": {"x": value}}, {"inputs": [value]}):
        answer = ask.send("POST", f"/v1/models/scalar-{name}:predict", json.dumps(body).encode())
        assert (answer.status, answer.json) == (200, {"outputs": value}), body


def test_bytes_of_a_scalar_may_be_base64(ask: Connection) -> None:
    for body in ({"inputs": {"b64": "/w=="}}, {"inputs": {"x": {"b64": "/w=="}}}):
        answer = ask.send("POST", "/v1/models/scalar-text:predict", json.dumps(body).encode())
        assert (answer.status, answer.json) == (200, {"outputs": {"b64": "/w=="}}), body


def test_a_scalar_beside_rows(ask: Connection) -> None:
    for body, wanted in (
        ({"inputs": {"rows": [[1, 2]], "by": 1}}, {"outputs": [[2, 3]]}),
        ({"instances": [{"rows": [1, 2], "by": 1}]}, {"predictions": [[2, 3]]}),
    ):
        answer = ask.send("POST", "/v1/models/shifted:predict", json.dumps(body).encode())
        assert (answer.status, answer.json) == (200, wanted), answer.body


@pytest.mark.parametrize(
    ("shape", "written"), [([2], 1.5), ([1], 1.5), ([], "1.5"), ([], {}), ([], [1, 2]), ([], [[1]])]
)
def test_a_value_without_brackets_is_only_for_a_scalar_of_its_kind(
    ask: Connection, shape: Any, written: Any
) -> None:
    x = {"name": "x", "shape": shape, "datatype": "FP32", "data": written}
    answer = ask.infer("scalar-float", {"inputs": [x]})
    assert (answer.status, answer.code) == (400, "invalid_argument")
    assert '"x"' in answer.json["error"]
    answer = ask.send("POST", "/v1/models/strict-float:predict", b'{"inputs": 1.5}')
    assert (answer.status, answer.code) == (400, "invalid_argument")
    assert "must be a list, not a number" in answer.json["error"]


DATATYPES = {"float": "FP32", "double": "FP64", "half": "FP16"}
WORDS: dict[str, list[Any]] = {"null": [None], "string": ["NaN", "Infinity", "-Infinity"]}


@pytest.mark.parametrize("name", DATATYPES)
@pytest.mark.parametrize("word", WORDS)
def test_missing_values_are_sent_in_the_words_of_answers(ask: Connection, word: str, name: str) -> None:
    elements = [1.5, *WORDS[word], 2, *WORDS[word]]
    x = {"name": "x", "shape": [len(elements)], "datatype": DATATYPES[name], "data": elements}
    assert data(ask.infer(f"{word}-{name}", {"inputs": [x]})) == {"y": elements}
    for body in ({"instances": elements}, {"instances": [{"x": element} for element in elements]}):
        answer = ask.send("POST", f"/v1/models/{word}-{name}:predict", json.dumps(body).encode())
        assert (answer.status, answer.json) == (200, {"predictions": elements}), body


@pytest.mark.parametrize(
    ("endpoint", "datatype", "element"),
    [
        *[(f"strict-{name}", datatype, word) for name, datatype in DATATYPES.items() for word in (None, "NaN")],
        ("null-float", "FP32", "NaN"), ("null-float", "FP32", True), ("string-float", "FP32", None),
        ("string-float", "FP32", "nan"), ("string-float", "FP32", "1.5"), ("null-whole", "INT64", None),
        ("string-whole", "INT64", "NaN"),
    ],
)  # fmt: skip
def test_other_words_are_refused(ask: Connection, endpoint: str, datatype: str, element: Any) -> None:
    x = {"name": "x", "shape": [2], "datatype": datatype, "data": [1, element]}
    body = {"inputs": [1, element]}
    for answer in (
        ask.infer(endpoint, {"inputs": [x]}),
        ask.send("POST", f"/v1/models/{endpoint}:predict", json.dumps(body).encode()),
    ):
        assert (answer.status, answer.code) == (400, "invalid_argument")
        assert "element 1" in answer.json["error"]
        names_the_setting = "answers.non_finite" in answer.json["error"]
        assert names_the_setting == (datatype != "INT64" and element in (None, "NaN"))


INFER = json.dumps(PAIR).encode()
PREDICT = json.dumps({"inputs": {"A": [[1, 2]], "B": [3]}}).encode()


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v2/models/%70air/infer", INFER),
        ("POST", "/v2/models/p%61ir/versions/%31/infer", INFER),
        ("POST", "/v2/m%6Fdels/pair/inf%65r", INFER),
        ("POST", "/v1/models/%70air:predict", PREDICT),
        ("POST", "/v1/models/pair%3Apredict", PREDICT),
        ("POST", "/v1/models/pair/versions/%31%3apredict", PREDICT),
        ("GET", "/v2/models/%70air", None),
        ("GET", "/v2/models/%70air/ready", None),
        ("GET", "/v2/models/%70air/config", None),
        ("GET", "/v2/models/%70air/stats", None),
        ("GET", "/v1/models/%70air", None),
        ("GET", "/v2/health/l%69ve", None),
        ("GET", "/v2/models/%70air/trace/setting", None),
        ("POST", "/v2/repository/models/%70air/load", b""),
        ("POST", "/v2/repository/%69ndex", b""),
    ],
)
def test_a_path_is_decoded_once(ask: Connection, method: str, path: str, body: bytes | None) -> None:
    answer = ask.send(method, path, body)
    assert answer.status == 200, answer.body


@pytest.mark.parametrize("name", ["%2570air", "a%2Fb", "..%2Fpair", "pair%2Finfer", "pa%20ir", "%00"])
def test_what_is_decoded_is_a_name_and_no_path(ask: Connection, name: str) -> None:
    for method, path in (
        ("POST", f"/v2/models/{name}/infer"),
        ("POST", f"/v1/models/{name}:predict"),
        ("GET", f"/v2/models/{name}/ready"),
        ("POST", f"/v2/repository/models/{name}/unload"),
    ):
        answer = ask.send(method, path, INFER if path.endswith("infer") else b"{}")
        assert (answer.status, answer.code) == (404, "model_not_found"), (path, answer.body)
    assert ask.send("GET", "/v2%2Fmodels/pair").code == "not_found"


@pytest.mark.parametrize("escape", ["%", "%7", "%zz", "%-1", "%7g", "%ff", "%c3%28"])
def test_a_bad_escape_is_refused(ask: Connection, escape: str) -> None:
    for method, path in (
        ("POST", f"/v2/models/pair{escape}/infer"),
        ("POST", f"/v1/models/pair{escape}:predict"),
        ("GET", f"/v2/models/pair{escape}"),
        ("POST", f"/v2/repository/models/{escape}/unload"),
        ("GET", f"/{escape}"),
    ):
        answer = ask.send(method, path, INFER)
        assert (answer.status, answer.code) == (400, "invalid_argument"), (path, answer.body)
        assert "escape" in answer.json["error"]


POSTS = [
    "/v2/models/pair/infer",
    "/v1/models/pair:predict",
    "/v2/repository/index",
    "/v2/repository/models/pair/load",
    "/v2/repository/models/pair/unload",
    "/v2/trace/setting",
    "/v2/models/pair/trace/setting",
    "/v2/logging",
    "/v2/systemsharedmemory/region/r/register",
    "/v2/cudasharedmemory/unregister",
]


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, br", "gzip, gzip", "x"])
def test_an_unknown_coding_is_an_unsupported_media_type(ask: Connection, path: str, coding: str) -> None:
    answer = ask.send("POST", path, b"{}", {"Content-Encoding": coding})
    assert (answer.status, answer.code) == (415, "unsupported_media_type")
    assert answer.headers["accept-encoding"] == "gzip, deflate"
    assert "Content-Encoding" in answer.json["error"]


def test_a_second_line_of_codings_counts(ask: Connection) -> None:
    for lines, status in ((["identity", "br"], 415), (["gzip", "br"], 415), (["identity", ""], 200)):
        ask.http.putrequest("POST", "/v2/models/pair/infer")
        for line in lines:
            ask.http.putheader("Content-Encoding", line)
        ask.http.putheader("Content-Length", str(len(INFER)))
        ask.http.endheaders(INFER)
        answer = ask.http.getresponse()
        answer.read()
        assert answer.status == status, lines


@pytest.mark.parametrize("mark", [MARK, b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff"])
def test_a_byte_order_mark_is_named(ask: Connection, mark: bytes) -> None:
    for path in ("/v2/models/pair/infer", "/v1/models/pair:predict", "/v2/repository/index", "/v2/logging"):
        answer = ask.send("POST", path, mark + INFER)
        assert (answer.status, answer.code) == (400, "invalid_argument")
        assert "byte order mark" in answer.json["error"]
    headers = {"Inference-Header-Content-Length": str(len(INFER) + len(mark))}
    answer = ask.send("POST", "/v2/models/pair/infer", mark + INFER, headers)
    assert "byte order mark" in answer.json["error"]


def test_two_different_ends_of_the_json_are_refused(ask: Connection) -> None:
    size = len(INFER)
    for lengths, status in (([size, size], 200), ([size, size - 1], 400), ([size, size, 0], 400)):
        ask.http.putrequest("POST", "/v2/models/pair/infer")
        for length in lengths:
            ask.http.putheader("Inference-Header-Content-Length", str(length))
        ask.http.putheader("Content-Length", str(size))
        ask.http.endheaders(INFER)
        answer = ask.http.getresponse()
        body = json.loads(answer.read())
        assert answer.status == status, lengths
        assert status == 200 or ("send it once" in body["error"] and body["code"] == "invalid_argument")


@pytest.mark.parametrize("call", ["load", "unload"])
@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "file://"])
def test_a_page_of_another_site_cannot_change_what_is_in_memory(
    ask: Connection, call: str, origin: str
) -> None:
    headers = {"Origin": origin, "Content-Type": "text/plain"}
    answer = ask.send("POST", f"/v2/repository/models/pair/{call}", b"", headers)
    assert (answer.status, answer.code) == (403, "permission_denied")
    assert "Origin" in answer.json["error"]
    assert data(ask.infer("pair", PAIR)) == {"A2": [1, 2], "B2": [3]}


def test_a_name_that_a_page_may_have_pointed_here_is_no_own_origin(
    forms: GatewayProcess, ask: Connection
) -> None:
    for host, status in ((forms.http, 200), (f"rebound.example:{forms.http.rpartition(':')[2]}", 403)):
        headers = {"Origin": f"http://{host}", "Host": host}
        assert ask.send("POST", "/v2/repository/models/pair/load", b"", headers).status == status


def test_an_output_is_asked_for_once(ask: Connection) -> None:
    answer = ask.infer("pair", PAIR | {"outputs": [{"name": "A2"}, {"name": "A2"}]})
    assert (answer.status, answer.code) == (400, "invalid_argument")
    assert answer.json["error"] == '"outputs" has "A2" twice'


@pytest.mark.parametrize("call", ["RepositoryModelLoad", "RepositoryModelUnload"])
def test_a_page_of_another_site_cannot_change_what_is_in_memory_over_grpc(
    forms: GatewayProcess, call: str
) -> None:
    with Http2(forms.grpc) as connection:
        reply = connection.call(call, frame(blob(2, "pair")), {"origin": "http://evil.example"})
        assert reply.grpc_status == grpc_calls.DENIED
        grpc_calls.assert_good(connection)


def admin_calls(forms: GatewayProcess) -> tuple[Connection, dict[str, str]]:
    """A connection to the admin port, and the headers of its first token."""
    token = (forms.state / "admin-token").read_text().strip()
    return Connection(forms.addresses["admin"]), {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/endpoints/%70air", 200),
        ("/v1/%65ndpoints/pair/tr%61ffic", 200),
        ("/v1/endpoints/%2570air", 404),
        ("/v1/endpoints/pair%2Ftraffic", 404),
        ("/v1/endpoints%2Fpair", 404),
        ("/v1/endpoints/pair%", 400),
        ("/v1/endpoints/%zz", 400),
        ("/v1/endpoints/%ff", 400),
    ],
)
def test_a_path_of_the_admin_api_is_decoded_once(forms: GatewayProcess, path: str, status: int) -> None:
    connection, headers = admin_calls(forms)
    with connection:
        answer = connection.send("GET", path, headers=headers)
        assert answer.status == status, answer.body
        assert status != 400 or (answer.code == "invalid_argument" and b"escape" in answer.body)


@pytest.mark.parametrize("verb", ["pair%3Afreeze", "pair:unfreeze"])
def test_bodies_of_the_admin_api_have_no_coding_and_no_mark(forms: GatewayProcess, verb: str) -> None:
    connection, headers = admin_calls(forms)
    headers |= {"Content-Type": "application/json", "If-Match": "*"}
    with connection:
        path = f"/v1/endpoints/{verb}"
        for coding in ("gzip", "br", "identity, gzip"):
            answer = connection.send("POST", path, b"{}", headers | {"Content-Encoding": coding})
            assert (answer.status, answer.code) == (415, "unsupported_media_type")
        answer = connection.send("POST", path, MARK + b"{}", headers)
        assert (answer.status, answer.code) == (400, "invalid_argument")
        assert b"byte order mark" in answer.body
        answer = connection.send("POST", path, b"{}", headers | {"Content-Encoding": "identity"})
        assert answer.status == 200, answer.body

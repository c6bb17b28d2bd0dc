"""What models declare is what requests are held to: ranks that are open, numbers of tensors, classifiers that end in ZipMap.

The right values are ONNX Runtime's own. Not here: operators one by one (``tests/conformance/test_onnx_nodes.py``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from support.gateway import GatewayProcess
from support.models import OPSETS
from support.place import Place, model, value
from support.tools import need_native

ML = helper.make_opsetid("ai.onnx.ml", 3)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    need_native()
    folder = tmp_path_factory.mktemp("signatures")
    with GatewayProcess(folder / "state", ["--root", str(folder)]) as gateway:
        yield Place(gateway, folder)


NEG = helper.make_node("Neg", ["x"], ["y"])


def test_a_shape_that_is_not_declared_is_any_shape(place: Place) -> None:
    name = place.serve(model([NEG], [value("x")], [value("y")]))
    for shape in ([], [1], [3], [2, 3], [1, 2, 1, 3], [0, 4]):
        x = np.arange(1, 1 + np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)
        y = place.infer(name, {"x": x})["y"]
        assert (y["shape"], y["data"]) == (shape, (-x).ravel().tolist())
    (described,) = place.get(f"/v2/models/{name}")["inputs"]
    assert described == {"name": "x", "datatype": "FP32", "shape": [-1]}
    for body, wanted in (({"inputs": 2}, -2), ({"inputs": [[1, 2]]}, [[-1, -2]]), ({"inputs": [1]}, [-1])):
        answer = httpx.post(f"http://{place.gateway.http}/v1/models/{name}:predict", json=body)
        assert (answer.status_code, answer.json()) == (200, {"outputs": wanted})


def test_an_open_rank_beside_a_known_one(place: Place) -> None:
    add = helper.make_node("Add", ["a", "b"], ["y"])
    name = place.serve(model([add], [value("a", ["n", 2]), value("b")], [value("y")]))
    for shape in ([], [2], [1, 2]):
        a, b = np.array([[1, 2]], np.float32), np.ones(shape, np.float32)
        assert place.infer(name, {"a": a, "b": b})["y"]["data"] == [2, 3]
    assert "number of dimensions" in place.refusal(
        model([add], [value("a", ["n", 2]), value("b")], [value("y")]), ", run: {max_batch: 4}"
    )


def many(inputs: int) -> onnx.ModelProto:
    names = [f"x{index}" for index in range(inputs)]
    return model(
        [helper.make_node("Sum", names, ["y"])], [value(name, [1]) for name in names], [value("y", [1])]
    )


def test_a_model_has_as_many_inputs_as_a_request_may_list(place: Place) -> None:
    name = place.serve(many(1024))
    inputs = {f"x{index}": np.ones(1, np.float32) for index in range(1024)}
    assert place.infer(name, inputs)["y"]["data"] == [1024]
    said = place.refusal(many(1025))
    assert "1025 inputs" in said
    assert "1024 at most" in said


def test_a_tensor_has_as_many_dimensions_as_a_request_may_say(place: Place) -> None:
    name = place.serve(model([NEG], [value("x", [1] * 16)], [value("y", [1] * 16)]))
    assert place.infer(name, {"x": np.ones([1] * 16, np.float32)})["y"]["data"] == [-1]
    said = place.refusal(model([NEG], [value("x", [1] * 17)], [value("y", [1] * 17)]))
    assert 'input "x" has 17 dimensions' in said
    squeeze = helper.make_node("Reshape", ["x", "shape"], ["y"])
    shape = helper.make_tensor("shape", TensorProto.INT64, [17], [1] * 17)
    said = place.refusal(model([squeeze], [value("x", [1])], [value("y", [1] * 17)], initializer=[shape]))
    assert 'output "y" has 17 dimensions' in said


def test_an_output_is_declared_once(place: Place) -> None:
    said = place.refusal(model([NEG], [value("x", [1])], [value("y", [1]), value("y", [1])]))
    assert 'output "y" is declared twice' in said


def zipped(name: str, key: int = TensorProto.INT64) -> onnx.ValueInfoProto:
    """An output as ZipMap makes it."""
    pairs = helper.make_map_type_proto(key, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    return helper.make_value_info(name, helper.make_sequence_type_proto(pairs))


X = np.array([[0.25, 0.75, 0.5], [3, 1, 2]], np.float32)


@pytest.mark.parametrize("opsets", [[*OPSETS, ML], [ML]])
@pytest.mark.parametrize("classes", [[7, -1, 2**40], ["cat", "d\u00f6g", "[bird]"]])
def test_zipmap_is_served_from_what_goes_into_it(place: Place, classes: list[Any], opsets: Any) -> None:
    whole = isinstance(classes[0], int)
    key = TensorProto.INT64 if whole else TensorProto.STRING
    attribute = {"classlabels_int64s" if whole else "classlabels_strings": classes}
    node = helper.make_node("ZipMap", ["x"], ["z"], domain="ai.onnx.ml", **attribute)
    name = place.serve(model([node], [value("x", ["n", 3])], [zipped("z", key)], opsets))
    output = place.infer(name, {"x": X})["z"]
    assert (output["datatype"], output["shape"], output["data"]) == ("FP32", [2, 3], X.ravel().tolist())
    asked = [{"name": "z", "parameters": {"classification": 1}}]
    best = place.infer(name, {"x": X}, outputs=asked)["z"]["data"]
    assert best == [f"0.750000:1:{classes[1]}", f"3.000000:0:{classes[0]}"]


def test_classifiers_of_scikit_learn_are_served_as_they_are_converted(place: Place) -> None:
    skl2onnx = pytest.importorskip("skl2onnx")
    from sklearn.datasets import load_iris
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = load_iris(return_X_y=True)
    words = np.array(["setosa", "versicolor", "virginica"])[y]
    for classes, estimator in (
        (y, LogisticRegression(max_iter=500)),
        (words, make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))),
        (words, RandomForestClassifier(5, random_state=0)),
    ):
        fitted = estimator.fit(x, classes)
        made = skl2onnx.to_onnx(fitted, x[:1].astype(np.float32), target_opset=17)
        session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
        rows = x[::10].astype(np.float32)
        label, maps = session.run(None, {"X": rows})
        names = [output.name for output in session.get_outputs()]
        outputs = place.infer(place.serve(made), {"X": rows})
        assert list(outputs[names[0]]["data"]) == label.tolist()
        wanted = np.array([list(one.values()) for one in maps], np.float32)
        assert outputs[names[1]]["shape"] == list(wanted.shape)
        assert np.array_equal(np.float32(outputs[names[1]]["data"]).reshape(wanted.shape), wanted)


def test_another_output_that_is_no_tensor_is_named_with_what_to_do(place: Place) -> None:
    sequence = helper.make_value_info(
        "parts", helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [2]))
    )
    construct = helper.make_node("SequenceConstruct", ["x", "x"], ["parts"])
    said = place.refusal(model([construct, NEG], [value("x", [2])], [value("y", [2]), sequence]))
    assert 'output "parts" is a sequence' in said
    assert "ConcatFromSequence" in said
    assert "zipmap" not in said.lower()
    said = place.refusal(
        model(
            [helper.make_node("ConcatFromSequence", ["parts"], ["y"], axis=0)],
            [sequence],
            [value("y", [None])],
        )
    )
    assert 'input "parts" is a sequence' in said


def test_an_input_that_no_request_can_give_is_named_with_what_to_do(place: Place) -> None:
    sparse = helper.make_value_info("s", helper.make_sparse_tensor_type_proto(TensorProto.FLOAT, [2]))
    said = place.refusal(model([NEG], [value("x", [2]), sparse], [value("y", [2])]))
    assert 'input "s" is a sparse tensor; only tensors can be served' in said
    optional = helper.make_value_info(
        "o", helper.make_optional_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [2]))
    )
    unpack = helper.make_node("OptionalGetElement", ["o"], ["y"])
    said = place.refusal(model([unpack], [optional], [value("y", [2])]))
    assert 'input "o" is an optional value; only tensors can be served' in said
    said = place.refusal(model([NEG], [value("x", [2]), value("", [1])], [value("y", [2])]))
    assert 'input "" has no name' in said


def test_a_model_without_inputs_is_served_and_says_that_it_takes_nothing(place: Place) -> None:
    own = helper.make_tensor("k", TensorProto.FLOAT, [1], [2.0])
    name = place.serve(
        model([helper.make_node("Neg", ["k"], ["y"])], [], [value("y", [1])], initializer=[own])
    )
    assert place.infer(name, {})["y"]["data"] == [-2]
    path = f"http://{place.gateway.http}/v1/models/{name}:predict"
    assert httpx.post(path, json={"inputs": {}}).json() == {"outputs": [-2]}
    for body, says in (({"inputs": []}, "with nothing"), ({"instances": [1]}, "column form")):
        answer = httpx.post(path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_argument")
        assert says in answer.json()["error"]


def test_a_map_that_the_graph_goes_on_with_stays_one(place: Place) -> None:
    nodes = [
        helper.make_node("ZipMap", ["x"], ["z"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2]),
        helper.make_node("SequenceLength", ["z"], ["count"]),
    ]
    made = model(
        nodes, [value("x", ["n", 3])], [zipped("z"), value("count", [], TensorProto.INT64)], [*OPSETS, ML]
    )
    _, answer = place.apply(made)
    assert (answer.status_code, answer.json()["code"]) == (422, "model_load_failed")

"""ONNX's own node tests as requests: each operator's models with inputs and expected outputs, made by the onnx package.

Run as a program, ``python -m support.node_cases FOLDER``, because making them warns, and because a model that brings ONNX
Runtime down must not bring the tests down. A case is left out, with a reason, when the protocol has no word for one of its
types or when ONNX Runtime itself does not do what the test expects.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, numpy_helper
from onnx.backend.test.loader import load_node_model_tests

from conformance.clients.arrays import to_array, to_tensor
from conformance.clients.exchange import Case, Tensor, read_cases, write_cases
from support.identities import ONNX_TYPES

DATATYPES = {value: name for name, value in ONNX_TYPES.items()}
NO_LOAD, NO_RUN, OTHER = (
    "onnxruntime: cannot load it",
    "onnxruntime: cannot run it",
    "onnxruntime: other results",
)


@dataclass(frozen=True)
class NodeCase:
    """A node test that ONNX Runtime passes."""

    request: Case
    expected: Sequence[Tensor]
    rtol: float
    atol: float


class Excluded(Exception):
    """Why a node test is left out."""


def agrees(got: Tensor, want: Tensor, rtol: float, atol: float) -> bool:
    """Whether an answer is the expected one: floating point within the tolerances, everything else exactly."""
    if (got.name, got.datatype, got.shape) != (want.name, want.datatype, want.shape):
        return False
    if got.datatype not in {"FP16", "BF16", "FP32", "FP64"}:
        return got.data == want.data
    have, expected = (to_array(tensor).astype(np.float64) for tensor in (got, want))
    return bool(np.allclose(have, expected, rtol=rtol, atol=atol, equal_nan=True))


def read(folder: Path) -> tuple[list[NodeCase], dict[str, str]]:
    """What :func:`main` wrote: the cases, and the reasons of those that were left out."""
    facts = json.loads((folder / "facts.json").read_text())
    expected = {case.id: case.inputs for case in read_cases(folder / "expected")}
    cases = [
        NodeCase(case, expected[case.id], *facts["tolerances"][case.id])
        for case in read_cases(folder / "asked")
    ]
    return cases, facts["excluded"]


def model_file(folder: Path, case: str) -> Path:
    """Where the model of a case is, in a folder of its own."""
    return folder / "models" / case / "model.onnx"


def tensor(name: str, value: Any) -> Tensor:
    """A value of a node test as a tensor."""
    array = numpy_helper.to_array(value) if isinstance(value, TensorProto) else np.asarray(value)
    if array.dtype == np.object_ or array.dtype.kind in "US":
        return to_tensor(name, "BYTES", array.astype(np.object_))
    return to_tensor(name, DATATYPES[onnx.helper.np_dtype_to_tensor_dtype(array.dtype)], array)


def check_types(values: Sequence[Any]) -> None:
    """Refuses inputs or outputs that are no tensors of the protocol's types."""
    for value in values:
        kind = value.type.WhichOneof("value")
        if kind != "tensor_type":
            raise Excluded(f"protocol: no {kind.removesuffix('_type')}")
        element = value.type.tensor_type.elem_type
        if element not in DATATYPES:
            raise Excluded(f"protocol: no {TensorProto.DataType.Name(element)}")


def run(model: bytes, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> list[Tensor]:
    """What ONNX Runtime itself makes of the inputs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise Excluded(NO_LOAD) from error
    names = [output.name for output in session.get_outputs()]
    try:
        if "BF16" in {one.datatype for one in (*inputs, *outputs)}:
            values = session.run_with_ort_values(names, {one.name: ort_value(one) for one in inputs})
            return [from_ort_value(name, value) for name, value in zip(names, values, strict=True)]
        found = session.run(names, {one.name: as_fed(one) for one in inputs})
    except Exception as error:
        raise Excluded(NO_RUN) from error
    return [tensor(name, value) for name, value in zip(names, found, strict=True)]


def as_fed(one: Tensor) -> Any:
    """A tensor as ONNX Runtime takes it in Python, where strings are ``str``."""
    array = to_array(one)
    if one.datatype != "BYTES":
        return array
    texts = np.empty(array.shape, np.object_)
    texts.reshape(-1)[:] = [element.decode() for element in array.reshape(-1)]
    return texts


def ort_value(one: Tensor) -> Any:
    """A tensor as a value; BF16, which NumPy lacks, as its bits."""
    array = to_array(one)
    if one.datatype != "BF16":
        return onnxruntime.OrtValue.ortvalue_from_numpy(array)
    bits = array.view(np.uint16)
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, TensorProto.BFLOAT16)


def from_ort_value(name: str, value: Any) -> Tensor:
    """The inverse of :func:`ort_value`."""
    if value.element_type() != TensorProto.BFLOAT16:
        return tensor(name, value.numpy())
    shape = tuple(value.shape())
    bits = ctypes.string_at(value.data_ptr(), 2 * int(np.prod(shape)))
    return tensor(name, np.frombuffer(bits, ml_dtypes.bfloat16).reshape(shape))


def checked(test: Any) -> NodeCase:
    """A node test as a case, if it is one that the protocol can carry and ONNX Runtime passes."""
    graph = test.model.graph
    check_types([*graph.input, *graph.output])
    ((given, wanted),) = test.data_sets
    inputs = [tensor(value.name, one) for value, one in zip(graph.input, given, strict=True)]
    expected = [tensor(value.name, one) for value, one in zip(graph.output, wanted, strict=True)]
    name = test.name.removeprefix("test_")
    case = NodeCase(Case(name, name, inputs), expected, test.rtol, test.atol)
    found = run(test.model.SerializeToString(), inputs, expected)
    if not all(agrees(got, want, case.rtol, case.atol) for got, want in zip(found, expected, strict=True)):
        raise Excluded(OTHER)
    return case


def main() -> None:
    """Writes the models, the requests, the expected answers and the reasons into the folder that is named."""
    folder = Path(sys.argv[1])
    onnxruntime.set_default_logger_severity(4)
    cases, excluded = [], {}
    for name in ("models", "asked", "expected"):
        (folder / name).mkdir()
    for test in load_node_model_tests():
        try:
            case = checked(test)
        except Excluded as reason:
            excluded[test.name] = str(reason)
            continue
        model_file(folder, case.request.id).parent.mkdir()
        model_file(folder, case.request.id).write_bytes(test.model.SerializeToString())
        cases.append(case)
    write_cases(folder / "asked", [case.request for case in cases])
    write_cases(folder / "expected", [Case(case.request.id, "", case.expected) for case in cases])
    tolerances = {case.request.id: (case.rtol, case.atol) for case in cases}
    (folder / "facts.json").write_text(json.dumps({"excluded": excluded, "tolerances": tolerances}))


if __name__ == "__main__":
    main()

"""External data: which other files an ONNX model refers to, and whether they hold the bytes it wants.

The graph is read with the onnx package, its tensors are not. Not here: copying and hashing (``store``).
Format: ``TensorProto.external_data`` in https://github.com/onnx/onnx/blob/main/docs/ExternalData.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from headgate.errors import HeadgateError, ModelLoadFailed
from headgate.registry.manifest import EXTRAS, MANIFEST, MAX_FILES, MODEL, is_inside
from headgate.regular_files import open_regular

MAX_MODEL_BYTES = 2**31 - 1
"""The largest ``model.onnx``: protobuf reads no more; bigger models keep their tensors in external data."""

_MAX_LOCATION = 1024
_MAX_GRAPH_DEPTH = 64


def external_files(model: Path) -> dict[str, int]:
    """The files ``model`` refers to, by relative POSIX path, with the least size in bytes each must have.

    Raises ``ModelLoadFailed`` when the file is not an ONNX model, or a path is absolute, holds ``..`` or
    clashes with a file the artifact has anyway.
    """
    try:
        return _external_files(model)
    except HeadgateError:
        raise
    except Exception as error:
        # The file is anybody's: text that is no UTF-8, types that do not fit, whatever protobuf makes of them.
        raise ModelLoadFailed(f"{MODEL} cannot be understood: {error}") from error


def _external_files(model: Path) -> dict[str, int]:
    if model.stat().st_size > MAX_MODEL_BYTES:
        raise ModelLoadFailed(f"{MODEL} has more than 2 GiB: save it with external data")
    try:
        with open_regular(model) as file:
            proto = onnx.load_model_from_string(file.read())
    except DecodeError:
        raise ModelLoadFailed(f"{MODEL} is not an ONNX model, or not whole: it cannot be decoded") from None
    if not proto.opset_import or not proto.graph.output:
        raise ModelLoadFailed(
            f"{MODEL} is not an ONNX model, or not whole: it names no operator set or no output"
        )
    needed: dict[str, int] = {}
    for tensor in _tensors(proto):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        location, end = _place(tensor)
        needed[location] = max(needed.get(location, 0), end)
        if len(needed) > MAX_FILES - len(EXTRAS) - 1:
            raise ModelLoadFailed(f"{MODEL} refers to more than {MAX_FILES} files")
    return needed


def _place(tensor: onnx.TensorProto) -> tuple[str, int]:
    fields = {entry.key: entry.value for entry in tensor.external_data}
    what = f"tensor {tensor.name[:100]!r} of {MODEL}"
    location = fields.get("location", "")
    if len(location) > _MAX_LOCATION or not is_inside(location) or "\\" in location:
        raise ModelLoadFailed(
            f"{what} refers to external data at {location[:200]!r}; it must be a relative path below the model's "
            'folder, without ".."'
        )
    path = PurePosixPath(location).as_posix()
    if path in (MODEL, MANIFEST, *EXTRAS):
        raise ModelLoadFailed(
            f"{what} keeps its external data in {path!r}, a name that is taken; rename that file"
        )
    try:
        offset, length = int(fields.get("offset", "0")), int(fields.get("length", "0"))
    except ValueError:
        raise ModelLoadFailed(f"{what} has an external data offset or length that is not a number") from None
    if offset < 0 or length < 0:
        raise ModelLoadFailed(f"{what} has a negative external data offset or length")
    return path, offset + length


def _tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of the model: initializers, attributes, subgraphs, functions, training graphs."""
    yield from _of_graph(proto.graph, 0)
    for function in proto.functions:
        yield from _of_nodes(function.node, 0)
        yield from _of_attributes(function.attribute_proto, 0)
    for training in proto.training_info:
        yield from _of_graph(training.initialization, 0)
        yield from _of_graph(training.algorithm, 0)


def _of_graph(graph: onnx.GraphProto, depth: int) -> Iterator[onnx.TensorProto]:
    if depth > _MAX_GRAPH_DEPTH:
        raise ModelLoadFailed(f"{MODEL} nests graphs deeper than {_MAX_GRAPH_DEPTH}")
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _of_nodes(graph.node, depth)


def _of_nodes(nodes: Iterable[onnx.NodeProto], depth: int) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        yield from _of_attributes(node.attribute, depth)


def _of_attributes(attributes: Iterable[onnx.AttributeProto], depth: int) -> Iterator[onnx.TensorProto]:
    for attribute in attributes:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        if attribute.HasField("sparse_tensor"):
            yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)
        for sparse in attribute.sparse_tensors:
            yield from (sparse.values, sparse.indices)
        if attribute.HasField("g"):
            yield from _of_graph(attribute.g, depth + 1)
        for graph in attribute.graphs:
            yield from _of_graph(graph, depth + 1)

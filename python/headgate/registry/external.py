"""External data: which other files an ONNX model refers to, and whether they hold the bytes it wants.

The graph is walked in the file and its tensors are skipped (``wire``). Not here: copying and hashing (``store``).
Formats: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto, and for ``TensorProto.external_data``
https://github.com/onnx/onnx/blob/main/docs/ExternalData.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from headgate.errors import HeadgateError, ModelLoadFailed
from headgate.registry.manifest import EXTRAS, MANIFEST, MAX_FILES, MODEL, is_inside
from headgate.registry.wire import Malformed, MessageFile, Span
from headgate.regular_files import open_regular

_MAX_LOCATION = 1024
_MAX_TEXT_BYTES = 8 * _MAX_LOCATION
_MAX_GRAPH_DEPTH = 64

_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
"""By message, the fields that hold a tensor, or lead to one."""
_OPSET_IMPORT, _GRAPH, _GRAPH_OUTPUT = 8, 7, 12
_TENSOR_NAME, _EXTERNAL_DATA, _DATA_LOCATION = 8, 13, 14
_EXTERNAL = 1
_KEY, _VALUE = 1, 2


def external_files(model: Path) -> dict[str, int]:
    """The files ``model`` refers to, by relative POSIX path, with the least size in bytes each must have.

    Raises ``ModelLoadFailed`` when the file is not an ONNX model, or a path is absolute, holds ``..`` or
    clashes with a file the artifact has anyway.
    """
    try:
        with open_regular(model) as file:
            return _external_files(MessageFile(file))
    except HeadgateError:
        raise
    except Malformed:
        raise ModelLoadFailed(f"{MODEL} is not an ONNX model, or not whole: it cannot be decoded") from None
    except (OSError, ValueError) as error:
        # The file is anybody's: text that is no UTF-8 among it.
        raise ModelLoadFailed(f"{MODEL} cannot be understood: {error}") from error


def _external_files(file: MessageFile) -> dict[str, int]:
    _check_is_model(file)
    needed: dict[str, int] = {}
    for tensor in _tensors(file):
        found = _place(file, tensor)
        if found is None:
            continue
        location, end = found
        needed[location] = max(needed.get(location, 0), end)
        if len(needed) > MAX_FILES - len(EXTRAS) - 1:
            raise ModelLoadFailed(f"{MODEL} refers to more than {MAX_FILES} files")
    return needed


def _check_is_model(file: MessageFile) -> None:
    has_opset = has_output = False
    for number, value in file.fields(file.whole()):
        has_opset = has_opset or number == _OPSET_IMPORT
        if number == _GRAPH and isinstance(value, Span):
            has_output = has_output or any(field == _GRAPH_OUTPUT for field, _ in file.fields(value))
    if not (has_opset and has_output):
        raise ModelLoadFailed(
            f"{MODEL} is not an ONNX model, or not whole: it names no operator set or no output"
        )


def _tensors(file: MessageFile) -> Iterator[Span]:
    """Every tensor of the model: initializers, attributes, subgraphs, functions, training graphs."""
    open_messages = [("model", file.fields(file.whole()))]
    while open_messages:
        kind, rest = open_messages[-1]
        for number, value in rest:
            child = _CHILDREN[kind].get(number)
            if child is None or not isinstance(value, Span):
                continue
            if child == "tensor":
                yield value
                continue
            open_messages.append((child, file.fields(value)))
            if sum(kind == "graph" for kind, _ in open_messages) > _MAX_GRAPH_DEPTH + 1:
                raise ModelLoadFailed(f"{MODEL} nests graphs deeper than {_MAX_GRAPH_DEPTH}")
            break
        else:
            open_messages.pop()


def _place(file: MessageFile, tensor: Span) -> tuple[str, int] | None:
    """Where a tensor lies and where it ends there; None for one whose bytes are in the model."""
    name, entries, is_external = Span(0, 0), [], False
    for number, value in file.fields(tensor):
        if number == _DATA_LOCATION:
            is_external = value == _EXTERNAL
        elif number == _EXTERNAL_DATA and isinstance(value, Span):
            entries.append(value)
        elif number == _TENSOR_NAME and isinstance(value, Span):
            name = value
    if not is_external:
        return None
    named = file.read(name, _MAX_TEXT_BYTES).decode(errors="replace")
    what = f"tensor {named[:100]!r} of {MODEL}"
    return _checked(dict(_entry(file, entry) for entry in entries), what)


def _entry(file: MessageFile, entry: Span) -> tuple[str, str]:
    """A key and its value."""
    texts = {
        number: file.read(value, _MAX_TEXT_BYTES).decode()
        for number, value in file.fields(entry)
        if isinstance(value, Span) and number in (_KEY, _VALUE)
    }
    return texts.get(_KEY, ""), texts.get(_VALUE, "")


def _checked(entries: dict[str, str], what: str) -> tuple[str, int]:
    location = entries.get("location", "")
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
        offset, length = int(entries.get("offset", "0")), int(entries.get("length", "0"))
    except ValueError:
        raise ModelLoadFailed(f"{what} has an external data offset or length that is not a number") from None
    if offset < 0 or length < 0:
        raise ModelLoadFailed(f"{what} has a negative external data offset or length")
    return path, offset + length

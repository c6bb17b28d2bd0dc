"""What a model's tensors look like to a baseline: which features they have, their names and kinds. Pure.

A signature is the data plane's JSON, ``{"inputs": [{"name", "datatype", "shape"}], "outputs": [...]}``,
shapes with the batch dimension first and -1 where it is not fixed. Next: ``loading``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from headgate.documents.faults import did_you_mean, quoted

MAX_FEATURES = 4096
"""Features per tensor that are compared; larger tensors have sampled row statistics only."""

_INTEGER = frozenset({"BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"})
_NUMERIC = _INTEGER | {"FP16", "BF16", "FP32", "FP64"}


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output; ``features`` per row is None when its shape leaves it open."""

    name: str
    direction: Literal["input", "output"]
    datatype: str
    shape: tuple[int, ...]
    features: int | None

    @property
    def integer(self) -> bool:
        """Whether its values are whole numbers or bools."""
        return self.datatype in _INTEGER


class Layout:
    """The tensors of a signature, with the document's column names; messages name what is there instead."""

    def __init__(self, signature: Mapping[str, Any], columns: Mapping[str, Sequence[str]]) -> None:
        self.columns = columns
        self.tensors: dict[str, Tensor] = {}
        directions: tuple[tuple[str, Literal["input", "output"]], ...] = (
            ("inputs", "input"),
            ("outputs", "output"),
        )
        for key, direction in directions:
            for entry in signature[key]:
                shape = tuple(dim if isinstance(dim, int) else -1 for dim in entry["shape"])
                row = shape[1:]
                features = math.prod(row) if all(dim >= 0 for dim in row) else None
                tensor = Tensor(entry["name"], direction, entry["datatype"], shape, features)
                self.tensors.setdefault(tensor.name, tensor)

    @property
    def first_input(self) -> Tensor:
        """The model's first input; ``ValueError`` when it has none."""
        for tensor in self.tensors.values():
            if tensor.direction == "input":
                return tensor
        raise ValueError("the model has no input that a baseline could describe")

    def tensor(self, name: str) -> Tensor:
        """The numeric tensor ``name``; ``ValueError`` naming the nearest when there is none."""
        tensor = self.tensors.get(name)
        if tensor is None:
            raise ValueError(f"the model has no tensor {quoted(name)}; {did_you_mean(name, self.tensors)}")
        if tensor.datatype not in _NUMERIC:
            raise ValueError(
                f"tensor {quoted(name)} is {tensor.datatype}; baselines of it are not supported yet"
            )
        return tensor

    def column(self, tensor: Tensor, index: int) -> str:
        """The name of one feature: the document's, or its position as text where none is given."""
        names = self.columns.get(tensor.name)
        return names[index] if names is not None else str(index)

    def check_features(self, tensor: Tensor, features: int, shape: tuple[int, ...]) -> None:
        """``ValueError`` unless an array of ``shape`` has the features per row that model and document
        expect."""
        expected = tensor.features
        names = self.columns.get(tensor.name)
        if expected is not None and features != expected:
            raise ValueError(
                f"array {quoted(tensor.name)} has shape {list(shape)}: {features} values per row; the model takes "
                f"shape {list(tensor.shape)}, so [rows, {expected}] is expected"
            )
        if names is not None and features != len(names):
            raise ValueError(
                f"array {quoted(tensor.name)} has shape {list(shape)}: {features} values per row, but "
                f"columns.{tensor.name} names {len(names)}"
            )
        if features > MAX_FEATURES:
            raise ValueError(
                f"array {quoted(tensor.name)} has {features} values per row; {MAX_FEATURES} can be compared"
            )

    def by_header(self) -> dict[str, list[tuple[Tensor, int]]]:
        """Where each possible CSV header leads: the document's column names, bare or as ``tensor.column``.

        A tensor of one value per row without column names answers to its own name.
        """
        out: dict[str, list[tuple[Tensor, int]]] = {}
        for tensor in self.tensors.values():
            names = self.columns.get(tensor.name)
            if names is None:
                if tensor.features == 1:
                    out.setdefault(tensor.name, []).append((tensor, 0))
                continue
            for index, name in enumerate(names):
                out.setdefault(name, []).append((tensor, index))
                out.setdefault(f"{tensor.name}.{name}", []).append((tensor, index))
        return out

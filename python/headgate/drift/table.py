"""CSV samples: a header of column names, numbers below, empty cells missing.

Next: ``fitting``.
"""

from __future__ import annotations

import csv
from array import array
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from headgate.documents.faults import did_you_mean, quoted
from headgate.drift.layout import Layout, Tensor

MAX_FAULTS = 20
"""How many bad cells are reported."""

_WORDS = {"": float("nan"), "true": 1.0, "false": 0.0}

Place = tuple[Tensor, int]


def read_table(
    lines: Iterable[str], layout: Layout, max_values: int
) -> tuple[list[Place], list[NDArray[np.float64]]]:
    """The places the header's columns have in the model, and the values of each.

    Raises ``ValueError`` with one argument for each fault: unknown, doubled or missing columns, cells that
    are no numbers, rows of another length.
    """
    reader = csv.reader(lines, strict=True)
    try:
        header = next(reader, None)
        if header is None:
            raise ValueError("is empty; the first line names the columns")
        places = _places([name.strip() for name in header], layout)
        values = _rows(reader, header, max_values)
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num} is not CSV: {error}") from None
    return places, [np.frombuffer(column, dtype=np.float64) for column in values]


def _places(header: list[str], layout: Layout) -> list[Place]:
    known = layout.by_header()
    faults: list[str] = []
    places: list[Place] = []
    for name in header:
        candidates = known.get(name, [])
        if len(candidates) == 1:
            if candidates[0] in places:
                faults.append(f"column {quoted(name)} comes twice")
            places.append(candidates[0])
        elif candidates:
            options = ", ".join(f"{tensor.name}.{name}" for tensor, _ in candidates)
            faults.append(
                f"column {quoted(name)} could be any of {options}; write one of these in the header"
            )
        else:
            bare = [key for key, at in known.items() if len(at) == 1]
            faults.append(
                f"column {quoted(name)} is not among the document's columns; {did_you_mean(name, bare)}"
            )
    faults += _missing(places, layout) if not faults else []
    if faults:
        raise ValueError(*faults[:MAX_FAULTS])
    for tensor in dict.fromkeys(tensor for tensor, _ in places):
        width = sum(1 for other, _ in places if other == tensor)
        layout.check_features(layout.tensor(tensor.name), width, (-1, width))
    return places


def _missing(places: list[Place], layout: Layout) -> list[str]:
    """A tensor is described whole or not at all."""
    out: list[str] = []
    for tensor in dict.fromkeys(tensor for tensor, _ in places):
        have = {index for other, index in places if other == tensor}
        names = layout.columns.get(tensor.name, ())
        out += [
            f"column {quoted(name)} of tensor {quoted(tensor.name)} is missing; its other columns are there"
            for index, name in enumerate(names)
            if index not in have
        ]
    return out


def _rows(reader: Iterable[list[str]], header: list[str], max_values: int) -> list[array[float]]:
    columns = [array("d") for _ in header]
    faults: list[str] = []
    left = max_values
    for number, row in enumerate(reader, start=2):
        if not row:
            continue
        left -= len(header)
        if left < 0:
            raise ValueError(f"has more than {max_values} values")
        if len(row) != len(header):
            faults.append(f"row {number} has {len(row)} cells; the header has {len(header)}")
        else:
            for column, name, cell in zip(columns, header, row, strict=True):
                value = _number(cell)
                if value is None:
                    faults.append(f"row {number}, column {quoted(name)}: {quoted(cell)} is not a number")
                else:
                    column.append(value)
        if len(faults) >= MAX_FAULTS:
            break
    if faults:
        raise ValueError(*faults[:MAX_FAULTS])
    return columns


def _number(cell: str) -> float | None:
    text = cell.strip()
    try:
        return float(text) if "_" not in text else None
    except ValueError:
        return _WORDS.get(text.lower())

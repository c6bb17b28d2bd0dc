"""Tensors between a test and a client in another environment: files in one folder, and one line of JSON as the answer.

Both sides import this, so it needs nothing but the standard library. Tensors are bytes here, as the protocol has them in
binary data; as arrays they are in ``arrays``. What a client does with a case stands in the module named after it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CASES, SENT, ANSWERED = "cases.json", "sent.bin", "answered.bin"


@dataclass(frozen=True)
class Tensor:
    """A tensor: little-endian, row by row; BYTES as length and bytes of each element."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class Case:
    """One inference request."""

    id: str
    model: str
    inputs: Sequence[Tensor]
    outputs: Sequence[str] = ()
    """The outputs to ask for; none asks for all."""
    modes: Sequence[str] = ()
    """The client's modes that it is for; none is all of them."""


@dataclass(frozen=True)
class Failure:
    """No answer, and what the client said instead."""

    error: str


#: An answer or an exception for each case, in any order.
Results = Iterator[tuple[Case, Sequence[Tensor] | BaseException]]
#: A client's way to ask.
Mode = Callable[[Sequence[Case]], Results]


class _Blobs:
    """Tensors one behind the other in a file, described by where they are."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("wb")

    def add(self, tensor: Tensor) -> dict[str, Any]:
        offset = self.file.tell()
        self.file.write(tensor.data)
        place = {"offset": offset, "size": len(tensor.data)}
        return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape), **place}


def _read(described: Mapping[str, Any], blobs: bytes) -> Tensor:
    end = described["offset"] + described["size"]
    shape = tuple(described["shape"])
    return Tensor(described["name"], described["datatype"], shape, blobs[described["offset"] : end])


def write_cases(folder: Path, cases: Iterable[Case]) -> None:
    """Lays the requests out for a client; the test's side."""
    blobs = _Blobs(folder / SENT)
    with blobs.file:
        described = [
            {"id": case.id, "model": case.model, "inputs": [blobs.add(tensor) for tensor in case.inputs]}
            | {"outputs": list(case.outputs), "modes": list(case.modes)}
            for case in cases
        ]
    (folder / CASES).write_text(json.dumps(described))


def read_answers(folder: Path, printed: Mapping[str, Any]) -> dict[tuple[str, str], list[Tensor] | Failure]:
    """What a client was answered, by mode and case; the test's side."""
    blobs = (folder / ANSWERED).read_bytes()
    found: dict[tuple[str, str], list[Tensor] | Failure] = {}
    for mode, answers in printed.items():
        for case, answer in answers.items():
            if isinstance(answer, str):
                found[mode, case] = Failure(answer)
            else:
                found[mode, case] = [_read(tensor, blobs) for tensor in answer]
    return found


def read_cases(folder: Path) -> list[Case]:
    """The requests; the client's side."""
    blobs = (folder / SENT).read_bytes()
    return [
        Case(
            described["id"],
            described["model"],
            [_read(tensor, blobs) for tensor in described["inputs"]],
            described["outputs"],
            described["modes"],
        )
        for described in json.loads((folder / CASES).read_text())
    ]


def one_by_one(ask: Callable[[Case], Sequence[Tensor]]) -> Mode:
    """A mode that waits for every answer before it asks again."""

    def mode(cases: Sequence[Case]) -> Results:
        for case in cases:
            try:
                yield case, ask(case)
            except Exception as error:
                yield case, error

    return mode


def answer(folder: Path, modes: Mapping[str, Mode]) -> None:
    """Asks all cases in all modes and prints the line that :func:`read_answers` takes; the client's side."""
    cases = read_cases(folder)
    blobs = _Blobs(folder / ANSWERED)
    told: dict[str, dict[str, Any]] = {}
    with blobs.file:
        for name, mode in modes.items():
            told[name] = {}
            for case, result in mode([case for case in cases if not case.modes or name in case.modes]):
                if isinstance(result, BaseException):
                    told[name][case.id] = f"{type(result).__name__}: {result}"[:500]
                else:
                    told[name][case.id] = [blobs.add(tensor) for tensor in result]
    print(json.dumps(told))


def arguments() -> argparse.Namespace:
    """What every client is told: ``--http`` and ``--grpc`` as ``host:port``, and the folder of the cases or another task."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--http", default="")
    parser.add_argument("--grpc", default="")
    parser.add_argument("--folder", type=Path, default=Path())
    parser.add_argument("--task", default="answer")
    return parser.parse_args()

"""What a start of many unchanged endpoints costs, in counts: statements, transactions, hashed files. None of it grows with the square
of the endpoints, and statements do not grow at all.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import pytest
from sqlalchemy import Engine, event

from headgate.gateway.models_folder import ModelsFolder
from headgate.registry import source as sources
from headgate.registry import store as artifacts
from unit.control_harness import Gate, gateway

MODEL = Path(__file__).resolve().parents[2] / "models" / "identity_fp32.onnx"
FEW, MANY = 3, 23
_MORE = (MANY - FEW) // 2
"""Statements that a start may take more for many endpoints: loops that run behind it come sooner or later."""


def models(root: Path, count: int) -> Path:
    """A folder of so many endpoints, each with bytes of its own."""
    for number in range(count):
        path = root / f"m{number:03}" / "1" / "model.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            model = onnx.load(MODEL)
            model.doc_string = str(number)
            onnx.save(model, path)
    return root


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """What is done inside the block: ``statement``, ``begin``, and ``hash`` and ``read`` of files of artifacts and of the folder."""
    count: Counter[str] = Counter()

    def statement(*_: Any) -> None:
        count["statement"] += 1

    def begin(*_: Any) -> None:
        count["begin"] += 1

    hashed, read = artifacts._hash, sources.read

    def hash_(path: Path) -> Any:
        count["hash"] += 1
        return hashed(path)

    def read_(*arguments: Any, **named: Any) -> Any:
        count["read"] += 1
        return read(*arguments, **named)

    event.listen(Engine, "before_cursor_execute", statement)
    event.listen(Engine, "begin", begin)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(artifacts, "_hash", hash_)
            patched.setattr(sources, "read", read_)
            yield count
    finally:
        event.remove(Engine, "before_cursor_execute", statement)
        event.remove(Engine, "begin", begin)


async def started(folder: Path) -> tuple[Gate, int]:
    """Starts on what is stored and on the folder; how many endpoints are served."""
    async with gateway(folder) as gate:
        await ModelsFolder(folder / "models", gate.control).sync()
        # What runs behind a start runs in the same minute.
        await gate.control._maintenance.retention.drop()
        return gate, sum(state.loaded != frozenset() for state in gate.control._endpoints.values())


def cost(folder: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Of a start with so many endpoints that were served before, unchanged."""
    models(folder / "models", count)
    assert asyncio.run(started(folder))[1] == count
    with counted(monkeypatch) as found:
        gate, served = asyncio.run(started(folder))
    assert served == count
    assert [applied["revision"] for applied in gate.native.applied] == [1] * count
    return found


def test_statements_of_a_start_do_not_grow_with_unchanged_endpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, many = cost(tmp_path, FEW, monkeypatch), cost(tmp_path, MANY, monkeypatch)
    assert few["statement"] > 0
    assert many["statement"] - few["statement"] <= _MORE
    assert many["begin"] - few["begin"] <= _MORE


def test_each_file_is_hashed_once_where_it_is_stored_and_once_where_it_came_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = cost(tmp_path, MANY, monkeypatch)
    assert (found["hash"], found["read"]) == (MANY, MANY)

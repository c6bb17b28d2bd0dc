"""The pure functions of the data plane that planning uses: JSON in, JSON out. Next: predictors.py, pairs.py."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def simulate_batches(question: Mapping[str, Any]) -> Mapping[str, Any]:
    """The engine's batch policy in virtual time."""
    return _called("simulate_batches", json.dumps(question))


def statistics(function: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """A function of ``core::stats`` by its name."""
    return _called("bench_statistics", function, json.dumps(arguments))


def _called(name: str, *arguments: str) -> Mapping[str, Any]:
    # Imported here: a report of a file needs no data plane.
    from headgate import _native

    answer: Mapping[str, Any] = json.loads(getattr(_native, name)(*arguments))
    return answer

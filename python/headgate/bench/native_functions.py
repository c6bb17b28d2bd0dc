"""The pure functions of the data plane that planning uses: JSON in, JSON out. Next: predictors.py, pairs.py."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def simulate_batches(question: Mapping[str, Any]) -> Mapping[str, Any]:
    """The engine's batch policy in virtual time."""
    # Imported here, as below: a report of a file needs no data plane.
    from headgate import _native

    answer: Mapping[str, Any] = json.loads(_native.simulate_batches(json.dumps(question)))
    return answer


def statistics(function: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """A function of ``core::stats`` by its name."""
    from headgate import _native

    answer: Mapping[str, Any] = json.loads(_native.bench_statistics(function, json.dumps(arguments)))
    return answer

"""The boundary to the generator: what of ``headgate._native`` a measurement calls. JSON goes in, JSON comes out.

The tests hand in a generator of their own (``tests/support/virtual_load.py``). Next: ``measuring``.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from typing import Any, Protocol, cast

from headgate.bench import far_within
from headgate.bench.results import Answer
from headgate.errors import Unsupported


class Run(Protocol):
    """One load; ``LoadRun`` of the data plane."""

    def start(self) -> None:
        """Begins."""

    def look(self, question: str) -> str:
        """What there is so far, at any time."""

    def wait(self, timeout_ns: int) -> bool:
        """Waits; True when the load has finished."""

    def stop(self) -> None:
        """Sends nothing more; what is in flight is awaited."""

    def result(self, question: str) -> str:
        """As ``look``, with slices and histograms, when finished."""


class Generator(Protocol):
    """What makes loads."""

    def load_run(self, plan: str, bodies: Sequence[bytes]) -> Run:
        """A load of that plan; :class:`InvalidArgument` with the path of a fault."""

    def encode_grpc(self, envelope: str, raw_inputs: Sequence[bytes]) -> bytes:
        """A ``ModelInferRequest``."""

    def selftest(self, question: str) -> str:
        """A load against an in-process echo."""


class NativeGenerator:
    """The one of the data plane."""

    def __init__(self) -> None:
        try:
            self._native: Any = importlib.import_module("headgate._native")
        except ModuleNotFoundError as error:
            if error.name != "headgate._native":
                raise
            raise Unsupported(
                "headgate._native is missing: this source tree was not built; run `make serve`, or install a wheel"
            ) from error

    def load_run(self, plan: str, bodies: Sequence[bytes]) -> Run:
        """A load of that plan; :class:`InvalidArgument` with the path of a fault."""
        return cast(Run, self._native.LoadRun(plan, bodies))

    def encode_grpc(self, envelope: str, raw_inputs: Sequence[bytes]) -> bytes:
        """A ``ModelInferRequest``."""
        return cast(bytes, self._native.encode_grpc_infer(envelope, raw_inputs))

    def selftest(self, question: str) -> str:
        """A load against an in-process echo."""
        return cast(str, self._native.bench_selftest(question))


def answer_of(text: str) -> Answer:
    """The generator's answer, with the verdicts of objectives that are met by far."""
    return far_within.judged(Answer.model_validate(json.loads(text)))

"""The data plane as the control plane sees it: one protocol, and the adapter that joins a gateway with its module.

Not here: what the JSON means in full (``docs/design/boundary.md``). Next: ``tickets``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, cast

from headgate.control.domain.shares import Table
from headgate.errors import ModelLoadFailed

if TYPE_CHECKING:
    from headgate import _native


class DataPlane(Protocol):
    """What control calls; bytes are JSON."""

    def event_fd(self) -> int:
        """Readable while :meth:`events` has something."""

    def events(self) -> bytes:
        """What happened since the last call, oldest first."""

    def apply(self, endpoint: bytes) -> int:
        """Asks for an endpoint's new state; the ticket of its event."""

    def remove(self, name: str) -> int:
        """Asks for an endpoint to be taken away; the ticket of its event."""

    def mark_unavailable(self, name: str, reason: str) -> None:
        """Says why an endpoint is not served, so that calls are told."""

    def set_refusals(self, refused: bytes) -> None:
        """Says of which endpoints and versions nothing was ever served and why, in the place of what was said before."""

    def dry_run(self, endpoint: bytes) -> bytes:
        """What :meth:`apply` would refuse, as far as that shows without running a model."""

    def cancel(self, name: str) -> None:
        """Ends the loads of an endpoint that are on their way, but for urgent ones."""

    def withdraw(self, ticket: int) -> bool:
        """Takes back what :meth:`apply` was asked for; False: it is too late, and its event is there or about to be."""

    def status(self, endpoint: str | None = None) -> bytes:
        """What is live, of all endpoints or of one."""

    def totals(self) -> bytes:
        """What was counted of each version."""

    def drift(self, endpoint: str, window_seconds: int) -> bytes:
        """The drift report."""

    def start_replay(self, endpoint: str, request: bytes) -> bytes:
        """Begins a replay of captured requests; its report so far. Reads files."""

    def replays(self, endpoint: str) -> bytes:
        """The reports of an endpoint's replays, newest first."""

    def cancel_replay(self, endpoint: str, replay: int) -> bytes:
        """Ends a replay."""

    def trial(self, endpoint: str, whole: bool) -> bytes:
        """The newest trial of an endpoint, and in short those before it."""

    def trials(self) -> bytes:
        """Every trial in memory with the number of its newest change."""

    def stored_trial(self, endpoint: str, begun_ms: int) -> tuple[bytes, bytes] | None:
        """The state of a trial for the store: its ledger and its units."""

    def restore_trial(self, endpoint: str, ledger: bytes, units: bytes) -> None:
        """Gives a stored trial back, before the endpoint is applied."""

    def set_trial_thresholds(self, endpoint: str, thresholds: bytes) -> int:
        """Begins another window of a trial, whose first requests are compared with these thresholds."""

    def judge(self, evidence: str, question: str) -> str:
        """The verdicts on a trial; computes, and asks no endpoint."""

    def latency_thresholds(self, evidence: str, question: str) -> str:
        """The thresholds for the next window of a trial."""

    def gate_power(self, requests: int, exposure: float, base: float, threshold: float) -> str:
        """What so many requests of a challenger show."""

    def shadows(self, endpoint: str) -> bytes:
        """The report on the shadows of an endpoint."""

    def set_weights(self, table: bytes, weights: bytes) -> bytes:
        """Moves slots."""

    def explain_route(self, endpoint: bytes, request: bytes) -> bytes:
        """Which version a hypothetical request gets from an endpoint's state."""

    def fit_baseline(self, columns: bytes, values: Sequence[object]) -> bytes:
        """Fits a baseline."""

    def inspect(self, model: str) -> dict[str, Any]:
        """The signature of a model file: ``{"inputs": [...], "outputs": [...]}``, and ``optional_inputs`` if there are any."""


class Native:
    """A started ``_native.Gateway`` and the functions of ``_native`` as one :class:`DataPlane`."""

    def __init__(self, gateway: _native.Gateway, module: ModuleType, library: str | None) -> None:
        """``library`` is the ONNX Runtime library; None: only constants can be served."""
        self._gateway = gateway
        self._module = module
        self._library = library
        self.event_fd = gateway.event_fd
        self.events = gateway.events
        self.apply = gateway.apply
        self.remove = gateway.remove
        self.cancel = gateway.cancel
        self.withdraw = gateway.withdraw
        self.mark_unavailable = gateway.mark_unavailable
        self.set_refusals = gateway.set_refusals
        self.dry_run = gateway.dry_run
        self.status = gateway.status
        self.drift = gateway.drift
        self.shadows = gateway.shadows
        self.totals = gateway.totals
        self.start_replay = gateway.start_replay
        self.replays = gateway.replays
        self.cancel_replay = gateway.cancel_replay
        self.trial = gateway.trial
        self.trials = gateway.trials
        self.set_trial_thresholds = gateway.set_trial_thresholds
        self.stored_trial = gateway.stored_trial
        self.restore_trial = gateway.restore_trial

    def judge(self, evidence: str, question: str) -> str:
        """The verdicts on a trial."""
        return cast(str, self._module.judge(evidence, question))

    def latency_thresholds(self, evidence: str, question: str) -> str:
        """The thresholds for the next window of a trial."""
        return cast(str, self._module.latency_thresholds(evidence, question))

    def gate_power(self, requests: int, exposure: float, base: float, threshold: float) -> str:
        """What so many requests of a challenger show."""
        return cast(str, self._module.gate_power(requests, exposure, base, threshold))

    def set_weights(self, table: bytes, weights: bytes) -> bytes:
        """Moves slots."""
        return cast(bytes, self._module.set_weights(table, weights))

    def explain_route(self, endpoint: bytes, request: bytes) -> bytes:
        """Which version a hypothetical request gets from an endpoint's state."""
        return cast(bytes, self._module.explain_route(endpoint, request))

    def fit_baseline(self, columns: bytes, values: Sequence[object]) -> bytes:
        """Fits a baseline."""
        return cast(bytes, self._module.fit_baseline(columns, values))

    def inspect(self, model: str) -> dict[str, Any]:
        """The signature of a model file; :class:`ModelLoadFailed` without ONNX Runtime."""
        if self._library is None:
            raise ModelLoadFailed("no ONNX Runtime library: install headgate[cpu] or headgate[gpu]")
        signature: dict[str, Any] = json.loads(self._module.inspect_model(self._library, model))
        return signature


Status = dict[str, Any]
"""``_native.Gateway.status()`` of one endpoint."""


def statuses_of(status: bytes) -> dict[str, Status]:
    """What the data plane says about each endpoint that it knows."""
    found: dict[str, Status] = json.loads(status).get("endpoints", {})
    return found


def status_of(status: bytes, endpoint: str) -> Status:
    """What the data plane says about one endpoint; empty when it does not know it."""
    return statuses_of(status).get(endpoint, {})


def requests_of(status: Status) -> dict[str, int]:
    """Requests answered by each version since it was loaded."""
    return {name: int(version.get("requests", 0)) for name, version in status.get("versions", {}).items()}


def slot_arithmetic(plane: DataPlane) -> _SetWeights:
    """The ``SetWeights`` of the pure functions, answered by the data plane."""

    def set_weights(table: Table, weights: Mapping[str, int]) -> Table:
        asked = json.dumps({"salt": table.salt, "given": [list(run) for run in table.given]})
        answer = json.loads(plane.set_weights(asked.encode(), json.dumps(dict(weights)).encode()))["table"]
        return Table(answer["salt"], tuple((run[0], run[1], run[2]) for run in answer["given"]))

    return set_weights


class _SetWeights(Protocol):
    def __call__(self, table: Table, weights: Mapping[str, int], /) -> Table: ...

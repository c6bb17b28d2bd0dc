"""The contract between the Rust data plane and the Python control plane.

JSON bytes, strings and integers go in; JSON bytes come out. Every call that may wait releases the GIL.
No call ever calls back into Python. Errors are raised as the classes of :mod:`headgate.errors`.
"""

import os
from collections.abc import Sequence
from typing import final

__version__: str

@final
class Gateway:
    """The data plane of one process: created idle, started once, stopped once."""

    def __new__(cls, config: bytes) -> Gateway:
        """Checks ``config`` (JSON, see ``docs/design/boundary.md``); starts nothing."""

    def start(self, http_fd: int | None = None, grpc_fd: int | None = None) -> bytes:
        """Binds the sockets and starts the threads; JSON ``{"http": "127.0.0.1:8000", "grpc": "127.0.0.1:8001"}``, ``grpc``
        null where the configuration names no second port. A descriptor is that of a socket that is bound already; it stays
        the caller's."""

    def event_fd(self) -> int:
        """A file descriptor that is readable while :meth:`events` has something; owned by the gateway."""

    def events(self) -> bytes:
        """Drains what happened since the last call: a JSON array, oldest first."""

    def apply(self, endpoint: bytes) -> int:
        """Asks for one endpoint's new state (JSON) and returns the ticket of the event that will tell the outcome."""

    def remove(self, name: str) -> int:
        """Asks for an endpoint to be taken away and returns the ticket."""

    def mark_unavailable(self, name: str, reason: str) -> None:
        """Says why an endpoint is not served: calls get ``model_not_ready`` with it. Nothing for one that is served."""

    def set_refusals(self, refused: bytes) -> None:
        """Says of which endpoints and versions nothing was ever served and why (JSON ``{endpoint: {version: why}}``; the version is
        empty for a whole endpoint), in the place of what was said before."""

    def dry_run(self, endpoint: bytes) -> bytes:
        """What :meth:`apply` would refuse the same argument for, as far as that shows without running a model: JSON
        ``{"refused": {"version", "code", "message"} or null, "unopened": [...]}``. Serves nothing."""

    def cancel(self, name: str) -> None:
        """Ends the loads of an endpoint that are on their way, but for urgent ones: each is ``superseded``."""

    def withdraw(self, ticket: int) -> bool:
        """Takes back what :meth:`apply` was asked for. True: it is not served and never will be, and its event is ``superseded``; False:
        it is too late, its event is there or about to be. Loads of other tickets go on."""

    def status(self, endpoint: str | None = None) -> bytes:
        """What is live: generation, endpoints (or one of them), versions with state, placement and run times (JSON)."""

    def not_ready_reasons(self) -> list[str]:
        """Why no traffic should come, as far as the data plane knows: threads that do not come back from their runs."""

    def exposition(self, open_metrics: bool, compact: bool) -> bytes:
        """All metric families as text: OpenMetrics' without its end mark, or Prometheus'; ``compact`` has histograms of endpoints only."""

    def metrics(self) -> bytes:
        """All metric families with their samples (JSON)."""

    def totals(self) -> bytes:
        """What was counted of each version (JSON): requests by code, durations by bucket, rows."""

    def drift(self, endpoint: str, window_seconds: int) -> bytes:
        """The drift report of an endpoint over the newest ``window_seconds`` (JSON)."""

    def shadows(self, endpoint: str) -> bytes:
        """The report on the shadows of an endpoint (JSON); see ``docs/design/shadow.md``."""

    def start_replay(self, endpoint: str, request: bytes) -> bytes:
        """Begins a replay of captured requests (JSON of ``rust/server/src/replay/registry.rs``); its report so far (JSON). Reads files."""

    def replays(self, endpoint: str) -> bytes:
        """The reports of an endpoint's replays since the start, newest first (JSON)."""

    def cancel_replay(self, endpoint: str, replay: int) -> bytes:
        """Ends a replay; its report (JSON)."""

    def trial(self, endpoint: str, whole: bool) -> bytes:
        """The newest trial of an endpoint and in short those before it (JSON ``{"trial": ... or null, "earlier": [...]}``); with
        ``whole``, its splits, minutes and first errors as well. See ``docs/design/evidence.md``."""

    def set_trial_thresholds(self, endpoint: str, thresholds: bytes) -> int:
        """Sets what the first requests of units are compared with (JSON ``{"attempt", "arms": {version: {"run_ns", "reply_ns"}}}``, 0
        for none) and begins another window; returns its number."""

    def trials(self) -> bytes:
        """Every trial in memory (JSON array of ``{"endpoint", "begun_ms", "ended_ms", "changes"}``); ``changes`` grows with each."""

    def stored_trial(self, endpoint: str, begun_ms: int) -> tuple[bytes, bytes] | None:
        """The state of a trial for a store: its ledger (JSON) and the bytes of its units; None if it is not in memory any more."""

    def restore_trial(self, endpoint: str, ledger: bytes, units: bytes) -> None:
        """Gives a stored trial back, before the endpoint is applied: it goes on, after a gap, if it is served again."""

    def reopen_access_log(self) -> None:
        """Opens the path of the access log anew, for one that was moved away; nothing without one. What cannot be opened raises,
        and the file that was open is written on."""

    def set_ready(self, ready: bool) -> None:
        """What ``/v2/health/ready`` says beyond the models' own state."""

    def stop(self, drain_delay_ms: int, grace_ms: int) -> bool:
        """Drains and joins every thread; true when nothing had to be cut off. Idempotent."""

def judge(evidence: str, question: str) -> str:
    """Judges a trial by gates. ``evidence`` is a trial told whole (``"trial"`` of :meth:`Gateway.trial`; ``null`` for none), or the
    copies of a shadow (``{"format": 1, "champion", "challenger", "pairs"}`` with its ``output_drift``), ``question``
    names challenger, gates and the promise; the answer has a verdict and its numbers for each gate (JSON of ``docs/design/gates.md``).
    Evidence that cannot be judged is the verdict ``error``; a question that makes no sense raises ``InvalidArgument``."""

def latency_thresholds(evidence: str, question: str) -> str:
    """What a trial's next window is to be compared with, for the latency gates of a question: JSON ``{"thresholds": ..., "answers",
    "needed"}``. ``thresholds`` is what :meth:`Gateway.set_trial_thresholds` takes, or null while the champion has had too few answers.
    Raises ``InvalidArgument`` for evidence that cannot be judged, and for two gates on one measure."""

def gate_power(requests: int, exposure: float, base: float, threshold: float) -> str:
    """What so many requests of the challenger show: JSON ``{"detectable": r or null, "requests": [[ratio, requests or null], ...],
    "distance_beyond": d or null}``. The last is how far beyond its limit a distance of outputs must be to be caught in 80 % of all
    cases, if each request has a key of its own.

    ``detectable`` is the smallest ratio of rates that they catch in 80 % of all cases, ``requests`` the median until a ratio is caught.
    ``exposure`` is the challenger's weight as a share, ``base`` the champion's rate of bad events (both between 0 and 1), ``threshold``
    the number of gates divided by the promised share of false rollbacks. Raises ``InvalidArgument`` for other numbers."""

@final
class LoadRun:
    """A load that is sent once: made idle, started once, stopped when it is dropped. ``docs/design/bench-generator.md`` has plan, question
    and answer, all of them JSON; times are integer nanoseconds.
    """

    def __new__(cls, plan: str, bodies: Sequence[bytes]) -> LoadRun:
        """Checks everything and sends nothing. Raises ``InvalidArgument`` with the place of what is wrong in the plan."""

    def start(self) -> None:
        """Starts the threads that send. Raises ``Conflict`` the second time."""

    def look(self, question: str) -> str:
        """What is known so far, at any time after the start. Raises ``InvalidArgument`` for a question that is wrong."""

    def wait(self, timeout_ns: int) -> bool:
        """Waits until everything is settled, at most for a time; whether it is."""

    def stop(self) -> None:
        """Sends nothing more; what is in flight is awaited until its timeout."""

    def result(self, question: str) -> str:
        """As :meth:`look`, with ``slices`` and ``hdr_v2``. Raises ``Conflict`` before the run has finished."""

def set_weights(table: bytes, weights: bytes) -> bytes:
    """Moves slots: ``{"table": ..., "moves": [[from, to, slots], ...]}`` where ``null`` is the champion."""

def slot_of(salt: str, key: bytes) -> int:
    """The slot, 0 to 9999, of a sticky key under a salt."""

def explain_route(endpoint: bytes, request: bytes) -> bytes:
    """Which version a hypothetical request ``{"headers", "parameters", "version"}`` gets from an endpoint's state, by the code that
    serves (JSON)."""

def fit_baseline(columns: bytes, values: Sequence[object]) -> bytes:
    """Fits a baseline: JSON column descriptions and one float64 buffer per column; the baseline's bytes (JSON)."""

def library_info(path: str) -> bytes:
    """Opens an ONNX Runtime library and says its version and providers (JSON)."""

def inspect_model(library: str, model: str) -> bytes:
    """Loads a model file without serving it and says its signature (JSON)."""

def receipts_are_whole(path: str | os.PathLike[str]) -> bool:
    """Whether a file of an endpoint's receipts is one that this build can read, or not there. Raises ``StorageFailed`` if the system does
    not let it be read."""

def error_codes() -> bytes:
    """The closed table of error codes: name, HTTP, gRPC, retry (JSON)."""

def bench_statistics(function: str, arguments: str) -> str:
    """A statistic by its name, of the arguments in a JSON object; its answer is a JSON object. Unknown and unbounded values are null.

    ``sign_flip`` {differences, alpha}: mean, p, low, high. ``mann_whitney`` {first, second}: u, p, exact. ``evidence`` {slower, faster,
    quantile}: pass, fail (counts that were divided by their inflation). ``mlperf`` {slower, quantile, confidence}: requests, fixed,
    fixed_rounded. ``quantile_ranks`` {n, quantile, alpha}: low, high. ``least_requests`` {quantile, alpha}: requests. ``mser`` {values} and
    ``mser5`` {values}, which averages five first: dropped, settled. ``mann_kendall`` {values}: s, z. ``overload`` {in_flight}: overload.
    ``little_gap`` {integral, durations}: gap. ``docs/design/bench-statistics.md`` says what they mean. Raises ``InvalidArgument``.
    """

def simulate_batches(question: str) -> str:
    """A version's queue and batches in virtual time, with the policy that serves requests. The same question has the same answer.

    ``question`` is a JSON object: seed; rate (requests per second); requests (how many are measured, at most 10 000 000; a tenth as many
    come before them); arrivals ({kind: poisson or constant}, {kind: gamma, cv}, {kind: mmpp, burst, share, burst_ns}); rows ([[rows,
    weight]]); setting (instances, max_batch, max_delay_ns, max_queue, and optionally buckets and timeout_ns); curve (base_ns, row_ns: a run
    of n rows takes base_ns + row_ns * n); run_ns ([[ns, weight]] in the place of the curve, or null).
    The answer: requests, rejected, p50_ns, p90_ns, p95_ns, p99_ns (null if among rejected requests), mean_ns of those that ran, busy_share,
    mean_batch_rows. Raises ``InvalidArgument``.
    """

def encode_grpc_infer(envelope: str, raw_inputs: Sequence[bytes]) -> bytes:
    """A ``ModelInferRequest`` of gRPC: ``envelope`` is JSON {model_name, model_version, id, inputs: [{name, datatype, shape}], parameters},
    ``raw_inputs`` has the bytes of each input. Raises ``InvalidArgument`` with the place of what does not fit.
    """

def bench_selftest(question: str) -> str:
    """An open loop against a server in this process, which answers at once: {seconds, rate, request_bytes, reply_bytes, threads, cpus,
    wait}; the answer is that of :meth:`LoadRun.result`. Raises ``InvalidArgument``.
    """

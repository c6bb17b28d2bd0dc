"""Every metric of the control plane, declared once: name, meaning, labels and where its value comes from.

To add one, add a row to ``DECLARED``. The data plane's metrics are declared in the data plane (native.py
passes them on). Values are read at each scrape from :class:`Facts`, so nothing here counts on its own. Next:
rollout_metrics.py, then app.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prometheus_client.metrics_core import Metric

import headgate
from headgate.background import LoopStatus
from headgate.observe.facts import Declared, Facts, Samples
from headgate.observe.rollout_metrics import ROLLOUTS
from headgate.observe.webhook_metrics import WEBHOOKS


def _per_endpoint(value: Callable[[Mapping[str, Any]], float]) -> Callable[[Facts], Samples]:
    return lambda facts: [({"endpoint": one["name"]}, value(one)) for one in facts.endpoints]


def _per_loop(value: Callable[[LoopStatus], float]) -> Callable[[Facts], Samples]:
    return lambda facts: [({"loop": name}, value(status)) for name, status in facts.loops.items()]


def _removed(*kinds: str) -> Callable[[Facts], Samples]:
    return lambda facts: [
        ({"kind": kind}, float(facts.removed[kind])) for kind in kinds if kind in facts.removed
    ]


DECLARED: tuple[Declared, ...] = (
    Declared(
        "headgate_build_info",
        "gauge",
        "Always 1; the label tells the version of Headgate.",
        lambda _: [({"version": headgate.__version__}, 1)],
    ),
    Declared(
        "headgate_process_restarts_total",
        "counter",
        "New processes that the supervisor began because one died (--supervise).",
        lambda facts: [({}, float(facts.restarts))],
    ),
    Declared(
        "headgate_ready",
        "gauge",
        "1 while /readyz answers 200, else 0.",
        lambda facts: [({}, float(facts.ready))],
    ),
    Declared(
        "headgate_endpoint_revision",
        "gauge",
        "The number of the revision that is applied.",
        _per_endpoint(lambda one: one["revision"]),
    ),
    Declared(
        "headgate_endpoint_ready",
        "gauge",
        "1 while the champion can answer, else 0.",
        _per_endpoint(lambda one: float(one["state"] == "ready")),
    ),
    Declared(
        "headgate_endpoint_frozen",
        "gauge",
        "1 while the endpoint takes no changes but emergency calls.",
        _per_endpoint(lambda one: float(one["frozen"])),
    ),
    Declared(
        "headgate_endpoint_blocked_versions",
        "gauge",
        "Versions blocked by digest.",
        _per_endpoint(lambda one: one["blocked"]),
    ),
    Declared(
        "headgate_endpoint_alarms",
        "gauge",
        "Alarms that stand, such as a change that is live but could not be stored.",
        _per_endpoint(lambda one: len(one["alarms"])),
    ),
    Declared(
        "headgate_drift_features",
        "gauge",
        "Features by verdict of the drift report of a day, of versions whose endpoint has a baseline: fail, pass, undecided. It is made "
        "every five minutes.",
        lambda facts: [
            ({"endpoint": endpoint, "version": version, "verdict": verdict}, float(count))
            for (endpoint, version, verdict), count in facts.drift.items()
        ],
    ),
    Declared(
        "headgate_state_damage",
        "gauge",
        "Damaged pages of the database, tokens, pins and rows of applied documents; `headgate state check` says which, and 0 means none.",
        lambda facts: [({}, float(facts.damage))],
    ),
    Declared(
        "headgate_audit_rows_lost_total",
        "counter",
        "Rows of the audit that were dropped because the disk took none and too many waited; the log has them.",
        lambda facts: [({}, float(facts.audit_lost))],
    ),
    Declared(
        "headgate_state_collected_total",
        "counter",
        "What was removed from the state folder because no revision, pin or change in progress referenced it, by kind: artifact, "
        "baseline, blob (a file of a model). The loop collect_unreferenced removes it.",
        _removed("artifact", "baseline", "blob"),
    ),
    Declared(
        "headgate_state_collected_bytes_total",
        "counter",
        "The bytes that this freed.",
        lambda facts: [({}, float(facts.removed.get("bytes", 0)))],
    ),
    Declared(
        "headgate_state_dropped_rows_total",
        "counter",
        "Rows that were dropped because of their age, by kind: revision (--keep-history, --keep-revisions), audit (--keep-audit), event.",
        _removed("revision", "audit", "event"),
    ),
    Declared(
        "headgate_models_refused",
        "gauge",
        "How often models, their folders or the documents of a start were refused: other bytes under a version's name, or what does "
        "not load; gone once it is mended. `headgate models` has the reasons.",
        lambda facts: _refused(facts.refusals),
    ),
    Declared(
        "headgate_control_connections",
        "gauge",
        "Connections open on the control plane's ports.",
        lambda facts: [({"listener": name}, len(one)) for name, one in facts.listeners.items()],
    ),
    Declared(
        "headgate_control_connections_closed_total",
        "counter",
        "Connections that the control plane's ports closed: idle, head_timeout, body_timeout, body_too_large, unread "
        "(an answer that nobody takes), malformed, or crowded (to make room for a new one).",
        lambda facts: [
            ({"listener": name, "reason": str(reason)}, count)
            for name, one in facts.listeners.items()
            for reason, count in one.closed.items()
        ],
    ),
    *ROLLOUTS,
    *WEBHOOKS,
    Declared(
        "headgate_loop_last_success_timestamp_seconds",
        "gauge",
        "When a loop of the control plane last did its work, in seconds since 1970; 0 before the first time.",
        _per_loop(lambda status: status.last_success),
    ),
    Declared(
        "headgate_loop_last_failure_timestamp_seconds",
        "gauge",
        "When a loop of the control plane last failed, in seconds since 1970; 0 if it never did. The log says why.",
        _per_loop(lambda status: status.last_failure),
    ),
    Declared(
        "headgate_loop_failures_total",
        "counter",
        "Failures of a loop of the control plane; the next turn tries again.",
        _per_loop(lambda status: float(status.failures)),
    ),
    Declared(
        "headgate_control_read_failures_total",
        "counter",
        "Scrapes at which the control plane's state could not be read; its other metrics are then missing.",
        lambda facts: [({}, facts.read_failures)],
    ),
)


def families(facts: Facts) -> list[Metric]:
    """All families of the control plane."""
    return [declared.family(facts) for declared in DECLARED]


def _refused(refusals: Sequence[Mapping[str, Any]]) -> Samples:
    """One per endpoint and version: a second sample with the same labels would make the whole page invalid."""
    counts: dict[tuple[str, str], int] = {}
    for one in refusals:
        key = (one["endpoint"] or "", one["version"] or "")
        counts[key] = max(counts.get(key, 0), one["count"])
    return [
        ({"endpoint": endpoint, "version": version}, count) for (endpoint, version), count in counts.items()
    ]

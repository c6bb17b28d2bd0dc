"""The panels of the dashboard for Grafana: what is asked, in which unit, in which row.

Not here: how they are drawn (dashboard.py), what the metrics mean (docs/reference/metrics.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

HERE = 'instance=~"$instance"'
"""What each query of a gateway is limited to."""
OF = f'{HERE}, endpoint=~"$endpoint"'
"""What each query of an endpoint is limited to."""


@dataclass(frozen=True)
class Panel:
    """A panel: what is asked, as pairs of a query and the name of its lines."""

    title: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    kind: Literal["timeseries", "stat", "table"] = "timeseries"
    width: int = 8
    red_above: float | None = None
    """A stat is green up to this value, and red above."""
    red_below: float | None = None


def per_second(metric: str, by: str, matchers: str = OF) -> str:
    """The rate of a counter."""
    return f"sum by ({by}) (rate({metric}{{{matchers}}}[$__rate_interval]))"


def quantile(q: float, metric: str) -> str:
    """A quantile of a histogram by version."""
    return f"histogram_quantile({q}, {per_second(f'{metric}_bucket', 'endpoint, version, le')})"


VERSION = "{{endpoint}}/{{version}}"
FAILED = 'code=~"backend_failed|internal|deadline_exceeded"'
ALL = per_second("headgate_requests_total", "endpoint, version")

ROWS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "Now",
        (
            Panel(
                "Gateways ready",
                ((f"sum(headgate_ready{{{HERE}}}) / count(headgate_ready{{{HERE}}})", ""),),
                "percentunit",
                "stat",
                4,
                red_below=1.0,
            ),
            Panel(
                "Endpoints not ready",
                ((f"count(headgate_endpoint_ready{{{OF}}} == 0) or vector(0)", ""),),
                kind="stat",
                width=4,
                red_above=0.5,
            ),
            Panel(
                "Requests",
                ((f"sum(rate(headgate_requests_total{{{OF}}}[$__rate_interval]))", ""),),
                "reqps",
                "stat",
                4,
            ),
            Panel(
                "Failed",
                (
                    (
                        f"sum(rate(headgate_requests_total{{{OF}, {FAILED}}}[$__rate_interval])) / "
                        f"sum(rate(headgate_requests_total{{{OF}}}[$__rate_interval])) or vector(0)",
                        "",
                    ),
                ),
                "percentunit",
                "stat",
                4,
                red_above=0.02,
            ),
            Panel(
                "Alarms",
                ((f"sum(headgate_endpoint_alarms{{{OF}}}) + sum(headgate_state_damage{{{HERE}}})", ""),),
                kind="stat",
                width=4,
                red_above=0.5,
            ),
            Panel(
                "Breakers open",
                ((f"sum(headgate_breaker_open{{{OF}}}) or vector(0)", ""),),
                kind="stat",
                width=4,
                red_above=0.5,
            ),
        ),
    ),
    (
        "Requests",
        (
            Panel("Requests by version", ((ALL, VERSION),), "reqps"),
            Panel(
                "Share that failed",
                (
                    (
                        f"{per_second('headgate_requests_total', 'endpoint, version', f'{OF}, {FAILED}')} / {ALL}",
                        VERSION,
                    ),
                ),
                "percentunit",
            ),
            Panel(
                "Not answered, by code",
                (
                    (
                        per_second("headgate_requests_total", "endpoint, code", f'{OF}, code!="ok"'),
                        "{{endpoint}} {{code}}",
                    ),
                    (per_second("headgate_requests_refused_total", "code", HERE), "no version {{code}}"),
                ),
                "reqps",
            ),
            Panel("p50", ((quantile(0.5, "headgate_request_duration_seconds"), VERSION),), "s"),
            Panel("p95", ((quantile(0.95, "headgate_request_duration_seconds"), VERSION),), "s"),
            Panel("p99", ((quantile(0.99, "headgate_request_duration_seconds"), VERSION),), "s"),
            Panel(
                "p95 of the run and of the wait for a thread",
                (
                    (quantile(0.95, "headgate_run_duration_seconds"), f"run {VERSION}"),
                    (quantile(0.95, "headgate_queue_duration_seconds"), f"wait {VERSION}"),
                ),
                "s",
            ),
            Panel("In progress", ((f"headgate_requests_in_flight{{{OF}}}", VERSION),)),
            Panel(
                "Shed, rate-limited, answered by another version",
                (
                    (
                        per_second(
                            "headgate_requests_total", "endpoint, version", f'{OF}, code="overloaded"'
                        ),
                        f"shed {VERSION}",
                    ),
                    (
                        per_second("headgate_requests_rate_limited_total", "endpoint"),
                        "rate-limited {{endpoint}}",
                    ),
                    (
                        per_second("headgate_requests_fallback_total", "endpoint, version"),
                        f"fallback {VERSION}",
                    ),
                ),
                "reqps",
            ),
        ),
    ),
    (
        "Rollouts",
        (
            Panel(
                "Phase",
                ((f"headgate_rollout_phase{{{OF}}} == 1", ""), (f"headgate_rollout_paused{{{OF}}}", "")),
                kind="table",
            ),
            Panel("Verdicts", ((f"headgate_rollout_gate_verdict{{{OF}}}", ""),), kind="table", width=16),
            Panel(
                "Share of the challenger",
                (
                    (f"headgate_rollout_weight_ratio{{{OF}}}", f"requests {VERSION}"),
                    (f"headgate_rollout_shadow_ratio{{{OF}}}", f"copies {VERSION}"),
                ),
                "percentunit",
            ),
            Panel(
                "Estimate of each gate, with its interval (1 is the champion)",
                (
                    (f"headgate_rollout_gate_ratio{{{OF}}}", "{{endpoint}} {{gate}} {{measure}}"),
                    (
                        f"headgate_rollout_gate_ratio_low{{{OF}}} < +Inf",
                        "{{endpoint}} {{gate}} {{measure}} low",
                    ),
                    (
                        f"headgate_rollout_gate_ratio_high{{{OF}}} < +Inf",
                        "{{endpoint}} {{gate}} {{measure}} high",
                    ),
                ),
            ),
            Panel(
                "Evidence of harm, in parts of what a rollback needs",
                (
                    (
                        f"headgate_rollout_gate_e_value{{{OF}}} / headgate_rollout_gate_threshold{{{OF}}}",
                        "{{endpoint}} {{gate}} {{measure}}",
                    ),
                ),
                "percentunit",
            ),
            Panel(
                "Step",
                (
                    (f"headgate_rollout_step{{{OF}}}", f"step {VERSION}"),
                    (f"headgate_rollout_steps{{{OF}}}", f"of {VERSION}"),
                ),
            ),
            Panel(
                "Requests of the present step, in parts of what it needs",
                (
                    (
                        f"headgate_rollout_step_requests{{{OF}}} / headgate_rollout_step_planned_requests{{{OF}}}",
                        VERSION,
                    ),
                ),
                "percentunit",
            ),
            Panel(
                "Ended and paused since the start",
                (
                    (f"headgate_rollouts_ended_total{{{OF}}}", "{{endpoint}} {{phase}}: {{reason}}"),
                    (f"headgate_rollout_pauses_total{{{OF}}}", "{{endpoint}} paused: {{reason}}"),
                ),
            ),
        ),
    ),
    (
        "Evidence",
        (
            Panel(
                "Features that drift",
                ((f'headgate_drift_features{{{OF}, verdict="fail"}}', VERSION),),
            ),
            Panel(
                "Shadows: share of pairs that differ",
                (
                    (
                        f"{per_second('headgate_shadow_differing_total', 'endpoint, version')} / "
                        f"{per_second('headgate_shadow_pairs_total', 'endpoint, version')}",
                        VERSION,
                    ),
                ),
                "percentunit",
            ),
            Panel(
                "Shadows: copies that were dropped",
                (
                    (
                        per_second("headgate_shadow_dropped_total", "endpoint, version, reason"),
                        f"{VERSION} {{{{reason}}}}",
                    ),
                ),
                "reqps",
            ),
            Panel(
                "Captured requests",
                (
                    (per_second("headgate_capture_rows_total", "endpoint"), "{{endpoint}} written"),
                    (
                        per_second("headgate_capture_dropped_total", "endpoint, reason"),
                        "{{endpoint}} {{reason}}",
                    ),
                ),
                "reqps",
            ),
            Panel(
                "Captured requests on the disk",
                ((f"headgate_capture_disk_bytes{{{OF}}}", "{{endpoint}}"),),
                "bytes",
            ),
            Panel(
                "Rows that were sketched, of those seen",
                (
                    (
                        f"{per_second('headgate_tap_rows_sampled_total', 'endpoint, version')} / "
                        f"{per_second('headgate_tap_rows_seen_total', 'endpoint, version')}",
                        VERSION,
                    ),
                ),
                "percentunit",
            ),
        ),
    ),
    (
        "Models and memory",
        (
            Panel(
                "Memory of models",
                (
                    (f"headgate_model_memory_bytes{{{HERE}}}", "{{instance}}"),
                    (f"headgate_model_memory_budget_bytes{{{HERE}}}", "budget {{instance}}"),
                ),
                "bytes",
            ),
            Panel("Models by state", ((f"headgate_models{{{HERE}}}", "{{instance}} {{state}}"),)),
            Panel(
                "Loads and evictions",
                (
                    (per_second("headgate_model_loads_total", "instance", HERE), "loads {{instance}}"),
                    (
                        per_second("headgate_model_evictions_total", "instance", HERE),
                        "evictions {{instance}}",
                    ),
                    (
                        per_second("headgate_model_loads_refused_total", "instance", HERE),
                        "refused {{instance}}",
                    ),
                ),
                "ops",
            ),
            Panel(
                "Requests that wait for a model",
                ((f"headgate_cold_requests_waiting{{{HERE}}}", "{{instance}}"),),
            ),
            Panel(
                "Memory of requests in progress",
                (
                    (
                        f"headgate_large_request_bytes{{{HERE}}} + headgate_small_request_bytes{{{HERE}}}",
                        "{{instance}}",
                    ),
                    (f"headgate_request_memory_bytes{{{HERE}}}", "limit {{instance}}"),
                ),
                "bytes",
            ),
            Panel(
                "Memory of the process",
                ((f"process_resident_memory_bytes{{{HERE}}}", "{{instance}}"),),
                "bytes",
            ),
        ),
    ),
    (
        "Gateway",
        (
            Panel(
                "Connections",
                (
                    (f"headgate_connections{{{HERE}}}", "data {{instance}}"),
                    (f"headgate_control_connections{{{HERE}}}", "{{listener}} {{instance}}"),
                ),
            ),
            Panel("Runs that wait for a thread", ((f"headgate_pool_waiting{{{HERE}}}", "{{instance}}"),)),
            Panel(
                "Webhooks: messages that wait",
                ((f"headgate_webhook_waiting{{{OF}}}", "{{endpoint}} {{receiver}}"),),
            ),
            Panel(
                "Webhooks: delivered, failed, dropped",
                (
                    (
                        per_second("headgate_webhook_delivered_total", "endpoint, receiver"),
                        "delivered {{endpoint}} {{receiver}}",
                    ),
                    (
                        per_second("headgate_webhook_failed_total", "endpoint, receiver"),
                        "failed {{endpoint}} {{receiver}}",
                    ),
                    (
                        per_second("headgate_webhook_dropped_total", "endpoint, receiver, reason"),
                        "dropped {{endpoint}} {{receiver}} {{reason}}",
                    ),
                ),
                "ops",
            ),
            Panel(
                "Failures of loops",
                (
                    (
                        f"sum by (instance, loop) (increase(headgate_loop_failures_total{{{HERE}}}[5m])) > 0",
                        "{{instance}} {{loop}}",
                    ),
                ),
            ),
            Panel(
                "Restarts after a death",
                ((f"headgate_process_restarts_total{{{HERE}}}", "{{instance}}"),),
            ),
            Panel(
                "Processor time",
                ((per_second("process_cpu_seconds_total", "instance", HERE), "{{instance}}"),),
                "short",
            ),
            Panel(
                "Threads that hang",
                (
                    (f"headgate_run_threads_stuck{{{HERE}}}", "{{instance}} {{kind}}"),
                    (f"headgate_loads_stuck{{{HERE}}}", "loads {{instance}} {{kind}}"),
                ),
            ),
        ),
    ),
)

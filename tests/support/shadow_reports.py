"""A report on one shadow as the data plane tells it (``docs/design/shadow.md``), for tests without a data plane."""

from __future__ import annotations

import copy
from typing import Any

REPORT: dict[str, Any] = {
    "to": "v8",
    "share": 0.1,
    "by": "request",
    "state": "running",
    "reason": None,
    "since": "2026-11-30T01:00:00Z",
    "drawn": 10_138,
    "pairs": 10_100,
    "dropped": {
        "queue_full": 0, "bytes": 0, "late": 12, "cpu_budget": 3, "not_ready": 0,
        "incompatible": 0, "switched_off": 0, "shutdown": 0,
    },
    "last_mismatch": None,
    "errors": {"backend_failed": 4, "deadline_exceeded": 1},
    "timeouts": 1,
    "champion_failed": {
        "requests": 14, "by_code": {"backend_failed": 14},
        "shadow_answered": 13, "shadow_failed": 1, "inputs_lost": 0,
    },
    "nan": {"champion": 0, "shadow": 3, "both": 0},
    "compared": {"pairs": 10_100, "differing": 303, "rows": 10_100, "differing_rows": 303},
    "outputs": {
        "probabilities": {
            "compare": {"within": {"relative": 0.001}},
            "pairs": 10_100, "differing": 303, "rows": 10_100, "differing_rows": 303, "direction": None,
        },
        "label": {
            "compare": {"label": True},
            "pairs": 10_100, "differing": 290, "rows": 10_100, "differing_rows": 290,
            "direction": {
                "moves": [{"from": "8", "to": "3", "rows": 200}, {"from": "1", "to": "NaN", "rows": 3}],
                "other_rows": 0,
                "labels": {"champion": {"3": 900, "8": 1000}, "shadow": {"3": 1100, "8": 800}},
                "other_labels": {"champion": 0, "shadow": 0},
                "mcnemar_p": None,
            },
        },
    },
    "disagreement": {
        "share": 0.03, "interval": [0.0268, 0.0335], "bounds": [0.0299, 0.0315],
        "drop_share": 0.0015, "undecided": False,
    },
    "noise_floor": {
        "pairs": 1_010, "differing": 0, "share": 0.0, "interval": [0.0, 0.0038],
        "skipped": 0, "errors": 0, "reason": None,
    },
    "excess": {"share": 0.03, "interval": [0.0259, 0.0335]},
    "slices": [
        {
            "field": "header.x-region",
            "values": [
                {"value": "eu", "pairs": 5_000, "differing": 290, "share": 0.058, "interval": [0.0518, 0.0648]},
                {"value": None, "pairs": 60, "differing": 0, "share": 0.0, "interval": [0.0, 0.06]},
            ],
            "other": {"pairs": 0, "differing": 0, "share": None, "interval": None},
        }
    ],
    "examples": {
        "keep": 5,
        "kept": [
            {
                "at": "2026-11-30T01:02:03Z", "request_id": "abc", "row": 0, "differs": ["probabilities"],
                "inputs": {"X": {"datatype": "FP32", "shape": [1, 2], "data": [0.0, 1.0], "left_out": None}},
                "champion": {"probabilities": {"datatype": "FP32", "shape": [1, 2], "data": [0.1, 0.9], "left_out": None}},
                "shadow": {"probabilities": {"datatype": "FP32", "shape": [1, 2], "data": [0.2, 0.8], "left_out": None}},
            }
        ],
    },
    "run_seconds": {
        "p50": 0.0011, "p95": 0.0024, "runs": 10_400, "comparable": False,
        "note": "shadows run at low priority; compare latency in a rollout",
    },
    "queue": {"length": 0, "bytes": 0, "max_length": 1024, "max_bytes": 67_108_864},
    "in_progress": 4,
    "cpu_seconds": 12.3,
}  # fmt: skip


def report(**changed: Any) -> dict[str, Any]:
    """A copy with other values."""
    return {**copy.deepcopy(REPORT), **changed}


def empty() -> dict[str, Any]:
    """One that has compared nothing yet."""
    return report(
        drawn=0,
        pairs=0,
        dropped=dict.fromkeys(REPORT["dropped"], 0),
        errors={},
        timeouts=0,
        champion_failed={
            "requests": 0, "by_code": {}, "shadow_answered": 0, "shadow_failed": 0, "inputs_lost": 0
        },
        nan={"champion": 0, "shadow": 0, "both": 0},
        compared={"pairs": 0, "differing": 0, "rows": 0, "differing_rows": 0},
        outputs={},
        disagreement={"share": None, "interval": None, "bounds": None, "drop_share": 0.0, "undecided": False},
        noise_floor={
            "pairs": 0, "differing": 0, "share": None, "interval": None, "skipped": 0, "errors": 0, "reason": None
        },
        excess={"share": None, "interval": None},
        slices=[],
        examples={"keep": 0, "kept": []},
        run_seconds={**REPORT["run_seconds"], "p50": None, "p95": None, "runs": 0},
        in_progress=0,
        cpu_seconds=0.0,
    )  # fmt: skip


def never_ran(**changed: Any) -> dict[str, Any]:
    """One of which nothing was counted."""
    return {
        "to": "v9",
        "share": 0.1,
        "by": "request",
        "state": "off",
        "reason": "it is switched off",
        **changed,
    }


def replayed(
    pairs: int = 600, differing: int = 0, *, failed: int = 0, champion_failed: int = 0, **changed: Any
) -> dict[str, Any]:
    """The report of a replay that is done: so many pairs, of which some differ, and requests that one of the two versions failed on."""
    share, errors = differing / max(pairs, 1), {"backend_failed": failed} if failed else {}
    found = {
        name: value
        for name, value in empty().items()
        if name
        in ("last_mismatch", "nan", "noise_floor", "timeouts", "disagreement", "champion_failed", "outputs")
    }
    told = {"share": share if pairs else None, "interval": [share * 0.8, share * 1.2] if pairs else None}
    found |= {
        "id": 3,
        "version": "v8",
        "state": "done",
        "error": None,
        "requests": {
            "replayed": pairs + failed + champion_failed,
            "skipped": 0,
            "incompatible": 0,
            "not_ready": 0,
        },
        "pairs": pairs,
        "errors": errors,
        "compared": {"pairs": pairs, "differing": differing, "rows": pairs, "differing_rows": differing},
        "noise_floor": {**found["noise_floor"], "pairs": min(pairs, 500)},
        "excess": told,
        "disagreement": {**found["disagreement"], **told},
        "champion_failed": {
            **found["champion_failed"],
            "requests": champion_failed,
            "shadow_answered": champion_failed,
        },
    }
    return found | changed

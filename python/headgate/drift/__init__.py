"""Drift on the Python side: reference samples, and fitting them.

Read in this order: ``layout`` (what a sample must look like), ``loading``, ``arrays`` and ``table`` (reading one),
``fitting``, ``baseline_store``. The sketches, distances and reports are Rust (``rust/sketch``).
"""

from headgate.drift.baseline_store import BaselineStore
from headgate.drift.fitting import (
    Native,
    baseline_digest,
    baseline_path,
    fit,
    keep_baseline,
    sample_fault,
)

__all__ = [
    "BaselineStore",
    "Native",
    "baseline_digest",
    "baseline_path",
    "fit",
    "keep_baseline",
    "sample_fault",
]

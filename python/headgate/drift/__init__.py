"""Drift on the Python side: reference samples, and fitting them.

Read in this order: ``layout`` (what a sample must look like), ``loading``, ``arrays`` and ``table`` (reading one),
``fitting``, ``kept``. The sketches, distances and reports are Rust (``rust/sketch``).
"""

from headgate.drift.fitting import (
    Native,
    baseline_digest,
    baseline_path,
    fit,
    keep_baseline,
    sample_fault,
)
from headgate.drift.kept import KeptBaselines

__all__ = [
    "KeptBaselines",
    "Native",
    "baseline_digest",
    "baseline_path",
    "fit",
    "keep_baseline",
    "sample_fault",
]

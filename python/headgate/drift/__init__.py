"""Drift on the Python side: reference samples, fitting them, and reports.

Read in this order: ``layout`` (what a sample must look like), ``loading`` and ``table`` (reading one),
``fitting``, ``report``. The sketches and distances themselves are Rust (``rust/sketch``).
"""

from headgate.drift.fitting import Native, baseline_digest, baseline_path, fit, keep_baseline
from headgate.drift.loading import Column, load_baseline
from headgate.drift.report import Bracket, ChiSquare, Feature, Live, Report, parse_report

__all__ = [
    "Bracket",
    "ChiSquare",
    "Column",
    "Feature",
    "Live",
    "Native",
    "Report",
    "baseline_digest",
    "baseline_path",
    "fit",
    "keep_baseline",
    "load_baseline",
    "parse_report",
]

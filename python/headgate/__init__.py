"""Headgate: a model serving gateway; this package is its control plane and its command line.

Importing it starts no thread and opens nothing. It does set one environment variable, before anything else
can happen: ONNX Runtime reads ``ORT_DISABLE_TELEMETRY`` when its library initialises, and Headgate sends
nothing to anyone. Read :mod:`headgate.cli` next for what a person can do, :mod:`headgate.gateway` for what
one process runs.
"""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

__version__ = "0.1.0"

__all__ = ["__version__"]

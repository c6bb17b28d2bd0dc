"""What a gateway does not need to start is not loaded when it starts."""

from __future__ import annotations

import json
import subprocess
import sys


def loaded_by(module: str) -> set[str]:
    """The top-level packages in memory after an import in a fresh interpreter."""
    code = f"import json, sys, {module}; print(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    return set(
        json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    )


def test_a_gateway_starts_without_the_packages_that_read_models_and_samples() -> None:
    needless = {"numpy", "onnx", "google", "onnxruntime", "alembic", "mako", "rich", "pygments"}
    assert not loaded_by("headgate.gateway.process") & needless
    assert not loaded_by("headgate.cli.serve") & needless

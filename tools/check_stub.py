"""Checks that ``_native.pyi`` says what the built extension is: mypy's stubtest, with its exceptions listed.

Needs the built extension (``make lint`` builds it). Each line of ``stubtest-allowlist.txt`` gives its reason.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ALLOWLIST = Path(__file__).with_name("stubtest-allowlist.txt")


def main() -> int:
    """Runs stubtest on ``headgate._native``; its exit code."""
    if importlib.util.find_spec("headgate._native") is None:
        print("headgate._native is not built; run this through `make lint`", file=sys.stderr)
        return 1
    command = [sys.executable, "-m", "mypy.stubtest", "headgate._native", "--allowlist", str(ALLOWLIST)]
    environment = os.environ | {"MYPYPATH": str(ROOT / "python")}
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())

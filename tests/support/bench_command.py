"""``headgate bench`` as a process of its own, with the real generator: what it prints, and how it exits.

Verdicts of speed are no part of these tests: on a busy machine the client may be the limit, which is exit code 3 with all numbers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SECONDS = 120.0
#: What a load that was answered may end with, however busy the machine is.
ANSWERED = {"measured": 0, "client_limited": 3}


def start(words: Sequence[str], home: Path, longest_file: int | None = None) -> subprocess.Popen[str]:
    """Starts the command, in a home without a gateway's state. ``longest_file`` are the bytes that a file of it may have."""
    limit = [] if longest_file is None else ["prlimit", f"--fsize={longest_file}"]
    return subprocess.Popen(
        [*limit, sys.executable, "-m", "headgate", "bench", *words],
        env=os.environ | {"HOME": str(home), "HEADGATE_STATE": str(home / "state")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(child: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Its exit code and what it said; it is killed if it does not end."""
    try:
        out, said = child.communicate(timeout=SECONDS)
    finally:
        if child.poll() is None:
            child.kill()
    return child.returncode, out, said


def bench(words: Sequence[str], home: Path) -> tuple[int, str, str]:
    """Runs the command to its end."""
    return ended(start(words, home))


def answered(words: Sequence[str], home: Path) -> Any:
    """The result of a load of which each request was answered well."""
    code, out, said = bench([*words, "--json", "--no-live"], home)
    assert out, said
    found = json.loads(out)
    assert ANSWERED[found["verdict"]] == code, said
    counts = found["windows"][0]["answer"]["counts"]
    assert counts["due"] == counts["good"] > 0, found["windows"][0]["answer"]["errors"]
    assert found["windows"][0]["answer"]["replies"]["differing"] == 0
    return found

"""``make demo``: the output that README shows, on the real gateway."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from support.tools import need_digits, need_native

SECONDS = 170

# Beside much else the champion gets slower under way, and the rollout pauses for it, as it should.
pytestmark = pytest.mark.quiet


def test_a_good_challenger_takes_over_and_a_broken_one_is_gone() -> None:
    need_native()
    script = need_digits() / "demo.py"
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout
    assert re.search(r"^r1 promoted  No harm shown\.", said, re.MULTILINE), said
    assert re.search(r"^r2 rolled_back  error_rate fails: champion 0 of ", said, re.MULTILINE), said
    assert re.search(r"^\d+ requests were answered with 200, none otherwise\.$", said, re.MULTILINE), said

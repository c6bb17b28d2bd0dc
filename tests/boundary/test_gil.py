"""Requests are answered while Python's lock is held for five seconds: the data plane never waits for Python."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support import models
from support.client import Connection
from support.models import ROOT
from support.tools import need_native

HELD_SECONDS = 5
#: A request that waited for the lock would take nearly as long as it is held.
LONGEST_SECONDS = 4.0
BODY = {"inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}

#: Serves, then calls C's ``sleep`` without releasing the lock. A second Python thread counts, to show that it is held.
HOLDER = """
import ctypes, json, pathlib, sys, threading
sys.path[:0] = json.loads(sys.argv[2])
from support import native as plane
libc = ctypes.PyDLL(None)
count = 0
def tick():
    global count
    while True:
        count += 1
with plane.running() as (gateway, address):
    plane.serve(gateway, "scale", pathlib.Path(sys.argv[1]))
    threading.Thread(target=tick, daemon=True).start()
    print(address, flush=True)
    sys.stdin.readline()
    print("holding", flush=True)
    before = count
    left = libc.sleep({seconds})
    ticks = count - before
    print(json.dumps({{"ticks": ticks, "left": left}}), flush=True)
    # The request that was on its way when the lock was released is still answered.
    sys.stdin.readline()
"""


@pytest.mark.alone
def test_the_lock_held_for_five_seconds_stops_no_request(tmp_path: Path) -> None:
    need_native()
    model = models.place(models.scale(2.0), tmp_path, "scale")
    paths = json.dumps([str(ROOT / "python"), str(ROOT / "tests")])
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER.format(seconds=HELD_SECONDS), str(model), paths],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    with holder, Connection(holder.stdout.readline().strip()) as connection:
        assert connection.infer("scale", BODY).status == 200
        holder.stdin.write("hold\n")
        assert holder.stdout.readline() == "holding\n"
        began = time.monotonic()
        answered, longest = 0, 0.0
        while not select.select([holder.stdout], [], [], 0)[0]:
            sent = time.monotonic()
            assert connection.infer("scale", BODY).status == 200
            longest = max(longest, time.monotonic() - sent)
            answered += 1
        held = time.monotonic() - began
        outcome = json.loads(holder.stdout.readline())
        holder.stdin.write("stop\n")
    assert outcome["left"] == 0
    # The counter may have the lock for a switch interval on either side; five seconds of it would be many millions.
    assert outcome["ticks"] < 2_000_000, "the lock was not held"
    assert held > HELD_SECONDS - 0.5
    assert answered > 100
    assert longest < LONGEST_SECONDS
    assert holder.wait(30) == 0

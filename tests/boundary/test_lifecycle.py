"""The data plane inside one process: started and stopped many times, and left running when the interpreter ends."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from headgate.errors import HeadgateError
from support import models
from support import native as plane
from support.client import Connection
from support.models import ROOT
from support.tools import descriptor_count, need_native, thread_count

CYCLES = 50
BODY = {"inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}


@pytest.fixture
def scale(tmp_path: Path) -> Path:
    need_native()
    return models.place(models.scale(2.0), tmp_path, "scale")


def once(model: Path) -> None:
    """Starts, serves one request, stops."""
    with plane.running() as (gateway, address):
        plane.serve(gateway, "scale", model)
        with Connection(address) as connection:
            answer = connection.infer("scale", BODY)
        assert answer.json["outputs"][0]["data"] == [2, 4, 6, 8]


def test_threads_and_descriptors_return_to_base_after_fifty_cycles(scale: Path) -> None:
    # What is opened once per process (the library, its log) is there after the first cycles.
    for _ in range(2):
        once(scale)
    base = thread_count(), descriptor_count()
    for _ in range(CYCLES):
        once(scale)
    assert (thread_count(), descriptor_count()) == base


def test_nothing_starts_before_start(scale: Path) -> None:
    from headgate import _native

    base = thread_count()
    gateway = _native.Gateway(plane.config())
    # A thread of an earlier test may be ending.
    assert thread_count() <= base
    del gateway


def test_stop_can_be_said_twice_and_nothing_is_served_after_it(scale: Path) -> None:
    from headgate import _native

    gateway = _native.Gateway(plane.config())
    address = json.loads(gateway.start())["http"]
    assert gateway.stop(0, 5_000) is True
    assert gateway.stop(0, 5_000) is True
    with pytest.raises(ConnectionRefusedError), Connection(address) as connection:
        connection.send("GET", "/v2")


def test_a_configuration_that_is_wrong_is_refused_with_its_field() -> None:
    need_native()
    from headgate import _native

    for change in ({"http": "nowhere"}, {"io_threads": -1}, {"max_body_bytes": "64MiB"}):
        with pytest.raises(HeadgateError) as refused:
            _native.Gateway(plane.config(**change)).start()
        assert next(iter(change)) in str(refused.value)


def test_a_call_after_fork_raises_with_the_remedy(scale: Path) -> None:
    program = """
    import os, sys, warnings
    from headgate.errors import HeadgateError
    from support import native as plane
    warnings.simplefilter("ignore", DeprecationWarning)
    with plane.running() as (gateway, address):
        child = os.fork()
        if child == 0:
            try:
                gateway.status()
            except HeadgateError as error:
                os._exit(0 if "fork" in str(error) and "spawn" in str(error) else 3)
            os._exit(4)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0, status
        gateway.status()
    """
    done = run(program)
    assert done.returncode == 0, done.stderr


def test_the_interpreter_ends_while_requests_are_in_flight(tmp_path: Path) -> None:
    need_native()
    model = models.place(models.slow(), tmp_path, "slow")
    program = f"""
    import json, pathlib
    from headgate import _native
    from support import native as plane
    from support.client import infer_bytes, open_socket
    gateway = _native.Gateway(plane.config())
    address = json.loads(gateway.start())["http"]
    plane.serve(gateway, "slow", pathlib.Path({str(model)!r}))
    tensor = {{"name": "rounds", "shape": [1], "datatype": "INT64", "data": [4000]}}
    body = json.dumps({{"inputs": [tensor]}}).encode()
    sockets = [open_socket(address) for _ in range(4)]
    for sock in sockets:
        sock.sendall(infer_bytes("slow", body))
    while not sum(
        value
        for family in json.loads(gateway.metrics())
        if family["name"] == "headgate_requests_in_flight"
        for _, value in family["samples"]
    ):
        pass
    print("in flight", flush=True)
    """
    done = run(program)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "in flight\n"


def run(program: str) -> subprocess.CompletedProcess[str]:
    """Runs a program in a fresh interpreter that sees the package and the tests' support."""
    path = f"{ROOT / 'python'}:{ROOT / 'tests'}"
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {path.split(':')!r}\n{textwrap.dedent(program)}"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

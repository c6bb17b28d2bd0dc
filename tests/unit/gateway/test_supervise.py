"""The supervisor with processes that are no gateways: each says its number and does what the test wants.

Not here: a real gateway below it (``e2e/test_supervise``).
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from headgate.errors import InvalidArgument
from headgate.gateway import signals, supervise

PARENT = """
import sys
from headgate.gateway.sockets import bind
from headgate.gateway.supervise import Supervisor
from headgate.gateway.units import Address
sock = bind(Address("127.0.0.1", 0), "http")
sys.exit(Supervisor([sys.executable, "-c", sys.argv[1]], {"http": sock}).run())
"""
CHILD = """
import os, signal, sys
from headgate.gateway import signals
from headgate.gateway.supervise import inherited
supervised = inherited(os.environ)
signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.ALL)
number = supervised.restarts
print(os.getpid(), number, supervised.sockets["http"].getsockname()[1], flush=True)
"""
READY = "supervised.say_ready()\n"


@contextmanager
def parent(child: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", PARENT, CHILD + child]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def ended(child: str) -> tuple[int, list[list[int]], str]:
    """The exit code, what each process said, and what the supervisor said."""
    with parent(child) as process:
        out, said = process.communicate(timeout=60)
    return process.returncode, [[int(word) for word in line.split()] for line in out.splitlines()], said


def test_a_process_that_dies_is_followed_by_another_on_the_same_socket() -> None:
    code, lines, said = ended(READY + "os.kill(os.getpid(), signal.SIGFPE) if number < 2 else sys.exit(0)")
    assert code == 0
    assert [number for _, number, _ in lines] == [0, 1, 2]
    assert len({port for _, _, port in lines}) == 1
    assert said.count("died of SIGFPE; a new one begins") == 2


@pytest.mark.parametrize(
    ("end", "code"),
    [("os.kill(os.getpid(), signal.SIGKILL)", 128 + 9), ("os.abort()", 128 + 6), ("sys.exit(1)", 1)],
)
def test_a_process_that_dies_over_and_over_is_given_up(end: str, code: int) -> None:
    found, lines, said = ended(READY + end)
    assert found == code
    assert [number for _, number, _ in lines] == list(range(supervise.MOST_RESTARTS + 1))
    assert "no new one begins" in said


@pytest.mark.parametrize("code", [0, 1, 2, 3])
def test_a_process_that_cannot_start_is_not_begun_again(code: int) -> None:
    found, lines, _ = ended(f"sys.exit({code})")
    assert (found, len(lines)) == (code, 1)


def test_a_start_that_fails_after_a_good_one_is_tried_again() -> None:
    code, lines, _ = ended(
        "number == 0 and supervised.say_ready()\nnumber == 0 and os.abort()\nsys.exit(3 if number < 3 else 0)"
    )
    assert (code, len(lines)) == (0, 4)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_is_passed_on_and_the_exit_code_is_the_childs(number: int) -> None:
    child = (
        f"signal.signal({number}, lambda *_: sys.exit(7))\nprint(1, flush=True)\nwhile True: signal.pause()"
    )
    with parent(READY + child) as process:
        assert process.stdout is not None
        assert len(process.stdout.readline().split()) == 3
        assert process.stdout.readline() == "1\n"
        process.send_signal(number)
        assert process.wait(60) == 7


@pytest.mark.parametrize("number", sorted(signals.ALL - signals.STOP))
def test_a_signal_that_stops_nothing_is_passed_on_and_a_death_after_it_is_a_death(number: int) -> None:
    child = (
        f"signal.signal({number}, lambda *_: os.abort())\n"
        "print(1, flush=True)\nnumber or signal.pause()\nsys.exit(0)"
    )
    with parent(READY + child) as process:
        assert process.stdout is not None
        assert len(process.stdout.readline().split()) == 3
        assert process.stdout.readline() == "1\n"
        process.send_signal(number)
        # The child that was told died of it, and is followed by another.
        assert process.stdout.readline().split()[1] == "1"
        assert process.wait(60) == 0


def test_a_child_that_dies_of_the_signal_is_not_begun_again() -> None:
    with parent(READY + "print(1, flush=True)\nwhile True: signal.pause()") as process:
        assert process.stdout is not None
        assert len([process.stdout.readline() for _ in range(2)]) == 2
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM
        assert process.stdout.read() == ""


def test_the_child_dies_with_its_parent() -> None:
    with parent(
        READY + "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: signal.pause()"
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.kill()
        # Both ends of the pipe are gone: nobody lives that could write to it.
        assert process.stdout.read() == ""


def test_the_variable_of_a_stranger_is_refused_by_its_name() -> None:
    for text in ("", "{}", '{"sockets": {"http": 9999}, "restarts": 0, "ready": 1}'):
        with pytest.raises(InvalidArgument, match=supervise.VARIABLE):
            supervise.inherited({supervise.VARIABLE: text})
    assert supervise.inherited({}) is None

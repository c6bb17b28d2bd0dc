"""Signals to a real gateway process, from its first line of Python to its last.

The moment is forced and not waited for: a ``sitecustomize`` in the gateway's own interpreter sends the signal when a module is
about to be imported, or right before the process leaves.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import models
from support.client import Connection
from support.gateway import ANY_PORT_OPTIONS, STOP_SECONDS, GatewayProcess
from support.tools import need_native

BODY = {"inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
#: Sends a signal from within, in the process that is supervised or not: to itself, or to the parent.
CUSTOMIZE = """
import json, os, signal, sys
asked = json.loads(os.environ["TEST_SIGNAL"])
if asked["below"] == ("HEADGATE_SUPERVISED" in os.environ):
    def send(kill=os.kill, target=os.getppid() if asked["to_parent"] else os.getpid(), number=asked["number"]):
        kill(target, number)
    if asked["when"] == "exit":
        leave = os._exit
        os._exit = lambda code: (send(), leave(code))
    else:
        class Watch:
            def find_spec(self, name, path=None, target=None):
                if name == asked["when"]:
                    sys.meta_path.remove(self)
                    send()
        sys.meta_path.insert(0, Watch())
"""


def customized(
    folder: Path, when: str, number: int = signal.SIGTERM, *, below: bool = False, to_parent: bool = False
) -> dict[str, str]:
    """The variables of a gateway that gets a signal at a moment of its life."""
    (folder / "sitecustomize.py").write_text(CUSTOMIZE)
    asked = {"when": when, "number": int(number), "below": below, "to_parent": to_parent}
    return {"PYTHONPATH": str(folder), "TEST_SIGNAL": json.dumps(asked)}


def ended(folder: Path, variables: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "headgate", "serve", "--state", str(folder / "state")]
    return subprocess.run(
        [*command, *ANY_PORT_OPTIONS, *options],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=STOP_SECONDS,
    )


#: What the process that serves imports from its first line on, in this order; and what its parent does.
ALONE = [
    "headgate.gateway.streams",
    "click",
    "headgate.gateway.settings",
    "uvloop",
    "headgate._native",
]
PARENT = ["headgate.gateway.streams", "headgate.gateway.supervise"]
CHILD = ["headgate.gateway.streams", "headgate._native"]


@pytest.mark.parametrize("when", ALONE)
def test_a_stop_during_the_imports_exits_0(tmp_path: Path, when: str) -> None:
    need_native()
    done = ended(tmp_path, customized(tmp_path, when))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("when", PARENT)
def test_a_stop_of_a_supervisor_during_its_imports_exits_0(tmp_path: Path, when: str) -> None:
    need_native()
    done = ended(tmp_path, customized(tmp_path, when), "--supervise")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("to_parent", [True, False])
@pytest.mark.parametrize("when", CHILD)
def test_a_stop_while_the_supervised_process_imports_exits_0(
    tmp_path: Path, when: str, to_parent: bool
) -> None:
    need_native()
    done = ended(tmp_path, customized(tmp_path, when, below=True, to_parent=to_parent), "--supervise")
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2])
def test_other_signals_during_the_imports_change_nothing(tmp_path: Path, number: signal.Signals) -> None:
    need_native()
    variables = customized(tmp_path, "headgate.gateway.streams", number)
    with GatewayProcess(tmp_path / "state", ["--supervise"], environment=variables) as gateway:
        assert gateway.observe("/readyz").status_code == 200
        assert gateway.stop() == 0


@pytest.mark.parametrize("below", [False, True])
def test_a_second_stop_after_the_drain_changes_no_exit_code(tmp_path: Path, below: bool) -> None:
    need_native()
    variables = customized(tmp_path, "exit", below=below)
    options = ["--supervise"] if below else []
    with GatewayProcess(tmp_path / "state", options, environment=variables) as gateway:
        assert gateway.stop() == 0


def test_a_second_stop_of_the_parent_changes_no_exit_code(tmp_path: Path) -> None:
    need_native()
    variables = customized(tmp_path, "exit")
    with GatewayProcess(tmp_path / "state", ["--supervise"], environment=variables) as gateway:
        assert gateway.stop() == 0


def test_a_stop_of_a_gateway_that_could_not_start_keeps_its_exit_code(tmp_path: Path) -> None:
    need_native()
    with GatewayProcess(tmp_path / "state", as_a_person=True):
        assert ended(tmp_path, customized(tmp_path, "exit")).returncode == 3


def test_few_modules_are_imported_before_signals_are_taken() -> None:
    program = (
        "import sys; before = set(sys.modules); import headgate.__main__; print(*set(sys.modules) - before)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    ours = {"headgate", "headgate.__main__", "headgate.gateway", "headgate.gateway.signals"}
    loaded = set(done.stdout.split())
    assert ours <= loaded
    assert not {name for name in loaded - ours if name.startswith("headgate")}
    assert not loaded & {"typing", "contextlib", "logging", "re", "json", "pathlib"}


@pytest.fixture(params=[False, True], ids=["alone", "supervised"])
def serving(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[GatewayProcess]:
    """A gateway with an access log."""
    need_native()
    models.place(models.scale(2.0), tmp_path / "models", "scale")
    (tmp_path / "logs").mkdir()
    arguments = ["--models", str(tmp_path / "models"), "--access-log", str(tmp_path / "logs" / "access")]
    arguments += ["--supervise"] if request.param else []
    with GatewayProcess(tmp_path / "state", arguments, as_a_person=True) as gateway:
        yield gateway


def until_said(gateway: GatewayProcess, words: str, times: int = 1) -> None:
    assert gateway.child is not None
    while gateway.log.read_text().count(words) < times:
        assert gateway.child.poll() is None, gateway.log.read_text()


def infer(gateway: GatewayProcess) -> None:
    with Connection(gateway.http) as connection:
        assert connection.infer("scale", BODY).status == 200


def until_lines(log: Path, count: int) -> None:
    while not log.exists() or log.read_text().count("\n") < count:
        pass


@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_that_means_nothing_is_said_and_ends_nothing(
    serving: GatewayProcess, number: signal.Signals
) -> None:
    for times in (1, 2):
        serving.signal(number)
        until_said(serving, f"{number.name} changes nothing", times)
    infer(serving)
    assert serving.stop() == 0


def test_a_hang_up_has_the_access_log_opened_anew(serving: GatewayProcess, tmp_path: Path) -> None:
    log = tmp_path / "logs" / "access"
    infer(serving)
    until_lines(log, 1)
    for times in (1, 2, 3):
        moved = log.with_name(f"access.{times}")
        log.rename(moved)
        serving.signal(signal.SIGHUP)
        until_said(serving, "was opened anew", times)
        infer(serving)
        until_lines(log, 1)
        assert moved.read_text().count("\n") == 1
    assert serving.stop() == 0


def test_a_log_that_cannot_be_opened_anew_is_written_on(serving: GatewayProcess, tmp_path: Path) -> None:
    (tmp_path / "logs").rename(tmp_path / "moved")
    serving.signal(signal.SIGHUP)
    until_said(serving, "the file that was open is written on")
    infer(serving)
    until_lines(tmp_path / "moved" / "access", 1)
    assert serving.stop() == 0


def test_a_hang_up_without_an_access_log_changes_nothing(tmp_path: Path) -> None:
    need_native()
    with GatewayProcess(tmp_path / "state", as_a_person=True) as gateway:
        gateway.signal(signal.SIGHUP)
        until_said(gateway, "no access log")
        assert gateway.observe("/readyz").status_code == 200

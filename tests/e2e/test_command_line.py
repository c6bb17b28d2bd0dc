"""The command line as a program of its own: against a gateway that restarts, on a terminal, in a shell."""

from __future__ import annotations

import json
import os
import pty
import queue
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from support import models
from support.gateway import GatewayProcess
from support.relay import Relay

SECONDS = 60


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[GatewayProcess]:
    models.place(models.scale(2.0), tmp_path / "models", "double")
    models.place(models.scale(2.0), tmp_path / "models", "twice")
    with GatewayProcess(tmp_path / "state", ["--models", str(tmp_path / "models")]) as started:
        yield started


@pytest.fixture
def relay(gateway: GatewayProcess) -> Iterator[Relay]:
    made = Relay()
    made.target = gateway.addresses["admin"]
    yield made
    made.close()


def environment(gateway: GatewayProcess, relay: Relay | None = None) -> dict[str, str]:
    around = {"PATH": os.environ["PATH"], "HOME": str(gateway.state.parent / "home")}
    if relay is None:
        return around | {"HEADGATE_STATE": str(gateway.state)}
    token = (gateway.state / "admin-token").read_text().strip()
    return around | {"HEADGATE_ADMIN": relay.address, "HEADGATE_TOKEN": token}


def headgate(gateway: GatewayProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "headgate", *arguments],
        env=environment(gateway), capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip


class Followed:
    """``headgate events --follow`` as it prints."""

    def __init__(self, variables: dict[str, str]) -> None:
        self.child = subprocess.Popen(
            [sys.executable, "-u", "-m", "headgate", "events", "--follow", "--after", "0", "--json"],
            env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.child.stdout is not None
        for line in self.child.stdout:
            self._lines.put(line)

    def until(self, kind: str, revision: int | None) -> list[dict[str, Any]]:
        """The events up to one of that kind."""
        found: list[dict[str, Any]] = []
        while not found or (found[-1]["type"], found[-1]["revision"]) != (kind, revision):
            found.append(json.loads(self._lines.get(timeout=SECONDS)))
        return found

    def interrupt(self) -> tuple[int, str]:
        self.child.send_signal(signal.SIGINT)
        _, words = self.child.communicate(timeout=SECONDS)
        return self.child.returncode, words


def test_following_events_misses_nothing_when_connections_are_cut_and_the_gateway_starts_again(
    gateway: GatewayProcess, relay: Relay
) -> None:
    followed = Followed(environment(gateway, relay))
    try:
        seen = followed.until("applied", 1)
        assert headgate(gateway, "freeze", "double").returncode == 0
        seen += followed.until("applied", 2)
        relay.target = None
        relay.cut()
        assert headgate(gateway, "unfreeze", "double").returncode == 0
        assert gateway.stop() == 0
        gateway.start()
        relay.target = gateway.addresses["admin"]
        seen += followed.until("applied", 3)
        assert headgate(gateway, "freeze", "double").returncode == 0
        seen += followed.until("applied", 4)
        code, words = followed.interrupt()
    finally:
        followed.child.kill()
    stored = json.loads(headgate(gateway, "events", "--json").stdout)["events"]
    assert seen == stored[: len(seen)]
    assert [event["revision"] for event in seen if event["endpoint"] == "double"] == [1, 2, 3, 4]
    assert code == 130
    assert "again in" in words
    assert "Traceback" not in words


def on_terminal(variables: dict[str, str], arguments: Sequence[str], typed: bytes) -> tuple[int, bytes]:
    """Runs a command on a terminal of its own; its exit code and what the terminal was sent."""
    master, slave = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "headgate", *arguments], env=variables, stdin=slave, stdout=slave, stderr=slave
    )
    os.close(slave)
    os.write(master, typed)
    shown = bytearray()
    while True:
        try:
            data = os.read(master, 65_536)
        except OSError:  # the other side is closed
            break
        if not data:
            break
        shown += data
    os.close(master)
    return child.wait(SECONDS), bytes(shown)


def test_delete_asks_on_a_terminal_and_does_as_it_is_told(gateway: GatewayProcess) -> None:
    variables = environment(gateway)
    code, shown = on_terminal(variables, ["delete", "double"], b"n\n")
    assert code == 1
    assert b"Delete double; its history stays." in shown
    assert b"Undo: restore revision 1.\r\nGo on? [y/N]" in shown
    assert headgate(gateway, "get", "-o", "name").stdout == "double\ntwice\n"
    assert on_terminal(variables, ["delete", "double"], b"y\n")[0] == 0
    assert headgate(gateway, "get", "-o", "name").stdout == "twice\n"
    assert headgate(gateway, "delete", "twice").returncode == 0


def test_a_name_that_was_asked_for_cannot_steer_the_terminal(gateway: GatewayProcess) -> None:
    code, shown = on_terminal(environment(gateway), ["get", "\x1b]0;owned\x07\x1b[2J"], b"")
    assert code == 4
    assert b"\x1b" not in shown
    assert b"\x07" not in shown


def test_bash_completes_what_the_gateway_knows(gateway: GatewayProcess, tmp_path: Path) -> None:
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    tools = tmp_path / "bin"
    tools.mkdir()
    script = 'import sys; sys.argv[0] = "headgate"; from headgate.__main__ import main; main()'
    (tools / "headgate").write_text(f"#!/bin/sh\nexec {sys.executable} -c '{script}' \"$@\"\n")
    (tools / "headgate").chmod(0o755)
    variables = environment(gateway)
    variables["PATH"] = f"{tools}:{variables['PATH']}"

    def completed(*words: str) -> list[str]:
        line = " ".join(f"'{word}'" for word in words)
        asked = f'eval "$(headgate completion bash)"\nCOMP_WORDS=({line})\nCOMP_CWORD={len(words) - 1}\n'
        asked += '_headgate_completion headgate\necho "${COMPREPLY[@]}"'
        done = subprocess.run(
            ["bash", "--norc", "-c", asked],
            env=variables,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=True,
        )
        assert done.stderr == ""
        return done.stdout.split()

    assert completed("headgate", "roll") == ["rollback", "rollout"]
    assert completed("headgate", "rollback", "") == ["double", "twice"]
    assert completed("headgate", "block", "double", "") == ["1"]
    assert completed("headgate", "get", "--docu") == ["--document"]
    gateway.stop()
    assert completed("headgate", "rollback", "") == []

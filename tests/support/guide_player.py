"""Plays the commands of a guide as one person at one terminal would; run in a network of its own, where all ports are free.

``unshare -rn python -m support.guide_player``: the steps come as JSON on stdin, what went wrong goes to stdout. A command that
serves stays until the next such command of the guide, which begins with Ctrl-C on it. Not here: the pages (``pages``).
"""

from __future__ import annotations

import fcntl
import json
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from support.pages import Command

SECONDS = 120
_SIOCSIFFLAGS, _UP = 0x8914, 0x1
_READY = (b'{"', b"Ctrl-C")
"""How the line begins by which a command that serves says that it is ready."""


@dataclass
class Step:
    """A file to write, or a command to run; ``stays`` is a command that serves."""

    command: Command | None = None
    stays: bool = False
    file: str = ""
    text: str = ""


def play(folder: Path, steps: Sequence[Step], environment: Mapping[str, str]) -> str:
    """Plays the steps in ``folder``, in a network of its own; what went wrong, or nothing."""
    done = subprocess.run(
        ["unshare", "-rn", sys.executable, "-m", "support.guide_player"],
        input=json.dumps([asdict(step) for step in steps]),
        cwd=folder,
        env={**environment},
        capture_output=True,
        text=True,
        timeout=10 * SECONDS,
    )
    return done.stdout + done.stderr


class Terminal:
    """One terminal in the present folder, with at most one command that serves."""

    def __init__(self) -> None:
        self._serving: tuple[Command, subprocess.Popen[bytes]] | None = None
        self._log = Path(".serving.log")

    def run(self, command: Command) -> None:
        """Runs a command to its end."""
        with Path(".output").open("w+") as output:
            # A file and no pipe: a program that the command leaves behind holds it open.
            done = subprocess.run(
                ["bash", "-c", command.text],
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                timeout=SECONDS,
            )
        shown = Path(".output").read_text()
        if done.returncode != 0:
            raise AssertionError(f"{command.where}: $ {command.text}\nexit code {done.returncode}:\n{shown}")
        if not command.is_answered_by(shown):
            said = "\n".join(command.output)
            raise AssertionError(
                f"{command.where}: $ {command.text}\nthe page shows:\n{said}\nit is:\n{shown}"
            )

    def serve(self, command: Command) -> None:
        """Starts a command that serves, and returns when it says that it is ready."""
        self.end()
        with self._log.open("w") as log:
            child = subprocess.Popen(
                ["bash", "-c", f"exec {command.text}"],
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        self._serving = command, child
        if not _is_ready(child):
            raise AssertionError(f"{command.where}: $ {command.text}\nnot ready:\n{self._log.read_text()}")

    def end(self) -> None:
        """Ctrl-C."""
        if self._serving is None:
            return
        command, child = self._serving
        self._serving = None
        os.killpg(child.pid, signal.SIGINT)
        code = child.wait(SECONDS)
        if child.stdout is not None:
            child.stdout.close()
        if code != 0:
            raise AssertionError(f"{command.where}: exit code {code} after Ctrl-C:\n{self._log.read_text()}")

    def close(self) -> None:
        """Leaves nothing behind."""
        if self._serving is not None:
            os.killpg(self._serving[1].pid, signal.SIGKILL)
            self._serving[1].wait(SECONDS)


def _is_ready(child: subprocess.Popen[bytes]) -> bool:
    assert child.stdout is not None
    deadline, said = time.monotonic() + SECONDS, b""
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while selector.select(max(0.0, deadline - time.monotonic())):
            more = os.read(child.stdout.fileno(), 65536)
            said += more
            if not more or any(line.startswith(_READY) for line in said.split(b"\n")[:-1]):
                return bool(more)
    return False


def _bring_loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _UP))


def main() -> None:
    """Plays what stdin says."""
    _bring_loopback_up()
    terminal = Terminal()
    try:
        for step in json.load(sys.stdin):
            if step["command"] is None:
                path = Path(step["file"])
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(step["text"])
            else:
                command = Command(**step["command"])
                (terminal.serve if step["stays"] else terminal.run)(command)
        terminal.end()
    except (AssertionError, subprocess.TimeoutExpired) as error:
        print(error)
    finally:
        terminal.close()


if __name__ == "__main__":
    main()

"""Standard streams that are closed, that nobody reads, or that take nothing more: the gateway serves, and watches its folder."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from support import models
from support.client import Connection
from support.gateway import ANY_PORT_OPTIONS, STOP_SECONDS, GatewayProcess
from support.tools import need_native

BODY = {"inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
POLL_SECONDS = 0.05


@contextmanager
def no_reader() -> Iterator[int]:
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@contextmanager
def full_pipe() -> Iterator[int]:
    """A pipe whose reader lives and reads nothing; no byte more fits in."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(4096))
    os.set_blocking(writer, True)
    yield writer
    os.close(writer)
    os.close(reader)


def opened(path: str, mode: int) -> Callable[[], AbstractContextManager[int]]:
    @contextmanager
    def make() -> Iterator[int]:
        descriptor = os.open(path, mode)
        yield descriptor
        os.close(descriptor)

    return make


WAYS = {
    "no-reader": no_reader,
    "full-pipe": full_pipe,
    "full-disk": opened("/dev/full", os.O_WRONLY),
    "only-for-reading": opened("/dev/null", os.O_RDONLY),
}
CLOSED = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"]


def served(folder: Path) -> list[str]:
    """The command of a gateway that has something to say at its start: one of its models is none."""
    models.place(models.scale(2.0), folder / "models", "scale")
    broken = folder / "models" / "broken" / "1" / "model.onnx"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"this is no model")
    command = [sys.executable, "-m", "headgate", "serve", "--state", str(folder / "state")]
    return [*command, "--models", str(folder / "models"), *ANY_PORT_OPTIONS]


def addresses(folder: Path, child: subprocess.Popen[bytes]) -> dict[str, str]:
    """Where it listens, by the file that it leaves once it serves."""
    while True:
        with contextlib.suppress(OSError):
            return dict(json.loads((folder / "state" / "addresses.json").read_text()))
        pause(child)


def pause(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        raise AssertionError(f"the gateway ended with {child.wait(POLL_SECONDS)}")


def infer(address: str, version: str) -> int:
    with Connection(address) as connection:
        return connection.send("GET", f"/v2/models/scale/versions/{version}/ready").status


def goes_on(folder: Path, child: subprocess.Popen[bytes]) -> None:
    """It serves, takes a new version from its folder, and ends with 0."""
    http = addresses(folder, child)["http"]
    with Connection(http) as connection:
        assert connection.infer("scale", BODY).status == 200
    models.place(models.scale(3.0), folder / "models", "scale", "2")
    while infer(http, "2") != 200:
        pause(child)
    child.terminate()
    assert child.wait(STOP_SECONDS) == 0


@pytest.mark.parametrize(
    ("way", "supervise"), [*((way, False) for way in WAYS), ("no-reader", True), ("full-pipe", True)]
)
def test_streams_that_take_nothing_stop_nothing(tmp_path: Path, way: str, supervise: bool) -> None:
    need_native()
    command = [*served(tmp_path), *(["--supervise"] if supervise else [])]
    with (
        WAYS[way]() as stream,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream) as child,
    ):
        goes_on(tmp_path, child)


@pytest.mark.parametrize("supervise", [False, True], ids=["alone", "supervised"])
def test_closed_streams_stop_nothing_and_no_file_takes_their_place(tmp_path: Path, supervise: bool) -> None:
    need_native()
    command = [*CLOSED, *served(tmp_path), *(["--supervise"] if supervise else [])]
    with subprocess.Popen(command) as child:
        addresses(tmp_path, child)
        below = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
        for pid in [str(child.pid), *(below if supervise else [])]:
            links = [Path(f"/proc/{pid}/fd/{number}").readlink() for number in (0, 1, 2)]
            assert links == [Path("/dev/null")] * 3
        goes_on(tmp_path, child)


def test_a_reader_that_leaves_later_stops_nothing(tmp_path: Path) -> None:
    need_native()
    with subprocess.Popen(
        served(tmp_path), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        assert json.loads(child.stdout.readline()) == addresses(tmp_path, child)
        for stream in (child.stdin, child.stdout, child.stderr):
            stream.close()
        goes_on(tmp_path, child)


@pytest.mark.parametrize("way", ["no-reader", "full-pipe"])
def test_a_supervisor_that_nobody_hears_begins_the_next_process(tmp_path: Path, way: str) -> None:
    need_native()
    with (
        WAYS[way]() as stream,
        subprocess.Popen([*served(tmp_path), "--supervise"], stdout=stream, stderr=stream) as child,
    ):
        http = addresses(tmp_path, child)["http"]
        below = Path(f"/proc/{child.pid}/task/{child.pid}/children")
        first = below.read_text()
        os.kill(int(first), signal.SIGKILL)
        while below.read_text() in {"", first}:
            pause(child)
        with Connection(http) as connection:
            assert connection.infer("scale", BODY).status in {200, 503}
        child.terminate()
        assert child.wait(STOP_SECONDS) == 0


@pytest.mark.parametrize("way", ["no-reader", "full-pipe"])
def test_what_keeps_a_gateway_from_starting_has_its_exit_code_whoever_reads(tmp_path: Path, way: str) -> None:
    need_native()
    with GatewayProcess(tmp_path / "state"), WAYS[way]() as stream:
        second = subprocess.run(
            [
                sys.executable,
                "-m",
                "headgate",
                "serve",
                "--state",
                str(tmp_path / "state"),
                *ANY_PORT_OPTIONS,
            ],
            stdout=stream,
            stderr=stream,
            timeout=STOP_SECONDS,
        )
    assert second.returncode == 3


def test_the_log_is_json_for_a_program_and_holds_no_token(tmp_path: Path) -> None:
    need_native()
    served(tmp_path)
    (tmp_path / "models" / "two\nlines\x1b[2J" / "1").mkdir(parents=True)
    with GatewayProcess(tmp_path / "state", ["--models", str(tmp_path / "models")]) as gateway:
        token = (tmp_path / "state" / "admin-token").read_text().strip()
        assert gateway.stop() == 0
        written = gateway.log.read_text()
    lines = [json.loads(line) for line in written.splitlines()]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    assert {line["level"] for line in lines} == {"info", "warning"}
    assert any("two\nlines" in line["message"] for line in lines)
    assert token not in written
    assert "\x1b" not in written


def test_a_person_at_a_terminal_gets_text_and_the_token(tmp_path: Path) -> None:
    need_native()
    terminal, end = pty.openpty()
    with subprocess.Popen(served(tmp_path), stdout=subprocess.DEVNULL, stderr=end) as child:
        os.close(end)
        addresses(tmp_path, child)
        child.terminate()
        assert child.wait(STOP_SECONDS) == 0
    written = b""
    with contextlib.suppress(OSError):
        while chunk := os.read(terminal, 1 << 16):
            written += chunk
    os.close(terminal)
    assert (tmp_path / "state" / "admin-token").read_bytes().strip() in written
    assert b"info    gateway" in written
    assert b"draining" in written
    assert not written.startswith(b"{")

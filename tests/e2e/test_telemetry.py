"""Headgate sends nothing to anyone: no file under a fresh HOME, no address tried but loopback.

ONNX Runtime's wheels report to their maker unless told not to before the library opens; the gateway has to do that by
itself, so the variable is taken out of its environment here.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

import httpx

from support.gateway import GatewayProcess
from support.models import DIGITS
from support.tools import need_digits, need_native, need_program

#: ``connect`` and ``sendto`` with an internet address, as strace prints it.
INTERNET = re.compile(
    r'\b(?:connect|sendto|sendmsg)\(.*?(?:inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)")'
)


def foreign(trace: str) -> list[str]:
    """The lines of a trace that try an address other than loopback."""
    lines = []
    for line in trace.splitlines():
        match = INTERNET.search(line)
        address = (match[1] or match[2]) if match else None
        if address is not None and address != "::1" and not address.startswith("127."):
            lines.append(line)
    return lines


def finished(trace: Path) -> str:
    """The trace, once strace has noted the end of the process."""
    deadline = time.monotonic() + 20
    while "+++ exited with 0 +++" not in (written := trace.read_text()):
        assert time.monotonic() < deadline, f"strace saw no good end:\n{written[-2000:]}"
    return written


def test_the_check_finds_what_it_looks_for() -> None:
    trace = """
71 connect(5, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("203.0.113.9")}, 16) = 0
71 connect(5, {sa_family=AF_INET, sin_port=htons(8000), sin_addr=inet_addr("127.0.0.1")}, 16) = 0
71 connect(5, {sa_family=AF_UNIX, sun_path="/run/x"}, 110) = -1 ENOENT (No such file or directory)
71 sendto(6, "q", 1, 0, {sa_family=AF_INET6, sin6_port=htons(53), inet_pton(AF_INET6, "2001:db8::1", &a)}, 28) = 1
71 sendto(7, "q", 1, MSG_NOSIGNAL, NULL, 0) = 1
"""
    assert len(foreign(trace)) == 2


def test_nothing_is_written_at_home_and_nobody_is_called(tmp_path: Path) -> None:
    need_native()
    strace = need_program("strace")
    home = tmp_path / "home"
    home.mkdir()
    trace = tmp_path / "trace"
    gateway = GatewayProcess(
        tmp_path / "state",
        [str(need_digits() / "digits.yaml")],
        environment={
            "HOME": str(home),
            "ORT_DISABLE_TELEMETRY": "",
            "XDG_CACHE_HOME": "",
            "XDG_STATE_HOME": "",
        },
        # Daemonized, strace leaves the gateway as our own child, which signals reach.
        prefix=[
            strace,
            "--daemonize",
            "--follow-forks",
            "--output",
            str(trace),
            "--trace=connect,sendto,sendmsg",
        ],
    )
    with gateway:
        body = (DIGITS / "request.json").read_bytes()
        with httpx.Client() as client:
            for version in ("1", "2"):
                url = f"http://{gateway.http}/v2/models/digits/versions/{version}/infer"
                assert all(client.post(url, content=body).is_success for _ in range(50))
        assert gateway.observe("/metrics").is_success
        assert gateway.stop() == 0
    written = finished(trace)
    assert foreign(written) == []
    assert [str(path) for path in home.rglob("*")] == []

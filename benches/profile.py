"""``make bench-profile``: the user instructions of a plain request by function, counted by callgrind.

A request for a constant version (so that the model is out of the picture) over one kept connection. What is counted is the IO
thread that answers. The other threads work by the clock, not by the request: the control plane looks at its connections once a
second, and under callgrind, beside whatever else the machine does, a request lasts long. What they took is said beside it.
The library is the one that cargo builds, with its symbols; wheels have none. Writes ``results/<date>-profile.md``. Needs valgrind.
With ``--shadow SHARE`` another constant version gets copies of that share of requests, and the file is called ``profile-shadow``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from benches.clients import need
from benches.report import RESULTS, machine
from benches.servers import DIGITS, DOCUMENT, PATH, REQUEST, ROOT, START_SECONDS, Launcher, answer_of

LIBRARY = ROOT / "target" / "release" / "lib_native.so"
WARM, COUNTED = 200, 2000
SHOWN = 200
"""Functions with fewer instructions a request are left out."""
INLINED = re.compile(r"::\{\{closure\}\}")
ANSWERS = "headgate_server::transport::serve::serve"
"""The function that only the IO thread runs."""


SHADOWED = """
apiVersion: headgate/v1
kind: Endpoint
name: digits
versions:
  "1": "file:models/digits/1"
  constant: {constant: {label: %(label)s, probabilities: %(probabilities)s}}
  copied: {constant: {label: %(label)s, probabilities: %(probabilities)s}}
traffic: {champion: constant, shadow: [{to: copied, share: %(share)s}]}
"""


def with_symbols(folder: Path, library: Path) -> Path:
    """A copy of the package with the library that has symbols; what goes on PYTHONPATH."""
    package = folder / "python" / "headgate"
    shutil.copytree(ROOT / "python" / "headgate", package)
    shutil.copy(library, package / "_native.abi3.so")
    return package.parent


def started(
    folder: Path, counts: Path, answer: dict[str, list[float]], shadow: str | None, library: Path
) -> tuple[subprocess.Popen[str], str]:
    """Headgate under callgrind, which counts nothing yet, and where it answers."""
    values = {"label": int(answer["label"][0]), "probabilities": json.dumps(answer["probabilities"])}
    document = folder / "profile.yaml"
    text = DOCUMENT if shadow is None else SHADOWED
    document.write_text(text % (values | {"constant": "100%", "share": shadow}))
    command = ["valgrind", "--tool=callgrind", "--instr-atstart=no", "--separate-threads=yes"]
    command += [f"--callgrind-out-file={counts}"]
    command += [sys.executable, "-m", "headgate", "serve", str(document), "--io-threads", "1"]
    command += ["--root", str(DIGITS), "--sketches", "off", "--state", str(folder / "state")]
    for port in ("http", "grpc", "observe", "admin"):
        command += [f"--{port}", "127.0.0.1:0"]
    environment = os.environ | {
        "PYTHONPATH": str(with_symbols(folder, library)),
        "ORT_DISABLE_TELEMETRY": "1",
    }
    with (folder / "profile.log").open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        process.wait(START_SECONDS)
        raise SystemExit(f"Headgate did not start:\n{(folder / 'profile.log').read_text()[-2000:]}")
    return process, json.loads(line)["http"]


def ask(connection: socket.socket, request: bytes) -> None:
    """One request and its answer."""
    connection.sendall(request)
    answer = b""
    while True:
        answer += connection.recv(1 << 16)
        head, end, body = answer.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        if end and length and len(body) >= int(length[1]):
            break
    if not answer.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"answered {answer[:200]!r}")


def counted(folder: Path, shadow: str | None, library: Path = LIBRARY) -> list[Path]:
    """Counts the instructions of some requests; callgrind's files, one for each thread."""
    launcher = Launcher(min(os.sched_getaffinity(0)), folder)
    teacher = launcher.starlette()
    answer = answer_of(teacher.ask())
    teacher.stop()
    counts = folder / "counts"
    process, address = started(folder, counts, answer, shadow, library)
    body = REQUEST.read_bytes()
    head = f"POST {PATH} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    host, port = address.rsplit(":", 1)
    try:
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            for times, switch in ((WARM, ["-i", "on"]), (COUNTED, ["-i", "off"])):
                for _ in range(times):
                    ask(connection, head.encode() + body)
                control(process, switch)
        control(process, ["-d"])
    finally:
        process.terminate()
        process.wait(START_SECONDS)
    return sorted(folder.glob("counts.1-*"))


def control(process: subprocess.Popen[str], switch: list[str]) -> None:
    """Tells callgrind something."""
    subprocess.run(["callgrind_control", *switch, str(process.pid)], capture_output=True, check=True)


def by_function(counts: Path) -> tuple[Counter[str], Counter[str]]:
    """The instructions of each function itself, and with what it calls (functions that call themselves count more than once)."""
    names: dict[str, str] = {}

    def named(token: str) -> str:
        number, _, name = token.partition(" ")
        return names.setdefault(number, name) if name else names[number]

    own: Counter[str] = Counter()
    whole: Counter[str] = Counter()
    function, calls = "", False
    for line in counts.read_text(errors="replace").splitlines():
        if line.startswith("fn="):
            function = named(line[3:])
        elif line.startswith("cfn="):
            named(line[4:])
        elif line.startswith("calls="):
            calls = True
        elif line[:1] in "+-*0123456789" and len(parts := line.split()) == 2:
            whole[function] += int(parts[1])
            own[function] += 0 if calls else int(parts[1])
            calls = False
    return own, whole


def report(threads: list[tuple[Counter[str], Counter[str]]], shadow: str | None) -> str:
    """The IO thread's as tables, and the sum of the others."""
    own, whole = next(thread for thread in threads if any(name.startswith(ANSWERS) for name in thread[0]))
    others = sum(sum(thread[0].values()) for thread in threads) - sum(own.values())
    lines = [f"# profile, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC", ""]
    lines += [
        f"User instructions of a request (64 numbers in JSON, HTTP/1.1, constant version, sketches off"
        f"{'' if shadow is None else f', a shadow gets {shadow}'}) on its IO thread: "
        f"{sum(own.values()) / COUNTED:,.0f}, by callgrind over {COUNTED:,} requests. "
        f"The other threads took {others / COUNTED:,.0f} in the time of a request.",
    ]
    for title, found in (("with what they call", whole), ("themselves", own)):
        lines += ["", f"## Functions {title}", "", "| instructions | function |", "|---:|---|"]
        for name, count in found.most_common():
            if count / COUNTED < SHOWN:
                break
            lines.append(f"| {count / COUNTED:,.0f} | `{INLINED.sub('', name)}` |")
    facts = {**machine(), "valgrind": version("valgrind"), "rustc": version("rustc")}
    return "\n".join([*lines, "", *(f"- {name}: {value}" for name, value in facts.items()), ""])


def version(program: str) -> str:
    """What a program says of itself."""
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def main() -> None:
    """Counts and writes."""
    parser = argparse.ArgumentParser(description="Counts the instructions of a request by function.")
    parser.add_argument(
        "--shadow", metavar="SHARE", help="the share of requests that a shadow gets, such as 10%%"
    )
    parser.add_argument(
        "--library", type=Path, default=LIBRARY, help="what cargo built, if that is not in target/release"
    )
    options = parser.parse_args()
    shadow, library = options.shadow, options.library
    need("valgrind", "callgrind_control", peers=[library])
    with tempfile.TemporaryDirectory(prefix="headgate-profile-") as name:
        text = report([by_function(counts) for counts in counted(Path(name), shadow, library)], shadow)
    (RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-profile{'' if shadow is None else '-shadow'}.md").write_text(
        text
    )
    print(text)


if __name__ == "__main__":
    main()

"""``make bench-profile``: the user instructions of a plain request on each wire and by function, counted by callgrind.

One kept connection at a time, to a constant version without sketches and to version 1 with them. What is counted is the IO thread
that answers. The other threads work by the clock, not by the request: the control plane looks at its connections once a second,
and under callgrind, beside whatever else the machine does, a request lasts long. What they took is said beside it.
The library is the one that cargo builds, with its symbols; wheels have none. Writes ``results/<date>-profile.md``. Needs valgrind.
With ``--shadow SHARE`` another constant version gets copies of that share of the JSON requests, and the file is called
``profile-shadow``. Not here: the requests (``profile_requests``), callgrind's files (``callgrind``).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benches import callgrind
from benches.callgrind import ThreadCounts
from benches.clients import need
from benches.profile_requests import wires
from benches.report import RESULTS, machine
from benches.servers import DIGITS, ROOT, START_SECONDS, Launcher, answer_of

LIBRARY = ROOT / "target" / "release" / "lib_native.so"
WARM, COUNTED = 200, 2000
SHOWN = 200
"""Functions with fewer instructions a request are left out."""
INLINED = re.compile(r"::\{\{closure\}\}")
ANSWERS = "headgate_server::transport::serve::serve"
"""The function that only the IO thread runs."""
SKETCHES = "RequestRecord>::sketch"
"""What the name of the function that sketches has in it."""
RUNTIME = "onnxruntime"
"""What the file name of ONNX Runtime's library has in it."""
DOCUMENT = """
apiVersion: headgate/v1
kind: Endpoint
name: digits
versions:
  "1": {model: "file:models/digits/1", run: {placement: inline}}
  constant: {constant: {label: %(label)s, probabilities: %(probabilities)s}}
  copied: {constant: {label: %(label)s, probabilities: %(probabilities)s}}
traffic: %(traffic)s
drift: {baseline: "file:baseline/digits.npz"}
"""
"""Inline, because callgrind makes a run so long that it would be placed in the pool."""


@dataclass(frozen=True)
class Setup:
    """What is profiled: the version that answers, the wires, and the build."""

    version: str
    traffic: str
    """The document's ``traffic``."""
    sketches: str
    only: str
    """What the names of the wires have in them."""
    library: Path


@dataclass(frozen=True)
class Profile:
    """What one wire's requests to one version took: the IO thread, and the instructions of the other threads."""

    version: str
    wire: str
    thread: ThreadCounts
    others: int

    @property
    def runtime(self) -> float:
        """Instructions of ONNX Runtime, with what it calls in libc and libstdc++."""
        return self.thread.called_by(RUNTIME)

    @property
    def own(self) -> float:
        """All others: ours, tokio's, and what these call."""
        return self.thread.total - self.runtime


def with_symbols(folder: Path, library: Path) -> Path:
    """A copy of the package with the library that has symbols; what goes on PYTHONPATH."""
    package = folder / "python" / "headgate"
    shutil.copytree(ROOT / "python" / "headgate", package)
    shutil.copy(library, package / "_native.abi3.so")
    return package.parent


def started(folder: Path, answer: dict[str, list[float]], setup: Setup) -> tuple[subprocess.Popen[str], str]:
    """Headgate under callgrind, which counts nothing yet, and where it answers."""
    values = {"label": int(answer["label"][0]), "probabilities": json.dumps(answer["probabilities"])}
    document = folder / "profile.yaml"
    document.write_text(DOCUMENT % (values | {"traffic": setup.traffic}))
    command = ["valgrind", "--tool=callgrind", "--instr-atstart=no", "--separate-threads=yes"]
    command += ["--dump-instr=yes", f"--callgrind-out-file={folder / 'counts'}"]
    command += [sys.executable, "-m", "headgate", "serve", str(document), "--io-threads", "1"]
    command += ["--root", str(DIGITS), "--sketches", setup.sketches, "--state", str(folder / "state")]
    for port in ("http", "grpc", "observe", "admin"):
        command += [f"--{port}", "127.0.0.1:0"]
    environment = os.environ | {
        "PYTHONPATH": str(with_symbols(folder, setup.library)),
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


def counted(folder: Path, answer: dict[str, list[float]], setup: Setup) -> Iterator[Profile]:
    """Counts the instructions of each wire's requests, one wire after the other with one process."""
    process, address = started(folder, answer, setup)
    try:
        asked = [(wire, connect) for wire, connect in wires().items() if setup.only in wire]
        for dump, (wire, connect) in enumerate(asked, 1):
            ask = connect(address)
            for times, switch in ((WARM, ["-i", "on"]), (COUNTED, ["-i", "off"])):
                for _ in range(times):
                    ask()
                control(process, switch)
            # A dump begins the counts anew.
            control(process, ["-d"])
            yield profile(setup.version, wire, sorted(folder.glob(f"counts.{dump}-*")))
    finally:
        process.terminate()
        process.wait(START_SECONDS)


def profile(version: str, wire: str, files: list[Path]) -> Profile:
    """The counts of a dump: the thread that answers, and the sum of the others."""
    threads = [callgrind.read(file) for file in files]
    answering = next(thread for thread in threads if any(name.startswith(ANSWERS) for name in thread.own))
    return Profile(version, wire, answering, sum(thread.total for thread in threads) - answering.total)


def control(process: subprocess.Popen[str], switch: list[str]) -> None:
    """Tells callgrind something."""
    subprocess.run(["callgrind_control", *switch, str(process.pid)], capture_output=True, check=True)


def table(profiles: list[Profile]) -> list[str]:
    """A row for each version and wire."""
    heads = [
        "version",
        "wire",
        "own",
        "of these, sketches",
        "ONNX Runtime",
        "code lines",
        "in 9 of 10 requests",
    ]
    heads += ["code lines of ONNX Runtime", "other threads"]
    lines = [f"| {' | '.join(heads)} |", f"|---|---|{'---:|' * (len(heads) - 2)}"]
    for one in profiles:
        thread, often = one.thread, COUNTED * 9 // 10
        spent = (one.own, thread.called(SKETCHES), one.runtime)
        figures = [f"{count / COUNTED:,.0f}" for count in spent]
        own, frequent = thread.lines_of(without=RUNTIME), thread.lines_of(often, without=RUNTIME)
        figures += [f"{count:,}" for count in (own, frequent, thread.lines_of() - own)]
        figures.append(f"{one.others / COUNTED:,.0f}")
        lines.append(f"| {one.version} | {one.wire} | {' | '.join(figures)} |")
    return lines


def functions(one: Profile) -> list[str]:
    """The functions of a profile that take most, and the source files."""
    lines = []
    titles = {
        "Functions with what they call": one.thread.whole,
        "Functions themselves": one.thread.own,
        "Source files, with what is inlined from them": Counter(
            {shortened(name): count for name, count in one.thread.sources.items()}
        ),
    }
    for title, found in titles.items():
        lines += ["", f"## {title}: {one.wire}, {one.version}", "", "| instructions | |", "|---:|---|"]
        for name, count in found.most_common():
            if count / COUNTED < SHOWN:
                break
            lines.append(f"| {count / COUNTED:,.0f} | `{INLINED.sub('', name)}` |")
    return lines


def shortened(source: str) -> str:
    """A source file from its crate on."""
    kept = re.search(r"(?:registry/src/[^/]+/|rustlib/src/|/rustc/[0-9a-f]+/)(.+)", source)
    return kept[1] if kept else source.removeprefix(f"{ROOT}/")


def report(profiles: list[Profile], shadow: str | None) -> str:
    """What each wire takes, and the first profile by function."""
    lines = [f"# profile, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC", ""]
    copied = "" if shadow is None else f", a shadow gets {shadow}"
    lines += [
        f"User instructions of a request (64 numbers, one kept connection{copied}) on its IO thread, by callgrind over {COUNTED:,} "
        "requests. ONNX Runtime has what its library calls in libc and libstdc++; own are all others. Rows are sketched for a share of "
        "the time that passes, and callgrind stretches time: so the instructions of sketches differ from run to run. Code lines are the "
        "64-byte lines of code, ONNX Runtime's aside, with an instruction that ran in these requests; beside them those with one that "
        "ran at least 9 times in 10 requests. The other threads' instructions are those in the time of a request.",
        "",
    ]
    lines += [*table(profiles), *functions(profiles[0])]
    facts = {**machine(), "valgrind": version("valgrind"), "rustc": version("rustc")}
    return "\n".join([*lines, "", *(f"- {name}: {value}" for name, value in facts.items()), ""])


def version(program: str) -> str:
    """What a program says of itself."""
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def main() -> None:
    """Counts and writes."""
    parser = argparse.ArgumentParser(description="Counts the instructions of a request by wire and function.")
    parser.add_argument(
        "--shadow", metavar="SHARE", help="the share of requests that a shadow gets, such as 10%%"
    )
    parser.add_argument(
        "--library", type=Path, default=LIBRARY, help="what cargo built, if that is not in target/release"
    )
    parser.add_argument(
        "--only", default="", help="wires whose name has this in it, such as JSON; writes no file"
    )
    options = parser.parse_args()
    shadow, library, only = options.shadow, options.library, options.only
    need("valgrind", "callgrind_control", peers=[library])
    constant = "constant, sketches off"
    if shadow is None:
        setups = [
            Setup(constant, '{champion: "1", weights: {constant: 100%}}', "off", only, library),
            Setup("1, sketches on", '{champion: "1"}', "on", only, library),
        ]
    else:
        traffic = f"{{champion: constant, shadow: [{{to: copied, share: {shadow}}}]}}"
        setups = [Setup(constant, traffic, "off", only or "JSON", library)]
    profiles: list[Profile] = []
    with tempfile.TemporaryDirectory(prefix="headgate-profile-") as name:
        teacher = Launcher(min(os.sched_getaffinity(0)), Path(name)).starlette()
        answer = answer_of(teacher.ask())
        teacher.stop()
        for number, setup in enumerate(setups):
            folder = Path(name) / str(number)
            folder.mkdir()
            profiles += counted(folder, answer, setup)
    text = report(profiles, shadow)
    if not only:
        label = "profile" if shadow is None else "profile-shadow"
        (RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-{label}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

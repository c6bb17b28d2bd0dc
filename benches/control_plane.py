"""The control plane at scale: 1 000 endpoints with 50 000 revisions. Times of a start, of commands, of calls, of a rollback.

Not here: commands of a small gateway (``benches.commands``), requests (``benches.macro``). Run: ``python -m benches.control_plane``.

The history is written into the database directly, as the store would have written it, because making it by calls takes minutes.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benches.host import tiny
from benches.report import RESULTS, machine
from headgate.store.chain import chain_digest

ENDPOINTS, REVISIONS, DOCUMENTS = 1_000, 50_000, 500
DRY_RUNS, DOCUMENT_BYTES = 5, 22_000
HEADGATE = (sys.executable, "-m", "headgate")
_STOP_SECONDS = 120.0


@dataclass(frozen=True)
class Taken:
    """What something took: seconds of wall time, and of CPU time of the command and of the gateway."""

    wall: float
    command: float
    gateway: float


@dataclass
class Gateway:
    """A running gateway."""

    process: subprocess.Popen[bytes]
    state: Path
    admin: str
    begun: Taken

    def cpu(self) -> float:
        """CPU time that it has used, user and system."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def mib(self) -> int:
        """Resident memory."""
        fields = dict(
            line.split(":", 1)
            for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
            if ":" in line
        )
        return int(fields["VmRSS"].split()[0]) // 1024

    def wait_for(self, endpoints: int) -> None:
        """Waits until so many endpoints are there: a first start opens its ports before all of them are."""
        token = (self.state / "admin-token").read_text().strip()
        while True:
            connection = http.client.HTTPConnection(self.admin, timeout=300)
            connection.request("GET", "/v1/endpoints", headers={"Authorization": f"Bearer {token}"})
            found = json.loads(connection.getresponse().read())["endpoints"]
            connection.close()
            if len(found) >= endpoints:
                return
            time.sleep(2.0)

    def command(self, *words: str) -> Taken:
        """A command of the command line."""
        before, own, begun = os.times(), self.cpu(), time.perf_counter()
        done = subprocess.run(
            [*HEADGATE, *words, "--state", str(self.state)], capture_output=True, text=True, check=False
        )
        wall, after = time.perf_counter() - begun, os.times()
        if done.returncode:
            raise SystemExit(f"headgate {' '.join(words)[:200]}: {done.stderr[-2000:]}")
        used = after.children_user + after.children_system - before.children_user - before.children_system
        return Taken(wall, used, self.cpu() - own)

    def call(self, method: str, path: str, body: bytes = b"", kind: str = "application/json") -> Taken:
        """A call of the admin API on a connection of its own."""
        own, begun = self.cpu(), time.perf_counter()
        connection = http.client.HTTPConnection(self.admin, timeout=300)
        token = (self.state / "admin-token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": kind}
        connection.request(method, f"/v1{path}", body or None, headers)
        answer = connection.getresponse()
        content = answer.read()
        wall = time.perf_counter() - begun
        connection.close()
        # A document that is refused is parsed all the same.
        if answer.status >= 300 and answer.status != 422:
            raise SystemExit(f"{method} {path}: {answer.status} {content[:500]!r}")
        return Taken(wall, 0.0, self.cpu() - own)


@contextmanager
def served(state: Path, *arguments: str) -> Iterator[Gateway]:
    """A gateway, from its ready line on; ``begun`` is what that took."""
    ports = [f"--{port}=127.0.0.1:0" for port in ("http", "grpc", "observe", "admin")]
    began = time.perf_counter()
    with (
        state.with_suffix(".log").open("a") as log,
        subprocess.Popen(
            [*HEADGATE, "serve", f"--state={state}", *arguments, *ports], stdout=subprocess.PIPE, stderr=log
        ) as process,
    ):
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise SystemExit(state.with_suffix(".log").read_text()[-3000:])
        wall = time.perf_counter() - began
        gateway = Gateway(process, state, json.loads(line)["admin"], Taken(wall, 0.0, 0.0))
        gateway.begun = Taken(wall, 0.0, gateway.cpu())
        try:
            yield gateway
        finally:
            process.terminate()
            process.wait(_STOP_SECONDS)


# === what is measured on ===


def models(folder: Path, count: int) -> Path:
    """A models folder with ``count`` endpoints of one version, each with bytes of its own."""
    root = folder / "models"
    for number in range(count):
        path = root / f"m{number:04}" / "1" / "model.onnx"
        path.parent.mkdir(parents=True)
        tiny(path, 1.0 + number)
    return root


def documents(folder: Path, count: int) -> list[str]:
    """Files of one document each; every one names a model of its own."""
    files = []
    for number in range(count):
        model = folder / "documents" / f"m{number:04}" / "model.onnx"
        model.parent.mkdir(parents=True)
        tiny(model, 1.0 + number)
        path = folder / "documents" / f"d{number:04}.yaml"
        path.write_text(
            f"apiVersion: headgate/v1\nkind: Endpoint\nname: d{number:04}\n"
            f'versions: {{v1: "file:m{number:04}"}}\ntraffic: {{champion: v1}}\n'
        )
        files.append(str(path))
    return files


def long_history(state: Path, revisions: int) -> int:
    """Gives every endpoint as many applied revisions as make ``revisions`` together; how many there are."""
    with closing(sqlite3.connect(state / "headgate.db")) as database, database:
        (generation,) = database.execute("SELECT value FROM generation").fetchone()
        newest = database.execute(
            'SELECT r.endpoint, r.n, r."when", r.document, r.source, r.body, r.digest FROM revisions r '
            "JOIN endpoints e ON e.name = r.endpoint AND e.applied = r.n"
        ).fetchall()
        for endpoint, n, when, document, source, body, digest in newest:
            rows, before, last = [], digest, n
            for number in range(n + 1, n + 1 + revisions // len(newest) - n):
                generation, last = generation + 1, number
                text = _body(body, number)
                before = chain_digest(before, text)
                rows.append(
                    (endpoint, number, number - 1, "freeze" if number % 2 else "unfreeze", "applied", "bench", when, "", document,
                     source, text, before, generation, generation)
                )  # fmt: skip
            database.executemany(
                'INSERT INTO revisions (endpoint, n, parent, kind, status, who, "when", reason, document, source, body, digest, '
                "generation, ended) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                rows,
            )
            database.executemany(
                'INSERT INTO audit (generation, "when", who, role, action, endpoint, revision, outcome, reason, detail) '
                "VALUES (?, ?, 'bench', 'admin', ?, ?, ?, 'applied', '', '{}')",
                [(row[12], when, row[3], endpoint, row[1]) for row in rows],
            )
            database.execute(
                "UPDATE endpoints SET applied = ?, tail = ?, generation = ? WHERE name = ?",
                (last, last, generation, endpoint),
            )
        database.execute("UPDATE generation SET value = ?", (generation,))
        return int(database.execute("SELECT count(*) FROM revisions").fetchone()[0])


def _body(body: str, n: int) -> str:
    said = json.loads(body)
    said |= {"n": n, "parent": n - 1, "kind": "freeze" if n % 2 else "unfreeze"}
    return json.dumps(said, ensure_ascii=False, separators=(",", ":"))


def mistyped(size: int) -> bytes:
    """A document with so many bytes of fields that are no fields: each is looked for among the known ones."""
    lines = ["apiVersion: headgate/v1", "kind: Endpoint", "name: m0000", "versions:"]
    lines += [f'  v{number}: {{modle: "file:x", owerflow{number}: 1}}' for number in range(size // 40)]
    return "\n".join([*lines, "traffic: {champion: v1}", ""]).encode()[: size + 200]


# === measurements ===


@dataclass
class Table:
    """Rows of a table, each something and what it took."""

    rows: list[str]

    def add(self, what: str, taken: Sequence[Taken], note: str = "") -> None:
        """The median of several runs."""
        wall, command, gateway = (
            statistics.median(getattr(one, field) for one in taken) * 1e3
            for field in ("wall", "command", "gateway")
        )
        used = f"{command:.0f}" if command else ""
        slowest = max(one.wall for one in taken) * 1e3
        self.rows.append(
            f"| {what} | {len(taken)} | {wall:.0f} | {slowest:.0f} | {used} | {gateway:.0f} | {note} |"
        )
        print(self.rows[-1], file=sys.stderr, flush=True)


def beside_dry_runs(gateway: Gateway, name: str) -> Taken:
    """A rollback while five large documents are parsed."""
    text = mistyped(DOCUMENT_BYTES)
    begun = threading.Barrier(DRY_RUNS + 1)

    def dry_run() -> None:
        begun.wait()
        gateway.call("PUT", f"/endpoints/{name}?dry_run=true", text, "application/yaml")

    threads = [threading.Thread(target=dry_run) for _ in range(DRY_RUNS)]
    for thread in threads:
        thread.start()
    begun.wait()
    time.sleep(0.05)  # they are on their way
    taken = gateway.call("POST", f"/endpoints/{name}:rollback", b'{"reason": "bench"}')
    for thread in threads:
        thread.join()
    return taken


def folder_of_models(table: Table, folder: Path, runs: int, counts: tuple[int, int]) -> None:
    """Starts, commands and calls on a models folder and its history."""
    endpoints, revisions = counts
    root, state = models(folder, endpoints), folder / "state"
    with served(state, f"--models={root}") as gateway:
        begun = time.perf_counter()
        gateway.wait_for(endpoints)
        rest = gateway.begun.wall + time.perf_counter() - begun
        note = f"{rest:.0f} s until all were served, {gateway.cpu():.0f} s of CPU"
        table.add(f"first start, `--models` with {endpoints}", [gateway.begun], note)
    table.add(f"start, `--models` with {endpoints} unchanged", _starts(state, runs, f"--models={root}"))
    total = long_history(state, revisions)
    table.add(f"start with {total} revisions", _starts(state, runs))
    with served(state, f"--models={root}") as gateway:
        table.add(
            f"start with {total} revisions and `--models`", [gateway.begun], f"{gateway.mib()} MiB resident"
        )
        one = f"m{endpoints // 2:04}"
        for words in (["get"], ["get", one], ["history", one]):
            table.add(f"`headgate {' '.join(words)}`", [gateway.command(*words) for _ in range(runs)])
        names = [f"m{number:04}" for number in range(runs)]
        table.add(
            "`headgate rollback`", [gateway.command("rollback", name, "--reason", "bench") for name in names]
        )
        paths = ("/endpoints", f"/endpoints/{one}", f"/endpoints/{one}/revisions", "/models", "/audit")
        for path in paths:
            table.add(f"`GET {path}`", [gateway.call("GET", path) for _ in range(runs)])
        for verb in ("freeze", "rollback"):
            calls = [
                gateway.call("POST", f"/endpoints/{name}:{verb}", b'{"reason": "bench"}') for name in names
            ]
            table.add(f"`POST :{verb}`", calls)
        taken = [beside_dry_runs(gateway, f"m{100 + number:04}") for number in range(runs)]
        table.add(
            f"`POST :rollback` beside {DRY_RUNS} dry runs of {DOCUMENT_BYTES // 1000} KB",
            taken,
            "all six together",
        )


def _starts(state: Path, runs: int, *arguments: str) -> list[Taken]:
    taken = []
    for _ in range(runs):
        with served(state, *arguments) as gateway:
            taken.append(gateway.begun)
    return taken


def folder_of_documents(table: Table, folder: Path, count: int) -> None:
    """Applies many documents, and then the same once more."""
    files, state = documents(folder, count), folder / "documents-state"
    with served(state, "--root", str(folder / "documents")) as gateway:
        table.add(f"`headgate apply` of {count} documents", [gateway.command("apply", *files)])
        table.add(f"`headgate apply` of {count} unchanged", [gateway.command("apply", *files)])
        table.add(f"`headgate plan` of {count} unchanged", [gateway.command("plan", *files)])


HEAD = (
    "| what | runs | median wall, ms | slowest, ms | CPU of the command, ms | CPU of the gateway, ms | |",
    "|---|---:|---:|---:|---:|---:|---|",
)


def main() -> None:
    """The command line; about three minutes."""
    parser = argparse.ArgumentParser(description="Measures the control plane with many endpoints.")
    parser.add_argument("--endpoints", type=int, default=ENDPOINTS)
    parser.add_argument("--revisions", type=int, default=REVISIONS)
    parser.add_argument("--documents", type=int, default=DOCUMENTS)
    parser.add_argument("--runs", type=int, default=5, help="of each start, command and call (default 5)")
    parser.add_argument("--beside", default="nothing", help="what else ran on the machine, for the page")
    arguments = parser.parse_args()
    table, load = Table([]), os.getloadavg()
    parts: list[Callable[[Path], Any]] = [
        lambda folder: folder_of_models(
            table, folder, arguments.runs, (arguments.endpoints, arguments.revisions)
        ),
        lambda folder: folder_of_documents(table, folder, arguments.documents),
    ]
    with tempfile.TemporaryDirectory(prefix="headgate-control-plane-") as name:
        for part in parts:
            part(Path(name))
    beside = f"Load average before {load[0]:.1f}, after {os.getloadavg()[0]:.1f}; beside it ran {arguments.beside}."
    title = f"# control plane, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    facts = [f"- {key}: {value}" for key, value in machine().items()]
    text = "\n".join([title, "", beside, "", *HEAD, *table.rows, "", *facts, ""])
    (RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-control-plane.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

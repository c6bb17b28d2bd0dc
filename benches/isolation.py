"""``make bench-isolation``: what a good endpoint feels beside clients, models and loads at their worst, and beside honest ones.

An open loop of small requests to a good endpoint, once beside each attack and once beside as many clients of an honest model of
some milliseconds, in turns. Meanwhile a challenger gets half of the traffic and a rollback takes it back. ``--soak`` plays all
attacks in turn for so long, and compares memory, descriptors and threads with what they were before. Read next: ``attacks``.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import onnx

from benches import attacks
from benches.batches import mlp
from benches.generator import Generator, Request, at_rate
from benches.report import machine
from benches.servers import ROOT, Server

PER_SECOND = 100.0
HONEST = 4608
"""The width of the honest model, which then takes some milliseconds."""
TURN_SECONDS = 20.0
"""How long each attack lasts in the soak."""
DOCUMENT = """
apiVersion: headgate/v1
kind: Endpoint
name: {name}
versions: {{v1: "file:models/{name}/1", v2: "file:models/{name}/2"}}
traffic: {{champion: v1}}
"""
Block = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class Felt:
    """What the good endpoint and its operator felt for a while."""

    p99: float
    failed: int
    asked: int
    rollback: float
    cpu: float


class Gateway:
    """The server with its endpoints, and what is done to it."""

    def __init__(self, server: Server, addresses: dict[str, str], token: str) -> None:
        self.server = server
        self.addresses = addresses
        self.token = token

    def blocks(self) -> dict[str, tuple[Block, int]]:
        """Each attack, and how many clients of an honest model stand for it."""
        http = self.addresses["http"]
        return {
            "endless runs, inline": (lambda: attacks.endless(http, "endless-inline", 4), 4),
            "endless runs, pool": (lambda: attacks.endless(http, "endless-pool", 8), 8),
            "a load that hangs": (lambda: attacks.hanging_load(self.addresses["admin"], self.token), 1),
            "giant answers": (lambda: attacks.giant_answers(http, 2), 2),
            "bad requests": (lambda: attacks.bad_requests(http, 2), 2),
            "3 000 idle connections on each port": (
                lambda: attacks.idle_connections(list(self.addresses.values())),
                0,
            ),
        }

    def honest(self, clients: int) -> AbstractContextManager[None]:
        """Clients that have an honest model run, one request after the other."""
        tensor = {"name": "X", "datatype": "FP32", "shape": [1, 64], "data": [0.5] * 64}
        return attacks.repeated(
            clients, attacks.asking(self.addresses["http"], "honest", {"inputs": [tensor]})
        )

    def call(self, method: str, path: str, body: dict[str, Any], **headers: str) -> None:
        """One call of the admin API, which must succeed."""
        host, port = self.addresses["admin"].rsplit(":", 1)
        connection = http.client.HTTPConnection(host, int(port), timeout=attacks.ASK_SECONDS)
        sent = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json", **headers}
        try:
            connection.request(method, path, json.dumps(body), sent)
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        if answer.status >= 400:
            raise SystemExit(f"{method} {path}: {answer.status} {text}")

    def roll_back(self) -> float:
        """Gives the challenger half and takes it back; the seconds that this last call took."""
        any_revision = {"If-Match": "*"}
        self.call(
            "PATCH",
            "/v1/endpoints/good/traffic",
            {"weights": {"v2": "50%"}, "reason": "bench"},
            **any_revision,
        )
        begun = time.perf_counter()
        self.call("POST", "/v1/endpoints/good:rollback", {"reason": "bench"})
        took = time.perf_counter() - begun
        self.call("POST", "/v1/endpoints/good:unblock", {"version": "v2", "reason": "bench"}, **any_revision)
        return took

    def feel(self, seconds: float, seed: int) -> Felt:
        """Asks the good endpoint for a while; in the middle comes the rollback."""
        tensor = {"name": "X", "datatype": "FP32", "shape": [1, 64], "data": [0.5] * 64}
        request = Request("/v2/models/good/infer", json.dumps({"inputs": [tensor]}).encode())
        good = Generator(self.addresses["http"], request, wait="sleep", seed=seed)
        before = self.server.cpu_seconds()
        rollback = self.roll_back()
        begun = time.perf_counter()
        outcome = good.run(at_rate(PER_SECOND, seconds))
        cpu = (self.server.cpu_seconds() - before) / (time.perf_counter() - begun + rollback)
        due = outcome.answer["counts"]["due"]
        return Felt(outcome.response(0.99), due - outcome.good, due, rollback, cpu)

    def weight(self) -> dict[str, int]:
        """Memory in MiB, descriptors and threads of the process."""
        process = Path(f"/proc/{self.server.process.pid}")
        status = dict(
            line.split(":", 1) for line in (process / "status").read_text().splitlines() if ":" in line
        )
        return {
            "MiB": int(status["VmRSS"].split()[0]) >> 10,
            "descriptors": len(list((process / "fd").iterdir())),
            "threads": int(status["Threads"]),
        }


def started(folder: Path, documents: list[Path]) -> tuple[subprocess.Popen[str], dict[str, str]]:
    """Headgate on all cores, and its addresses."""
    command = [sys.executable, "-m", "headgate", "serve", *map(str, documents)]
    command += ["--root", str(folder), "--state", str(folder / "state")]
    for port in ("http", "grpc", "observe", "admin"):
        command += [f"--{port}", "127.0.0.1:0"]
    with (folder / "gateway.log").open("w") as log:
        environment = os.environ | {"ORT_DISABLE_TELEMETRY": "1"}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        process.wait(30)
        raise SystemExit(f"Headgate did not start:\n{(folder / 'gateway.log').read_text()[-2000:]}")
    return process, json.loads(line)


@contextlib.contextmanager
def served() -> Iterator[Gateway]:
    """A gateway with the good, the honest and the attacked endpoints."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory(prefix="headgate-isolation-") as name:
        folder = Path(name)
        documents = attacks.prepare(folder)
        for endpoint, width in (("good", 64), ("honest", HONEST)):
            for version in ("1", "2"):
                model = folder / "models" / endpoint / version / "model.onnx"
                model.parent.mkdir(parents=True)
                made = mlp(width).model
                made.doc_string = version
                onnx.save(made, model)
            documents.append(folder / f"{endpoint}.yaml")
            documents[-1].write_text(DOCUMENT.format(name=endpoint))
        process, addresses = started(folder, documents)
        server = Server("Headgate", process, addresses["http"])
        try:
            yield Gateway(server, addresses, (folder / "state" / "admin-token").read_text().strip())
        finally:
            server.stop()
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def compare(gateway: Gateway, seconds: float, rounds: int) -> list[str]:
    """A table: beside each attack and beside an honest model, in turns."""
    lines = [
        "| beside | p99 ms | beside an honest model | ratio | failed | rollback ms | CPU, of it | CPU, honest |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, (block, clients) in gateway.blocks().items():
        pairs: list[tuple[Felt, Felt]] = []
        for turn in range(rounds):
            with block():
                bad = gateway.feel(seconds, turn)
            with gateway.honest(clients):
                honest = gateway.feel(seconds, turn)
            pairs.append((bad, honest))
        middle = [
            statistics.median(values)
            for values in zip(*((b.p99, h.p99, b.p99 / h.p99) for b, h in pairs), strict=True)
        ]
        failed, asked = sum(bad.failed for bad, _ in pairs), sum(bad.asked for bad, _ in pairs)
        lines.append(
            f"| {name} | {middle[0] * 1e3:.1f} | {middle[1] * 1e3:.1f} | {middle[2]:.2f} | {failed} of {asked} "
            f"| {max(bad.rollback for bad, _ in pairs) * 1e3:.0f} | {statistics.median(bad.cpu for bad, _ in pairs):.2f} "
            f"| {statistics.median(honest.cpu for _, honest in pairs):.2f} |"
        )
        print(lines[-1], flush=True)
    return [*lines, ""]


def soak(gateway: Gateway, seconds: float) -> list[str]:
    """All attacks in turn, then all at once; what the process holds before and after."""
    blocks = [block for block, _ in gateway.blocks().values()]
    # What is made once, on first use, belongs to the base.
    for block in blocks:
        with block():
            gateway.feel(2.0, 0)
    time.sleep(TURN_SECONDS)
    base, peak, failed, asked, turn = gateway.weight(), gateway.weight(), 0, 0, 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with ExitStack() as stack:
            chosen = [blocks[turn % len(blocks)]] if turn % 7 < 6 else blocks[:-1]
            for block in chosen:
                stack.enter_context(block())
            felt = gateway.feel(min(TURN_SECONDS, max(end - time.monotonic(), 1.0)), turn)
            peak = {key: max(value, peak[key]) for key, value in gateway.weight().items()}
        failed, asked, turn = failed + felt.failed, asked + felt.asked, turn + 1
        print(
            f"turn {turn}: p99 {felt.p99 * 1e3:.1f} ms, {felt.failed} failed, {gateway.weight()}", flush=True
        )
    time.sleep(2 * TURN_SECONDS)
    after = gateway.weight()
    lines = [
        f"{turn} turns in {seconds:.0f} s; {failed} of {asked} good requests failed.",
        "",
        "| | before | most | after |",
        "|---|---:|---:|---:|",
    ]
    return [*lines, *(f"| {key} | {base[key]} | {peak[key]} | {after[key]} |" for key in base), ""]


def main() -> None:
    """The command line; about six minutes, and the soak's time on top of that."""
    parser = argparse.ArgumentParser(description="Measures what isolation is worth.")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each measurement (default 6)")
    parser.add_argument("--rounds", type=int, default=3, help="of each pair (default 3)")
    parser.add_argument(
        "--soak", type=float, default=0.0, metavar="SECONDS", help="all attacks in turn for so long"
    )
    arguments = parser.parse_args()
    with served() as gateway:
        if arguments.soak:
            lines, kind = soak(gateway, arguments.soak), "soak"
        else:
            lines, kind = compare(gateway, arguments.seconds, arguments.rounds), "isolation"
    title = [f"# {kind}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC", ""]
    text = "\n".join([*title, *lines, *(f"- {key}: {value}" for key, value in machine().items()), ""])
    (ROOT / "benches" / "results" / f"{datetime.now(UTC):%Y-%m-%d}-{kind}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

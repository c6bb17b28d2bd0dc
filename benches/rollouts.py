"""``make bench-rollouts``: how often a rollout of the same model is rolled back, and how fast a rollback takes effect.

Same model: endpoints side by side, each with rollouts one after the other of the same graph under other bytes, with the gates of the
built-in plan, weights of seconds, and requests of many users of which a share fails in both versions. Every rollback is a false one.
There is no step with copies, because copies of runs that do not end take the cores of shadows.
Rollbacks are ``rollback_times``'s. About five minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import onnx

from benches import clients, rollback_times
from benches.generator import Generator, Outcome, Request, at_rate
from benches.report import RESULTS, machine
from benches.servers import Launcher, Server
from benches.shadows import BODY, QUIET, Gateway, hanging

ENDPOINTS = 20
USERS = 1_000
"""Sticky keys of each endpoint."""
FAILING = 0.02
"""The share of requests that fail, whichever version runs them: their runs do not end, until their client's deadline.

That is an error of the version. A run that fails on one input alone is not: a probe finds the request at fault (``docs/guides/limits.md``).
"""
PATIENCE = "3ms"
"""The deadline of such a request: longer ones would keep the core from the others."""
MOST_ROLLED_BACK = 0.025
"""Of the rollouts: 5 of 200."""
MOST_RESUMES = 10
"""A rollout that pauses once more is aborted."""
LOOK_SECONDS = 1.0
"""Between two views of a rollout: the gateway's core is the requests'."""
_LONGEST = 590.0
_DRAIN_SECONDS = 30.0
PLAN = """
apiVersion: headgate/v1
kind: RolloutPlan
name: quick
steps:
  - {weight: 25%, for: 2s, min_requests: 20}
  - {weight: 50%, for: 2s, min_requests: 40}
  - promote
"""
ENDPOINT = """
---
apiVersion: headgate/v1
kind: Endpoint
name: %s
versions: {v1: "file:models/v1", v2: "file:models/v2"}
traffic: {champion: v1, sticky: header.x-user-id}
rollout: quick
"""


@dataclass
class Ended:
    """What became of the rollouts of all endpoints."""

    ends: Counter[str] = field(default_factory=Counter)
    """By phase, and for what was not promoted the reason."""
    pauses: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    requests: list[int] = field(default_factory=list)
    """Of the challenger at a weight, of those that were promoted."""
    errors: list[int] = field(default_factory=list)
    """Of both versions, as the gate of errors counted them at the end of those that were promoted."""
    unfinished: int = 0
    missing: Counter[str] = field(default_factory=Counter)
    said: list[str] = field(default_factory=list)
    """What was said of each rollback."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, view: dict[str, Any], seconds: float) -> None:
        """Counts a rollout that is over."""
        phase, end = view["phase"], view["end"]
        with self._lock:
            self.ends[phase if phase == "promoted" else f"{phase}: {end['reason']}"] += 1
            self.seconds.append(seconds)
            if phase == "promoted":
                at_weight = [one["requests"] for one in view["finished"] if one["step"].startswith("weight")]
                self.requests.append(sum(at_weight))
                self.errors.append(errors_of(view))
            if phase == "rolled_back":
                self.said.append(f"{view['endpoint']} {view['id']}: {end['said']}")

    def paused(self, reason: str) -> None:
        """Counts a pause."""
        with self._lock:
            self.pauses[reason] += 1

    def left(self, count: int, missing: Sequence[str] = ()) -> None:
        """Counts rollouts that the time did not suffice for, and what one of them waited for."""
        with self._lock:
            self.unfinished += count
            self.missing.update(missing)

    def rolled_back(self) -> int:
        """How many were rolled back, whatever for."""
        return sum(count for end, count in self.ends.items() if end.startswith("rolled_back"))


def errors_of(view: dict[str, Any]) -> int:
    """The errors of both versions that the gate of errors had seen when the last weight was left."""
    gates = [one for one in view["finished"][-1]["gates"] if one["gate"] == "error_rate"]
    return sum(one[arm]["bad"] for one in gates for arm in ("champion", "challenger"))


def prepare(folder: Path, names: Sequence[str]) -> Path:
    """One graph under two digests, and the document of all endpoints."""
    for name in ("v1", "v2"):
        place = folder / "models" / name
        place.mkdir(parents=True)
        model = hanging()
        model.doc_string = name
        onnx.save(model, place / "model.onnx")
        (place / "warmup.json").write_text(json.dumps(QUIET))
    document = folder / "same.yaml"
    document.write_text(PLAN + "".join(ENDPOINT % name for name in names))
    return document


def requests_of(names: Sequence[str]) -> list[Request]:
    """Each user of each endpoint, with the request that is answered and with the one that fails."""
    content = ("content-type", "application/json")
    kinds = (
        (json.dumps(QUIET).encode(), (content,), 1 - FAILING),
        (json.dumps(BODY).encode(), (content, ("x-headgate-timeout", PATIENCE)), FAILING),
    )
    return [
        Request(
            f"/v2/models/{name}/infer",
            body,
            (*headers, ("x-user-id", f"user-{user}")),
            weight,
        )
        for name in names
        for user in range(USERS)
        for body, headers, weight in kinds
    ]


def roll_out(gateway: Gateway, name: str, count: int, deadline: float, ended: Ended) -> None:
    """Rollouts of one endpoint, one after the other: what is not the champion is on trial."""
    path = f"/v1/endpoints/{name}"
    verb = ""
    for number in range(count):
        if time.monotonic() > deadline:
            ended.left(count - number)
            return
        champion = gateway.call("GET", f"{path}/traffic")["champion"]
        begun = time.monotonic()
        challenger = "v1" if champion == "v2" else "v2"
        gateway.call("POST", f"{path}/rollout{verb}", {"version": challenger, "reason": "bench"})
        view = followed(gateway, f"{path}/rollout", deadline + _DRAIN_SECONDS, ended)
        if view["phase"] in ("progressing", "paused"):
            ended.left(count - number, view["missing"])
            return
        ended.add(view, time.monotonic() - begun)
        verb = ":retry" if view["phase"] == "rolled_back" else ""


def followed(gateway: Gateway, path: str, deadline: float, ended: Ended) -> dict[str, Any]:
    """The view of a rollout that is over, which is resumed when it pauses, or the last one when the time is over."""
    resumes = 0
    while True:
        view = gateway.call("GET", path)
        over = view["phase"] not in ("progressing", "paused")
        if over or time.monotonic() > deadline:
            return view
        if view["phase"] == "paused":
            ended.paused(view["pause"]["reason"])
            verb = "resume" if resumes < MOST_RESUMES else "abort"
            gateway.call("POST", f"{path}:{verb}", {"reason": "bench"})
            resumes += 1
        time.sleep(LOOK_SECONDS)


def told(counted: Counter[str]) -> str:
    """The counts in words."""
    return ", ".join(f"{count} {what}" for what, count in counted.most_common()) or "none"


def section(ended: Ended, load: Outcome, per_second: float, endpoints: int) -> list[str]:
    """What is said of it."""
    over, rolled_back = sum(ended.ends.values()), ended.rolled_back()
    # A share of a short run is no count, so that the aim is rounded down.
    allowed = int(MOST_ROLLED_BACK * over)
    lines = [
        "## The same model against itself",
        "",
        f"{over} rollouts on {endpoints} endpoints side by side, {per_second:.0f} requests a second in all from {USERS:,} users of each "
        f"endpoint; {FAILING:.0%} of the requests fail in both versions. Each rollout: 25 %, 50 %, promotion.",
        "",
        f"- Rolled back: {rolled_back} (aim: at most {allowed}, as 5 of 200).",
        f"- Ends: {told(ended.ends)}. Without an end in the time: {ended.unfinished}; they wait for: "
        f"{told(ended.missing)}.",
        f"- Pauses, which were resumed: {told(ended.pauses)}.",
    ]
    if ended.requests:
        lines.append(
            f"- Requests of the challenger at 25 % and 50 %, of those promoted: {min(ended.requests):,} to {max(ended.requests):,}."
        )
        lines.append(
            f"- Errors that their gate saw, of both versions: {min(ended.errors):,} to {max(ended.errors):,}."
        )
    if ended.seconds:
        lines.append(f"- A rollout took {min(ended.seconds):.0f} to {max(ended.seconds):.0f} s.")
    lines += [f"- Requests by what became of them: {told(Counter(load.statuses))}.", ""]
    return [*lines, *(f"- {one}" for one in ended.said), *([""] if ended.said else [])]


def measure(folder: Path, cores: Sequence[int], arguments: argparse.Namespace) -> list[str]:
    """A gateway, its load, and the rollouts."""
    names = [f"e{number}" for number in range(min(ENDPOINTS, arguments.rollouts))]
    document = prepare(folder, names)
    process, addresses = Launcher(cores[0], folder).serve_all(document, "same", "--root", str(folder))
    server = Server("same", process, addresses["http"])
    ended = Ended()
    try:
        token = (folder / "same" / "admin-token").read_text().strip()
        gateway = Gateway(server, addresses["admin"], token)
        first, *others = requests_of(names)
        generator = Generator(server.address, first, cores[-1], wait="sleep", others=tuple(others))
        sending = generator.start(at_rate(arguments.rate, _LONGEST))
        try:
            deadline = time.monotonic() + arguments.seconds
            with ThreadPoolExecutor(len(names)) as pool:
                shares = [len(range(place, arguments.rollouts, len(names))) for place in range(len(names))]
                running = [
                    pool.submit(roll_out, gateway, name, share, deadline, ended)
                    for name, share in zip(names, shares, strict=True)
                ]
            for one in running:
                one.result()
        finally:
            sending.loaded.stop()
        load = sending.outcome()
    finally:
        server.stop()
    return section(ended, load, arguments.rate, len(names))


def main() -> None:
    """The command line; about five minutes."""
    parser = argparse.ArgumentParser(description="Measures rollouts of the same model, and rollbacks.")
    parser.add_argument("--rollouts", type=int, default=200, help="of the same model (default 200)")
    parser.add_argument("--rollbacks", type=int, default=500, help="under load (default 500)")
    parser.add_argument(
        "--seconds", type=int, default=260, help="after which no rollout begins, nor a rollback (default 260)"
    )
    parser.add_argument("--rate", type=float, default=1200.0, help="requests a second (default 1200)")
    parser.add_argument("--print", action="store_true", help="write no page of results")
    arguments = parser.parse_args()
    if arguments.seconds + _DRAIN_SECONDS > _LONGEST:
        parser.error(f"--seconds: at most {_LONGEST - _DRAIN_SECONDS:.0f}")
    clients.need("taskset")
    cores, facts = sorted(os.sched_getaffinity(0)), machine()
    lines = [f"# rollouts, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC", "", "One core for the gateway.", ""]
    os.sched_setaffinity(0, {cores[-1]})
    with tempfile.TemporaryDirectory(prefix="headgate-rollouts-") as name:
        folder = Path(name)
        for part in ("same", "back"):
            (folder / part).mkdir()
        if arguments.rollbacks:
            lines += rollback_times.measure(
                folder / "back", cores, arguments.rate, arguments.rollbacks, arguments.seconds
            )
        if arguments.rollouts:
            lines += measure(folder / "same", cores, arguments)
    text = "\n".join([*lines, *(f"- {key}: {value}" for key, value in facts.items()), ""])
    if not arguments.print:
        (RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-rollouts.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

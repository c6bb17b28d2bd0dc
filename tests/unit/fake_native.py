"""A data plane without Rust: the contract of ``headgate._native`` in memory, with loads that a test holds, releases or fails.

Not here: inference. It is stricter than it needs to be: an ``apply`` that contradicts itself is refused, as the real one does.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import xxhash

from headgate import _native
from headgate.control.domain.shares import Run, Table
from headgate.errors import HeadgateError, InvalidArgument, ModelNotFound, NotFound, PolicyInvalid
from support import shadow_reports

SLOTS = 10_000
SIGNATURE = {
    "inputs": [{"name": "X", "datatype": "FP32", "shape": [-1, 3]}],
    "outputs": [{"name": "score", "datatype": "FP32", "shape": [-1, 1]}],
}


class FakeNative:
    """``held`` and ``failing`` name versions whose loading waits, or ends with a message; ``unopenable`` those that a dry run cannot
    open, ``unopened`` those for which it has no room, ``evicted`` those that have left memory and are loaded again with their next traffic.

    An urgent ``apply`` ends the ones of its endpoint that wait; an ordinary one never passes an urgent one.
    """

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._events: list[dict[str, Any]] = []
        self._ticket = 0
        self._generation = 0
        self._loaded: dict[str, set[tuple[str, str]]] = {}
        self._pending: list[tuple[int, dict[str, Any]]] = []
        self.held: set[str] = set()
        self.evicted: set[str] = set()
        self.failing: dict[str, str] = {}
        self.excused: dict[str, str] = {}
        self.refused: dict[str, dict[str, str]] = {}
        self.unopenable: dict[str, str] = {}
        self.unopened: list[str] = []
        self.served: dict[str, dict[str, Any]] = {}
        self.given: list[dict[str, Any]] = []
        self.applied: list[dict[str, Any]] = []
        self.withdrawn: list[int] = []
        self.requests: dict[tuple[str, str], int] = {}
        self.replayed: list[dict[str, Any]] = []
        self.replay_error: HeadgateError | None = None
        self.running: dict[str, dict[str, Any]] = {}
        self.features: dict[str, list[dict[str, Any]]] = {}
        self.drift_errors: dict[str, Exception] = {}
        self.trial_list: list[dict[str, Any]] = []
        self.trial_states: dict[tuple[str, int], tuple[bytes, bytes]] = {}
        self.restored: list[tuple[str, bytes, bytes]] = []
        self.shadow_reports: list[dict[str, Any]] = []
        self.thresholds: list[tuple[str, dict[str, Any]]] = []
        self.answer: dict[str, Any] | None = None

    def close(self) -> None:
        os.close(self._fd)

    # === the contract ===

    def event_fd(self) -> int:
        return self._fd

    def events(self) -> bytes:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._fd)
        events, self._events = self._events, []
        return json.dumps(events).encode()

    def apply(self, endpoint: bytes) -> int:
        self.given.append(json.loads(endpoint))
        asked = flat(self.given[-1])
        check(asked)
        self._ticket += 1
        self.applied.append(asked)
        name = asked["name"]
        if asked["urgent"]:
            for ticket, earlier in [one for one in self._pending if one[1]["name"] == name]:
                self._pending.remove((ticket, earlier))
                self._tell(event="superseded", ticket=ticket, endpoint=name, revision=earlier["revision"])
        elif any(one["urgent"] and one["name"] == name for _, one in self._pending):
            self._tell(event="superseded", ticket=self._ticket, endpoint=name, revision=asked["revision"])
            return self._ticket
        self._pending.append((self._ticket, asked))
        self._advance()
        return self._ticket

    def mark_unavailable(self, name: str, reason: str) -> None:
        if name not in self.served:
            self.excused[name] = reason

    def set_refusals(self, refused: bytes) -> None:
        self.refused = json.loads(refused)

    def dry_run(self, endpoint: bytes) -> bytes:
        asked = flat(json.loads(endpoint))
        found = next((v["name"] for v in asked["versions"] if v["name"] in self.unopenable), None)
        refused = None
        try:
            check(asked)
        except PolicyInvalid as error:
            refused = {"version": None, "code": error.code, "message": error.message}
        if refused is None and found is not None:
            refused = {"version": found, "code": "model_load_failed", "message": self.unopenable[found]}
        return json.dumps({"refused": refused, "unopened": self.unopened}).encode()

    def cancel(self, name: str) -> None:
        self._ticket += 1
        for ticket, asked in [
            one for one in self._pending if one[1]["name"] == name and not one[1]["urgent"]
        ]:
            self._pending.remove((ticket, asked))
            self._tell(event="superseded", ticket=ticket, endpoint=name, revision=asked["revision"])

    def withdraw(self, ticket: int) -> bool:
        self.withdrawn.append(ticket)
        found = next((one for one in self._pending if one[0] == ticket), None)
        if found is None:
            return False
        self._pending.remove(found)
        self._tell(
            event="superseded", ticket=ticket, endpoint=found[1]["name"], revision=found[1]["revision"]
        )
        return True

    def remove(self, name: str) -> int:
        self._ticket += 1
        self.served.pop(name, None)
        self._loaded.pop(name, None)
        self._generation += 1
        self._tell(event="removed", ticket=self._ticket, endpoint=name, generation=self._generation)
        return self._ticket

    def status(self, endpoint: str | None = None) -> bytes:
        endpoints = {
            name: {
                "revision": served["revision"],
                "champion": served["champion"],
                "versions": {
                    v["name"]: {
                        "memory": {"state": "warm", "bytes": 1 << 20, "pinned": v.get("pinned", False)},
                        "digest": v["digest"],
                        "placement": "inline",
                        "run_us": {"p50": 1.9, "p99": 3.1},
                        "signature": SIGNATURE,
                        "requests": self.requests.get((name, v["name"]), 0),
                    }
                    for v in served["versions"]
                },
            }
            for name, served in self.served.items()
            if endpoint in (None, name)
        }
        return json.dumps({"generation": self._generation, "ready": True, "endpoints": endpoints}).encode()

    def totals(self) -> bytes:
        versions = [
            {
                "endpoint": endpoint,
                "version": version,
                "codes": {"ok": count},
                "durations": [],
                "seen": 0,
                "sketched": 0,
            }
            for (endpoint, version), count in self.requests.items()
        ]
        return json.dumps({"upper_ns": [None], "versions": versions}).encode()

    def trial(self, endpoint: str, whole: bool) -> bytes:
        earlier: list[dict[str, Any]] = []
        return json.dumps({"trial": self.running.get(endpoint), "earlier": earlier, "whole": whole}).encode()

    def set_trial_thresholds(self, endpoint: str, thresholds: bytes) -> int:
        self.thresholds.append((endpoint, json.loads(thresholds)))
        return len(self.thresholds)

    def judge(self, evidence: str, question: str) -> str:
        """As the data plane decides it: judging has one implementation. A test may put an answer in its place."""
        return _native.judge(evidence, question) if self.answer is None else json.dumps(self.answer)

    def latency_thresholds(self, evidence: str, question: str) -> str:
        return _native.latency_thresholds(evidence, question)

    def gate_power(self, requests: int, exposure: float, base: float, threshold: float) -> str:
        return _native.gate_power(requests, exposure, base, threshold)

    def trials(self) -> bytes:
        return json.dumps(self.trial_list).encode()

    def stored_trial(self, endpoint: str, begun_ms: int) -> tuple[bytes, bytes] | None:
        return self.trial_states.get((endpoint, begun_ms))

    def restore_trial(self, endpoint: str, ledger: bytes, units: bytes) -> None:
        if ledger == b"damaged":
            raise InvalidArgument("a ledger that contradicts itself")
        self.restored.append((endpoint, ledger, units))

    def drift(self, endpoint: str, window_seconds: int) -> bytes:
        window = {"seconds": window_seconds, "from": 0, "to": window_seconds}
        if endpoint in self.drift_errors:
            raise self.drift_errors[endpoint]
        features = self.features.get(endpoint, [])
        return json.dumps(
            {"endpoint": endpoint, "window": window, "baseline": None, "features": features}
        ).encode()

    def start_replay(self, endpoint: str, request: bytes) -> bytes:
        if self.replay_error is not None:
            raise self.replay_error
        asked = json.loads(request)
        report = {
            **shadow_reports.replayed(pairs=0),
            "id": len(self.replayed) + 1,
            "endpoint": endpoint,
            "version": asked["version"],
            "against": {"version": asked.get("against", "v1"), "digest": "sha256:1"},
            "state": "running",
            "asked": asked,
        }
        self.replayed.append(report)
        return json.dumps(report).encode()

    def replays(self, endpoint: str) -> bytes:
        found = [one for one in reversed(self.replayed) if one["endpoint"] == endpoint]
        return json.dumps({"replays": found}).encode()

    def cancel_replay(self, endpoint: str, replay: int) -> bytes:
        for one in self.replayed:
            if (one["endpoint"], one["id"]) == (endpoint, replay):
                if one["state"] == "running":
                    one["state"] = "cancelled"
                return json.dumps(one).encode()
        raise NotFound(f"endpoint {endpoint!r} has no replay {replay}")

    def shadows(self, endpoint: str) -> bytes:
        """Of the shadows of its document, what a test puts into ``shadow_reports``."""
        if endpoint not in self.served:
            raise ModelNotFound(f"no endpoint is named {endpoint!r}")
        return json.dumps(
            {
                "endpoint": endpoint,
                "champion": self.served[endpoint]["champion"],
                "cpu": {"budget_cores": 0.5, "used_cores": 0.12, "waiting": False, "threads": 2, "stuck": 0},
                "memory": {"bytes": 18_342, "max_bytes": 256 << 20},
                "shadows": self.shadow_reports,
            }
        ).encode()

    def set_weights(self, table: bytes, weights: bytes) -> bytes:
        asked = json.loads(table)
        before = Table(asked["salt"], tuple(tuple(run) for run in asked["given"]))
        after = set_weights(before, json.loads(weights))
        answer = {"salt": after.salt, "given": [list(run) for run in after.given]}
        return json.dumps({"table": answer, "moves": []}).encode()

    def explain_route(self, endpoint: bytes, request: bytes) -> bytes:
        """As the data plane decides it: routing has one implementation."""
        return _native.explain_route(endpoint, request)

    def slot_of(self, salt: str, key: bytes) -> int:
        return (xxhash.xxh64_intdigest(salt.encode() + b"\0" + key) * SLOTS) >> 64

    def fit_baseline(self, columns: bytes, values: Sequence[object]) -> bytes:
        features = [{"column": column} for column in json.loads(columns)]
        return json.dumps({"format": "headgate.baseline/1", "features": features}, sort_keys=True).encode()

    def inspect(self, model: str) -> dict[str, Any]:
        return SIGNATURE

    # === what a test does ===

    def release(self, *versions: str) -> None:
        """Lets the loading of ``versions`` (all without arguments) go on."""
        self.held -= set(versions) if versions else set(self.held)
        self._advance()

    def _advance(self) -> None:
        busy: set[str] = set()
        for ticket, asked in list(self._pending):
            name = asked["name"]
            if name in busy:
                continue
            outcome = self._load(asked)
            if outcome is None:
                busy.add(name)
                continue
            self._pending.remove((ticket, asked))
            self._tell(ticket=ticket, endpoint=name, revision=asked["revision"], **outcome)

    def _load(self, asked: dict[str, Any]) -> dict[str, Any] | None:
        name = asked["name"]
        loaded = self._loaded.setdefault(name, set())
        for version in asked["versions"]:
            key = (version["name"], version["digest"])
            if key in loaded and not (version["name"] in self.evicted and answers(asked, version["name"])):
                continue
            if version["name"] in self.failing:
                message = self.failing[version["name"]]
                return {
                    "event": "failed",
                    "code": "model_load_failed",
                    "version": version["name"],
                    "message": message,
                }
            if version["name"] in self.held:
                return None
        self._loaded[name] = {(v["name"], v["digest"]) for v in asked["versions"]}
        self.evicted -= {v["name"] for v in asked["versions"] if answers(asked, v["name"])}
        self.served[name] = asked
        self.excused.pop(name, None)
        self._generation += 1
        details = {v["name"]: {"load_ms": 1.5, "signature": SIGNATURE} for v in asked["versions"]}
        return {"event": "applied", "generation": self._generation, "versions": details}

    def _tell(self, **event: Any) -> None:
        self._events.append(event)
        os.eventfd_write(self._fd, 1)

    def owner(self, endpoint: str, key: str) -> str:
        """The version that answers ``key`` now."""
        served = self.served[endpoint]
        table = Table(served["table"]["salt"], tuple(tuple(run) for run in served["table"]["given"]))
        found = table.owner(self.slot_of(table.salt, key.encode())) if table.given else None
        return served["champion"] if found is None else found[0]


def flat(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state as the data plane works with it: live traffic and the versions that are to be in memory; what is not known is refused."""
    if unknown := state.keys() - {"name", "revision", "spec", "traffic", "load"}:
        raise PolicyInvalid(f"unknown keys {unknown}")
    spec, traffic, load = state["spec"], state["traffic"], state["load"]
    kept = {traffic["champion"], traffic["last_good"]} if spec["traffic"]["keep_warm"] else set()
    sticky = spec["traffic"].get("sticky")
    return {
        "name": state["name"],
        "revision": state["revision"],
        "versions": [
            {
                "name": name,
                "artifact": load["artifacts"].get(name),
                "pinned": name in kept,
                **spec["versions"][name],
            }
            for name in load["versions"]
        ],
        "champion": traffic["champion"],
        "table": traffic["table"],
        "shadows_off": traffic["shadows_off"],
        "capture_off": traffic["capture_off"],
        "sticky": None if sticky is None else sticky.removeprefix("header."),
        "timeout_ms": spec["limits"]["timeout"],
        "baseline": load["baseline"],
        "urgent": load["urgent"],
    }


def answers(asked: Mapping[str, Any], version: str) -> bool:
    """Whether a version gets traffic without being named, so that it must be in memory."""
    return version == asked["champion"] or any(run[0] == version for run in asked["table"]["given"])


def check(asked: Mapping[str, Any]) -> None:
    """Refuses an endpoint that contradicts itself."""
    names = [version["name"] for version in asked["versions"]]
    seen: set[int] = set()
    if asked["champion"] not in names:
        raise PolicyInvalid(f"champion {asked['champion']} is not among {names}")
    for version, first, last in asked["table"]["given"]:
        slots = set(range(min(first, last), max(first, last) + 1))
        if (
            version not in names
            or version == asked["champion"]
            or slots & seen
            or not slots <= set(range(SLOTS))
        ):
            raise PolicyInvalid(f"run {version} {first} {last} does not fit {names} or overlaps")
        seen |= slots
    if asked["table"]["given"] and not asked["table"]["salt"]:
        raise PolicyInvalid("a table that gives slots away needs a salt")


def set_weights(table: Table, weights: Mapping[str, int]) -> Table:
    """The slot arithmetic of ``rust/core/src/slots.rs``, slot by slot."""
    given = [(version, slot) for version, first, last in table.given for slot in _walk(first, last)]
    present = table.weights()
    if sum(weights.values()) > SLOTS:
        raise PolicyInvalid("more than all slots")
    surplus = {version: present[version] - weights.get(version, 0) for version in present}
    freed: list[int] = []
    kept: list[tuple[str, int]] = []
    for version, slot in reversed(given):
        if surplus[version] > 0:
            surplus[version] -= 1
            freed.append(slot)
        else:
            kept.append((version, slot))
    kept.reverse()
    taken = {slot for _, slot in kept} | set(freed)
    free = iter([*freed, *(slot for slot in range(SLOTS) if slot not in taken)])
    for version in sorted(weights):
        for _ in range(weights[version] - present.get(version, 0)):
            kept.append((version, next(free)))
    return Table(table.salt, _runs(kept))


def _walk(first: int, last: int) -> range:
    return range(first, last + 1) if first <= last else range(first, last - 1, -1)


def _runs(given: list[tuple[str, int]]) -> tuple[Run, ...]:
    runs: list[Run] = []
    for version, slot in given:
        if runs and runs[-1][0] == version:
            _, first, last = runs[-1]
            step = 1 if last >= first else -1
            if slot == last + step or (first == last and abs(slot - last) == 1):
                runs[-1] = (version, first, slot)
                continue
        runs.append((version, slot, slot))
    return tuple(runs)

"""Trials across the boundary: thresholds, states and refusals of the real extension."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from headgate.errors import InvalidArgument, ModelNotFound, NotFound
from support import models
from support import native as plane
from support.tools import need_native

SALT = "scale/2/1"


def state(one: Path, two: Path, salt: str = SALT) -> bytes:
    """The state of an endpoint that gives half of its slots to ``v2``."""
    files = {"v1": one, "v2": two}
    return json.dumps(
        {
            "name": "scale",
            "revision": 1,
            "spec": {
                "versions": {name: {"digest": plane.digest(file)} for name, file in files.items()},
                "traffic": {"champion": "v1", "sticky": "header.x-user"},
                "limits": {"timeout": 30_000},
            },
            "traffic": {
                "champion": "v1",
                "last_good": "v1",
                "table": {"salt": salt, "given": [["v2", 0, 4_999]] if salt else []},
            },
            "load": {"versions": list(files), "artifacts": {name: str(file) for name, file in files.items()}},
        }
    ).encode()


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    need_native()
    one = models.place(models.scale(1.0), tmp_path, "scale", "1")
    return one, models.place(models.scale(2.0), tmp_path, "scale", "2")


@pytest.fixture
def gateway(files: tuple[Path, Path]) -> Iterator[tuple[Any, str]]:
    with plane.running() as (gateway, address):
        apply(gateway, state(*files))
        yield gateway, address


def apply(gateway: Any, argument: bytes) -> None:
    event = plane.settle(gateway, gateway.apply(argument))
    assert event["event"] == "applied", event


def ask(address: str, users: int) -> dict[str, int]:
    """A request of each user; how many each version answered."""
    body = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 4], "data": [1.0] * 4}]}
    counts = {"v1": 0, "v2": 0}
    for user in range(users):
        answer = httpx.post(
            f"http://{address}/v2/models/scale/infer", json=body, headers={"x-user": f"user-{user}"}
        )
        counts[answer.headers["x-headgate-version"]] += 1
    return counts


def trial(gateway: Any, *, whole: bool = False) -> Any:
    """The trial, once nothing is in progress."""
    while True:
        found = json.loads(gateway.trial("scale", whole))["trial"]
        if all(arm["in_flight"] == 0 for arm in found["arms"]):
            return found


def test_counts_are_told_by_version_and_split(gateway: tuple[Any, str]) -> None:
    native, address = gateway
    counts = ask(address, 40)
    found = trial(native, whole=True)
    assert {arm["version"]: arm["ran"] for arm in found["arms"]} == counts
    assert found["splits"][0]["slots"] == {"v1": 5_000, "v2": 5_000}
    assert [arm["units"] for arm in found["arms"]] == list(counts.values())
    assert "minutes" not in trial(native)
    with pytest.raises(ModelNotFound):
        native.trial("other", False)


def test_thresholds_are_for_a_running_attempt_and_its_versions(gateway: tuple[Any, str]) -> None:
    native, address = gateway

    def put(attempt: str, **arms: Any) -> int:
        return int(
            native.set_trial_thresholds("scale", json.dumps({"attempt": attempt, "arms": arms}).encode())
        )

    assert put(SALT, v1={"run_ns": 1, "reply_ns": 1}, v2={"reply_ns": 1}) == 1
    ask(address, 40)
    assert put(SALT) == 2
    assert trial(native)["window"]["thresholds"]["v1"] == {"run_ns": 0, "reply_ns": 0}
    with pytest.raises(NotFound, match="attempt"):
        put("scale/3/1")
    with pytest.raises(InvalidArgument, match=r"arms\.v3.*v1, v2"):
        put(SALT, v3={"run_ns": 1})
    with pytest.raises(InvalidArgument, match=r"arms\.v1\.run_ns"):
        put(SALT, v1={"run_ns": "1ms"})


def test_a_state_goes_to_a_store_and_back(gateway: tuple[Any, str], files: tuple[Path, Path]) -> None:
    native, address = gateway
    counts = ask(address, 40)
    trial(native)
    (listed,) = json.loads(native.trials())
    assert (listed["endpoint"], listed["ended_ms"]) == ("scale", None)
    ledger, units = native.stored_trial("scale", listed["begun_ms"])
    assert native.stored_trial("scale", 1) is None
    with plane.running() as (other, _):
        other.restore_trial("scale", ledger, units)
        apply(other, state(*files))
        found = trial(other)
        assert {arm["version"]: arm["ran"] for arm in found["arms"]} == counts
        assert len(found["gaps"]) == 1
        for broken in ((b"{}", units), (ledger, units[:-1])):
            with pytest.raises(InvalidArgument, match="scale"):
                other.restore_trial("scale", *broken)

"""The evidence of a trial on the real gateway: its counts are those that the client counts, and a restart is a gap.

Not here: every way in which a request ends (``rust/server/tests/gateway/trial.rs``), what the counters mean (``docs/design/evidence.md``).
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from headgate._native import slot_of
from support import models
from support.gateway import GatewayProcess
from support.tools import need_native

DOCUMENT = """\
apiVersion: headgate/v1
kind: Endpoint
name: scale
versions: {v1: "file:scale/1", v2: "file:scale/2"}
traffic:
  champion: v1
  weights: {v2: 30%}
  sticky: header.x-user-id
  rules:
    - {when: {header.x-tester: "1"}, to: v2}
"""
USERS = [f"user-{number}" for number in range(120)]


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[GatewayProcess]:
    need_native()
    models.place(models.scale(2.0), tmp_path, "scale", "1")
    models.place(models.scale(math.nan), tmp_path, "scale", "2")
    document = tmp_path / "scale.yaml"
    document.write_text(DOCUMENT)
    with GatewayProcess(tmp_path / "state", [str(document)]) as gateway:
        yield gateway


def infer(
    gateway: GatewayProcess, headers: dict[str, str], *, path: str = "", count: int = 4
) -> httpx.Response:
    inputs = [{"name": "X", "datatype": "FP32", "shape": [1, 4], "data": [1.0] * count}]
    url = f"http://{gateway.http}/v2/models/scale{path}/infer"
    return httpx.post(url, json={"inputs": inputs}, headers=headers)


def get(gateway: GatewayProcess, path: str = "") -> Any:
    with gateway.admin() as admin:
        return admin.get(f"/v1/endpoints/scale{path}")


def trial(gateway: GatewayProcess) -> Any:
    found = get(gateway, "/trial")["trial"]
    return None if found is None else found | {"arms": {arm["version"]: arm for arm in found["arms"]}}


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline


def is_quiet(gateway: GatewayProcess) -> bool:
    return all(arm["in_flight"] == 0 for arm in trial(gateway)["arms"].values())


def challenged(gateway: GatewayProcess) -> dict[str, bool]:
    """Whether each user's slot is the challenger's."""
    traffic = get(gateway, "/traffic")
    ((version, first, last),) = traffic["table"]
    assert version == "v2"
    return {user: first <= slot_of(traffic["salt"], user.encode()) <= last for user in USERS}


def ask(gateway: GatewayProcess, slots: dict[str, bool]) -> Counter[str]:
    """Two requests of each user, and some that are no evidence; how many were routed to each version by its slot."""
    routed: Counter[str] = Counter()
    for user in USERS * 2:
        answer = infer(gateway, {"x-user-id": user})
        assert answer.status_code == 200, answer.text
        # JSON cannot carry the challenger's NaN, so the champion answers.
        assert answer.headers["x-headgate-version"] == "v1"
        assert ("x-headgate-fallback" in answer.headers) == slots[user]
        routed["v2" if slots[user] else "v1"] += 1
    for user in USERS[:5]:
        assert infer(gateway, {"x-user-id": user}, path="/versions/v1").status_code == 200
        assert infer(gateway, {"x-user-id": user, "x-tester": "1"}).status_code == 200
        # The elements are as many as the shape may have, and not as many as it has.
        assert infer(gateway, {"x-user-id": user}, count=3).status_code == 400
    return routed


def test_the_counts_are_the_clients_and_outlive_a_restart(gateway: GatewayProcess) -> None:
    slots = challenged(gateway)
    routed = ask(gateway, slots)
    until(lambda: is_quiet(gateway))
    found = trial(gateway)
    units = Counter("v2" if challenger else "v1" for challenger in slots.values())
    for version, arm in found["arms"].items():
        assert arm["routed"] == arm["ran"] == routed[version]
        assert arm["units"] == arm["first_requests"] == units[version]
        assert arm["errors"] == 0
        assert sum(minute["arms"].get(version, {}).get("ran", 0) for minute in found["minutes"]) == arm["ran"]
    champion, challenger = found["arms"]["v1"], found["arms"]["v2"]
    assert (
        challenger["nan_answers"]
        == challenger["nan_by_output"]["Y"]
        == challenger["unwritable"]
        == routed["v2"]
    )
    assert champion["nan_answers"] == 0
    mistakes = champion["apart"]["client_mistakes"] + challenger["apart"]["client_mistakes"]
    assert mistakes == 5
    assert challenger["apart"]["by_rule"] == 5
    assert champion["apart"]["direct"] == 5
    assert champion["apart"]["fallback"] == routed["v2"] + 5
    shown = gateway.observe("/metrics").text
    assert (
        f'headgate_trial_requests_total{{endpoint="scale",outcome="ran",version="v2"}} {routed["v2"]}.0'
        in shown
    )
    view = get(gateway)["trial"]
    assert [arm["ran"] for arm in view["arms"]] == [routed["v1"], routed["v2"]]

    gateway.stop()
    gateway.start()
    resumed = trial(gateway)
    assert len(resumed["gaps"]) == 1
    assert resumed["begun"] == found["begun"]
    again = ask(gateway, slots)
    until(lambda: is_quiet(gateway))
    for version, arm in trial(gateway)["arms"].items():
        assert arm["ran"] == routed[version] + again[version]
        # Their units are known from before.
        assert arm["units"] == units[version]


def test_an_endpoint_without_a_challenger_has_no_trial(gateway: GatewayProcess) -> None:
    with gateway.admin() as admin:
        admin.set_weights("scale", {"v2": "0%"})
    # Requests and snapshots let go of it within a second.
    until(lambda: get(gateway)["trial"] is None)
    answer = get(gateway, "/trial")
    assert answer["trial"] is None or answer["trial"]["ended"] is not None

"""Rollouts of a gateway process that is killed, drained, overridden, or out of disk: what it does, and the history that is left.

Not here: what evidence decides on real models (``test_rollout``, ``test_rollout_harm``), the calls one by one (``unit/admin``).
"""

from __future__ import annotations

import errno
import itertools
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from support import models
from support.gateway import AdminClient, GatewayProcess, checked
from support.tools import need_native, need_program

SECONDS = 90.0
ENDPOINT = "/v1/endpoints/scale"
DOCUMENT = """\
apiVersion: headgate/v1
kind: Endpoint
name: scale
versions: {v1: "file:scale/1", v2: "file:scale/2"}
traffic: {champion: v1, sticky: header.x-user-id}
"""
PLAN = """\
apiVersion: headgate/v1
kind: RolloutPlan
name: steps
steps:
  - {weight: 10%, for: 10m, min_requests: 10}
  - {weight: 50%, for: 10m, min_requests: 10}
  - promote
rollback_if: {error_rate: 1.5x}
"""
BODY = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 4], "data": [1.0] * 4}]}
ON_A_SMALL_DISK = 'mount -t tmpfs -o size=200m,mode=0700 tmpfs "$0" && exec "$@"'

# Beside much else the champion gets slower under way, and the rollout pauses for it, as it should.
pytestmark = pytest.mark.quiet


@pytest.fixture
def gateway(tmp_path: Path) -> GatewayProcess:
    """Not started yet."""
    need_native()
    models.place(models.scale(2.0), tmp_path, "scale", "1")
    models.place(models.scale(3.0), tmp_path, "scale", "2")
    (tmp_path / "scale.yaml").write_text(DOCUMENT)
    return GatewayProcess(tmp_path / "state", [str(tmp_path / "scale.yaml")])


@contextmanager
def users(gateway: GatewayProcess) -> Iterator[dict[int, int]]:
    """Requests of many users, one after another; their number by status, 0 for a connection that broke."""
    stopped, counted = threading.Event(), dict[int, int]()

    def ask() -> None:
        with httpx.Client(base_url=f"http://{gateway.http}") as client:
            for number in itertools.count():
                if stopped.is_set():
                    return
                headers = {"x-user-id": f"user-{number}"}
                try:
                    status = client.post("/v2/models/scale/infer", json=BODY, headers=headers).status_code
                except httpx.TransportError:
                    status = 0
                counted[status] = counted.get(status, 0) + 1
                stopped.wait(0.005)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield counted
    finally:
        stopped.set()
        thread.join()


def act(admin: AdminClient, verb: str = "", **body: Any) -> Any:
    """A call about the rollout; ``verb`` is empty to start one."""
    path = f"{ENDPOINT}/rollout{verb and ':' + verb}"
    return checked(admin.http.post(path, json=body, headers={"if-match": "*"}))


def start(admin: AdminClient, plan: str = PLAN) -> None:
    """Stores the plan and begins the rollout of v2, at the first weight."""
    answer = admin.http.put(
        "/v1/plans/steps", content=plan, headers={"content-type": "application/yaml", "if-none-match": "*"}
    )
    checked(answer)
    act(admin, version="v2", plan="steps", reason="it is better")


def until(admin: AdminClient, true: Callable[[Any], bool]) -> Any:
    """The first view of which something is true."""
    deadline = time.monotonic() + SECONDS
    while not true(view := admin.get(f"{ENDPOINT}/rollout")):
        assert time.monotonic() < deadline, view
        time.sleep(0.05)
    return view


def weights(admin: AdminClient) -> tuple[str, dict[str, str]]:
    """The champion and the weights in force."""
    traffic = admin.traffic("scale")
    return traffic["champion"], traffic["weights"]


def at_weight(slots: int) -> Callable[[Any], bool]:
    return lambda view: view["weight"] == slots and view["phase"] == "progressing"


def history(admin: AdminClient) -> list[str]:
    """What each revision was, oldest first."""
    revisions = admin.get(f"{ENDPOINT}/revisions")["revisions"]
    return [one["kind"] for one in reversed(revisions)]


def fill(path: Path) -> None:
    """Writes until no block of the disk is free."""
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096):
                pass
        except OSError as error:
            assert error.errno == errno.ENOSPC


def test_a_kill_takes_the_weight_away_once_and_a_drain_goes_on(gateway: GatewayProcess) -> None:
    with gateway, gateway.admin() as admin, users(gateway):
        start(admin)
        until(admin, at_weight(1_000))
        act(admin, "promote")
        until(admin, at_weight(5_000))
        gateway.kill()
    with gateway, gateway.admin() as admin, users(gateway) as counted:
        view = admin.get(f"{ENDPOINT}/rollout")
        assert (view["phase"], view["pause"]["reason"], weights(admin)) == ("paused", "crash", ("v1", {}))
        act(admin, "resume", reason="the machine was switched off")
        view = until(admin, lambda view: view["step"]["requests"] > 0)
        assert (view["step"]["index"], weights(admin)) == (2, ("v1", {"v2": "50%"}))
        assert gateway.stop() == 0
    assert set(counted) <= {200, 0}
    with gateway, gateway.admin() as admin, users(gateway) as counted:
        view = admin.get(f"{ENDPOINT}/rollout")
        assert (view["phase"], weights(admin)) == ("progressing", ("v1", {"v2": "50%"}))
        until(admin, lambda view: view["step"]["requests"] > 0)
        act(admin, "promote", full=True, reason="seen enough")
        view = admin.get(f"{ENDPOINT}/rollout")
        assert (view["phase"], weights(admin)) == ("promoted", ("v2", {}))
        assert "seen enough" in admin.get(f"{ENDPOINT}/revisions")["revisions"][0]["reason"]
        told = history(admin)
        assert told[:2] == ["apply", "rollout_start"]
        assert told[-1] == "rollout_promote"
    assert set(counted) == {200}


def test_one_that_was_on_trial_in_two_unclean_ends_is_blocked(gateway: GatewayProcess) -> None:
    for _ in range(2):
        with gateway, gateway.admin() as admin, users(gateway):
            if history(admin) == ["apply"]:
                start(admin)
            else:
                act(admin, "resume")
            until(admin, at_weight(1_000))
            gateway.kill()
    with gateway, gateway.admin() as admin:
        view = admin.get(f"{ENDPOINT}/rollout")
        assert (view["phase"], view["end"]["reason"], weights(admin)) == ("rolled_back", "crash", ("v1", {}))
        (block,) = admin.get(ENDPOINT)["blocks"]
        assert block["version"] == "v2"


def test_an_operator_overrides_undoes_and_tries_again(gateway: GatewayProcess) -> None:
    with gateway, gateway.admin() as admin, users(gateway) as counted:
        start(admin)
        until(admin, at_weight(1_000))
        admin.set_weights("scale", {"v2": "30%"})
        view = admin.get(f"{ENDPOINT}/rollout")
        assert (view["phase"], view["pause"]["reason"]) == ("paused", "override")
        act(admin, "resume")
        assert weights(admin) == ("v1", {"v2": "10%"})
        first = admin.act("scale", "rollback", reason="customers call")
        assert (first["status"], weights(admin)) == ("applied", ("v1", {}))
        assert admin.act("scale", "rollback")["status"] == "already"
        view = admin.get(f"{ENDPOINT}/rollout")
        assert (view["phase"], view["end"]["who"] != "headgate") == ("rolled_back", True)
        # The same document, and a plain start, leave the digest where it is; to try again is a call of its own.
        headers = {"content-type": "application/yaml", "if-match": "*"}
        checked(admin.http.put(ENDPOINT, content=DOCUMENT, headers=headers))
        assert weights(admin) == ("v1", {})
        refused = admin.http.post(
            f"{ENDPOINT}/rollout", json={"version": "v2", "plan": "steps"}, headers={"if-match": "*"}
        )
        assert refused.status_code == 409, refused.text
        assert "retry" in refused.json()["detail"]
        act(admin, "retry", version="v2", plan="steps", reason="it was the network")
        view = until(admin, at_weight(1_000))
        assert view["attempt"] == 2
        act(admin, "abort", reason="later")
        assert weights(admin) == ("v1", {})
        ends = [(one["id"], one["phase"]) for one in admin.get(f"{ENDPOINT}/rollouts")["rollouts"]]
        assert ends == [("r2", "aborted"), ("r1", "rolled_back")]
    assert set(counted) == {200}


def test_a_rollback_on_a_full_disk_is_served_at_once(gateway: GatewayProcess) -> None:
    unshare = need_program("unshare", "util-linux")
    gateway.state.mkdir(mode=0o700)
    gateway.prefix = [unshare, "--map-root-user", "--mount", "sh", "-c", ON_A_SMALL_DISK, str(gateway.state)]
    gateway.arguments = [*gateway.arguments, "--drain-grace", "1s"]
    gateway.start()
    # The disk as the gateway sees it.
    disk = Path(f"/proc/{gateway.pid}/root{gateway.state}")
    token = (disk / "admin-token").read_text().strip()
    try:
        with AdminClient(gateway.addresses["admin"], token) as admin, users(gateway) as counted:
            start(admin)
            until(admin, at_weight(1_000))
            filler = disk / "filler"
            fill(filler)
            said = admin.act("scale", "rollback", reason="customers call")
            assert (said["status"], said["durable"]) == ("applied", False)
            assert weights(admin) == ("v1", {})
            again = admin.act("scale", "rollback", reason="customers call again")
            assert (again["status"], weights(admin)) == ("already", ("v1", {}))
            filler.unlink()
            deadline = time.monotonic() + SECONDS
            while history(admin)[-1] != "rollback":
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert admin.get(f"{ENDPOINT}/rollout")["phase"] == "rolled_back"
        assert set(counted) == {200}
        gateway.signal(signal.SIGTERM)
        assert gateway.stop() == 0
    finally:
        gateway.kill()

"""Zero failed requests while the traffic changes 200 times and is rolled back 50 times."""

from __future__ import annotations

import itertools
import json
import threading

import httpx
import pytest

from support.gateway import GatewayProcess
from support.models import DIGITS

BODY = (DIGITS / "request.json").read_bytes()
CLIENTS = 3
ROLLBACKS = 50
CHANGES_BEFORE_A_ROLLBACK = 4
WEIGHTS = ["5%", "30%", "0.01%", "62.5%"]


class Load:
    """Clients that send without pause until told to stop, each on one connection, and note what went wrong."""

    def __init__(self, address: str) -> None:
        self.url = f"http://{address}/v2/models/digits/infer"
        self.stop = threading.Event()
        self.faults: list[str] = []
        self.answered = itertools.count()
        self.versions: set[str] = set()
        self.threads = [threading.Thread(target=self._send, args=(number,)) for number in range(CLIENTS)]

    def __enter__(self) -> Load:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join()

    def _send(self, number: int) -> None:
        newest = 0
        with httpx.Client() as client:
            for user in itertools.count():
                if self.stop.is_set():
                    return
                try:
                    answer = client.post(
                        self.url, content=BODY, headers={"x-user-id": f"user-{number}-{user % 2000}"}
                    )
                    answer.raise_for_status()
                    revision = int(answer.headers["x-headgate-revision"])
                    version = answer.headers["x-headgate-version"]
                    assert answer.json()["model_version"] == version
                    assert revision >= newest, f"revision {revision} after {newest} on one connection"
                except (httpx.HTTPError, AssertionError) as error:
                    self.faults.append(repr(error))
                    return
                newest = revision
                self.versions.add(version)
                next(self.answered)


@pytest.mark.slow
def test_no_request_fails_over_200_weight_changes_and_50_rollbacks(digits: GatewayProcess) -> None:
    weights = itertools.cycle(WEIGHTS)
    changes = 0
    with digits.admin() as admin, Load(digits.http) as load:
        for _ in range(ROLLBACKS):
            for _ in range(CHANGES_BEFORE_A_ROLLBACK):
                admin.set_weights("digits", {"2": next(weights)})
                changes += 1
            assert admin.act("digits", "rollback")["status"] == "applied"
            assert admin.traffic("digits")["weights"].get("2", "0%") == "0%"
            admin.act("digits", "unblock", version="2")
            assert not load.faults, load.faults
    assert changes == 200
    assert not load.faults, load.faults
    assert next(load.answered) > 1000
    assert load.versions == {"1", "2"}


def test_a_change_holds_for_the_next_request_once_it_is_acknowledged(digits: GatewayProcess) -> None:
    with digits.admin() as admin, httpx.Client(base_url=f"http://{digits.http}") as client:
        for weight in ("0%", "100%", "0%", "50%"):
            revision = admin.set_weights("digits", {"2": weight})["revision"]
            answers = [client.post("/v2/models/digits/infer", content=BODY) for _ in range(20)]
            assert {int(answer.headers["x-headgate-revision"]) for answer in answers} == {revision}
            versions = {answer.headers["x-headgate-version"] for answer in answers}
            assert versions <= {"0%": {"1"}, "100%": {"2"}}.get(weight, {"1", "2"}), json.dumps(weight)

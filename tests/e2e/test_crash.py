"""SIGKILL at any moment: after a start the gateway serves what it acknowledged, and no user changes version."""

from __future__ import annotations

import itertools
import json
import random
import threading
from pathlib import Path

import httpx
import pytest

from support.client import assignment
from support.gateway import AdminClient, GatewayProcess
from support.models import DIGITS
from support.tools import need_digits, need_native

KILLS = 50
KEYS = [f"user-{number}" for number in range(4_000)]
# All of them are asked for after the last kill: all of them after each would be most of the test's time.
ASKED_EACH_TIME = 1_000
WEIGHTS = ["5%", "12.5%", "40%", "0.5%", "25%", "7.77%", "60%", "15%"]
BODY = json.loads((DIGITS / "request.json").read_text())


class Stream:
    """Changes the weight without pause until the gateway is gone; knows what was acknowledged and under way."""

    def __init__(self, admin: AdminClient, weights: itertools.cycle[str]) -> None:
        traffic = admin.traffic("digits")
        self.acknowledged = (int(traffic["revision"]), str(traffic["weights"]["2"]))
        self.under_way = self.acknowledged[1]
        self.admin = admin
        self.weights = weights
        self.first = threading.Event()
        self.fault: BaseException | None = None
        self.thread = threading.Thread(target=self._change)
        self.thread.start()

    def _change(self) -> None:
        try:
            while True:
                self.under_way = next(self.weights)
                result = self.admin.set_weights("digits", {"2": self.under_way}, self.acknowledged[0])
                self.acknowledged = (int(result["revision"]), self.under_way)
                self.first.set()
        except httpx.TransportError:
            pass  # the gateway was killed: the end that the test wants
        except BaseException as error:  # shown by the test, which runs in another thread
            self.fault = error
        finally:
            self.first.set()

    def allowed(self) -> set[tuple[int, str]]:
        """The revision acknowledged last, and the one that may have been committed without an answer."""
        revision, _ = self.acknowledged
        return {self.acknowledged, (revision + 1, self.under_way)}


@pytest.mark.slow
def test_killed_fifty_times_during_traffic_changes(tmp_path: Path) -> None:
    need_native()
    gateway = GatewayProcess(tmp_path / "state", [str(need_digits() / "digits.yaml")])
    moments = random.Random(20_260)
    weights = itertools.cycle(WEIGHTS)
    expected: dict[str, list[str]] = {}
    with gateway:
        with gateway.admin() as admin:
            for weight in WEIGHTS:
                admin.set_weights("digits", {"2": weight})
                expected[weight] = assignment(gateway.http, "digits", BODY, KEYS)
        for kill in range(KILLS):
            with gateway.admin() as admin:
                stream = Stream(admin, weights)
                assert stream.first.wait(30)
                threading.Event().wait(
                    moments.uniform(0, 0.05)
                )  # any moment of a change, not a wait for something
                gateway.kill()
                stream.thread.join()
            assert stream.fault is None, stream.fault
            gateway.start()
            with gateway.admin() as admin:
                traffic = admin.traffic("digits")
            state = (int(traffic["revision"]), str(traffic["weights"]["2"]))
            assert state in stream.allowed(), f"kill {kill}: serves {state}"
            asked = KEYS if kill == KILLS - 1 else KEYS[:ASKED_EACH_TIME]
            served = assignment(gateway.http, "digits", BODY, asked)
            assert served == expected[state[1]][: len(asked)], f"kill {kill}: keys moved"
        assert gateway.stop() == 0


def test_raising_a_weight_moves_nobody_off_the_challenger(digits: GatewayProcess) -> None:
    keys = KEYS[:2000]
    on_trial: set[str] = set()
    with digits.admin() as admin:
        for weight in ("1%", "5%", "25%", "80%"):
            admin.set_weights("digits", {"2": weight})
            served = assignment(digits.http, "digits", BODY, keys)
            now = {key for key, version in zip(keys, served, strict=True) if version == "2"}
            assert on_trial <= now
            on_trial = now
    assert 0.7 * len(keys) < len(on_trial) < 0.9 * len(keys)


def test_explain_says_what_the_data_plane_does(digits: GatewayProcess) -> None:
    keys = KEYS[:50]
    served = assignment(digits.http, "digits", BODY, keys)
    with digits.admin() as admin:
        explained = [admin.act("digits", "explain", key=key) for key in keys]
    assert [answer["version"] for answer in explained] == served
    assert all(answer["key"] == key for answer, key in zip(explained, keys, strict=True))

"""Beside an endpoint, a client or a load that does its worst, a good endpoint answers everything, and a rollback works.

Not here: how long answers take meanwhile (``make bench-isolation``), each fault for itself (``rust/server/tests/gateway/cancellation.rs``,
``loads.rs``).
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack

import pytest

from benches import attacks
from support.client import Connection
from support.gateway import AdminClient, GatewayProcess
from support.models import place, scale
from support.tools import need_native

GOOD = """\
apiVersion: headgate/v1
kind: Endpoint
name: good
versions: {v1: "file:models/good/1", v2: "file:models/good/2"}
traffic: {champion: v1}
"""
ASKED = 200
BODY = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 4], "data": [1.0, 2.0, 3.0, 4.0]}]}

Attack = Callable[[GatewayProcess], AbstractContextManager[None]]


def hanging_load(gateway: GatewayProcess) -> AbstractContextManager[None]:
    return attacks.hanging_load(
        gateway.addresses["admin"], (gateway.state / "admin-token").read_text().strip()
    )


ATTACKS: dict[str, Attack] = {
    "endless-inline": lambda gateway: attacks.endless(gateway.http, "endless-inline"),
    "endless-pool": lambda gateway: attacks.endless(gateway.http, "endless-pool", 8),
    "hanging-load": hanging_load,
    "giant-answers": lambda gateway: attacks.giant_answers(gateway.http),
    "bad-requests": lambda gateway: attacks.bad_requests(gateway.http),
    "idle-connections": lambda gateway: attacks.idle_connections(list(gateway.addresses.values())),
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    need_native()
    folder = tmp_path_factory.mktemp("isolation")
    documents = attacks.prepare(folder)
    for version in ("1", "2"):
        place(scale(float(version)), folder / "models", "good", version)
    (folder / "good.yaml").write_text(GOOD)
    served = [str(document) for document in [folder / "good.yaml", *documents]]
    with GatewayProcess(folder / "state", [*served, "--root", str(folder)]) as started:
        yield started


@pytest.fixture(autouse=True)
def descriptors() -> Iterator[None]:
    """As many descriptors as the system gives: the idle connections are this process's as well."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def all_good(gateway: GatewayProcess) -> set[str]:
    """Asks on a new connection and then on that; the versions that answered."""
    with Connection(gateway.http) as connection:
        answers = [connection.infer("good", BODY) for _ in range(ASKED)]
    assert [answer for answer in answers if answer.status != 200] == []
    return {answer.version for answer in answers}


def roll_back(admin: AdminClient, gateway: GatewayProcess) -> None:
    """Gives the second version half, takes it back, and lets it in again for the next time."""
    admin.set_weights("good", {"v2": "50%"})
    assert all_good(gateway) == {"v1", "v2"}
    assert admin.act("good", "rollback")["status"] == "applied"
    assert all_good(gateway) == {"v1"}
    admin.act("good", "unblock", version="v2")


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_good_endpoint_and_a_rollback_go_on_beside(gateway: GatewayProcess, attack: str) -> None:
    with ATTACKS[attack](gateway):
        assert all_good(gateway) == {"v1"}
        with gateway.admin() as admin:
            roll_back(admin, gateway)
        assert all_good(gateway) == {"v1"}
    assert all_good(gateway) == {"v1"}


def test_all_at_once(gateway: GatewayProcess) -> None:
    with ExitStack() as together:
        for name in ATTACKS.keys() - {"idle-connections"}:
            together.enter_context(ATTACKS[name](gateway))
        together.enter_context(attacks.idle_connections(list(gateway.addresses.values()), 200))
        all_good(gateway)
        with gateway.admin() as admin:
            roll_back(admin, gateway)
    assert all_good(gateway) == {"v1"}
    assert gateway.observe("/healthz").status_code == 200

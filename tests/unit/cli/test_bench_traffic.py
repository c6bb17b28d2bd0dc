"""``--as-traffic``: routing decides who answers, unless versions share traffic or a rollout is under way, which a load would decide."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from headgate.cli import main
from support.oip_server import OipServer, serving
from support.virtual_load import VirtualGenerator
from unit.cli.fake_admin import TRAFFIC, Answer, FakeAdmin, around, ok, problem

ENDPOINT = "GET /v1/endpoints/digits"
ROLLOUT = "GET /v1/endpoints/digits/rollout"
VIEW: dict[str, Any] = {"traffic": {**TRAFFIC, "weights": {}}, "versions": {}}


@pytest.fixture
def server() -> Iterator[OipServer]:
    with serving(OipServer()) as found:
        yield found


def run(server: OipServer, admin: FakeAdmin, generator: VirtualGenerator, *words: str) -> Result:
    environment = replace(
        around(admin, HEADGATE_TOKEN="headgate_kid_secret"), make_generator=lambda: generator
    )
    where = ["--url", server.url, "--admin", "http://127.0.0.1:1"]
    return CliRunner().invoke(
        main, ["bench", "run", "digits", "--rate", "50/s", "--for", "3s", *where, *words], obj=environment
    )


@pytest.mark.parametrize(
    "rollout",
    [
        problem(404, "not_found", "digits has had no rollout"),
        ok({"challenger": "v2", "phase": "rolled_back", "end": {"reason": "gate"}}),
    ],
    ids=["none", "ended"],
)
def test_routing_decides_if_one_version_has_all_traffic(server: OipServer, rollout: Answer) -> None:
    generator = VirtualGenerator()
    done = run(server, FakeAdmin({ENDPOINT: ok(VIEW), ROLLOUT: rollout}), generator, "--as-traffic")

    assert done.exit_code == 0, done.output
    assert {one["path"] for one in generator.plans[0]["requests"]} == {"/v2/models/digits/infer"}


@pytest.mark.parametrize(
    ("view", "rollout", "why"),
    [
        ({**VIEW, "traffic": TRAFFIC}, problem(404, "not_found", "none"), "v2 10%"),
        (
            VIEW,
            ok({"challenger": "v2", "phase": "progressing", "end": None}),
            "the rollout of v2 is progressing",
        ),
        (VIEW, ok({"challenger": "v2", "phase": "paused", "end": None}), "the rollout of v2 is paused"),
    ],
    ids=["weights", "shadow step", "paused"],
)
def test_it_is_refused_while_a_load_would_decide_a_rollout(
    server: OipServer, view: dict[str, Any], rollout: Answer, why: str
) -> None:
    generator = VirtualGenerator()
    done = run(server, FakeAdmin({ENDPOINT: ok(view), ROLLOUT: rollout}), generator, "--as-traffic")

    assert done.exit_code == 5, done.output
    assert why in done.stderr
    assert "a load would decide the rollout" in done.stderr
    assert generator.plans == []
    assert not any(method == "POST" for method, _ in server.asked)


@pytest.mark.parametrize(
    "rollout",
    [
        problem(500, "internal", "a defect"),
        problem(403, "permission_denied", "no"),
        ok({"phase": "progressing"}),
    ],
)
def test_it_is_refused_if_nothing_says_whether_there_is_one(server: OipServer, rollout: Answer) -> None:
    done = run(server, FakeAdmin({ENDPOINT: ok(VIEW), ROLLOUT: rollout}), VirtualGenerator(), "--as-traffic")

    assert done.exit_code == 6, done.output
    assert "needs the admin API" in done.stderr


def test_a_named_version_asks_for_no_rollout(server: OipServer) -> None:
    admin = FakeAdmin({ENDPOINT: ok({**VIEW, "traffic": TRAFFIC})})
    done = run(server, admin, VirtualGenerator())

    assert done.exit_code == 0, done.output
    assert [request.url.path for request in admin.requests] == ["/v1/endpoints/digits"]


def test_a_version_and_routing_exclude_each_other(server: OipServer) -> None:
    admin = FakeAdmin({ENDPOINT: ok(VIEW), ROLLOUT: problem(404, "not_found", "none")})
    done = run(server, admin, VirtualGenerator(), "--as-traffic", "--version", "1")

    assert done.exit_code == 2
    assert "names version 1" in done.stderr

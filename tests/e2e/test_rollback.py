"""Rollback, block and restore, over the admin API, on the digits example."""

from __future__ import annotations

import httpx

from support.gateway import AdminClient, GatewayProcess
from support.models import DIGITS
from support.waiting import until

BODY = (DIGITS / "request.json").read_bytes()


def served(gateway: GatewayProcess, count: int = 200) -> set[str]:
    """The versions that answer users without a sticky key."""
    with httpx.Client(base_url=f"http://{gateway.http}") as client:
        answers = [client.post("/v2/models/digits/infer", content=BODY) for _ in range(count)]
    assert all(answer.is_success for answer in answers)
    return {answer.headers["x-headgate-version"] for answer in answers}


def refused(admin: AdminClient, weights: dict[str, str]) -> httpx.Response:
    return admin.http.patch(
        "/v1/endpoints/digits/traffic",
        json={"weights": weights},
        headers={"If-Match": f'"{admin.revision("digits")}"'},
    )


def newest(admin: AdminClient) -> tuple[str, str]:
    """Kind and status of the revision that was stored last."""
    row = admin.get("/v1/endpoints/digits/revisions")["revisions"][0]
    return row["kind"], row["status"]


def test_rollback_takes_all_traffic_back_and_blocks_what_was_on_trial(digits: GatewayProcess) -> None:
    with digits.admin() as admin:
        assert served(digits) == {"1", "2"}
        result = admin.act("digits", "rollback")
        assert result["status"] == "applied"
        # Its answer does not wait for a slow disk, and its row is there all the same.
        until(lambda: newest(admin) == ("rollback", "applied"))
        assert served(digits) == {"1"}
        assert admin.traffic("digits")["champion"] == "1"
        blocks = admin.get("/v1/endpoints/digits")["blocks"]
        assert [block["version"] for block in blocks] == ["2"]


def test_rollback_said_again_says_since_when(digits: GatewayProcess) -> None:
    with digits.admin() as admin:
        admin.act("digits", "rollback")
        until(lambda: newest(admin) == ("rollback", "applied"))
        revision = admin.revision("digits")
        again = admin.act("digits", "rollback")
        assert again["status"] == "already"
        assert again["message"].startswith("already 100 % 1 since ")
        assert admin.revision("digits") == revision


def test_a_blocked_version_gets_no_traffic_until_it_is_unblocked(digits: GatewayProcess) -> None:
    with digits.admin() as admin:
        admin.act("digits", "block", version="2")
        assert served(digits) == {"1"}
        assert refused(admin, {"2": "5%"}).status_code in {409, 422}
        direct = httpx.post(f"http://{digits.http}/v2/models/digits/versions/2/infer", content=BODY)
        assert not direct.is_success
        admin.act("digits", "unblock", version="2")
        admin.set_weights("digits", {"2": "50%"})
        assert served(digits) == {"1", "2"}


def test_rollback_after_a_promotion_goes_back_to_the_champion_before(digits: GatewayProcess) -> None:
    with digits.admin() as admin:
        answer = admin.http.patch(
            "/v1/endpoints/digits/traffic",
            json={"champion": "2", "weights": {"1": "0%"}, "reason": "test"},
            headers={"If-Match": f'"{admin.revision("digits")}"'},
        )
        assert answer.is_success, answer.text
        assert served(digits) == {"2"}
        admin.act("digits", "rollback")
        assert admin.traffic("digits")["champion"] == "1"
        assert served(digits) == {"1"}


def test_restore_goes_to_an_old_revision_as_a_new_one(digits: GatewayProcess) -> None:
    with digits.admin() as admin:
        first = admin.traffic("digits")
        admin.set_weights("digits", {"2": "75%"})
        second = admin.set_weights("digits", {"2": "33.33%"})["revision"]
        restored = admin.act("digits", "restore", revision=first["revision"])
        assert restored["revision"] > second
        now = admin.traffic("digits")
        assert now["weights"] == first["weights"]
        assert (now["salt"], now["table"]) == (first["salt"], first["table"])
        numbers = [row["revision"] for row in admin.get("/v1/endpoints/digits/revisions")["revisions"]]
        assert numbers == sorted(numbers, reverse=True)
        assert {first["revision"], second, restored["revision"]} <= set(numbers)


def test_an_abort_gives_the_slots_back_and_blocks_nothing(digits: GatewayProcess) -> None:
    with digits.admin() as admin:
        admin.act("digits", "abort")
        assert served(digits) == {"1"}
        assert admin.get("/v1/endpoints/digits")["blocks"] == []
        admin.set_weights("digits", {"2": "50%"})
        assert served(digits) == {"1", "2"}


def test_a_frozen_endpoint_takes_only_emergency_calls(digits: GatewayProcess) -> None:
    with digits.admin() as admin:
        admin.act("digits", "freeze")
        assert refused(admin, {"2": "5%"}).status_code == 409
        assert admin.act("digits", "rollback")["status"] == "applied"
        admin.act("digits", "unfreeze")
        admin.act("digits", "unblock", version="2")
        admin.set_weights("digits", {"2": "5%"})


def test_a_dry_run_says_what_would_move_and_changes_nothing(digits: GatewayProcess) -> None:
    with digits.admin() as admin:
        before = admin.traffic("digits")
        plan = admin.http.patch(
            "/v1/endpoints/digits/traffic", params={"dry_run": "true"}, json={"weights": {"2": "15%"}}
        )
        assert plan.is_success, plan.text
        assert plan.json()["moves"] == {"1→2": 500}
        after = admin.traffic("digits")
        assert (after["revision"], after["table"]) == (before["revision"], before["table"])

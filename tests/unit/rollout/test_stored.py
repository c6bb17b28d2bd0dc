"""A rollout as a field of a revision: what is stored, what an earlier build reads, and what an undo brings back."""

from __future__ import annotations

import json

from headgate.control.domain.plan import make_plan
from headgate.control.domain.revision import DocumentIdentity, Revision, read_revision
from headgate.control.domain.spec import LimitsSpec, Spec, TrafficSpec, VersionSpec
from headgate.control.domain.step import Step
from headgate.control.domain.traffic import LiveTraffic
from unit.rollout_harness import DIGESTS, Driver, fresh, stamp, status

SPEC = Spec(
    versions={name: VersionSpec(digest=digest) for name, digest in DIGESTS.items()},
    traffic=TrafficSpec(champion="v7"),
    limits=LimitsSpec(timeout=1000),
)


def revision(live: LiveTraffic, n: int = 1) -> Revision:
    return Revision(
        endpoint="fraud", n=n, parent=None, kind="traffic", who="ann", when=stamp(0).when, reason="", spec=SPEC,
        document=DocumentIdentity(digest="sha256:d"), traffic=live,
    )  # fmt: skip


def test_a_body_without_a_rollout_is_as_it_was_and_reads_as_before() -> None:
    body = revision(fresh()).body()
    assert body["traffic"].keys() == {
        "champion", "last_good", "since", "table", "attempt", "frozen", "blocked",
    }  # fmt: skip
    read = read_revision(json.dumps(body))
    assert (read.traffic.rollout, read.traffic.tried, read.traffic.rollouts) == (None, (), 0)
    assert read == revision(fresh())


def test_a_rollout_with_its_evidence_is_read_again_from_a_body() -> None:
    driver = Driver().start().until(2)
    driver.look(gates=(status("undecided", caught=[{"ratio": 5.0, "probability": 0.84}], further=[1, "x"]),))
    driver.pause()
    stored = revision(driver.live)
    read = read_revision(json.dumps(stored.body()))
    assert read == stored
    assert read.traffic.rollout == driver.state


def test_the_challenger_of_a_rollout_stays_loaded_whatever_the_document_says() -> None:
    driver = Driver().start().until(0)
    assert driver.live.named() == {"v7", "v8"}
    driver.abort()
    assert driver.live.named() == {"v7"}


def undone(before: LiveTraffic, after: LiveTraffic) -> tuple[list[str], str]:
    step = Step("fraud", 2, revision(before), revision(after, 2), kind="traffic", loaded=("v7", "v8", "v9"))
    plan = make_plan(step)
    assert plan["changes"]
    return [call["action"] for call in plan["undo"]], plan["text"]


def test_the_undo_of_an_abort_brings_weights_back_and_waits_for_a_person() -> None:
    driver = Driver().start().until(1)
    before = driver.live
    driver.abort()
    calls, text = undone(before, driver.live)
    assert calls == ["restore"]
    assert "rollout r1 then waits for a person" in text


def test_the_undo_of_a_step_is_a_restore() -> None:
    driver = Driver().start().until(0)
    before = driver.live
    driver.until(1)
    calls, text = undone(before, driver.live)
    assert calls == ["restore"]
    assert "100 of 10 000 slots" in text


def test_the_undo_of_a_rollback_leaves_the_digest_rejected() -> None:
    driver = Driver().start().until(1)
    before = driver.live
    driver.look(gates=(status("fail"),))
    calls, text = undone(before, driver.live)
    assert calls == ["unblock", "restore"]
    assert "rollout r1 then stays rolled_back" in text


def test_a_plan_names_the_rollout_under_way() -> None:
    driver = Driver()
    before = driver.live
    driver.start()
    _, text = undone(before, driver.live)
    assert "rollout r1 of v8 progressing" in text

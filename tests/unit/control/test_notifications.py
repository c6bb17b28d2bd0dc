"""Webhooks through the control plane: what a document's notify leaves in the outbox, what becomes of it, what people see."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from headgate.control import Call
from headgate.control.writes.notifications import Notifications
from headgate.errors import Conflict, ModelLoadFailed
from headgate.notify import PostError
from unit.control.test_rollouts import ANN, PLAN, answer, look, trial
from unit.control_harness import Gate, document, gateway, run

HOOK = 'notify: [{webhook: "https://hooks.example/secret", events: [rollback, pause, step, load_failed, alarm]}]\n'
QUIET = 'notify: [{webhook: "https://hooks.example/secret", events: [drift]}]\n'
PAIR = ("digits", "hooks.example")


@dataclass
class Net:
    """Takes what is posted, unless it is down."""

    down: bool = False
    bodies: list[Any] = field(default_factory=list)

    async def post(self, address: str, fields: Mapping[str, str], body: bytes, seconds: float) -> None:
        if self.down:
            raise PostError("it answers 500")
        assert (address, seconds) == ("https://hooks.example/secret", 5.0)
        self.bodies.append(json.loads(body))

    def types(self) -> list[str]:
        return [one["type"].removeprefix("headgate.") for one in self.bodies]


def told_by(gate: Gate, net: Net) -> Notifications:
    """The notifications of a gateway with made-up receivers, whose loop is the test."""
    for task in gate.control.background._tasks:
        if task.get_name() == "deliver_webhooks":
            task.cancel()
    gate.control.notifications.deliveries._post = net.post
    return gate.control.notifications


async def once(gate: Gate) -> None:
    await gate.control.flush()
    await gate.control.notifications.deliveries.begin()
    await gate.control.notifications.deliveries.settled()


def test_a_rollout_is_told_from_its_start_to_its_rollback(tmp_path: Path) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            net = Net()
            told_by(gate, net)
            await gate.control.put_plan(PLAN.encode())
            await gate.apply(document() + HOOK)
            await gate.control.rollout_start("digits", "v2", "careful", call=ANN)
            await gate.control.rollout_pause("digits", call=ANN)
            await gate.control.rollout_resume("digits", call=ANN)
            await gate.control.rollout_promote("digits", call=ANN)
            await gate.control.rollout_promote("digits", call=ANN)
            gate.native.running["digits"] = trial(gate, 100)
            gate.native.answer = answer("fail")
            await look(gate)
            await once(gate)
            assert net.types() == ["step", "pause", "step", "step", "step", "rollback"]
            last = net.bodies[-1]["data"]
            assert (last["endpoint"], last["data"]["rollout"]["reason"]) == ("digits", "error_rate")
            assert gate.store.outbox.queues() == []
            figures = gate.control.notifications.figures()
            assert (figures.delivered, figures.failed) == ({PAIR: 6}, {PAIR: 0})

    run(work)


def test_a_change_that_fails_is_told_by_the_document_in_force(tmp_path: Path) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            net = Net()
            told_by(gate, net)
            await gate.apply(document() + HOOK)
            gate.native.failing["v4"] = "no model"
            with pytest.raises(ModelLoadFailed):
                await gate.apply(document("{champion: v4}", "v1 v2 v3 v4"))
            await once(gate)
            assert net.types() == ["load_failed"]
            assert "no model" in net.bodies[0]["data"]["data"]["message"]

    run(work)


def test_a_receiver_that_fails_is_an_alarm_that_names_no_secret(tmp_path: Path) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            net = Net(down=True)
            told_by(gate, net)
            await gate.apply(document() + HOOK)
            assert gate.control.notifications.figures().waiting == {PAIR: 0}
            await gate.control.rollback("digits", call=Call("ann"))
            await gate.control.patch_traffic("digits", weights={"v2": "10%"})
            await gate.control.rollback("digits", call=Call("ann"))
            await once(gate)
            (alarm,) = (await gate.control.get("digits"))["alarms"]
            assert (
                "the webhook hooks.example takes no message since 2027-03-01T03:12:04Z: it answers 500"
                in alarm
            )
            assert "secret" not in alarm
            (summary,) = await gate.control.list()
            assert summary["alarms"] == [alarm]
            gate.clock.forward(2.0)
            figures = gate.control.notifications.figures()
            assert (figures.waiting, figures.failed) == ({PAIR: 1}, {PAIR: 1})
            assert figures.oldest[PAIR] >= 2.0
            net.down = False
            gate.clock.forward(60.0)
            await once(gate)
            assert net.types() == ["rollback"]
            assert (await gate.control.get("digits"))["alarms"] == []

    run(work)


def test_a_new_document_decides_over_what_waits(tmp_path: Path) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            net = Net(down=True)
            told_by(gate, net)
            await gate.apply(document("{champion: v1, weights: {v2: 10%}}") + HOOK)
            await gate.control.rollback("digits", call=Call("ann"))
            await once(gate)
            await gate.apply(document())
            net.down = False
            gate.clock.forward(60.0)
            await once(gate)
            assert net.bodies == []
            figures = gate.control.notifications.figures()
            assert figures.dropped == {(*PAIR, "unsubscribed"): 1}
            await once(gate)
            assert gate.control.notifications.figures().waiting == {}

    run(work)


def test_an_endpoint_that_is_gone_is_told_of_to_the_end(tmp_path: Path) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            net = Net()
            told_by(gate, net)
            await gate.apply(document("{champion: v1, weights: {v2: 10%}}") + HOOK)
            await gate.control.rollback("digits", call=Call("ann"))
            await gate.control.flush()
            await gate.control.delete("digits", force=True, call=Call("ann"))
            await once(gate)
            assert net.types() == ["rollback"]

    run(work)


def test_a_removal_is_told_as_the_end_of_the_rollout_that_it_ends(tmp_path: Path) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            net = Net()
            told_by(gate, net)
            await gate.control.put_plan(PLAN.encode())
            for name in ("digits", "quiet"):
                await gate.apply(document(name=name) + HOOK.replace("alarm", "abort"))
            await gate.control.rollout_start("digits", "v2", "careful", call=ANN)
            for name in ("digits", "quiet"):
                await gate.control.delete(name, force=True, call=ANN)
            await once(gate)
            told = [(one["data"]["endpoint"], one["type"].removeprefix("headgate.")) for one in net.bodies]
            assert told == [("digits", "step"), ("digits", "abort")]
            last = net.bodies[-1]["data"]
            assert (last["event"], last["data"]["rollout"]["reason"]) == ("removed", "remove")
            # Who comes back under the name is another endpoint.
            await gate.apply(document())
            await gate.control.rollback("digits", call=ANN)
            await once(gate)
            assert len(net.bodies) == 2

    run(work)


def test_a_restart_delivers_what_waits(tmp_path: Path) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            told_by(gate, Net(down=True))
            await gate.apply(document("{champion: v1, weights: {v2: 10%}}") + HOOK)
            await gate.control.rollback("digits", call=Call("ann"))
            await once(gate)
        net = Net()
        async with gateway(tmp_path) as gate:
            told_by(gate, net)
            gate.clock.forward(60.0)
            await once(gate)
            assert net.types() == ["rollback"]

    run(work)


def test_a_rollback_that_the_disk_does_not_take_is_told_once_it_does(tmp_path: Path) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            net = Net()
            told_by(gate, net)
            await gate.apply(document("{champion: v1, weights: {v2: 10%}}") + HOOK)
            heal = gate.full_disk()
            await gate.control.rollback("digits", call=Call("ann"))
            heal()
            await gate.flush_healed()
            await once(gate)
            assert net.types().count("rollback") == 1

    run(work)


def test_a_loss_is_told_once_while_the_receiver_fails(tmp_path: Path) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            told_by(gate, Net(down=True))
            gate.store.outbox._of_a_queue = 3
            await gate.apply(document() + HOOK)
            for _ in range(6):
                await gate.control.patch_traffic("digits", weights={"v2": "10%"})
                await gate.control.rollback("digits", call=Call("ann"))
                await gate.control.unblock("digits", "v2", call=Call("ann"))
            await once(gate)
            for _ in range(3):
                await gate.control.notifications._tell_of_drops()
            # It is well meanwhile. What it lost before is no news when it fails again.
            failing = gate.control.notifications.deliveries.failing
            before = dict(failing)
            failing.clear()
            await gate.control.notifications._tell_of_drops()
            failing.update(before)
            await gate.control.notifications._tell_of_drops()
            events = await gate.control.stored_events(0, limit=100, endpoint="digits")
            alarms = [event.data["message"] for event in events if event.type == "alarm"]
            assert alarms == ["messages to the webhook hooks.example are lost, because it takes none"]
            assert gate.control.notifications.figures().dropped[(*PAIR, "full")] >= 3

    run(work)


def test_the_defaults_name_webhooks_for_documents_that_name_none(tmp_path: Path) -> None:
    defaults = f"apiVersion: headgate/v1\nkind: Defaults\n{HOOK}"

    async def work() -> None:
        async with gateway(tmp_path) as gate:
            net = Net()
            told_by(gate, net)
            await gate.control.put_plan(defaults.encode())
            await gate.apply(document("{champion: v1, weights: {v2: 10%}}"))
            await gate.apply(document("{champion: v1, weights: {v2: 10%}}", name="silent") + "notify: []\n")
            for name in ("digits", "silent"):
                await gate.control.rollback(name, call=Call("ann"))
            await once(gate)
            assert [one["data"]["endpoint"] for one in net.bodies] == ["digits"]

    run(work)


def test_only_what_a_document_asks_for_is_told(tmp_path: Path) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            net = Net()
            told_by(gate, net)
            await gate.apply(document("{champion: v1, weights: {v2: 10%}}") + QUIET)
            await gate.apply(document(name="other"))
            await gate.control.rollback("digits", call=Call("ann"))
            await once(gate)
            assert net.bodies == []

    run(work)


def test_a_test_message_goes_at_once_and_leaves_a_row_of_the_audit(tmp_path: Path) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            net = Net()
            notifications = told_by(gate, net)
            await gate.apply(document())
            with pytest.raises(Conflict, match="needs notify"):
                await notifications.test("digits", ANN, gate.control.audit_log)
            await gate.apply(document() + HOOK)
            found = await notifications.test("digits", ANN, gate.control.audit_log)
            assert [(one["webhook"], one["status"], one["detail"]) for one in found["webhooks"]] == [
                ("hooks.example", "delivered", None)
            ]
            assert net.types() == ["test"]
            net.down = True
            found = await notifications.test("digits", ANN, gate.control.audit_log)
            assert (found["webhooks"][0]["status"], found["webhooks"][0]["detail"]) == (
                "failed",
                "it answers 500",
            )
            rows = await gate.control.audit(endpoint="digits", limit=2, before=None)
            assert [(row["action"], row["who"]) for row in rows] == [("notify_test", "ann")] * 2
            assert gate.store.outbox.queues() == []

    run(work)

"""Every client command against a real admin API: that both read and write the same shapes."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from headgate.cli import main
from headgate.cli.session import CliEnvironment
from unit.control_harness import document
from unit.gateway.process_harness import Running, play, settings, written

TRAFFIC = "{champion: v1, weights: {v2: 10%}, sticky: header.x-user-id}"


class Shell:
    """Runs commands in a thread, so that the gateway's event loop answers them."""

    def __init__(self, state: Path) -> None:
        self._around = CliEnvironment(variables={"HEADGATE_STATE": str(state)})

    async def __call__(self, *arguments: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, main, list(arguments), obj=self._around)

    async def ok(self, *arguments: str) -> str:
        """The stdout of a command that must be done; its ``--json`` form must be JSON."""
        result = await self(*arguments)
        assert result.exit_code == 0, f"{arguments}: {result.output} {result.exception!r}"
        return result.stdout


READS = [
    ("get",),
    ("get", "digits"),
    ("traffic", "digits"),
    ("explain", "digits", "--key", "ada"),
    ("explain", "digits"),
    ("explain", "digits", "--header", "X-User-Id: ada"),
    ("history", "digits"),
    ("history", "digits", "1"),
    ("drift", "digits", "--window", "1h"),
    ("models",),
    ("token", "list"),
    ("explain", "digits", "--key", "ada", "--at", "1"),
    ("audit",),
    ("audit", "digits"),
    ("events",),
    ("events", "digits", "--after", "1"),
    ("whoami",),
    ("operations",),
]


def test_every_command_that_looks_prints_text_and_json(tmp_path: Path) -> None:
    async def work() -> None:
        async with Running(settings(tmp_path, written(tmp_path, document(TRAFFIC)))):
            shell = Shell(tmp_path / "state")
            for arguments in READS:
                await shell.ok(*arguments)
                json.loads(await shell.ok(*arguments, "--json"))
                await shell.ok("-o", "yaml", *arguments)
                await shell.ok(*arguments, "-o", "name")
            assert "v1, 10% to v2" in await shell.ok("get")
            assert await shell.ok("get", "digits", "--document") == document(TRAFFIC)
            assert "each request draws its own version" in await shell.ok("explain", "digits")

    play(work)


def test_traffic_moves_comes_back_and_is_kept_from_a_blocked_version(tmp_path: Path) -> None:
    async def work() -> None:
        path = written(tmp_path, document(TRAFFIC))
        async with Running(settings(tmp_path, path)) as gate:
            shell = Shell(tmp_path / "state")
            planned = await shell.ok("traffic", "digits", "v2=20%", "--dry-run")
            assert "1 000 of 10 000 slots (10 % of keys) move from v1 to v2" in planned
            assert gate.live_weights() == {"v2": 1000}
            await shell.ok("traffic", "digits", "v2=20%", "--reason", "more")
            assert gate.live_weights() == {"v2": 2000}
            assert "kept (--take-traffic to move)" in await shell.ok("plan", str(path))
            assert (await shell("plan", "--check", "--take-traffic", str(path))).exit_code == 1
            await shell.ok("apply", str(path), "--take-traffic", "--reason", "back to the document")
            assert gate.live_weights() == {"v2": 1000}
            await shell.ok("rollback", "digits", "--reason", "wrong totals")
            assert gate.live_weights() == {}
            assert "already" in await shell.ok("rollback", "digits")
            assert "v2" in (await shell("traffic", "digits", "v2=1%")).stderr
            await shell.ok("unblock", "digits", "v2")
            await shell.ok("restore", "digits", "2", "--json")
            assert gate.live_weights() == {"v2": 2000}
            await shell.ok("abort", "digits")
            assert gate.live_weights() == {}
            await shell.ok("block", "digits", "v3", "--json")
            assert "blocked since" in await shell.ok("get", "digits")

    play(work)


def test_webhooks_are_tried_and_one_that_takes_nothing_says_why(tmp_path: Path) -> None:
    hook = 'notify: [{webhook: "${env:HEADGATE_TEST_NO_SUCH_HOOK}", events: [alarm]}]\n'

    async def work() -> None:
        path = written(tmp_path, document(TRAFFIC))
        async with Running(settings(tmp_path, path)):
            shell = Shell(tmp_path / "state")
            none = await shell("notify", "test", "digits")
            assert (none.exit_code, "its document needs notify" in none.stderr) == (5, True)
            await shell.ok("apply", str(written(tmp_path, document(TRAFFIC) + hook)))
            tried = await shell("notify", "test", "digits", "--reason", "does it work?")
            assert tried.exit_code == 1
            assert "HEADGATE_TEST_NO_SUCH_HOOK is not set where the gateway runs" in tried.stdout
            assert "does it work?" in await shell.ok("audit", "digits")

    play(work)


def test_an_endpoint_that_is_deleted_is_gone_and_its_history_stays(tmp_path: Path) -> None:
    async def work() -> None:
        async with Running(settings(tmp_path, written(tmp_path, document(TRAFFIC)))):
            shell = Shell(tmp_path / "state")
            assert "removed" in await shell.ok("delete", "digits", "--force", "--reason", "moved")
            gone = await shell("get", "digits")
            assert (gone.exit_code, gone.stdout) == (4, "")
            assert "moved" in await shell.ok("history", "digits")
            assert (await shell("delete", "digits")).exit_code == 4

    play(work)


def test_a_name_is_taken_from_a_version_that_is_not_in_use(tmp_path: Path) -> None:
    async def work() -> None:
        path = written(tmp_path, document(TRAFFIC))
        async with Running(settings(tmp_path, path)):
            shell = Shell(tmp_path / "state")
            refused = await shell("models", "unpin", "digits", "v2")
            assert (refused.exit_code, "never changes" in refused.stderr) == (5, True)
            await shell.ok("apply", str(written(tmp_path, document("{champion: v1}", "v1"))))
            assert "stands for sha256:" in await shell.ok("models", "unpin", "digits", "v3", "-m", "unused")
            assert "digits/v3" not in await shell.ok("models", "-o", "name")
            assert "unused" in await shell.ok("audit", "digits")
            assert (await shell("models", "unpin", "digits", "v3")).exit_code == 4

    play(work)


def test_who_lost_the_token_makes_one_on_the_state_folder_while_the_gateway_runs(tmp_path: Path) -> None:
    async def work() -> None:
        state = tmp_path / "state"
        made = (
            "token",
            "create",
            "--offline",
            "--state",
            str(state),
            "--name",
            "me",
            "--role",
            "admin",
            "--json",
        )
        shell = Shell(state)
        async with Running(settings(tmp_path)):
            await shell.ok("get")
            (state / "admin-token").unlink()
            assert (await shell("get")).exit_code == 6
            secret = json.loads(await shell.ok(*made))["secret"]
            mine = Shell(state)
            mine._around = CliEnvironment(variables={"HEADGATE_STATE": str(state), "HEADGATE_TOKEN": secret})
            assert "me (admin)" in await mine.ok("whoami")
            assert "offline" in await mine.ok("audit")
        # And while it does not run.
        assert "headgate_" in await shell.ok(*made)
        for wrong in (["--context", "x"], ["--admin", "127.0.0.1:1"]):
            assert (await shell(*wrong, *made[:3], *made[5:])).exit_code == 2
        nowhere = await shell(
            "token", "create", "--offline", "--state", str(tmp_path), "--name", "a", "--role", "viewer"
        )
        assert (nowhere.exit_code, "headgate.db" in nowhere.stderr) == (3, True)

    play(work)


def test_the_state_is_checked_beside_the_gateway_and_damage_is_named(tmp_path: Path) -> None:
    async def work() -> None:
        folder = tmp_path / "state"
        shell = Shell(folder)
        async with Running(settings(tmp_path, written(tmp_path, document(TRAFFIC)))):
            await shell.ok("freeze", "digits")
            assert "whole (endpoints: 1, files of models: 0)" in await shell.ok("state", "check")
        blob = folder / "blobs" / "sha256" / ("ab" * 32)
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(b"model")
        with sqlite3.connect(folder / "headgate.db") as database:
            database.execute("UPDATE revisions SET body = replace(body, 'v2', 'v9') WHERE n = 2")
        damaged = await shell("state", "check")
        assert damaged.exit_code == 1
        first, second = damaged.stdout.splitlines()
        assert first.startswith("damaged: revision 2 of digits: ")
        assert second.startswith(f"damaged: {blob}: its bytes are sha256:")
        found = json.loads((await shell("state", "check", "--json")).stdout)
        assert [one["revision"] for one in found["revisions"]] == [2]
        assert (await shell("state", "check", "--state", str(tmp_path / "nothing"))).exit_code == 3

    play(work)


def test_a_backup_is_made_beside_the_gateway_and_another_one_serves_what_it_holds(tmp_path: Path) -> None:
    async def work() -> None:
        backup, other = tmp_path / "backup.tar", tmp_path / "other"
        shell = Shell(tmp_path / "state")
        async with Running(settings(tmp_path, written(tmp_path, document(TRAFFIC)))):
            await shell.ok("traffic", "digits", "v2=20%")
            await shell.ok("state", "backup", str(backup))
            await shell.ok("traffic", "digits", "v2=30%")
            assert (await shell("state", "backup", str(backup))).exit_code == 5
            assert (await shell("state", "restore", str(backup))).exit_code == 5
        await shell.ok("state", "restore", str(backup), "--state", str(other))
        assert "whole (endpoints: 1" in await shell.ok("state", "check", "--state", str(other))
        async with Running(replace(settings(tmp_path), state=other)) as gate:
            assert gate.live_weights() == {"v2": 2000}

    play(work)


def test_the_last_admin_token_is_revoked_only_when_forced(tmp_path: Path) -> None:
    async def work() -> None:
        async with Running(settings(tmp_path)):
            shell = Shell(tmp_path / "state")
            (first,) = json.loads(await shell.ok("token", "list", "--json"))["tokens"]
            await shell.ok("token", "create", "--name", "ci", "--role", "operator")
            refused = await shell("token", "revoke", first["id"])
            assert (refused.exit_code, "last admin token" in refused.stderr) == (5, True)
            other = json.loads(await shell.ok("token", "create", "--name", "b", "--role", "admin", "--json"))
            await shell.ok("token", "revoke", other["id"])
            assert (await shell("token", "revoke", first["id"])).exit_code == 5
            await shell.ok("token", "revoke", first["id"], "--force")
            assert (await shell("get")).exit_code == 6

    play(work)


def test_a_frozen_endpoint_says_no(tmp_path: Path) -> None:
    async def work() -> None:
        async with Running(settings(tmp_path, written(tmp_path, document(TRAFFIC)))):
            shell = Shell(tmp_path / "state")
            await shell.ok("freeze", "digits", "--reason", "audit")
            refused = await shell("traffic", "digits", "v2=1%")
            assert (refused.exit_code, "audit" in refused.stderr) == (5, True)
            assert "frozen since" in await shell.ok("get", "digits")
            await shell.ok("unfreeze", "digits")
            await shell.ok("traffic", "digits", "v2=1%")

    play(work)


def test_apply_creates_and_refuses_with_the_gateways_faults(tmp_path: Path) -> None:
    async def work() -> None:
        async with Running(settings(tmp_path)):
            shell = Shell(tmp_path / "state")
            path = written(tmp_path, document(TRAFFIC))
            assert "revision 1" in await shell.ok("apply", str(path), "--root", str(tmp_path))
            written(tmp_path, document("{champion: v9}"))
            assert (await shell("apply", str(path))).exit_code == 2

    play(work)


@pytest.mark.parametrize(("role", "code"), [("viewer", 6), ("operator", 0)])
def test_a_token_does_what_its_role_allows_until_it_is_revoked(tmp_path: Path, role: str, code: int) -> None:
    async def work() -> None:
        async with Running(settings(tmp_path, written(tmp_path, document(TRAFFIC)))) as gate:
            shell = Shell(tmp_path / "state")
            made = json.loads(await shell.ok("token", "create", "--name", "ci", "--role", role, "--json"))
            variables = {
                "HEADGATE_TOKEN": made["secret"],
                "HEADGATE_ADMIN": gate.announcer.addresses["admin"],
                "HEADGATE_STATE": str(tmp_path / "elsewhere"),
            }
            other = Shell(tmp_path)
            other._around = CliEnvironment(variables=variables)
            await other.ok("get")
            assert (await other("rollback", "digits")).exit_code == code
            assert "revoked" in await shell.ok("token", "revoke", made["id"])
            assert (await other("get")).exit_code == 6

    play(work)


PLAN = """\
apiVersion: headgate/v1
kind: RolloutPlan
name: careful
steps: [{weight: 5%, for: 1h}, {approve: {role: approver}}, {weight: 50%, for: 1h}, promote]
"""


def test_a_rollout_from_its_plan_to_the_end_by_commands(tmp_path: Path) -> None:
    async def work() -> None:
        async with Running(settings(tmp_path)) as gate:
            shell = Shell(tmp_path / "state")
            endpoint = document("{champion: v1, sticky: header.x-user-id}") + "rollout: careful\n"
            path = written(tmp_path, f"{endpoint}---\n{PLAN}")
            assert "plan careful is new" in await shell.ok("plan", str(path), "--root", str(tmp_path))
            await shell.ok("apply", str(path), "--root", str(tmp_path))
            assert "weight 5%, approve (approver), weight 50%, promote" in await shell.ok("plans", "list")
            for command in (("plans", "list"), ("plans", "show", "careful")):
                json.loads(await shell.ok(*command, "--json"))
            planned = await shell.ok("rollout", "start", "digits", "v2", "--dry-run")
            assert "500 slots (5% of keys) move from v1 to v2" in planned
            await shell.ok("rollout", "start", "digits", "v2", "--reason", "trained on march")
            await shell.ok("rollout", "promote", "digits")
            assert gate.live_weights() == {"v2": 500}
            await shell.ok("rollout", "pause", "digits")
            shown = await shell.ok("rollout", "show", "digits")
            assert "to go on: headgate rollout resume digits" in shown
            await shell.ok("rollout", "resume", "digits")
            refused = await shell("rollout", "promote", "digits", "--full")
            assert (refused.exit_code, "approver" in refused.stderr) == (5, True)
            assert (await shell("rollout", "approve", "digits")).exit_code == 6
            made = json.loads(
                await shell.ok("token", "create", "--name", "bob", "--role", "approver", "--json")
            )
            bob = Shell(tmp_path)
            address = gate.announcer.addresses["admin"]
            bob._around = CliEnvironment(
                variables={"HEADGATE_TOKEN": made["secret"], "HEADGATE_ADMIN": address}
            )
            await bob.ok("rollout", "approve", "digits", "--reason", "read the report")
            # In a process of its own: runners in threads share one stdout.
            watch = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "headgate", "rollout", "watch", "digits"),
                env={**os.environ, "HEADGATE_STATE": str(tmp_path / "state")},
                stdout=asyncio.subprocess.PIPE,
            )
            assert watch.stdout is not None
            assert (await watch.stdout.readline()).startswith(b"digits  rollout r1 of v2 by plan careful")
            await shell.ok("rollout", "promote", "digits", "--full")
            *_, last = (await watch.stdout.read()).decode().splitlines()
            assert last.startswith("r1 promoted  No harm shown.")
            assert await watch.wait() == 0
            assert gate.live_weights() == {}
            assert "rollout r1 of v2: promoted" in await shell.ok("get", "digits")
            for command in (("rollout", "list", "digits"), ("rollout", "show", "digits"), ("get", "digits")):
                json.loads(await shell.ok(*command, "--json"))
                await shell.ok(*command, "-o", "yaml")
            in_use = await shell("plans", "delete", "careful")
            assert (in_use.exit_code, "digits" in in_use.stderr) == (5, True)

    play(work)


def test_an_aborted_rollout_is_tried_again(tmp_path: Path) -> None:
    async def work() -> None:
        async with Running(settings(tmp_path, written(tmp_path, document("{champion: v1}")))):
            shell = Shell(tmp_path / "state")
            assert (await shell("rollout", "show", "digits")).exit_code == 4
            plan = tmp_path / "plan.yaml"
            plan.write_text(PLAN)
            await shell.ok("plans", "apply", str(plan))
            await shell.ok("rollout", "start", "digits", "v2", "--plan", "careful")
            await shell.ok("rollout", "abort", "digits", "--reason", "no")
            assert (await shell("rollout", "watch", "digits")).exit_code == 1
            await shell.ok("rollout", "retry", "digits", "--plan", "careful")
            listed = json.loads(await shell.ok("rollout", "list", "digits", "--json"))["rollouts"]
            assert [(one["id"], one["phase"], one["attempts"]) for one in listed] == [
                ("r2", "progressing", 2),
                ("r1", "aborted", 1),
            ]

    play(work)

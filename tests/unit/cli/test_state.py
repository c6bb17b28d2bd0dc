"""``headgate state``: a folder is checked, copied while its gateway writes, and brought back."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from headgate.cli import main
from headgate.gateway import state_folder
from headgate.leases import Lease
from headgate.registry import collect
from unit.control.test_models import model, text
from unit.control_harness import gateway, run

EXTRA = 'columns: {X: [a, b, c]}\ndrift: {baseline: "file:sample.csv"}\n'


def state(*words: str) -> Result:
    return CliRunner().invoke(main, ["state", *words])


async def made(folder: Path) -> None:
    """An endpoint with two models, a baseline and three revisions."""
    model(folder / "models" / "v1", 1.0)
    model(folder / "models" / "v2", 2.0)
    (folder / "sample.csv").write_text("a,b,c\n" + "1,2,3\n" * 50)
    path = folder / "scale.yaml"
    path.write_text(text(EXTRA, versions="v1 v2"))
    async with gateway(folder) as gate:
        await gate.control.apply_file(path)
        await gate.control.patch_traffic("scale", weights={"v2": "20%"})
        await gate.control.patch_traffic("scale", weights={"v2": "30%"})


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.chmod(0o600)
    path.write_bytes(data)


def test_a_whole_folder_is_whole(tmp_path: Path) -> None:
    run(lambda: made(tmp_path))
    found = state("check", "--state", str(tmp_path / "state"))
    assert (found.exit_code, found.stdout) == (
        0,
        f"{tmp_path / 'state'}: whole (endpoints: 1, files of models: 3)\n",
    )
    as_json = state("check", "--json", "--state", str(tmp_path / "state"))
    found_in_words = json.loads(as_json.stdout)
    assert (found_in_words["database"], found_in_words["revisions"], found_in_words["files"]) == ([], [], [])


@pytest.mark.parametrize("what", ["an artifact", "a baseline", "a body", "the history", "the database"])
def test_damage_is_named_and_not_copied(tmp_path: Path, what: str) -> None:
    run(lambda: made(tmp_path))
    folder = tmp_path / "state"
    if what == "an artifact":
        flip(next(folder.glob("artifacts/*/model.onnx")))
    elif what == "a baseline":
        next(folder.glob("baselines/*.json")).unlink()
    elif what == "the database":
        (folder / "headgate.db").write_bytes(b"not a database" * 1000)
    else:
        n = 3 if what == "a body" else 2
        with sqlite3.connect(folder / "headgate.db") as database:
            database.execute("UPDATE revisions SET body = replace(body, 'v2', 'v3') WHERE n = ?", (n,))
        database.close()
    found = state("check", "--state", str(folder))
    assert found.exit_code == 1
    expected = {"an artifact": "artifact sha256:", "a baseline": "drift is not measured", "a body": "revision 3 of scale: its body",
                "the history": "revision 2 of scale: its body", "the database": "the database"}  # fmt: skip
    assert expected[what] in found.stdout
    copied = state("backup", str(tmp_path / "b.tar"), "--state", str(folder))
    assert copied.exit_code in (1, 3)
    assert list(tmp_path.glob("*b.tar*")) == []


def test_a_copy_made_while_the_gateway_writes_is_served_like_the_first(tmp_path: Path) -> None:
    async def body() -> None:
        await made(tmp_path)
        async with gateway(tmp_path) as gate:
            copied = state("backup", str(tmp_path / "b.tar"), "--state", str(gate.state))
            assert copied.exit_code == 0, copied.output
            await gate.control.patch_traffic("scale", weights={"v2": "40%"})
        assert (tmp_path / "b.tar").stat().st_mode & 0o777 == 0o600
        brought = state("restore", str(tmp_path / "b.tar"), "--state", str(tmp_path / "new" / "state"))
        assert brought.exit_code == 0, brought.output
        async with gateway(tmp_path / "new") as gate:
            served = gate.native.served["scale"]
            assert (served["revision"], served["table"]["given"]) == (3, [["v2", 0, 2999]])
            assert served["baseline"] is not None
            assert [one["revision"] for one in await gate.control.revisions("scale")] == [3, 2, 1]
            assert (await gate.control.get("scale"))["alarms"] == []
        again = state("restore", str(tmp_path / "b.tar"), "--state", str(tmp_path / "new" / "state"))
        assert again.exit_code == 5
        assert "is not empty" in again.output

    run(body)


def test_a_copy_that_was_cut_off_restores_nothing(tmp_path: Path) -> None:
    run(lambda: made(tmp_path))
    assert state("backup", str(tmp_path / "b.tar"), "--state", str(tmp_path / "state")).exit_code == 0
    data = (tmp_path / "b.tar").read_bytes()
    (tmp_path / "b.tar").write_bytes(data[: len(data) // 2])
    brought = state("restore", str(tmp_path / "b.tar"), "--state", str(tmp_path / "new"))
    assert brought.exit_code != 0
    assert not (tmp_path / "new").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_lost_database_is_begun_anew_from_the_last_applied_state(tmp_path: Path) -> None:
    async def body() -> None:
        await made(tmp_path)
        (tmp_path / "state" / "headgate.db").unlink()
        lost = state("check", "--state", str(tmp_path / "state"))
        assert lost.exit_code == 3
        assert "applied.json knows 1 endpoints" in lost.output
        source = tmp_path / "state" / "applied.json"
        brought = state("restore", str(source), "--state", str(tmp_path / "new" / "state"))
        assert brought.exit_code == 0, brought.output
        async with gateway(tmp_path / "new") as gate:
            served = gate.native.served["scale"]
            assert served["table"]["given"] == [["v2", 0, 2999]]
            assert served["table"]["salt"].startswith("scale/")
            assert served["baseline"] is not None
            assert await gate.control.apply_file(tmp_path / "scale.yaml") == []
            assert (await gate.control.patch_traffic("scale", weights={"v2": "35%"}))["revision"] == 2

    run(body)


def test_what_nobody_references_is_named_and_removed(tmp_path: Path) -> None:
    async def body() -> None:
        await made(tmp_path)
        async with gateway(tmp_path) as gate:
            orphan = gate.control.registry.admit("scale", "v3", model(tmp_path / "models" / "v3", 3.0))
            where = ("--state", str(gate.state))
            looked = json.loads(state("collect", "--dry-run", "--json", *where).stdout)
            assert (looked["artifacts"], looked["baselines"], len(looked["blobs"])) == ([orphan], [], 1)
            assert state("collect", "--dry-run", "-o", "name", *where).stdout.splitlines()[0] == orphan
            assert gate.control.registry.store.contains(orphan)
            with Lease() as lease:
                lease.hold(gate.state / "artifacts")
                busy = state("collect", *where)
                assert "try again later" in busy.output
            removed = state("collect", *where)
            assert (removed.exit_code, "removed: 1 models, 0 baselines, 1 files" in removed.stdout) == (
                0,
                True,
            )
            assert not gate.control.registry.store.contains(orphan)
        assert state("check", *where).exit_code == 0

    run(body)


def test_nothing_of_a_damaged_folder_is_removed(tmp_path: Path) -> None:
    run(lambda: made(tmp_path))
    with sqlite3.connect(tmp_path / "state" / "headgate.db") as database:
        database.execute("UPDATE revisions SET body = replace(body, 'v2', 'v3') WHERE n = 2")
    database.close()
    refused = state("collect", "--state", str(tmp_path / "state"))
    assert refused.exit_code == 3
    assert "nothing is collected, because the state is damaged: scale: its body" in refused.output


def test_a_check_holds_what_it_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(lambda: made(tmp_path))
    found: list[bool] = []
    faults = state_folder.artifact_fault

    def looked(folder: Path, digest: str) -> str | None:
        found.append(collect(folder, set, 9).busy)
        return faults(folder, digest)

    monkeypatch.setattr(state_folder, "artifact_fault", looked)
    assert state("check", "--state", str(tmp_path / "state")).exit_code == 0
    assert found == [True, True]


def test_history_and_audit_can_be_exported(tmp_path: Path) -> None:
    run(lambda: made(tmp_path))
    exported = state("export", "--state", str(tmp_path / "state"))
    assert exported.exit_code == 0
    lines = [json.loads(line) for line in exported.stdout.splitlines()]
    revisions = [line for line in lines if line["record"] == "revision"]
    assert [(one["endpoint"], one["n"]) for one in revisions] == [("scale", 3), ("scale", 2), ("scale", 1)]
    assert revisions[0]["body"]["traffic"]["champion"] == "v1"
    assert "name: scale" in revisions[0]["document"]
    assert [line["action"] for line in lines if line["record"] == "audit"] == ["traffic", "traffic", "apply"]

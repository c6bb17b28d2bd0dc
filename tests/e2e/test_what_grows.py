"""A real gateway forgets what is old, and a command beside it collects what nobody references, also when it is killed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import httpx

from support.gateway import GatewayProcess
from support.models import TESTS, place
from support.tools import need_native

DOCUMENT = """\
apiVersion: headgate/v1
kind: Endpoint
name: digits
versions:
  v1: "file:models/fp32/1"
  v2: {model: "file:models/fp64/1", compatible: false}
traffic: {champion: v1}
"""
KILLS = 4


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "headgate", *words]


def succeeds(*words: str) -> None:
    done = subprocess.run(command(*words), check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def orphan(state: Path, n: int) -> None:
    """An artifact that no row references, as of a document that was refused."""
    whole = next(iter(state.glob("artifacts/*")))
    target = state / "artifacts" / f"{n:064x}"
    shutil.copytree(whole, target)
    (state / "blobs" / "sha256" / f"{n:064x}").write_bytes(b"a file that no artifact has")


def gateway(folder: Path, *more: str) -> GatewayProcess:
    for name in ("fp32", "fp64"):
        place(TESTS / "models" / f"identity_{name}.onnx", folder / "models", name)
    path = folder / "digits.yaml"
    path.write_text(DOCUMENT)
    return GatewayProcess(
        folder / "state", [str(path), "--keep-revisions", "3", "--keep-history", "0s", *more]
    )


def test_old_revisions_go_at_a_start_and_the_rest_is_whole(tmp_path: Path) -> None:
    need_native()
    with gateway(tmp_path) as served:
        with served.admin() as admin:
            for n in range(12):
                admin.set_weights("digits", {"v2": f"{n + 1}%"})
            before = admin.traffic("digits")
        assert served.stop() == 0
        served.start()
        with served.admin() as admin:
            limit = threading.Event()
            for _ in range(300):
                kept = [one["revision"] for one in admin.get("/v1/endpoints/digits/revisions")["revisions"]]
                if kept == [13, 12, 11]:
                    break
                limit.wait(0.1)
            assert kept == [13, 12, 11]
            assert admin.traffic("digits") == before
            gone = httpx.get(
                f"http://{served.addresses['admin']}/v1/endpoints/digits/revisions/4",
                headers={"authorization": f"Bearer {(served.state / 'admin-token').read_text().strip()}"},
            )
            assert (gone.status_code, "was dropped because of its age" in gone.json()["detail"]) == (
                404,
                True,
            )
            admin.act("digits", "rollback")
        page = served.observe("/metrics").text
        assert 'headgate_state_dropped_rows_total{kind="revision"} 10.0' in page
        assert served.stop() == 0
        succeeds("state", "check", "--state", str(served.state))


def test_collecting_beside_a_gateway_leaves_what_it_serves_whole(tmp_path: Path) -> None:
    need_native()
    with gateway(tmp_path) as served:
        state = served.state
        kept = sorted(path.name for path in (state / "artifacts").iterdir())
        for n in range(KILLS):
            for one in range(20):
                orphan(state, n * 20 + one)
            with subprocess.Popen(command("state", "collect", "--state", str(state))) as collecting:
                # Somewhere between its first removal and its end.
                left = len(kept) + 20 - 4 * n
                while collecting.poll() is None and len(list((state / "artifacts").iterdir())) >= left:
                    pass
                collecting.kill()
        succeeds("state", "collect", "--state", str(state))
        assert sorted(path.name for path in (state / "artifacts").iterdir()) == kept
        assert len(list((state / "blobs" / "sha256").iterdir())) == len(kept)
        assert list((state / "staging").iterdir()) == []
        with served.admin() as admin:
            admin.set_weights("digits", {"v2": "50%"})
        succeeds("state", "check", "--state", str(state))
        assert served.stop() == 0
        served.start()

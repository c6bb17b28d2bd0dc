"""A disk whose fsync does not return: the real gateway, and strace that holds every fsync of the database.

Not here: every order of calls (``tests/unit/control/test_hung_disk.py``).
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from pathlib import Path

from support.gateway import GatewayProcess
from support.models import TESTS
from support.tools import need_native, need_program

HELD_SECONDS = 60
DOCUMENT = """\
apiVersion: headgate/v1
kind: Endpoint
name: {name}
versions: {{v1: "file:models/v1", v2: {{constant: {{y: 2.0}}}}}}
traffic: {{champion: v1, weights: {{v2: 10%}}}}
"""


def test_an_emergency_call_and_the_end_do_not_wait_for_an_fsync(tmp_path: Path) -> None:
    need_native()
    strace = need_program("strace")
    files = []
    (tmp_path / "models" / "v1").mkdir(parents=True)
    shutil.copy(TESTS / "models" / "count.onnx", tmp_path / "models" / "v1" / "model.onnx")
    for name in ("a", "b"):
        path = tmp_path / f"{name}.yaml"
        path.write_text(DOCUMENT.format(name=name))
        files.append(str(path))
    with GatewayProcess(tmp_path / "state", [*files, "--drain-grace", "1s"]) as gateway:
        held = subprocess.Popen(
            [strace, "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync",
             "-e", f"inject=fsync,fdatasync:delay_enter={HELD_SECONDS}s", "-p", str(gateway.pid)],
        )  # fmt: skip
        try:
            with gateway.admin() as admin:
                deadline = time.monotonic() + 30
                while "TracerPid:\t0" in Path(f"/proc/{gateway.pid}/status").read_text():
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
                for status in ("applied", "already"):
                    said = admin.act("a", "rollback")
                    assert (said["status"], said["durable"], said["revision"]) == (status, False, None)
                assert admin.traffic("a")["weights"] == {}
                refused = admin.http.patch(
                    "/v1/endpoints/b/traffic", json={"weights": {"v2": "1%"}}, headers={"If-Match": '"1"'}
                )
                assert (refused.status_code, refused.json()["code"]) == (503, "storage_failed")
                # As the command line sends it: its operation is no reason to wait for the disk either.
                frozen = admin.http.post(
                    "/v1/endpoints/b:freeze", json={}, headers={"Prefer": "respond-async"}
                )
                assert frozen.status_code in {200, 202}, frozen.text
            gateway.signal(signal.SIGTERM)
            deadline = time.monotonic() + HELD_SECONDS
            while "the process ends without it" not in gateway.log.read_text():
                assert time.monotonic() < deadline
                time.sleep(0.05)
        finally:
            # The kernel lets the process go only when strace lets its thread go.
            held.kill()
            held.wait()
        assert gateway.stop() == 1
        assert (
            "lost, because the disk did not take it: revision 2 of a (rollback by" in gateway.log.read_text()
        )

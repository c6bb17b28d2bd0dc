"""A rollback whose model does not come, because its file is read from a pipe: the calls after it are in force, and it ends in its turn.

Not here: every order of calls (``tests/unit/control/test_stepping_aside.py``).
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from e2e.test_memory import ask, heavy
from support.client import Connection
from support.gateway import GatewayProcess
from support.models import place
from support.tools import need_native
from support.waiting import until

OTHERS = [f"m{index}" for index in range(6)]
"""More than there is room for beside the champion."""
DOCUMENT = """\
apiVersion: headgate/v1
kind: Endpoint
name: scale
versions: {v1: "file:models/scale/1", v2: "file:models/scale/2", v3: {constant: {Y: 3.0}}}
traffic: {champion: v1}
"""


def test_calls_after_a_rollback_whose_load_hangs_are_in_force(tmp_path: Path) -> None:
    need_native()
    for version, factor in (("1", 1.0), ("2", 2.0)):
        place(heavy(factor), tmp_path / "models", "scale", version)
    for index, name in enumerate(OTHERS):
        place(heavy(5.0 + index), tmp_path / "others", name)
    (tmp_path / "scale.yaml").write_text(DOCUMENT)
    files = [str(tmp_path / "scale.yaml"), "--root", str(tmp_path), "--models", str(tmp_path / "others")]
    with (
        GatewayProcess(
            tmp_path / "state", [*files, "--memory-budget", "4MiB", "--load-wait", "25s"]
        ) as gateway,
        gateway.admin() as admin,
        Connection(gateway.http) as connection,
        ThreadPoolExecutor(1) as executor,
    ):
        moved = admin.http.patch(
            "/v1/endpoints/scale/traffic",
            json={"champion": "v2", "reason": "test"},
            headers={"If-Match": f'"{admin.revision("scale")}"'},
        )
        assert moved.is_success, moved.text

        def memory() -> str:
            return str(admin.get("/v1/endpoints/scale")["versions"]["v1"]["memory"]["state"])

        def rows() -> list[tuple[str, str]]:
            listed = admin.get("/v1/endpoints/scale/revisions")["revisions"]
            return [(row["kind"], row["status"]) for row in listed]

        def is_cold() -> bool:
            for name in (*OTHERS, "scale"):
                ask(connection, name)
            return memory() == "cold"

        until(is_cold)
        # From here on its file is a pipe: who opens it waits.
        digest = admin.get("/v1/endpoints/scale")["versions"]["v1"]["digest"].removeprefix("sha256:")
        (model,) = (tmp_path / "state").rglob(f"artifacts/{digest}/model.onnx")
        content = model.read_bytes()
        model.parent.chmod(0o700)
        model.unlink()
        os.mkfifo(tmp_path / "pipe")
        os.link(tmp_path / "pipe", model)
        rollback = executor.submit(admin_act, gateway, "rollback")
        until(lambda: memory() == "loading")
        try:
            for status in ("applied", "already"):
                assert admin.act("scale", "freeze")["status"] == status
            # Its answer does not wait for a slow disk. That the load hangs keeps its row from nothing.
            until(lambda: ("freeze", "applied") in rows())
            assert admin.get("/v1/endpoints/scale")["frozen"] is not None
            assert not rollback.done()
            assert admin.traffic("scale")["champion"] == "v2"
        finally:
            # Who waits gets the model, and who opens it later too.
            model.unlink()
            model.write_bytes(content)
            with (tmp_path / "pipe").open("wb") as pipe:
                pipe.write(content)
        done = rollback.result(60)
        assert done["status"] == "applied"
        assert admin.traffic("scale")["champion"] == "v1"
        assert admin.get("/v1/endpoints/scale")["frozen"] is not None
        until(lambda: rows()[0] == ("rollback", "applied"))
        assert rows()[:3] == [("rollback", "applied"), ("freeze", "applied"), ("rollback", "failed")]


def admin_act(gateway: GatewayProcess, what: str) -> dict[str, object]:
    with gateway.admin() as admin:
        return dict(admin.act("scale", what))

"""A start beside an endpoint whose load does not end: the real data plane, and a warm-up that is a loop without an end.

Not here: restarts and every order of writes, on a data plane whose loads a test holds (``tests/unit/gateway/test_first_loads.py``).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from support.client import Connection
from support.gateway import GatewayProcess
from support.models import TESTS
from support.tools import need_native


def request(times: int) -> dict[str, object]:
    return {
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [1], "data": [0.5]},
            {"name": "times", "datatype": "INT64", "shape": [1], "data": [times]},
        ]
    }


def test_documents_behind_one_whose_load_hangs_are_served(tmp_path: Path) -> None:
    need_native()
    files = []
    for name in ("hangs", "good"):
        target = tmp_path / "models" / name / "1"
        target.mkdir(parents=True)
        shutil.copy(TESTS / "models" / "count.onnx", target / "model.onnx")
        file = tmp_path / f"{name}.yaml"
        file.write_text(
            f"apiVersion: headgate/v1\nkind: Endpoint\nname: {name}\n"
            f'versions: {{"1": "file:models/{name}/1"}}\ntraffic: {{champion: "1"}}\n'
        )
        files.append(str(file))
    (tmp_path / "models" / "hangs" / "1" / "warmup.json").write_text(json.dumps(request(2**63 - 1)))
    arguments = [*files, "--root", str(tmp_path)]
    with GatewayProcess(tmp_path / "state", arguments, waits_for_loads=False) as gateway:
        with Connection(gateway.http) as connection:
            assert connection.infer("good", request(3)).json["outputs"][0]["data"] == [3.5]
            assert connection.infer("hangs", request(3)).status == 404
        assert f"still being loaded, the others are served: {files[0]}" in gateway.log.read_text()
        # For a minute; a slow machine may be beyond it.
        ready = gateway.observe("/readyz")
        assert ready.status_code == 200 or ready.json()["reasons"] == [
            f"starting: still being loaded: {files[0]}"
        ]
        assert gateway.stop() == 0
        assert "never retrieved" not in gateway.log.read_text()

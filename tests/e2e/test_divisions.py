"""An integer division that the processor refuses is the request's failure: the process, and everybody else, goes on.

Not here: the instructions one by one (``rust/runtime``), the chain to earlier handlers (``rust/runtime/tests/trap_chain.rs``).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from support.client import Answer, Connection
from support.gateway import GatewayProcess
from support.models import TESTS, place
from support.tools import need_native

LOWEST = {"int32": -(2**31), "int64": -(2**63)}


def divide(connection: Connection, kind: str, a: int, b: int) -> Answer:
    values = {"a": a, "b": b}
    inputs = [
        {"name": name, "datatype": kind.upper(), "shape": [1], "data": [value]}
        for name, value in values.items()
    ]
    return connection.infer(f"divide-{kind}", {"inputs": inputs})


def trapped(gateway: GatewayProcess) -> int:
    lines = gateway.observe("/metrics").text.splitlines()
    return round(
        float(next(line for line in lines if line.startswith("headgate_trapped_divisions_total ")).split()[1])
    )


@pytest.mark.parametrize("faulthandler", ["", "1"])
def test_a_division_that_traps_fails_its_request_alone(tmp_path: Path, faulthandler: str) -> None:
    need_native()
    for kind in LOWEST:
        place(TESTS / "models" / f"divide_{kind}.onnx", tmp_path / "models", f"divide-{kind}")
    served = ["--models", str(tmp_path / "models")]
    with GatewayProcess(tmp_path / "state", served, {"PYTHONFAULTHANDLER": faulthandler}) as gateway:
        before = trapped(gateway)
        with Connection(gateway.http) as connection:
            for kind, lowest in LOWEST.items():
                for a, b in [(lowest, -1), (7, 0), (lowest, -1)]:
                    assert divide(connection, kind, a, b).code == "invalid_argument"
                    good = divide(connection, kind, lowest, 2)
                    assert good.json["outputs"][0]["data"] == [lowest // 2]
        # By zero ONNX Runtime refuses by itself.
        assert trapped(gateway) - before >= 4
        assert gateway.child is not None
        assert gateway.child.poll() is None

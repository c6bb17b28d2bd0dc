from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from headgate.cli import main
from headgate.cli.session import Surroundings
from headgate.gateway.checks import Machine
from headgate.gateway.units import Cores
from headgate.runtime_library import RuntimeLibrary, RuntimeLibraryError

LIBRARY = RuntimeLibrary(Path("/lib/libonnxruntime.so.1.32.0"), "1.32.0", "onnxruntime")
PORTS = [
    "--http",
    "127.0.0.1:0",
    "--grpc",
    "127.0.0.1:0",
    "--observe",
    "127.0.0.1:0",
    "--admin",
    "127.0.0.1:0",
]


def info(path: str) -> bytes:
    return json.dumps({"version": "1.32.0", "providers": ["CPUExecutionProvider"]}).encode()


def no_wheel() -> RuntimeLibrary:
    raise RuntimeLibraryError('ONNX Runtime is not installed; install it with: pip install "headgate[cpu]"')


def doctor(machine: Machine, state: Path, *more: str) -> Result:
    around = Surroundings(variables={}, machine=machine)
    return CliRunner().invoke(main, ["doctor", "--state", str(state), *PORTS, *more], obj=around)


def test_a_sound_machine_is_exit_code_0_and_every_line_is_said(tmp_path: Path) -> None:
    machine = Machine(lambda: LIBRARY, info, lambda: Cores(4, None), lambda _: False)
    result = doctor(machine, tmp_path)
    assert result.exit_code == 0, result.output
    for part in [
        "onnxruntime 1.32.0",
        "API level 32",
        "CPUExecutionProvider",
        "4 by affinity",
        "telemetry",
        "state",
    ]:
        assert part in result.stdout


def test_a_failing_check_is_exit_code_1_with_its_remedy(tmp_path: Path) -> None:
    machine = Machine(no_wheel, info, lambda: Cores(4, None), lambda _: False)
    result = doctor(machine, tmp_path)
    assert result.exit_code == 1
    assert '-> install it with: pip install "headgate[cpu]"' in result.stdout


def test_json_gives_each_finding_with_status_and_remedy(tmp_path: Path) -> None:
    machine = Machine(no_wheel, None, lambda: Cores(4, 0.5), lambda _: False)
    findings = {f["check"]: f for f in json.loads(doctor(machine, tmp_path, "--json").stdout)["findings"]}
    assert findings["onnxruntime"]["status"] == "fail"
    assert findings["native module"]["status"] == "fail"
    assert findings["cores"]["status"] == "warn"
    assert findings["state folder"]["status"] == "ok"


def test_wrong_settings_are_exit_code_2(tmp_path: Path) -> None:
    machine = Machine(lambda: LIBRARY, info, lambda: Cores(4, None), lambda _: False)
    result = doctor(machine, tmp_path, "--max-body", "64")
    assert result.exit_code == 2
    assert "--max-body" in result.stderr

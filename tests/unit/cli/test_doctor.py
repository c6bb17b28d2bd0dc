from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from headgate.cli import gpu_checks, main
from headgate.cli.gpu_checks import Driver, Gpus
from headgate.cli.session import CliEnvironment
from headgate.errors import ModelLoadFailed
from headgate.gateway.checks import Machine
from headgate.gateway.units import Cores
from headgate.runtime_library import RuntimeLibrary, RuntimeLibraryError
from support.elf import library_that_needs
from support.gateway import ANY_PORT_OPTIONS

LIBRARY = RuntimeLibrary(Path("/lib/libonnxruntime.so.1.32.0"), "1.32.0", "onnxruntime")


def info(path: str) -> bytes:
    return json.dumps({"version": "1.32.0", "providers": ["CPUExecutionProvider"]}).encode()


def no_wheel() -> RuntimeLibrary:
    raise RuntimeLibraryError('ONNX Runtime is not installed; install it with: pip install "headgate[cpu]"')


def doctor(machine: Machine, state: Path, *more: str) -> Result:
    around = CliEnvironment(variables={}, machine=machine)
    return CliRunner().invoke(main, ["doctor", "--state", str(state), *ANY_PORT_OPTIONS, *more], obj=around)


@pytest.fixture(autouse=True)
def gpus(monkeypatch: pytest.MonkeyPatch) -> Gpus:
    """Two devices; no test asks the machine that it runs on."""
    found = Gpus(lambda: Driver((13, 0), ("NVIDIA H100", "NVIDIA T4")), list, str, frozenset)
    monkeypatch.setattr(gpu_checks, "this_machine", lambda: found)
    return found


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
        "computes on the CPU only",
    ]:
        assert part in result.stdout


def test_a_failing_check_is_exit_code_1_with_its_remedy(tmp_path: Path) -> None:
    machine = Machine(no_wheel, info, lambda: Cores(4, None), lambda _: False)
    result = doctor(machine, tmp_path)
    assert result.exit_code == 1
    assert '-> install it with: pip install "headgate[cpu]"' in result.stdout
    assert "gpu libraries" not in result.stdout


def test_the_gpus_of_a_gpu_wheel_are_said(tmp_path: Path) -> None:
    path = library_that_needs(tmp_path / "libonnxruntime_providers_cuda.so", "libcudart.so.13")
    found = RuntimeLibrary(path.with_name("libonnxruntime.so.1.31.1"), "1.31.1", "onnxruntime-gpu")
    machine = Machine(lambda: found, info, lambda: Cores(4, None), lambda _: False)
    result = doctor(machine, tmp_path / "state")
    assert result.exit_code == 0, result.output
    assert "cuda:1 NVIDIA T4" in result.stdout
    assert "CUDA 13 open" in result.stdout


def test_a_broken_gpu_wheel_is_not_replaced_by_the_cpus(
    tmp_path: Path, gpus: Gpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: str) -> bytes:
        raise ModelLoadFailed(f"{path}: invalid ELF header")

    with_wheel = replace(gpus, wheels=lambda: frozenset({"onnxruntime-gpu"}))
    monkeypatch.setattr(gpu_checks, "this_machine", lambda: with_wheel)
    machine = Machine(lambda: LIBRARY, broken, lambda: Cores(4, None), lambda _: False)
    result = doctor(machine, tmp_path)
    assert result.exit_code == 1
    assert '-> pip install --force-reinstall "headgate[gpu]"' in result.stdout
    assert "headgate[cpu]" not in result.stdout


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

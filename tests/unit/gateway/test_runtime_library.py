from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import headgate
from headgate import runtime_library
from headgate.runtime_library import RuntimeLibraryError

ROOT = Path(__file__).resolve().parents[3]


def install(site: Path, distribution: str, version: str, *files: str) -> None:
    capi = site / "onnxruntime" / "capi"
    capi.mkdir(parents=True, exist_ok=True)
    (site / "onnxruntime" / "__init__.py").write_text("raise AssertionError('it must not be imported')\n")
    for name in files:
        (capi / name).touch()
    info = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")


def test_the_library_of_the_installed_wheel_is_found_without_importing_it(tmp_path: Path) -> None:
    install(
        tmp_path, "onnxruntime", "1.32.0", "libonnxruntime.so.1.32.0", "libonnxruntime_providers_shared.so"
    )
    found = runtime_library.find([str(tmp_path)])
    assert found.path == tmp_path / "onnxruntime" / "capi" / "libonnxruntime.so.1.32.0"
    assert (found.version, found.distribution, found.api_level) == ("1.32.0", "onnxruntime", 32)


def test_the_gpu_wheel_is_as_good(tmp_path: Path) -> None:
    install(tmp_path, "onnxruntime-gpu", "1.31.1", "libonnxruntime.so.1.31.1")
    assert runtime_library.find([str(tmp_path)]).distribution == "onnxruntime-gpu"


def test_no_wheel_names_the_extra_to_install(tmp_path: Path) -> None:
    with pytest.raises(RuntimeLibraryError, match=r'pip install "headgate\[cpu\]"'):
        runtime_library.find([str(tmp_path)])


def test_both_wheels_are_refused_with_the_remedy(tmp_path: Path) -> None:
    install(tmp_path, "onnxruntime", "1.32.0", "libonnxruntime.so.1.32.0")
    install(tmp_path, "onnxruntime-gpu", "1.31.1", "libonnxruntime.so.1.31.1")
    with pytest.raises(RuntimeLibraryError, match=r"1\.32\.0 and onnxruntime-gpu 1\.31\.1.*pip uninstall"):
        runtime_library.find([str(tmp_path)])


@pytest.mark.parametrize(
    ("version", "good"), [("1.23.2", False), ("1.24.0", True), ("2.0.0", True), ("0.9", False)]
)
def test_a_release_below_api_level_24_is_refused(tmp_path: Path, version: str, good: bool) -> None:
    install(tmp_path, "onnxruntime", version, f"libonnxruntime.so.{version}")
    if good:
        assert runtime_library.find([str(tmp_path)]).version == version
    else:
        with pytest.raises(RuntimeLibraryError, match="too old: API level 24"):
            runtime_library.find([str(tmp_path)])


def test_a_wheel_without_the_library_is_damaged(tmp_path: Path) -> None:
    install(tmp_path, "onnxruntime", "1.32.0")
    with pytest.raises(RuntimeLibraryError, match="damaged"):
        runtime_library.find([str(tmp_path)])


def test_a_library_that_no_distribution_claims_tells_its_release_by_its_name(tmp_path: Path) -> None:
    install(tmp_path, "other", "9", "libonnxruntime.so.1.30.0", "libonnxruntime.so.1.9.0")
    found = runtime_library.find([str(tmp_path)])
    assert (found.version, found.distribution) == ("1.30.0", "unknown")


def test_importing_the_package_switches_telemetry_off_and_starts_no_thread() -> None:
    program = (
        "import os, sys, threading, headgate, headgate.cli.session, headgate.gateway.process; "
        "assert os.environ['ORT_DISABLE_TELEMETRY'] == '1'; "
        "assert threading.active_count() == 1, threading.enumerate(); "
        "assert 'onnxruntime' not in sys.modules"
    )
    environment = {"PYTHONPATH": str(ROOT / "python"), "ORT_DISABLE_TELEMETRY": "0"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)


def test_the_version_is_the_crates_version() -> None:
    cargo = tomllib.loads((ROOT / "Cargo.toml").read_text())
    assert cargo["workspace"]["package"]["version"] == headgate.__version__

"""What doctor says about GPUs, on machines that are made up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from headgate import nvidia_libraries
from headgate.cli import gpu_checks
from headgate.cli.gpu_checks import Driver, Gpus
from headgate.gateway.checks import Finding
from headgate.runtime_library import RuntimeLibrary
from support.elf import library_that_needs

NEEDED = ("libcublasLt.so.13", "libcublas.so.13", "libcudart.so.13", "libcuda.so.1", "libsystem.so.6")
H100 = Driver((13, 0), ("NVIDIA H100",))


def no_driver() -> Driver:
    raise OSError("libcuda.so.1: cannot open shared object file")


def machine(
    driver: Callable[[], Driver] = lambda: H100, closed: str = "", libraries: tuple[Path, ...] = ()
) -> Gpus:
    """A machine on which every library opens but those whose name holds ``closed``."""

    def open_library(file: str) -> object:
        if closed and closed in file:
            raise OSError(f"{file}: cannot open shared object file")
        return None

    return Gpus(driver, lambda: list(libraries), open_library, lambda: frozenset({"onnxruntime-gpu"}))


def gpu_wheel(folder: Path) -> RuntimeLibrary:
    library_that_needs(folder / nvidia_libraries.PROVIDER, *NEEDED)
    return RuntimeLibrary(folder / "libonnxruntime.so.1.31.1", "1.31.1", "onnxruntime-gpu")


def examined(folder: Path, gpus: Gpus) -> dict[str, Finding]:
    return {finding.check: finding for finding in gpu_checks.examine(gpu_wheel(folder), gpus)}


def test_a_sound_machine_names_its_devices_and_where_the_libraries_are(tmp_path: Path) -> None:
    found = examined(tmp_path, machine(libraries=(Path("/wheels/cu13/lib/libcublas.so.13"),)))
    assert {finding.status for finding in found.values()} == {"ok"}
    assert "CUDA 13.0; cuda:0 NVIDIA H100" in found["gpus"].message
    assert "CUDA 13 open: /wheels/cu13/lib" in found["gpu libraries"].message


def test_a_library_is_opened_where_it_was_found_else_by_name(tmp_path: Path) -> None:
    opened: list[str] = []
    gpus = Gpus(lambda: H100, lambda: [Path("/cuda/libcublas.so.13")], opened.append, frozenset)
    examined(tmp_path, gpus)
    assert "/cuda/libcublas.so.13" in opened
    assert {"libcublasLt.so.13", "libcudnn.so.9", "libsystem.so.6"} < set(opened)
    assert "libcublas.so.13" not in opened
    assert "libcuda.so.1" not in opened


@pytest.mark.parametrize(
    ("driver", "words", "remedy"),
    [
        (no_driver, "libcuda.so.1: cannot open", "--gpus all"),
        (lambda: Driver((13, 0), ()), "shows no device", "--gpus all"),
        (lambda: Driver((12, 9), ("NVIDIA T4",)), "needs CUDA 13", "R580"),
    ],
)
def test_a_driver_that_will_not_do_fails(
    tmp_path: Path, driver: Callable[[], Driver], words: str, remedy: str
) -> None:
    found = examined(tmp_path, machine(driver))["gpus"]
    assert found.status == "fail"
    assert words in found.message
    assert remedy in found.remedy


@pytest.mark.parametrize(
    ("closed", "status"), [("cublasLt", "fail"), ("cudnn", "fail"), ("libsystem", "fail"), ("cufft", "warn")]
)
def test_a_library_that_does_not_open_is_named(tmp_path: Path, closed: str, status: str) -> None:
    found = examined(tmp_path, machine(closed=closed))["gpu libraries"]
    assert found.status == status
    assert closed in found.message
    assert "headgate[gpu]" in found.remedy


def test_the_cpus_wheel_is_one_line(tmp_path: Path) -> None:
    library = RuntimeLibrary(tmp_path / "libonnxruntime.so.1.32.0", "1.32.0", "onnxruntime")
    (found,) = gpu_checks.examine(library, machine(no_driver))
    assert found.status == "ok"
    assert "onnxruntime 1.32.0 computes on the CPU only" in found.message


def test_a_gpu_wheel_without_its_provider_is_damaged(tmp_path: Path) -> None:
    library = RuntimeLibrary(tmp_path / "libonnxruntime.so.1.31.1", "1.31.1", "onnxruntime-gpu")
    (found,) = gpu_checks.examine(library, machine())
    assert found.status == "fail"
    assert "headgate[gpu]" in found.remedy


@pytest.mark.parametrize(
    ("wheels", "advised"),
    [({"onnxruntime-gpu"}, "gpu"), ({"onnxruntime"}, "cpu"), ({"onnxruntime", "onnxruntime-gpu"}, "cpu")],
)
def test_who_has_the_gpus_wheel_is_not_sent_to_the_cpus(wheels: set[str], advised: str) -> None:
    broken = Finding("library", "fail", "invalid ELF header", 'pip install --force-reinstall "headgate[cpu]"')
    (found,) = gpu_checks.for_installed_wheel([broken], frozenset(wheels))
    assert found.remedy == f'pip install --force-reinstall "headgate[{advised}]"'
    assert (found.check, found.status, found.message) == (broken.check, broken.status, broken.message)


def test_this_machine_says_something_and_never_crashes(tmp_path: Path) -> None:
    gpus = gpu_checks.this_machine()
    assert gpus.wheels() <= {"onnxruntime", "onnxruntime-gpu"}
    found = examined(tmp_path, gpus)
    assert found["gpu libraries"].message
    assert found["gpus"].status in {"ok", "fail"}

"""What ``headgate doctor`` says about NVIDIA's GPUs: the driver and its devices, and the libraries that the CUDA provider needs.

It opens what a gateway would open, and computes nothing. The provider itself is not opened: without a session it crashes.
The other checks are gateway/checks.py. Next: nvidia_libraries.py.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from headgate import nvidia_libraries
from headgate.gateway.checks import Finding
from headgate.runtime_library import CPU_WHEEL, GPU_WHEEL, RuntimeLibrary

_DRIVER = "libcuda.so.1"
_IN_A_CONTAINER = "in a container, start it with its GPUs (--gpus all)"
_INSTALL_DRIVER = "install NVIDIA's driver, one of the R580 series or newer"
_NAME_BYTES = 128
_SELDOM = {"nvJitLink", "nvrtc", "cufft"}
"""What few models use: the others run without."""


@dataclass(frozen=True)
class Driver:
    """What NVIDIA's driver says."""

    cuda: tuple[int, int]
    """The newest CUDA that it runs, such as 13.0."""
    devices: tuple[str, ...]
    """The devices' names, ``cuda:0`` first."""


@dataclass(frozen=True)
class Gpus:
    """What the checks ask; the tests hand in another one."""

    driver: Callable[[], Driver]
    """Raises ``OSError`` with the words of who says no."""
    libraries: Callable[[], list[Path]]
    """NVIDIA's libraries, in the order in which they are to be opened."""
    open: Callable[[str], object]
    """Opens a library by path or name for everybody; raises ``OSError``."""
    wheels: Callable[[], frozenset[str]]
    """Which of ONNX Runtime's wheels are installed."""


def this_machine() -> Gpus:
    """The checks' view of where this runs."""
    return Gpus(_ask_driver, nvidia_libraries.find, _open, _wheels)


def examine(found: RuntimeLibrary, gpus: Gpus) -> Iterator[Finding]:
    """Whether versions with ``run.device: "cuda:N"`` would work; one line where only the CPU is meant."""
    library = found.path.with_name(nvidia_libraries.PROVIDER)
    if library.is_file():
        yield devices(gpus, nvidia_libraries.wanted(library)["cudart"])
        yield libraries(gpus, library)
    elif found.distribution == GPU_WHEEL:
        text = f"{found.distribution} {found.version} has no {library}"
        yield Finding("gpu libraries", "fail", text, 'pip install --force-reinstall "headgate[gpu]"')
    else:
        yield Finding(
            "gpus", "ok", f"none used: {found.distribution} {found.version} computes on the CPU only"
        )


def devices(gpus: Gpus, cuda: int | None) -> Finding:
    """Whether there is a driver that is new enough for the provider's CUDA, and a device."""
    try:
        driver = gpus.driver()
    except OSError as error:
        return Finding("gpus", "fail", f"NVIDIA's driver: {error}", f"{_INSTALL_DRIVER}; {_IN_A_CONTAINER}")
    text = f"the driver runs CUDA {'.'.join(map(str, driver.cuda))}"
    if not driver.devices:
        return Finding(
            "gpus", "fail", f"{text} and shows no device", f"{_IN_A_CONTAINER}; see CUDA_VISIBLE_DEVICES"
        )
    text += "; " + ", ".join(f"cuda:{number} {name}" for number, name in enumerate(driver.devices))
    if cuda is not None and driver.cuda[0] < cuda:
        return Finding("gpus", "fail", f"{text}; the provider needs CUDA {cuda}", _INSTALL_DRIVER)
    return Finding("gpus", "ok", text)


def libraries(gpus: Gpus, provider: Path) -> Finding:
    """Whether everything opens that the provider needs, from wheels, a CUDA of the machine, or where the loader looks."""
    wanted = nvidia_libraries.wanted(provider)
    there = {path.name.partition(".")[0]: str(path) for path in gpus.libraries()}
    files = {name: there.get(f"lib{name}", _file_name(name, number)) for name, number in wanted.items()}
    seldom = _closed(gpus, (file for name, file in files.items() if name in _SELDOM))
    always = _closed(gpus, (file for name, file in files.items() if name not in _SELDOM))
    # The rest is the system's. The driver has a finding of its own.
    known = {Path(file).name for file in files.values()} | {_DRIVER}
    always += _closed(gpus, (file for file in nvidia_libraries.needed(provider) if file not in known))
    cuda = "CUDA" if wanted["cudart"] is None else f"CUDA {wanted['cudart']}"
    if always or seldom:
        text = "; ".join([*always, *seldom])
        remedy = f'pip install "headgate[gpu]" brings NVIDIA\'s; or name a folder of {cuda} in CUDA_HOME'
        return Finding("gpu libraries", "fail" if always else "warn", text, remedy)
    folders = dict.fromkeys(str(Path(file).parent) for file in files.values() if "/" in file)
    return Finding("gpu libraries", "ok", f"those of {cuda} open: {', '.join(folders) or 'by name'}")


def for_installed_wheel(findings: Sequence[Finding], wheels: frozenset[str]) -> list[Finding]:
    """The findings with remedies that keep the wheel that is installed: who has the GPU's does not want the CPU's."""
    if wheels != {GPU_WHEEL}:
        return list(findings)
    return [
        replace(finding, remedy=finding.remedy.replace("headgate[cpu]", "headgate[gpu]"))
        for finding in findings
    ]


def _closed(gpus: Gpus, files: Iterable[str]) -> list[str]:
    """The loader's words for each library that it does not open."""
    words = []
    for file in files:
        try:
            gpus.open(file)
        except OSError as error:
            words.append(str(error))
    return words


def _file_name(name: str, number: int | None) -> str:
    return f"lib{name}.so" if number is None else f"lib{name}.so.{number}"


def _wheels() -> frozenset[str]:
    return frozenset(
        name for name in (CPU_WHEEL, GPU_WHEEL) if any(importlib.metadata.distributions(name=name))
    )


def _open(file: str) -> object:
    return ctypes.CDLL(file, mode=ctypes.RTLD_GLOBAL)


def _ask_driver() -> Driver:
    driver = ctypes.CDLL(_DRIVER)
    version, count, device = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(_NAME_BYTES)
    names = []
    _call(driver, "cuInit", 0)
    _call(driver, "cuDriverGetVersion", ctypes.byref(version))
    _call(driver, "cuDeviceGetCount", ctypes.byref(count))
    for number in range(count.value):
        _call(driver, "cuDeviceGet", ctypes.byref(device), number)
        _call(driver, "cuDeviceGetName", name, _NAME_BYTES, device)
        names.append(name.value.decode(errors="replace"))
    return Driver((version.value // 1000, version.value % 1000 // 10), tuple(names))


def _call(driver: ctypes.CDLL, function: str, *arguments: object) -> None:
    try:
        status = driver[function](*arguments)
    except AttributeError:
        raise OSError(f"{_DRIVER} has no {function}") from None
    if status:
        words = ctypes.c_char_p()
        driver.cuGetErrorString(status, ctypes.byref(words))
        raise OSError(f"{(words.value or b'').decode(errors='replace')} (error {status} of {function})")

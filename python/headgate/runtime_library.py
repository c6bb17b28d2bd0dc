"""Finds the ONNX Runtime shared library inside the installed wheel, without importing the wheel.

It does not open the library (the native module does) and never imports ``onnxruntime``: the wheel's own
Python module carries a second copy of the runtime, which would cost memory and start telemetry. Next:
gateway/process.py.
"""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from headgate.errors import HeadgateError

MINIMUM_API_LEVEL = 24
"""The level of ONNX Runtime's C API that the native module asks for; release 1.N offers levels up to N."""

CPU_WHEEL = "onnxruntime"
GPU_WHEEL = "onnxruntime-gpu"

_LIBRARY_NAME = re.compile(r"^libonnxruntime\.so(?:\.(?P<version>\d+(?:\.\d+)*))?$")


class RuntimeLibraryError(HeadgateError):
    """No usable ONNX Runtime is installed; the message says which command mends it."""

    code: ClassVar[str] = "unsupported"


@dataclass(frozen=True)
class RuntimeLibrary:
    """Where the shared library is and what it is."""

    path: Path
    version: str
    """The release, such as ``1.32.0``: the wheel's metadata, or the file's own name where there is none."""
    distribution: str
    """The installed distribution it came from, such as ``onnxruntime``; ``unknown`` when nothing claims it.
    """

    @property
    def api_level(self) -> int:
        """The newest C API level this release offers: the minor number of its version."""
        return _minor(self.version)


def find(search_path: Sequence[str] | None = None) -> RuntimeLibrary:
    """The library of the one installed wheel.

    ``search_path`` replaces ``sys.path``. Raises :class:`RuntimeLibraryError` when there is no wheel, when
    the CPU and the GPU wheel are both installed (they overwrite each other's files, so either may be
    broken), when the wheel holds no library, and when its release is too old.
    """
    installed = _installed(search_path)
    if CPU_WHEEL in installed and GPU_WHEEL in installed:
        raise RuntimeLibraryError(
            f"both {CPU_WHEEL} {installed[CPU_WHEEL]} and {GPU_WHEEL} {installed[GPU_WHEEL]} are installed, and "
            f"they overwrite each other's files; keep one: pip uninstall -y {CPU_WHEEL} {GPU_WHEEL}, then "
            'pip install "headgate[cpu]" or "headgate[gpu]"'
        )
    folder = _package_folder(search_path)
    if folder is None:
        raise RuntimeLibraryError(
            'ONNX Runtime is not installed; install it with: pip install "headgate[cpu]" '
            '(or "headgate[gpu]" for NVIDIA GPUs)'
        )
    path = _library_in(folder / "capi")
    distribution, version = _identity(installed, path)
    if _minor(version) < MINIMUM_API_LEVEL:
        raise RuntimeLibraryError(
            f"ONNX Runtime {version} ({path}) is too old: API level {MINIMUM_API_LEVEL} is needed, which is "
            f'release 1.{MINIMUM_API_LEVEL} or newer; upgrade it: pip install --upgrade "headgate[cpu]"'
        )
    return RuntimeLibrary(path=path, version=version, distribution=distribution)


def _installed(search_path: Sequence[str] | None) -> dict[str, str]:
    path = list(sys.path if search_path is None else search_path)
    found: dict[str, str] = {}
    for name in (CPU_WHEEL, GPU_WHEEL):
        for match in importlib.metadata.distributions(name=name, path=path):
            found.setdefault(name, match.version)
    return found


def _package_folder(search_path: Sequence[str] | None) -> Path | None:
    if search_path is None:
        spec = importlib.util.find_spec("onnxruntime")
    else:
        spec = importlib.machinery.PathFinder.find_spec("onnxruntime", list(search_path))
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def _library_in(capi: Path) -> Path:
    candidates = [entry for entry in capi.glob("libonnxruntime.so*") if _LIBRARY_NAME.match(entry.name)]
    if not candidates:
        raise RuntimeLibraryError(
            f"the onnxruntime package has no libonnxruntime.so in {capi}; the installation is damaged: "
            f'pip install --force-reinstall "headgate[cpu]"'
        )
    return max(candidates, key=lambda entry: _numbers(_version_in(entry) or "0"))


def _identity(installed: dict[str, str], path: Path) -> tuple[str, str]:
    if installed:
        return next(iter(installed.items()))
    version = _version_in(path)
    if version is None:
        raise RuntimeLibraryError(
            f"cannot tell the release of {path}: no distribution claims it and its name carries no number; "
            'install the wheel itself: pip install "headgate[cpu]"'
        )
    return "unknown", version


def _version_in(path: Path) -> str | None:
    match = _LIBRARY_NAME.match(path.name)
    return match["version"] if match else None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _minor(version: str) -> int:
    """1.N counts as N, a later major as beyond every level known here."""
    numbers = _numbers(version)
    if not numbers or numbers[0] == 0:
        return 0
    if numbers[0] > 1:
        return 1_000 * numbers[0]
    return numbers[1] if len(numbers) > 1 else 0

"""Finds NVIDIA's libraries that ONNX Runtime's CUDA provider needs (cuBLAS, cuDNN, ...), without importing or opening anything.

In the wheels that bring them (``nvidia-cublas``, ``nvidia-cudnn-cu13``, ...) they lie where no loader looks: ``nvidia/<name>/lib``
or, from CUDA 13 on, ``nvidia/cu13/lib``. A CUDA that was installed without wheels is looked for where its installers put it. The
native module opens them before the provider asks for them by name. Which version it is that the provider asks for stands in its
own file. Next: gateway/process.py.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import struct
from collections.abc import Mapping, Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from typing import BinaryIO

ORDER = ("cudart", "nvJitLink", "nvrtc", "cublasLt", "cublas", "curand", "cufft", "cudnn")
"""What the provider needs, each after those that it needs itself. The parts of cuDNN find each other."""

PROVIDER = "libonnxruntime_providers_cuda.so"
"""The provider's file, beside the runtime's own library."""

_BY_NAME = {
    12: {"nvJitLink": 12, "nvrtc": 12, "cublasLt": 12, "cublas": 12, "curand": 10, "cufft": 11, "cudnn": 9},
    13: {"nvJitLink": 13, "nvrtc": 13, "cublasLt": 13, "cublas": 13, "curand": 10, "cufft": 12, "cudnn": 9},
}
"""By the number of cudart: the provider opens cuDNN and cuFFT by name when it uses them, and they open nvrtc and nvJitLink."""

_NAME = re.compile(r"^lib(?P<name>[A-Za-z]+)\.so\.(?P<number>\d+)$")
_SHARED = re.compile(r"^cu(?P<cuda>\d+)$")
"""The folder that all libraries of one CUDA share, from CUDA 13 on."""
_FOLDERS_APART = 12
"""The last CUDA whose libraries have a folder each."""


def find(search_path: Sequence[str] | None = None, system: Sequence[Path] | None = None) -> list[Path]:
    """The libraries that the installed provider needs, in the order in which they are to be opened; none without a provider.

    Those of wheels go before those of ``system``, the folders of a CUDA without wheels (:func:`system_folders`).
    ``search_path`` replaces ``sys.path``.
    """
    library = provider(search_path)
    if library is None:
        return []
    numbers = wanted(library)
    cuda = numbers["cudart"]
    folders = [*_wheel_folders(search_path, cuda)]
    folders += system_folders(os.environ, cuda) if system is None else system
    found = (_library(folders, name, number) for name, number in numbers.items())
    return [path for path in found if path is not None]


def provider(search_path: Sequence[str] | None = None) -> Path | None:
    """The CUDA provider's library in the installed ONNX Runtime; None where that computes on the CPU only."""
    paths = (folder / "capi" / PROVIDER for folder in _package("onnxruntime", search_path))
    return next((path for path in paths if path.is_file()), None)


def wanted(library: Path) -> dict[str, int | None]:
    """The number after ``.so`` of each library of :data:`ORDER` that this provider needs; None where any will have to do."""
    asked = dict(filter(None, map(_parsed, needed(library))))
    cuda = asked.get("cudart")
    numbers = {} if cuda is None else _BY_NAME.get(cuda, {})
    return {name: asked.get(name, numbers.get(name)) for name in ORDER}


def needed(library: Path) -> list[str]:
    """What an ELF file of 64 bits names as needed (``DT_NEEDED``); nothing where the file cannot be read as one."""
    try:
        with library.open("rb") as file:
            return _read_needed(file)
    except (OSError, ValueError, OverflowError, struct.error):
        return []


def system_folders(variables: Mapping[str, str], cuda: int | None) -> list[Path]:
    """Where a CUDA without wheels may be, what somebody wrote first: the loader's own variable, CUDA's, its installers' folders."""
    machine = platform.machine()
    roots = [Path(variables[name]) for name in ("CUDA_HOME", "CUDA_PATH") if variables.get(name)]
    several = Path("/usr/local").glob("cuda-*" if cuda is None else f"cuda-{cuda}*")
    roots += [Path("/usr/local/cuda"), *sorted(several, key=_version, reverse=True)]
    target = {"aarch64": "sbsa"}.get(machine, machine)
    folders = [Path(part) for part in variables.get("LD_LIBRARY_PATH", "").split(":") if part]
    folders += [root / inner for root in roots for inner in ("lib64", f"targets/{target}-linux/lib")]
    return [*folders, Path(f"/usr/lib/{machine}-linux-gnu")]


def _version(path: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", path.name))


def _wheel_folders(search_path: Sequence[str] | None, cuda: int | None) -> list[Path]:
    """The wheels' folders, those of this CUDA first, then the newest: curand keeps its number, and each opens its own cudart."""

    def rank(folder: Path) -> tuple[bool, int]:
        shared = _SHARED.match(folder.parent.name)
        belongs_to = _FOLDERS_APART if shared is None else int(shared["cuda"])
        return belongs_to != cuda, -belongs_to

    folders = [path for place in _package("nvidia", search_path) for path in sorted(place.glob("*/lib"))]
    return sorted(folders, key=rank)


def _library(folders: Sequence[Path], name: str, number: int | None) -> Path | None:
    if number is not None:
        paths = (folder / f"lib{name}.so.{number}" for folder in folders)
        return next((path for path in paths if path.is_file()), None)
    for folder in folders:
        there = [
            (parsed[1], path) for path in folder.glob(f"lib{name}.so.*") if (parsed := _parsed(path.name))
        ]
        if there:
            return max(there)[1]
    return None


def _parsed(file_name: str) -> tuple[str, int] | None:
    match = _NAME.match(file_name)
    return (match["name"], int(match["number"])) if match else None


def _package(name: str, search_path: Sequence[str] | None) -> list[Path]:
    path = None if search_path is None else list(search_path)
    spec = importlib.util.find_spec(name) if path is None else PathFinder.find_spec(name, path)
    locations = None if spec is None else spec.submodule_search_locations
    return [Path(location) for location in locations or ()]


# === the dynamic section of an ELF file, as elf(5) has it ===

_LOADED, _DYNAMIC = 1, 2
_NEEDED, _STRINGS = 1, 5
_LONGEST = 1 << 20
"""No table that is read here is longer; a damaged file may say anything."""


def _read_needed(file: BinaryIO) -> list[str]:
    head = file.read(64)
    if head[:6] != b"\x7fELF\x02\x01":
        raise ValueError("not an ELF file of 64 bits, little-endian")
    (start,) = struct.unpack_from("<Q", head, 32)
    size, count = struct.unpack_from("<HH", head, 54)
    table = _read(file, start, size * count)
    # Each: kind, offset in the file, address, size in the file.
    segments = [struct.unpack_from("<I4xQQ8xQ", table, size * index) for index in range(count)]
    section = [(offset, length) for kind, offset, _, length in segments if kind == _DYNAMIC]
    entries = [
        entry
        for offset, length in section
        for entry in struct.iter_unpack("<QQ", _read(file, offset, length // 16 * 16))
    ]
    address = dict(entries).get(_STRINGS, 0)
    strings = [
        offset + address - base
        for kind, offset, base, length in segments
        if kind == _LOADED and base <= address < base + length
    ]
    names = [_read(file, place + value, 256) for tag, value in entries if tag == _NEEDED for place in strings]
    return [name.partition(b"\0")[0].decode() for name in names]


def _read(file: BinaryIO, offset: int, length: int) -> bytes:
    file.seek(offset)
    return file.read(min(length, _LONGEST))

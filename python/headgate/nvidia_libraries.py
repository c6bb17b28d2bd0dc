"""Finds NVIDIA's libraries in the wheels that bring them (``nvidia-cublas``, ``nvidia-cudnn-cu13``, ...), without importing
anything.

The wheels put them where no loader looks: ``nvidia/<name>/lib`` or, from CUDA 13 on, ``nvidia/cu13/lib``. The native module
opens them before ONNX Runtime's CUDA provider asks for them by name. Next: gateway/process.py.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path

ORDER = ("cudart", "nvJitLink", "nvrtc", "cublasLt", "cublas", "curand", "cufft", "cudnn")
"""What the provider needs, each after those that it needs itself. The parts of cuDNN find each other."""

_NAME = re.compile(r"^lib(?P<name>[A-Za-z]+)\.so\.(?P<number>\d+)$")
_SHARED = re.compile(r"^cu\d+$")
"""The folder that all libraries of one CUDA share, from CUDA 13 on."""


def find(search_path: Sequence[str] | None = None) -> list[Path]:
    """The libraries of the installed wheels in the order in which they are to be opened; none without such wheels.

    ``search_path`` replaces ``sys.path``.
    """
    found: dict[str, tuple[tuple[int, bool], Path]] = {}
    for folder in _folders(search_path):
        for path in sorted(folder.glob("*/lib/lib*.so.*")):
            match = _NAME.match(path.name)
            if match is None or match["name"] not in ORDER:
                continue
            # The newest of several; where a library kept its number, the one of the newest CUDA.
            rank = (int(match["number"]), _SHARED.match(path.parent.parent.name) is not None)
            found[match["name"]] = max(found.get(match["name"], (rank, path)), (rank, path))
    return [found[name][1] for name in ORDER if name in found]


def _folders(search_path: Sequence[str] | None) -> list[Path]:
    if search_path is None:
        spec = importlib.util.find_spec("nvidia")
    else:
        spec = importlib.machinery.PathFinder.find_spec("nvidia", list(search_path))
    locations = None if spec is None else spec.submodule_search_locations
    return [Path(location) for location in locations or ()]

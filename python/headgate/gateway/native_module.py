"""Loads the native module, with words for the case that it is not built. Next: process.py."""

from __future__ import annotations

import importlib
from types import ModuleType

from headgate.errors import Unsupported


def load() -> ModuleType:
    """``headgate._native``; :class:`Unsupported` with the remedy when this source tree has none."""
    try:
        return importlib.import_module("headgate._native")
    except ModuleNotFoundError as error:
        if error.name != "headgate._native":
            raise
        raise Unsupported(
            "headgate._native is missing: this source tree was not built; run `make serve`, or install a wheel"
        ) from error

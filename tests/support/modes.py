"""The modes of a state folder: nobody but its owner may read or write it."""

from __future__ import annotations

import stat
from pathlib import Path


def modes(folder: Path) -> dict[str, int]:
    """The mode of everything that is not as it has to be."""
    found = {}
    for path in (folder, *folder.rglob("*")):
        mode = stat.S_IMODE(path.lstat().st_mode)
        is_artifact = {"blobs", "artifacts"} & {*path.parts}
        if mode != (0o700 if path.is_dir() else 0o400 if is_artifact else 0o600):
            found[str(path.relative_to(folder))] = mode
    return found

"""Looking at models and at artifacts of a state folder that another process may be using: nothing is made and nothing cleaned away.

Not here: taking models in (``store``). Next: ``manifest``.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from headgate.errors import HeadgateError
from headgate.registry import source as sources
from headgate.registry.external import external_files
from headgate.registry.limits import Limits
from headgate.registry.manifest import MANIFEST, MODEL, Manifest, hex_of


def artifact_folder(state: Path, digest: str) -> Path:
    """Where an artifact lies, or would."""
    return state / "artifacts" / hex_of(digest)


def model_fault(path: Path) -> str | None:
    """Why the model at ``path`` could not be taken in; None for one that could. Its graph is read, and no other file."""
    try:
        source = sources.find(path)
        sources.check(source, MODEL)
        for name in source.extras:
            sources.check(source, name)
        Limits().check_model(source)
        for name, least in external_files(source.path_of(MODEL)).items():
            sources.check(source, name, least=least)
    except HeadgateError as error:
        return error.message
    return None


def lone_blob_faults(state: Path) -> list[str]:
    """Files that are not the ones that their names say, of those that no artifact has: the others are checked with it."""
    found = []
    for path in sorted((state / "blobs" / "sha256").glob("*")):
        try:
            if path.stat().st_nlink > 1:
                continue
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            continue  # the gateway has just collected it
        except OSError as error:
            found.append(f"{path}: it cannot be read: {error.strerror}")
        else:
            found += [] if digest == path.name else [f"{path}: its bytes are sha256:{digest}"]
    return found


def artifact_fault(state: Path, digest: str) -> str | None:
    """What is wrong with an artifact; None for one that is whole. Hashes all its files."""
    folder = artifact_folder(state, digest)
    try:
        data = (folder / MANIFEST).read_bytes()
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
            return f"artifact {digest} is damaged: its manifest has other bytes"
        for name, entry in Manifest.from_bytes(data).files.items():
            with (folder / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != entry.sha256:
                    return f"artifact {digest} is damaged: {name} has other bytes"
    except FileNotFoundError as error:
        return f"artifact {digest} is not whole: {error.filename} is missing"
    except OSError as error:
        return f"artifact {digest} cannot be read: {error}"
    except HeadgateError as error:
        return error.message
    return None

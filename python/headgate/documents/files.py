"""``file:`` references: their syntax, and where below the root they lead.

A reference leads below the folder of its document (or the given root) and nowhere else, symbolic links
followed. Whether the file exists is another question, asked when it is used. Next: ``model``.
"""

from __future__ import annotations

from pathlib import Path

from headgate.documents.faults import quoted
from headgate.documents.values import refuse_secret

_PREFIX = "file:"
_MAX_LENGTH = 4096
_LATER_SCHEMES = (
    "models",
    "mlflow-artifacts",
    "runs",
    "s3",
    "gs",
    "az",
    "abfs",
    "http",
    "https",
    "oci",
    "hf",
)


def check_reference(text: str) -> str:
    """``text`` itself when it is a ``file:`` reference, else ``ValueError``; touches no file."""
    refuse_secret(text)
    scheme, colon, rest = text.partition(":")
    if not colon or scheme != "file":
        if colon and scheme in _LATER_SCHEMES:
            raise ValueError(f'{scheme}: references are not supported yet; write "file:<path>"')
        raise ValueError(
            f'{quoted(text)} is not a reference: write "file:{quoted(text)[1:-1]}"'
            if not colon
            else f'{quoted(text)} is of no known scheme: write "file:<path>"'
        )
    if not rest:
        raise ValueError('"file:" names no path: write "file:<path below the document\'s folder>"')
    if rest.startswith("//") and not rest.startswith("///"):
        raise ValueError(f'{quoted(text)} names a host: write "file:<path>" without //')
    if len(text) > _MAX_LENGTH:
        raise ValueError(f"is longer than {_MAX_LENGTH} characters")
    if any(ord(c) < 32 for c in rest):
        raise ValueError(f"{quoted(text)} holds a control character")
    return text


def locate(reference: str, root: Path) -> Path:
    """The real path a checked ``file:`` reference leads to; it need not exist.

    ``ValueError`` when it leads outside ``root``, by ``..``, by a symbolic link or by being absolute
    elsewhere.
    """
    path = reference.removeprefix(_PREFIX)
    if path.startswith("///"):
        path = path[2:]
    base = root.resolve()
    try:
        target = (base / path).resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"{quoted(reference)} cannot be followed: {error}") from None
    if target != base and base not in target.parents:
        hint = (
            "write a path relative to it"
            if Path(path).is_absolute()
            else "move the file below it, or set --root"
        )
        raise ValueError(f"{quoted(reference)} leads outside the document's root folder; {hint}")
    return target


def reference_to(path: Path, root: Path) -> str:
    """The ``file:`` reference of ``path``, relative to ``root``; ``ValueError`` when it lies outside."""
    return _PREFIX + path.resolve().relative_to(root.resolve()).as_posix()

"""The smallest documents for a ``--models`` tree: a text like one a person would write, parsed like any
other.

Not here: the scan of the tree (``headgate.registry.tree``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from headgate.documents import files
from headgate.documents.faults import Fault, did_you_mean, policy_invalid, quoted
from headgate.documents.model import API_VERSION
from headgate.documents.parsing import Document, parse_one
from headgate.documents.values import natural_key


def highest(versions: Mapping[str, Path] | list[str]) -> str:
    """The highest version name, digits read as numbers: ``10`` over ``9``; ``versions`` is not empty."""
    return max(versions, key=natural_key)


def from_models_tree(
    endpoint: str, folders: Mapping[str, Path], *, root: Path, champion: str | None = None
) -> Document:
    """The document of :func:`models_tree_text`, parsed. Raises ``PolicyInvalid`` as ``parse`` does too."""
    text = models_tree_text(endpoint, folders, root=root, champion=champion)
    return parse_one(text, source=models_tree_source(endpoint), root=root)


def models_tree_source(endpoint: str) -> str:
    """What the documents of a tree name as their source."""
    return f"--models ({endpoint})"


def models_tree_text(
    endpoint: str, folders: Mapping[str, Path], *, root: Path, champion: str | None = None
) -> bytes:
    """The smallest document of ``endpoint`` with a version for each folder, all below ``root``.

    Without ``champion`` (at first sight) the highest number is champion. With it, that version stays champion
    whatever appeared since: new folders load at weight 0. Raises ``PolicyInvalid`` when ``champion`` is not among the folders.
    """
    source = models_tree_source(endpoint)
    if not folders:
        raise policy_invalid(source, [Fault("versions", None, "no folder holds a model.onnx")])
    if champion is not None and champion not in folders:
        message = f"{quoted(champion)} has no folder; {did_you_mean(champion, folders)}"
        raise policy_invalid(source, [Fault("traffic.champion", None, message)])
    lines = [f"apiVersion: {API_VERSION}", "kind: Endpoint", f"name: {json.dumps(endpoint)}", "versions:"]
    for version in sorted(folders, key=natural_key):
        try:
            reference = files.reference_to(folders[version], root)
        except ValueError:
            fault = Fault(f"versions.{version}.model", None, f"{folders[version]} lies outside {root}")
            raise policy_invalid(source, [fault]) from None
        lines.append(f"  {json.dumps(version)}: {json.dumps(reference, ensure_ascii=False)}")
    lines += ["traffic:", f"  champion: {json.dumps(champion or highest(folders))}", ""]
    return "\n".join(lines).encode()

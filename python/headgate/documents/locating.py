"""The files that a document refers to: where they are, with every fault at once.

Next: ``schema``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from headgate.documents import files
from headgate.documents.faults import Fault, format_path, policy_invalid
from headgate.documents.faults import Path as FaultPath
from headgate.documents.parsing import Document
from headgate.regular_files import check_regular


@dataclass(frozen=True, slots=True)
class LocatedFiles:
    """The real paths of a document's files: of each model, by version, and of the baseline if there is one."""

    models: dict[str, Path]
    baseline: Path | None


def locate_files(document: Document) -> LocatedFiles:
    """Locates every file and requires that it exists: a model is a regular file or a folder, a baseline a regular file.

    Raises ``PolicyInvalid`` listing every reference that leads nowhere or outside the document's root.
    """
    endpoint = document.endpoint
    found: list[Fault] = []

    def locate(path: FaultPath, reference: str) -> Path:
        try:
            target = files.locate(reference, document.root)
            if not target.exists():
                raise ValueError(f"{reference} does not exist below {document.root}")
            if path[-1] != "model" or not target.is_dir():
                check_regular(target)
        except OSError as error:
            found.append(Fault(format_path(path), None, f"{reference} cannot be read: {error.strerror}"))
        except ValueError as error:
            found.append(Fault(format_path(path), None, str(error)))
        else:
            return target
        return document.root

    models = {
        name: locate(("versions", name, "model"), version.model)
        for name, version in endpoint.versions.items()
        if version.model is not None
    }
    reference = endpoint.drift.baseline if endpoint.drift else None
    baseline = None if reference is None else locate(("drift", "baseline"), reference)
    if found:
        raise policy_invalid(document.source, found)
    return LocatedFiles(models, baseline)

"""Resolved: an endpoint with its defaults filled in and its files located; nothing optional but what may be
absent.

Next: ``schema``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from headgate.documents import files
from headgate.documents.faults import Fault, format_path, policy_invalid
from headgate.documents.faults import Path as FaultPath
from headgate.documents.fields import ConstantValue
from headgate.documents.model import Fallback
from headgate.documents.parsing import Document


@dataclass(frozen=True, slots=True)
class ModelAt:
    """A version that is a model: a folder holding ``model.onnx``, or an ``.onnx`` file, as a real path."""

    path: Path
    run: dict[str, Any]
    """How it is run, as far as that is written: what ``Run.settings`` gives."""
    compatible: bool = True
    """Whether its signature has to be the champion's."""


@dataclass(frozen=True, slots=True)
class ConstantOf:
    """A version that is a constant: values by output tensor, and the digest of their canonical JSON."""

    values: dict[str, ConstantValue]
    digest: str


@dataclass(frozen=True, slots=True)
class Resolved:
    """What the rest of the program works with; slots are of 0.01 %, the champion takes the rest of 10 000."""

    name: str
    versions: dict[str, ModelAt | ConstantOf]
    champion: str
    weights_in_slots: dict[str, int]
    sticky_header: str | None
    timeout_ms: int
    columns: dict[str, tuple[str, ...]]
    labels: dict[str, tuple[str, ...]]
    non_finite: str
    limits: dict[str, Any]
    """What ``Limits.settings`` gives."""
    fallback: dict[str, Any] | Literal["none"] | None
    """What ``Fallback.settings`` gives, or the word none."""
    keep_warm: bool
    baseline: Path | None


def resolve(document: Document) -> Resolved:
    """Locates every file and requires that it exists.

    Raises ``PolicyInvalid`` listing every reference that leads nowhere or outside the document's root.
    """
    endpoint = document.endpoint
    found: list[Fault] = []

    def locate(path: FaultPath, reference: str) -> Path:
        try:
            target = files.locate(reference, document.root)
            if not target.exists():
                raise ValueError(f"{reference} does not exist below {document.root}")
        except (ValueError, OSError) as error:
            found.append(Fault(format_path(path), None, str(error)))
            return document.root
        return target

    versions: dict[str, ModelAt | ConstantOf] = {}
    for name, version in endpoint.versions.items():
        if version.constant is not None and version.constant_digest is not None:
            versions[name] = ConstantOf(dict(version.constant), version.constant_digest)
        elif version.model is not None:
            path = locate(("versions", name, "model"), version.model)
            run = version.run.settings() if version.run else {}
            versions[name] = ModelAt(path, run, version.compatible)
    fallback = endpoint.traffic.fallback
    reference = endpoint.drift.baseline if endpoint.drift else None
    baseline = None if reference is None else locate(("drift", "baseline"), reference)
    if found:
        raise policy_invalid(document.source, found)
    return Resolved(
        name=endpoint.name,
        versions=versions,
        champion=endpoint.traffic.champion,
        weights_in_slots=endpoint.weights_in_slots,
        sticky_header=endpoint.sticky_header,
        timeout_ms=endpoint.timeout_ms,
        columns=dict(endpoint.columns),
        labels=dict(endpoint.labels),
        non_finite=endpoint.non_finite,
        limits=endpoint.limits.settings() if endpoint.limits else {},
        fallback=fallback.settings() if isinstance(fallback, Fallback) else fallback,
        keep_warm=endpoint.traffic.keep_warm,
        baseline=baseline,
    )

"""From a document to a spec: models into the artifact store, names against their pins, the baseline fitted.

Not here: reading documents (``documents``), copying and hashing (``registry``), fitting (``drift``). Next: ``decisions``.
Everything here blocks: run it in a thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from headgate import drift
from headgate.control.domain.revision import DocumentIdentity, sha256
from headgate.control.domain.spec import Spec
from headgate.control.domain.traffic import faults
from headgate.control.writes.data_plane import DataPlane
from headgate.control.writes.decisions import ResolvedDocument
from headgate.control.writes.handover import Paths
from headgate.control.writes.sources import NOWHERE
from headgate.documents import Document, Fault, locate_files
from headgate.errors import HeadgateError, from_code
from headgate.leases import Lease
from headgate.registry import Manifest, Registry, model_file


class ArtifactUse(Enum):
    """Whether the models and baselines of a document are stored, or only inspected by a dry run."""

    STORE = "store"
    INSPECT = "inspect"


class Resolver:
    """Turns documents into specs."""

    def __init__(self, registry: Registry, plane: DataPlane, paths: Paths) -> None:
        """The registry takes models in and knows the pins, the data plane knows the signatures of models."""
        self._registry = registry
        self._plane = plane
        self._paths = paths

    def resolve(
        self, document: Document, source_digest: str | None, use: ArtifactUse, lease: Lease
    ) -> ResolvedDocument:
        """Raises :class:`PolicyInvalid` or :class:`ModelLoadFailed` naming every version at fault; then nothing was changed.

        ``lease`` holds what the spec refers to: no row references it yet.
        """
        endpoint, located = document.endpoint, locate_files(document)
        manifests = self._manifests(endpoint.name, located.models, use, lease)
        models = {name: manifest.digest for name, manifest in manifests.items()}
        digests = {name: v.constant_digest or models[name] for name, v in endpoint.versions.items()}
        self._check_pins(endpoint.name, digests)
        look = use is ArtifactUse.INSPECT
        sources = {models[name]: model_file(path) for name, path in located.models.items()} if look else {}
        baseline = None
        if located.baseline is not None:
            columns = {tensor: list(names) for tensor, names in endpoint.columns.items()}
            champion = self._champion(models.get(endpoint.traffic.champion), sources)
            fitted = drift.fit(located.baseline, self._plane.inspect(str(champion)), columns, self._plane)
            if look:
                baseline = drift.baseline_digest(fitted)
            else:
                baseline, _ = drift.keep_baseline(self._paths.state, fitted, lease)
        spec = Spec.model_validate(endpoint.spec(digests, baseline))
        root = None if document.root == NOWHERE else str(document.root)
        identity = DocumentIdentity(
            digest=sha256(document.raw), source=document.source, source_digest=source_digest, root=root
        )
        warnings = tuple(str(warning) for warning in document.warnings)
        sizes = {manifest.digest: manifest.size for manifest in manifests.values()}
        return ResolvedDocument(identity, document.raw, spec, sources, sizes, warnings)

    def _manifests(
        self, endpoint: str, models: dict[str, Path], use: ArtifactUse, lease: Lease
    ) -> dict[str, Manifest]:
        manifests: dict[str, Manifest] = {}
        wrong: dict[str, HeadgateError] = {}
        for name, path in models.items():
            try:
                if use is ArtifactUse.INSPECT:
                    manifests[name] = self._registry.look(endpoint, name, path)
                    self._registry.store.hold(manifests[name].digest, lease)
                else:
                    digest = self._registry.admit(endpoint, name, path, lease=lease)
                    manifests[name] = self._registry.store.manifest(digest)
            except HeadgateError as error:
                wrong[f"versions.{name}"] = error
        if wrong:
            raise _joined(wrong)
        return manifests

    def _check_pins(self, endpoint: str, digests: dict[str, str]) -> None:
        taken: dict[str, str] = {}
        for name, digest in digests.items():
            pinned = self._registry.pinned(endpoint, name)
            if pinned is not None and pinned != digest:
                taken[f"versions.{name}"] = (
                    f"{name} of {endpoint} is {pinned} for good, and this is {digest}: give it a new name"
                )
        if taken:
            raise faults(taken)

    def _champion(self, digest: str | None, sources: Mapping[str, Path]) -> Path:
        """The champion's model file: in the store, or where a dry run found it."""
        if digest is None:
            raise faults(
                {
                    "drift.baseline": "the champion is a constant: a baseline needs a model that says its inputs"
                }
            )
        return sources[digest] if digest in sources else self._paths.model(digest)


def _joined(wrong: dict[str, HeadgateError]) -> HeadgateError:
    first = next(iter(wrong.values()))
    message = "; ".join(f"{path}: {error.message}" for path, error in wrong.items())
    detail: dict[str, Any] = {
        "faults": [Fault(path, None, error.message).as_dict() for path, error in wrong.items()]
    }
    if len(wrong) == 1:
        detail["version"] = next(iter(wrong)).removeprefix("versions.")
    return from_code(first.code, message, detail)

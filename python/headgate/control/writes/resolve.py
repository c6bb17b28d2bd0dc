"""From a document to a spec: models into the artifact store, names against their pins, the baseline fitted.

Not here: reading documents (``documents``), copying and hashing (``registry``), fitting (``drift``). Next: ``changes``.
Everything here blocks: run it in a thread.
"""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Any

from headgate import drift
from headgate.control.domain.merge import Declared
from headgate.control.domain.revision import Text
from headgate.control.domain.spec import Paths, Spec, VersionSpec
from headgate.control.domain.traffic import faults
from headgate.control.writes.data_plane import DataPlane
from headgate.control.writes.decisions import Ready
from headgate.control.writes.sources import NOWHERE
from headgate.documents import ConstantOf, Document, Fault, ModelAt, resolve
from headgate.errors import HeadgateError, PolicyInvalid, from_code
from headgate.registry import Registry


class Intake(Enum):
    """Whether what a document refers to is taken in or only looked at."""

    KEEP = "keep"
    LOOK = "look"


class Resolver:
    """Turns documents into specs."""

    def __init__(self, registry: Registry, plane: DataPlane, paths: Paths) -> None:
        """The registry takes models in and knows the pins, the data plane knows the signatures of models."""
        self._registry = registry
        self._plane = plane
        self._paths = paths

    def ready(self, document: Document, source_digest: str | None, intake: Intake) -> Ready:
        """Raises :class:`PolicyInvalid` or :class:`ModelLoadFailed` naming every version at fault; then nothing was changed."""
        resolved = resolve(document)
        versions = self._versions(resolved.name, resolved.versions, intake)
        baseline = None
        if resolved.baseline is not None:
            columns = {tensor: list(names) for tensor, names in resolved.columns.items()}
            champion = versions[resolved.champion]
            baseline = self._baseline(resolved.baseline, champion, columns, intake)
        weights = {version: slots for version, slots in sorted(resolved.weights_in_slots.items()) if slots}
        spec = Spec(
            declared=Declared(resolved.champion, weights, resolved.sticky_header),
            versions=versions,
            columns={tensor: list(names) for tensor, names in resolved.columns.items()},
            labels={tensor: list(names) for tensor, names in resolved.labels.items()},
            non_finite=resolved.non_finite,
            limits=resolved.limits,
            fallback=resolved.fallback,
            keep_warm=resolved.keep_warm,
            timeout_ms=resolved.timeout_ms,
            baseline=baseline,
            root=None if document.root == NOWHERE else str(document.root),
        )
        return Ready(Text(document.raw, document.source, source_digest), spec)

    def _versions(
        self, endpoint: str, found: dict[str, ModelAt | ConstantOf], intake: Intake
    ) -> dict[str, VersionSpec]:
        versions: dict[str, VersionSpec] = {}
        wrong: dict[str, HeadgateError] = {}
        for name, what in found.items():
            try:
                versions[name] = self._version(endpoint, name, what, intake)
            except HeadgateError as error:
                wrong[f"versions.{name}"] = error
        if wrong:
            raise _joined(wrong)
        taken: dict[str, str] = {}
        for name, version in versions.items():
            pinned = self._registry.pinned(endpoint, name)
            if pinned is not None and pinned != version.digest:
                taken[f"versions.{name}"] = (
                    f"{name} of {endpoint} is {pinned} for good, and this is {version.digest}: give it a new name"
                )
        if taken:
            raise faults(taken)
        return versions

    def _version(self, endpoint: str, name: str, what: ModelAt | ConstantOf, intake: Intake) -> VersionSpec:
        if isinstance(what, ConstantOf):
            # As JSON gives it back, so that a spec compares equal after it was stored.
            return VersionSpec(what.digest, json.loads(json.dumps(what.values)))
        if intake is Intake.LOOK:
            digest = self._registry.store.fingerprint(what.path).digest
        else:
            digest = self._registry.admit(endpoint, name, what.path)
        return VersionSpec(digest, run=what.run, compatible=what.compatible)

    def _baseline(
        self, path: Path, champion: VersionSpec, columns: dict[str, list[str]], intake: Intake
    ) -> str:
        if champion.constant is not None:
            raise faults(
                {
                    "drift.baseline": "the champion is a constant: a baseline needs a model that says its inputs"
                }
            )
        if intake is Intake.LOOK and not self._registry.store.contains(champion.digest):
            raise PolicyInvalid(
                "a dry run cannot fit a baseline for a model that was never taken in: apply it"
            )
        signature = self._plane.inspect(str(self._paths.model(champion.digest)))
        data = drift.fit(path, signature, columns, self._plane)
        if intake is Intake.LOOK:
            return drift.baseline_digest(data)
        digest, _ = drift.keep_baseline(self._paths.state, data)
        return digest


def _joined(wrong: dict[str, HeadgateError]) -> HeadgateError:
    first = next(iter(wrong.values()))
    message = "; ".join(f"{path}: {error.message}" for path, error in wrong.items())
    detail: dict[str, Any] = {
        "faults": [Fault(path, None, error.message).as_dict() for path, error in wrong.items()]
    }
    if len(wrong) == 1:
        detail["version"] = next(iter(wrong)).removeprefix("versions.")
    return from_code(first.code, message, detail)

"""What a revision serves, with every reference replaced by a digest; and the JSON that the data plane takes.

Not here: how a document becomes a spec (``resolve``), traffic (``traffic``). Next: ``record``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from headgate.control.domain.merge import Declared
from headgate.control.domain.traffic import LiveTraffic
from headgate.drift import baseline_path


@dataclass(frozen=True)
class VersionSpec:
    """A version: an artifact by its digest, or a constant. ``in_document`` is false for one that is only kept because it is live;
    ``run`` says how an artifact is run, as far as that is written, ``compatible`` whether its signature has to be the champion's.
    """

    digest: str
    constant: Mapping[str, Any] | None = None
    in_document: bool = True
    run: Mapping[str, Any] = field(default_factory=dict)
    compatible: bool = True


@dataclass(frozen=True)
class Spec:
    """A document resolved. ``baseline`` is a digest; ``root`` is where its ``file:`` references were found; ``limits`` and
    ``fallback`` are as the data plane takes them; ``keep_warm`` says whether the champion and the last good one stay in memory.
    """

    declared: Declared
    versions: Mapping[str, VersionSpec]
    columns: Mapping[str, list[str]] = field(default_factory=dict)
    labels: Mapping[str, list[str]] = field(default_factory=dict)
    non_finite: str = "error"
    limits: Mapping[str, Any] = field(default_factory=dict)
    fallback: Mapping[str, Any] | Literal["none"] | None = None
    keep_warm: bool = False
    timeout_ms: int = 30_000
    baseline: str | None = None
    window_seconds: int = 86_400
    root: str | None = None

    def digests(self) -> dict[str, str]:
        """Digest of each version."""
        return {name: version.digest for name, version in self.versions.items()}

    def keeping(self, names: Collection[str], earlier: Spec) -> Spec:
        """With the versions ``names`` of an earlier spec that this one lacks: they stay loaded without being in the document."""
        kept = {
            name: replace(earlier.versions[name], in_document=False)
            for name in sorted(names)
            if name not in self.versions and name in earlier.versions
        }
        return replace(self, versions={**self.versions, **kept}) if kept else self

    def serving(self, live: LiveTraffic) -> Spec:
        """Without the versions that are neither in the document nor live nor the last good champion."""
        needed = {live.champion, live.last_good}
        kept = {name: v for name, v in self.versions.items() if v.in_document or name in needed}
        return self if len(kept) == len(self.versions) else replace(self, versions=kept)

    def to_json(self) -> dict[str, Any]:
        """As stored."""
        return {
            "declared": {
                "champion": self.declared.champion,
                "weights": dict(self.declared.weights),
                "sticky": self.declared.sticky,
            },
            "versions": {
                name: {
                    "digest": v.digest,
                    "constant": v.constant,
                    "in_document": v.in_document,
                    "run": dict(v.run),
                    "compatible": v.compatible,
                }
                for name, v in self.versions.items()
            },
            "columns": {tensor: list(names) for tensor, names in self.columns.items()},
            "labels": {tensor: list(names) for tensor, names in self.labels.items()},
            "non_finite": self.non_finite,
            "limits": dict(self.limits),
            "fallback": self.fallback,
            "keep_warm": self.keep_warm,
            "timeout_ms": self.timeout_ms,
            "baseline": self.baseline,
            "window_seconds": self.window_seconds,
            "root": self.root,
        }

    @staticmethod
    def from_json(stored: Mapping[str, Any]) -> Spec:
        """The inverse of :meth:`to_json`."""
        return Spec(
            declared=Declared(**stored["declared"]),
            versions={name: VersionSpec(**version) for name, version in stored["versions"].items()},
            columns=stored["columns"],
            labels=stored.get("labels", {}),
            non_finite=stored.get("non_finite", "error"),
            limits=stored.get("limits", {}),
            fallback=stored.get("fallback"),
            keep_warm=stored.get("keep_warm", False),
            timeout_ms=stored["timeout_ms"],
            baseline=stored["baseline"],
            window_seconds=stored["window_seconds"],
            root=stored["root"],
        )


@dataclass(frozen=True)
class Paths:
    """Where loaded things lie: ``model`` gives the model file of an artifact's digest after checking that it is whole, ``place``
    without looking; ``state`` is the state folder.
    """

    model: Callable[[str], Path]
    place: Callable[[str], Path]
    state: Path


@dataclass(frozen=True)
class Load:
    """How a state is handed over: ``loaded`` versions are in memory and their files are not looked at, ``omitted`` ones stay out,
    an ``urgent`` one overtakes a load in progress, a ``fresh`` one is asked for by a document and has to fit its models.
    """

    loaded: Collection[str] = ()
    omitted: Collection[str] = ()
    urgent: bool = False
    fresh: bool = False


def loadable(spec: Spec, live: LiveTraffic, omitted: Collection[str] = ()) -> list[str]:
    """The versions to hold in memory: all but the blocked and those left out because they did not load."""
    return [
        name
        for name, version in sorted(spec.versions.items())
        if name not in omitted and live.block_of(version.digest) is None
    ]


class Serving(Protocol):
    """A numbered state: what ``record.Held`` is, seen from here."""

    @property
    def n(self) -> int:
        """The revision."""

    @property
    def spec(self) -> Spec:
        """What is served."""

    @property
    def live(self) -> LiveTraffic:
        """How it is shared."""


def native_apply(name: str, held: Serving, paths: Paths, load: Load) -> bytes:
    """The argument of ``_native.Gateway.apply``; blocks, because the first use of an artifact hashes it.

    Slots of a version that is left out go to the champion for the time being.
    """
    spec, live = held.spec, held.live
    versions: list[dict[str, Any]] = []
    for version in loadable(spec, live, load.omitted):
        entry = spec.versions[version]
        what: dict[str, Any] = {"constant": entry.constant}
        if entry.constant is None:
            find = paths.place if version in load.loaded else paths.model
            what = {
                "artifact": str(find(entry.digest)),
                "run": dict(entry.run),
                "compatible": entry.compatible,
                "pinned": spec.keep_warm and version in (live.champion, live.last_good),
            }
        versions.append({"name": version, "digest": entry.digest, **what})
    table = live.table.without(frozenset(load.omitted))
    return json.dumps(
        {
            "name": name,
            "revision": held.n,
            "versions": versions,
            "champion": live.champion,
            "table": {"salt": table.salt, "given": [list(run) for run in table.given]},
            "sticky": spec.declared.sticky,
            "timeout_ms": spec.timeout_ms,
            "columns": dict(spec.columns),
            "labels": dict(spec.labels),
            "non_finite": spec.non_finite,
            "limits": dict(spec.limits),
            "fallback": _fallback(spec, {str(version["name"]) for version in versions}),
            "baseline": None if spec.baseline is None else str(baseline_path(paths.state, spec.baseline)),
            "urgent": load.urgent,
            "fresh": load.fresh,
        }
    ).encode()


def _fallback(spec: Spec, loaded: Collection[str]) -> dict[str, Any] | Literal["none"] | None:
    """The fallback among the versions that are in memory; the champion alone when none of them is."""
    if spec.fallback is None or spec.fallback == "none":
        return spec.fallback
    to = [name for name in spec.fallback["to"] if name in loaded]
    return {**spec.fallback, "to": to} if to else None

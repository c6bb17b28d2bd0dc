"""What a revision serves, with every reference replaced by a digest; and the JSON that the data plane takes.

Not here: how a document becomes a spec (``resolve``), traffic (``traffic``). Next: ``record``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from headgate.control.domain.merge import Declared
from headgate.control.domain.traffic import LiveTraffic
from headgate.drift import baseline_path


class _Part(BaseModel):
    """A part of a spec: the fields that the control plane looks at. The others are kept as they are, for the data plane."""

    model_config = ConfigDict(frozen=True, extra="allow")


class VersionSpec(_Part):
    """A version: an artifact by its digest, or a constant. ``compatible`` says whether its signature has to be the champion's."""

    digest: str
    constant: dict[str, Any] | None = None
    compatible: bool = True


class FallbackSpec(_Part):
    """The versions that answer when the chosen one does not."""

    to: list[str]


class TrafficSpec(_Part):
    """What the document says of traffic, in slots; live traffic may differ since."""

    champion: str
    weights: dict[str, int] = Field(default_factory=dict)
    sticky: str | None = None
    keep_warm: bool = False
    fallback: FallbackSpec | Literal["none"] | None = None


class DriftSpec(_Part):
    """What live traffic is compared with: the digest of a baseline."""

    baseline: str | None = None


class LimitsSpec(_Part):
    """What a request may take: its time in milliseconds."""

    timeout: int


class Spec(_Part):
    """A document resolved: what it holds validated, with a digest for every reference."""

    versions: dict[str, VersionSpec]
    traffic: TrafficSpec
    columns: dict[str, list[str]] = Field(default_factory=dict)
    drift: DriftSpec | None = None
    limits: LimitsSpec

    @property
    def declared(self) -> Declared:
        """What the merge compares."""
        sticky = self.traffic.sticky
        header = None if sticky is None else sticky.removeprefix("header.")
        return Declared(self.traffic.champion, self.traffic.weights, header)

    @property
    def baseline(self) -> str | None:
        """The digest of the baseline."""
        return None if self.drift is None else self.drift.baseline

    def digests(self) -> dict[str, str]:
        """Digest of each version."""
        return {name: version.digest for name, version in self.versions.items()}

    def dumped(self) -> dict[str, Any]:
        """As it was read, field by field: what is stored and what the data plane takes."""
        return self.model_dump(exclude_unset=True)


@dataclass(frozen=True)
class Content:
    """What a revision serves: its spec, and the versions of it that are not in the document and stay because they are live."""

    spec: Spec
    kept: frozenset[str] = frozenset()

    def keeping(self, names: Collection[str], earlier: Spec) -> Content:
        """With the versions ``names`` of an earlier spec that this one lacks: they stay loaded without being in the document."""
        present = self.spec.versions
        kept = {
            name: earlier.versions[name]
            for name in sorted(names)
            if name not in present and name in earlier.versions
        }
        return self._with({**present, **kept}, self.kept | kept.keys()) if kept else self

    def serving(self, live: LiveTraffic) -> Content:
        """Without the versions that are neither in the document nor live nor the last good champion."""
        gone = self.kept - {live.champion, live.last_good}
        rest = {name: version for name, version in self.spec.versions.items() if name not in gone}
        return self._with(rest, self.kept - gone) if gone else self

    def _with(self, versions: dict[str, VersionSpec], kept: frozenset[str]) -> Content:
        return Content(self.spec.model_copy(update={"versions": versions}), kept)


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
    table = live.table.without(frozenset(load.omitted))
    return json.dumps(
        {
            "name": name,
            "revision": held.n,
            "spec": spec.dumped(),
            "traffic": {
                "champion": live.champion,
                "last_good": live.last_good,
                "table": {"salt": table.salt, "given": [list(run) for run in table.given]},
            },
            "load": _load(spec, loadable(spec, live, load.omitted), paths, load),
        }
    ).encode()


def _load(spec: Spec, names: list[str], paths: Paths, load: Load) -> dict[str, Any]:
    def artifact(name: str) -> str:
        find = paths.place if name in load.loaded else paths.model
        return str(find(spec.versions[name].digest))

    return {
        "versions": names,
        "artifacts": {name: artifact(name) for name in names if spec.versions[name].constant is None},
        "baseline": None if spec.baseline is None else str(baseline_path(paths.state, spec.baseline)),
        "urgent": load.urgent,
        "fresh": load.fresh,
    }


def same_content(one: Content, other: Content) -> bool:
    """Whether two contents of the same document are the same: its references stand for the same bytes.

    What else differs between their specs is what a later build fills in where the document says nothing.
    """
    return (one.spec.digests(), one.spec.baseline, one.kept) == (
        other.spec.digests(),
        other.spec.baseline,
        other.kept,
    )

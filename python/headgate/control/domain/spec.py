"""What a revision serves: its document, validated, with every reference replaced by a digest.

Not here: how a document becomes a spec (``writes.resolve``), traffic (``traffic``). Next: ``revision``.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from headgate.control.domain.declared import Declared
from headgate.control.domain.traffic import LiveTraffic
from headgate.documents.model import CONTROL_PLANE_ONLY


class _Part(BaseModel):
    """A part of a spec: the fields that the control plane looks at. The others are kept as they are, for the data plane."""

    model_config = ConfigDict(frozen=True, extra="allow")


class VersionSpec(_Part):
    """A version: an artifact by its digest, or a constant."""

    digest: str
    constant: dict[str, Any] | None = None

    @property
    def sessions(self) -> int:
        """The sessions of ONNX Runtime that it takes: none for a constant, one on the processor, its instances on a device."""
        if self.constant is not None:
            return 0
        run: dict[str, Any] = (self.model_extra or {}).get("run") or {}
        on_device = run.get("device", ["cpu"])[0] != "cpu"
        return run.get("instances", 1) if on_device else 1


class FallbackSpec(_Part):
    """The versions that answer when the chosen one does not."""

    to: list[str]


class RuleSpec(_Part):
    """Who answers requests that carry certain fields: conditions by field, and the version."""

    when: dict[str, dict[str, Any]]
    to: str


class ShadowSpec(_Part):
    """A version that gets copies of requests: the share of them in slots."""

    to: str
    share: int


class CaptureSpec(_Part):
    """Which requests are captured: the share of them in slots."""

    share: int


class TrafficSpec(_Part):
    """What the document says of traffic, in slots; live traffic may differ since."""

    champion: str
    weights: dict[str, int] = Field(default_factory=dict)
    rules: list[RuleSpec] = Field(default_factory=list)
    shadow: list[ShadowSpec] = Field(default_factory=list)
    sticky: str | None = None
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
    capture: CaptureSpec | None = None
    drift: DriftSpec | None = None
    limits: LimitsSpec
    rollout: str | None = None
    """The plan that rollouts use; None: the built-in one."""
    feedback: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """What callers may tell of an answer later, by name."""
    notify: list[dict[str, Any]] = Field(default_factory=list)

    @property
    def declared(self) -> Declared:
        """What the merge compares."""
        sticky = self.traffic.sticky
        header = None if sticky is None else sticky.removeprefix("header.")
        shadows = {shadow.to: shadow.share for shadow in self.traffic.shadow}
        capture = None if self.capture is None else self.capture.share
        return Declared(self.traffic.champion, self.traffic.weights, header, shadows, capture)

    @property
    def baseline(self) -> str | None:
        """The digest of the baseline."""
        return None if self.drift is None else self.drift.baseline

    @property
    def fallback(self) -> tuple[str, ...]:
        """The versions that answer when the chosen one does not, in their order."""
        declared = self.traffic.fallback
        return tuple(declared.to) if isinstance(declared, FallbackSpec) else ()

    @property
    def ruled(self) -> tuple[str, ...]:
        """The versions that rules send requests to."""
        return tuple(dict.fromkeys(rule.to for rule in self.traffic.rules))

    @property
    def shadows(self) -> tuple[str, ...]:
        """The versions that get copies of requests, as declared."""
        return tuple(shadow.to for shadow in self.traffic.shadow)

    def digests(self) -> dict[str, str]:
        """Digest of each version."""
        return {name: version.digest for name, version in self.versions.items()}

    def including(self, names: Collection[str], earlier: Spec) -> Spec:
        """With the versions ``names`` of an earlier spec that this one lacks."""
        lacking = {
            name: earlier.versions[name]
            for name in sorted(names)
            if name not in self.versions and name in earlier.versions
        }
        return self._with({**self.versions, **lacking}) if lacking else self

    def only(self, names: Collection[str]) -> Spec:
        """With no other versions than ``names``."""
        rest = {name: version for name, version in self.versions.items() if name in names}
        return self if len(rest) == len(self.versions) else self._with(rest)

    def _with(self, versions: dict[str, VersionSpec]) -> Spec:
        return self.model_copy(update={"versions": versions})

    def dumped(self) -> dict[str, Any]:
        """As it was read, field by field: what is stored."""
        return self.model_dump(exclude_unset=True)

    def served(self) -> dict[str, Any]:
        """What the data plane takes: without the fields that the control plane alone acts on."""
        return self.model_dump(exclude_unset=True, exclude=set(CONTROL_PLANE_ONLY))


def loadable(spec: Spec, live: LiveTraffic, omitted: Collection[str] = ()) -> list[str]:
    """The versions to hold in memory: all but the blocked and those left out because they did not load."""
    return [
        name
        for name, version in sorted(spec.versions.items())
        if name not in omitted and live.block_of(version.digest) is None
    ]


def answering(spec: Spec, live: LiveTraffic, omitted: Collection[str]) -> str | None:
    """Who takes the slots that are not given away: the champion, or its fallback where it is left out; None: nobody can."""
    able = loadable(spec, live, omitted)
    return next((name for name in (live.champion, *spec.fallback) if name in able), None)

"""The fields of kind ``Endpoint``: one frozen pydantic model that reads what is written and holds it
validated.

As written: YAML or JSON with units ("2.5%", "200ms"). Validated: :class:`Endpoint`, with slots and
milliseconds. Its spec (:meth:`Endpoint.spec`) is what is stored and served: all of it, with a digest for every
reference. Checks between fields are in ``checks``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from headgate.documents.feedback import Feedbacks
from headgate.documents.fields import (
    MAX_TENSORS,
    MAX_VERSIONS,
    Baseline,
    BatchSize,
    Buckets,
    Constant,
    Date,
    Delay,
    Devices,
    EndpointName,
    Header,
    Instances,
    Label,
    Names,
    Reference,
    Size,
    Threads,
    Timeout,
    VersionName,
    Weight,
)
from headgate.documents.part import Part
from headgate.documents.rollout import Notify
from headgate.documents.traffic import Capture, Traffic

API_VERSION = "headgate/v1"
"""The one version of documents that this build reads."""

NOT_IN_SPEC = frozenset({"api_version", "kind", "name", "owner"})
"""Fields of an endpoint that say nothing of how it is served, and are not in its spec."""


CONTROL_PLANE_ONLY = frozenset({"rollout", "notify"})
"""Fields of a spec that the data plane does not take: the control plane alone acts on them."""

MAX_NOTIFY = 16


class Owner(Part):
    """Who answers for the endpoint."""

    team: Label | None = Field(None, description="The team that answers for this endpoint.")
    tier: Annotated[int, Field(ge=0, le=9)] | None = Field(
        None, description="How much depends on it; 1 is most."
    )
    review_by: Date | None = Field(None, description="The day by which somebody should look at it again.")


class Run(Part):
    """How a model is run. What is not written is decided from what is measured."""

    placement: Literal["auto", "inline", "pool"] = Field(
        "auto",
        description="On the thread that has the request (inline), on another one (pool), or by measured run times (auto).",
    )
    instances: Instances | None = Field(
        None,
        description="Runs at the same time at most: as many as there are pool threads unless written. On a device, sessions: one.",
    )
    threads: Threads = Field(
        1, description='Threads within one run; "auto" measures one against all cores when the model loads.'
    )
    max_batch: BatchSize = Field(
        1,
        description="Rows that are run together at most; 1 is no batching. A request with more rows runs alone. "
        "Every input and output needs a dynamic first dimension.",
    )
    max_delay: Delay = Field(
        0, description="How long a batch may wait for rows that are expected; no longer than it pays."
    )
    buckets: Buckets | None = Field(
        None,
        description="Sizes that batches are filled up to with rows that nobody gets; the last is max_batch.",
    )
    arena: bool = Field(
        False, description="Whether the session keeps its memory between runs in an arena of its own."
    )
    graph_optimization: Literal["all", "extended", "basic", "off"] = Field(
        "all", description="How far ONNX Runtime rewrites the graph when it loads the model."
    )
    device: Devices = Field(
        ("cpu",),
        description="What the model computes on: cpu, cuda:0, or a list of which the first that works is taken.",
    )
    device_memory: Size | None = Field(
        None, description="Memory of the device that an instance may take; all there is unless written."
    )


class Version(Part):
    """One servable thing: a model file, or a constant answer. A string is short for ``{model: ...}``."""

    not_yet: ClassVar[frozenset[str]] = frozenset({"upstream"})

    model: Reference | None = Field(
        None,
        description=(
            "A folder that holds model.onnx, or an .onnx file, below the document's folder."
            " It is warmed with the requests of its warmup.json, else with made-up ones."
        ),
    )
    constant: Annotated[dict[Label, Constant], Field(min_length=1, max_length=MAX_TENSORS)] | None = Field(
        None,
        description="Output tensors by name with their values, repeated for each row; the champion's signature.",
    )
    run: Run | None = Field(None, description="How the model is run.")
    compatible: bool = Field(
        True,
        description="Whether callers may take it for the champion; false allows another signature than the champion's.",
    )

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, data: Any) -> Any:
        return {"model": data} if isinstance(data, str) else data

    @model_serializer(mode="wrap", when_used="json")
    def _as_short_as_possible(self, handler: SerializerFunctionWrapHandler) -> Any:
        if self.model is not None and self.run is None and self.compatible:
            return self.model
        written = {name: value for name, value in handler(self).items() if value is not None}
        if self.compatible:
            written.pop("compatible", None)
        return written

    @property
    def constant_digest(self) -> str | None:
        """``sha256:...`` of the constant's canonical JSON; None for a model, whose digest is its artifact's."""
        if self.constant is None:
            return None
        canonical = json.dumps(self.constant, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()


class Drift(Part):
    """What live traffic is compared with."""

    not_yet: ClassVar[frozenset[str]] = frozenset({"window", "tolerate", "false_alarms_per_month"})

    baseline: Baseline | None = Field(None, description="The reference sample: an .npz, .npy or .csv file.")


class Answers(Part):
    """How answers are written where JSON has no word."""

    non_finite: Literal["error", "null", "string"] = Field(
        default="error",
        description="What JSON answers say for NaN and infinities, and requests for missing values: "
        '"error" (the request fails), "null" (in quotes) or "string".',
    )


class Rate(Part):
    """How often a caller may come; more is refused (429) with the time to wait."""

    by: Header | None = Field(
        None, description="What tells callers apart: header.<name>; all share the rate unless written."
    )
    per_second: Annotated[float, Field(ge=0.00001, le=1_000_000)] = Field(
        description="Requests in a second, in the long run."
    )
    burst: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        None, description="Requests at once; those of one second unless written."
    )


class Breaker(Part):
    """When a version that fails is left alone: for a second, then twice as long each time, until one probe succeeds."""

    consecutive: Annotated[int, Field(ge=1, le=1_000_000)] = Field(5, description="Failures in a row.")
    success_rate: Weight = Field(8_000, description="The least share of good answers within the window.")
    window: Timeout = Field(
        10_000, description="How long answers are counted for that share, from its first failure on."
    )
    min_requests: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        20, description="Answers below which that share says nothing."
    )


class Priority(Part):
    """Who is run first while requests wait. Whoever may write the header chooses the class: let a proxy write it."""

    by: Header = Field(description="What names the class of a request: header.<name>.")
    classes: Annotated[tuple[Label, ...], Field(min_length=1, max_length=8)] = Field(
        description="The classes; the first is run first."
    )
    unnamed: Label | None = Field(
        None, description="The class of requests that name none of them; the last unless written."
    )


class Limits(Part):
    """What a request may take, who comes first, and when a version is left alone."""

    timeout: Timeout = Field(default=30_000, description="How long one request may take; 30s unless written.")
    rate: Rate | None = Field(default=None, description="How often a caller may come.")
    breaker: Breaker | None = Field(default=None, description="When a version that fails is left alone.")
    priority: Priority | None = Field(default=None, description="Who is run first while requests wait.")


class Endpoint(Part):
    """A stable name that clients call, the versions behind it and how traffic is shared among them."""

    not_yet: ClassVar[frozenset[str]] = frozenset({"source"})

    api_version: Literal["headgate/v1"] = Field(alias="apiVersion", description="The version of this format.")
    kind: Literal["Endpoint"] = Field(description="What this document describes.")
    name: EndpointName = Field(description="What clients call: /v2/models/{name}/infer.")
    owner: Owner | None = Field(None, description="Who answers for it.")
    columns: Names = Field(
        default_factory=dict, description="Names of a tensor's columns, by tensor: for drift and reports."
    )
    labels: Names = Field(
        default_factory=dict,
        description="Names of an output's classes, by tensor: what the classification extension answers.",
    )
    versions: Annotated[dict[VersionName, Version], Field(min_length=1, max_length=MAX_VERSIONS)] = Field(
        description="The versions by name: a file: reference, {model: ...} or {constant: ...}."
    )
    traffic: Traffic = Field(description="How requests are shared among the versions.")
    capture: Capture | None = Field(
        None,
        description="Which requests and answers are captured, for a look and for a replay; none unless written.",
    )
    drift: Drift | None = Field(None, description="What live traffic is compared with.")
    rollout: EndpointName | None = Field(
        None,
        description="The plan that rollouts of this endpoint use; the built-in one unless written. It starts none.",
    )
    feedback: Feedbacks = Field(
        default_factory=dict,
        description="What callers may tell of an answer later, by name; with it answers carry a receipt.",
    )
    notify: tuple[Notify, ...] = Field((), max_length=MAX_NOTIFY, description="Who is told of what happens.")
    limits: Limits = Field(default_factory=Limits, description="What a request may take.")
    answers: Answers = Field(default_factory=Answers, description="How answers are written.")

    def as_written(self) -> dict[str, Any]:
        """The document as JSON values with units, in normal form: parsing it gives an equal endpoint."""
        written: dict[str, Any] = self.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
        return written

    def spec(self, digests: Mapping[str, str], baseline: str | None) -> dict[str, Any]:
        """What is served, as JSON values: all that is held, with the digest of each version and of the baseline in the place of its
        reference.

        It is made from whatever fields there are, so that a new one needs no line here. ``digests`` has an entry for each version.
        """
        held = self.model_dump(exclude_none=True, exclude=set(NOT_IN_SPEC))
        held["traffic"]["weights"] = {name: slots for name, slots in self.traffic.weights.items() if slots}
        for name in ("rules", "shadow"):
            if not held["traffic"][name]:
                del held["traffic"][name]
        for name, version in held["versions"].items():
            version.pop("model", None)
            held["versions"][name] = {"digest": digests[name], **version}
        for name in ("notify", "feedback"):
            if not held[name]:
                del held[name]
        drift = {**held.pop("drift", {}), "baseline": baseline}
        if baseline is None:
            del drift["baseline"]
        if drift:
            held["drift"] = drift
        # As JSON gives it back: a spec that was stored equals one that was not.
        spec: dict[str, Any] = json.loads(json.dumps(held, allow_nan=False))
        return spec

"""The fields of kind ``Endpoint``: one frozen pydantic model that reads what is written and holds it
validated.

As written: YAML or JSON with units ("2.5%", "200ms"). Validated: :class:`Endpoint`, with slots and
milliseconds. Resolved: ``resolved.Resolved``, defaults filled in and files located. Rules between fields are
in ``rules``.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
    model_validator,
)

from headgate.documents import values
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

API_VERSION = "headgate/v1"
"""The one version of documents that this build reads."""

DEFAULT_TIMEOUT_MS = 30_000
"""``limits.timeout`` where none is written."""


class _Part(BaseModel):
    """What all parts of a document share: frozen, strict, nothing unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, serialize_by_alias=True)

    not_yet: ClassVar[frozenset[str]] = frozenset()
    """Fields of the design that are not built; they are refused as such, never ignored."""


class Owner(_Part):
    """Who answers for the endpoint."""

    team: Label | None = Field(None, description="The team that answers for this endpoint.")
    tier: Annotated[int, Field(ge=0, le=9)] | None = Field(
        None, description="How much depends on it; 1 is most."
    )
    review_by: Date | None = Field(None, description="The day by which somebody should look at it again.")


class Run(_Part):
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
        description="Rows that are run together at most; 1 is no batching. Every input and output needs a dynamic first dimension.",
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

    def settings(self) -> dict[str, Any]:
        """What is written, as the data plane takes it: the delay in microseconds, 0 threads for auto."""
        written = self.model_dump(exclude_defaults=True)
        if "max_delay" in written:
            written["max_delay_us"] = written.pop("max_delay")
        if "buckets" in written:
            written["buckets"] = list(written["buckets"])
        if "device" in written:
            written["device"] = list(written["device"])
        return written


class Version(_Part):
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

    @model_serializer(mode="wrap")
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


class Fallback(_Part):
    """Who answers when the chosen version does not: it fails, takes too long, sheds load or is left alone by its breaker."""

    to: Annotated[tuple[VersionName, ...], Field(min_length=1, max_length=16)] = Field(
        description="The versions to ask after the champion, in their order; never for a client's mistake or a named version."
    )
    after: Timeout | None = Field(
        None, description="How long the chosen version has; the request's whole time unless written."
    )

    def settings(self) -> dict[str, Any]:
        """As the data plane takes it."""
        return {"to": list(self.to), "after_ms": self.after}


FORMS = ("[mapping]", "[word]")
"""The forms of a field that has two, as pydantic's paths name them."""


def _form(written: Any) -> str:
    return FORMS[0] if isinstance(written, dict | BaseModel) else FORMS[1]


class Traffic(_Part):
    """Who answers, declared; live traffic may differ since."""

    not_yet: ClassVar[frozenset[str]] = frozenset({"rules", "shadow"})

    champion: VersionName = Field(description="The version that takes all traffic not given away.")
    weights: dict[VersionName, Weight] = Field(
        default_factory=dict,
        description="Shares of other versions, in steps of 0.01%, with the percent sign.",
    )
    sticky: Header | None = Field(None, description="What keeps a caller on one version: header.<name>.")
    fallback: (
        Annotated[
            Annotated[Fallback, Tag(FORMS[0])] | Annotated[Literal["none"], Tag(FORMS[1])],
            Discriminator(_form),
        ]
        | None
    ) = Field(
        None,
        description=(
            "Who answers when the chosen version does not: the champion for a challenger that fails or is left alone, then these; "
            "none for nobody at all."
        ),
    )
    keep_warm: bool = Field(
        False,
        description="Whether the champion and the last good champion stay in memory whatever --memory-budget moves out.",
    )


class Drift(_Part):
    """What live traffic is compared with."""

    not_yet: ClassVar[frozenset[str]] = frozenset({"window", "tolerate", "false_alarms_per_month"})

    baseline: Baseline | None = Field(None, description="The reference sample: an .npz, .npy or .csv file.")


class Answers(_Part):
    """How answers are written."""

    non_finite: Literal["error", "null", "string"] = Field(
        "error",
        description="What JSON answers say for NaN and infinities, and requests for missing values: "
        '"error" (the request fails), "null" (in quotes) or "string".',
    )


class Rate(_Part):
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

    def settings(self) -> dict[str, Any]:
        """As the data plane takes it."""
        burst = math.ceil(self.per_second) if self.burst is None else self.burst
        return {"by": _header_name(self.by), "per_second": self.per_second, "burst": burst}


class Breaker(_Part):
    """When a version that fails is left alone: for a second, then twice as long each time, until one probe succeeds."""

    consecutive: Annotated[int, Field(ge=1, le=1_000_000)] = Field(5, description="Failures in a row.")
    success_rate: Weight = Field(8_000, description="The least share of good answers within the window.")
    window: Timeout = Field(
        10_000, description="How long answers are counted for that share, from its first failure on."
    )
    min_requests: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        20, description="Answers below which that share says nothing."
    )

    def settings(self) -> dict[str, Any]:
        """As the data plane takes it."""
        return {
            "consecutive": self.consecutive,
            "success_rate": self.success_rate / values.SLOTS,
            "window_ms": self.window,
            "min_requests": self.min_requests,
        }


class Priority(_Part):
    """Who is run first while requests wait. Whoever may write the header chooses the class: let a proxy write it."""

    by: Header = Field(description="What names the class of a request: header.<name>.")
    classes: Annotated[tuple[Label, ...], Field(min_length=1, max_length=8)] = Field(
        description="The classes; the first is run first."
    )
    unnamed: Label | None = Field(
        None, description="The class of requests that name none of them; the last unless written."
    )

    def settings(self) -> dict[str, Any]:
        """As the data plane takes it."""
        unnamed = self.classes[-1] if self.unnamed is None else self.unnamed
        return {"by": _header_name(self.by), "classes": list(self.classes), "unnamed": unnamed}


class Limits(_Part):
    """What a request may take."""

    timeout: Timeout | None = Field(None, description="How long one request may take; 30s unless written.")
    rate: Rate | None = Field(None, description="How often a caller may come.")
    breaker: Breaker | None = Field(None, description="When a version that fails is left alone.")
    priority: Priority | None = Field(None, description="Who is run first while requests wait.")

    def settings(self) -> dict[str, Any]:
        """What is written beside the time-out, as the data plane takes it."""
        parts = {"rate": self.rate, "breaker": self.breaker, "priority": self.priority}
        return {name: part.settings() for name, part in parts.items() if part is not None}


def _header_name(header: str | None) -> str | None:
    return None if header is None else header.removeprefix("header.")


class Endpoint(_Part):
    """A stable name that clients call, the versions behind it and how traffic is shared among them."""

    not_yet: ClassVar[frozenset[str]] = frozenset({"source", "rollout", "capture", "notify"})

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
    drift: Drift | None = Field(None, description="What live traffic is compared with.")
    limits: Limits | None = Field(None, description="What a request may take.")
    answers: Answers | None = Field(None, description="How answers are written.")

    @property
    def weights_in_slots(self) -> dict[str, int]:
        """Slots of 0.01 % by version, as declared, zeros included; the champion takes the rest of 10 000."""
        return dict(self.traffic.weights)

    @property
    def sticky_header(self) -> str | None:
        """The sticky key's header in lower case, or None."""
        return _header_name(self.traffic.sticky)

    @property
    def timeout_ms(self) -> int:
        """The time-out in milliseconds, the default where none is written."""
        written = self.limits.timeout if self.limits else None
        return DEFAULT_TIMEOUT_MS if written is None else written

    @property
    def non_finite(self) -> str:
        """What JSON answers say for NaN and infinities."""
        return self.answers.non_finite if self.answers else "error"

    def as_written(self) -> dict[str, Any]:
        """The document as JSON values with units, in normal form: parsing it gives an equal endpoint."""
        written: dict[str, Any] = self.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
        return written

"""The fields of an endpoint's ``traffic`` and ``capture``.

Not here: checks between fields (``checks``). Next: ``model``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
    model_validator,
)

from headgate.documents.faults import quoted
from headgate.documents.fields import (
    MAX_TENSORS,
    Header,
    Label,
    Redacted,
    Retention,
    RuleValue,
    Share,
    Size,
    Subject,
    Timeout,
    Tolerance,
    VersionName,
    Weight,
)
from headgate.documents.part import FORMS, Part, form

MAX_RULES = 256
"""The same as in ``rust/core/src/rules.rs``."""
MAX_RULE_VALUES = 1_000
MAX_CONDITIONS = 16
MAX_SHADOWS = 8
"""The same as in ``rust/core/src/shadow.rs``."""


class Fallback(Part):
    """Who answers when the chosen version does not: it fails, takes too long, sheds load or is left alone by its breaker."""

    to: Annotated[tuple[VersionName, ...], Field(min_length=1, max_length=16)] = Field(
        description="The versions to ask after the champion, in their order; never for a client's mistake or a named version."
    )
    after: Timeout | None = Field(
        None, description="How long the chosen version has; the request's whole time unless written."
    )


class Match(Part):
    """The values of a header or a parameter that satisfy a condition. A word is short for a list of one."""

    one_of: Annotated[tuple[RuleValue, ...], Field(min_length=1, max_length=MAX_RULE_VALUES)] | None = Field(
        None, description="Any of these, exactly as written."
    )
    prefix: RuleValue | None = Field(None, description="Every value that begins so.")

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, data: Any) -> Any:
        if isinstance(data, dict):
            return data
        return {"one_of": data if isinstance(data, list | tuple) else (data,)}

    @model_serializer(mode="wrap", when_used="json")
    def _as_short_as_possible(self, handler: SerializerFunctionWrapHandler) -> Any:
        if self.one_of is None:
            return {name: value for name, value in handler(self).items() if value is not None}
        return self.one_of[0] if len(self.one_of) == 1 else list(self.one_of)


class Rule(Part):
    """Sends requests to a version by what they carry, before weights."""

    when: Annotated[dict[Subject, Match], Field(min_length=1, max_length=MAX_CONDITIONS)] = Field(
        description="Conditions by header.<name> or parameter.<name>; all must hold. "
        "A parameter is compared as JSON reads it: a text with the text, a number with the same number."
    )
    to: VersionName = Field(description="The version that answers.")


class Compare(Part):
    """How an output of a shadow is compared with the champion's. A word is short: ``exact`` or ``label``."""

    exact: Literal[True] | None = Field(None, description="Every element is the same.")
    within: Tolerance | None = Field(
        None,
        description="Every number is at most this far away: a number, or a share of the champion's such as 1%.",
    )
    label: Literal[True] | None = Field(
        None, description="The greatest of each row's values is at the same place."
    )
    threshold: Annotated[float, Field(allow_inf_nan=False)] | None = Field(
        None, description="Every number is on the same side of this one."
    )
    top: Annotated[int, Field(ge=1, le=100)] | None = Field(
        None, description="The places of this many greatest values of each row are the same set."
    )

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, data: Any) -> Any:
        if isinstance(data, str) and data not in ("exact", "label"):
            raise ValueError(
                f"must be exact, label or a mapping such as {{within: 0.02}}, not {quoted(data)}"
            )
        return {data: True} if isinstance(data, str) else data

    @model_serializer(mode="wrap", when_used="json")
    def _as_short_as_possible(self, handler: SerializerFunctionWrapHandler) -> Any:
        written = {name: value for name, value in handler(self).items() if value is not None}
        word = next(iter(written), "")
        return word if word in ("exact", "label") else written


class Shadow(Part):
    """A version that gets copies of requests; its answers are compared with the champion's and never returned."""

    to: VersionName = Field(description="The version that gets the copies.")
    share: Share = Field(description="The share of requests that are copied, in steps of 0.01%.")
    by: Literal["request", "sticky"] = Field(
        "request",
        description="What is drawn: each request for itself, or sticky keys with all their requests.",
    )
    compare: Annotated[dict[Label, Compare], Field(max_length=MAX_TENSORS)] = Field(
        default_factory=dict,
        description="How outputs are compared, by name: exact, label, {within: 0.02}, {within: 1%}, {threshold: 0.5} or {top: 3}. "
        "Outputs that are not named are compared as well: floats within 0.1%, all else exactly.",
    )
    timeout: Timeout | None = Field(
        None, description="How long a copy may wait and run; limits.timeout unless written."
    )
    slices: Annotated[tuple[Subject, ...], Field(min_length=1, max_length=4)] | None = Field(
        None,
        description="Headers and parameters whose values are counted apart: header.<name>, parameter.<name>.",
    )
    keep_examples: Annotated[int, Field(ge=0, le=100)] = Field(
        0, description="How many of the newest differing pairs are kept with their inputs and outputs."
    )
    redact: Redacted | None = Field(
        None, description="Tensors and columns (tensor.column) that the kept examples leave out."
    )


class Capture(Part):
    """Requests and answers that are written down. They stay on this machine's disk, in the state folder."""

    share: Share = Field(description="The share of requests that are captured, in steps of 0.01%.")
    keep: Retention = Field(604_800_000, description="How long a file is kept.")
    max_size: Size = Field(2 * 2**30, description="What the files may take on the disk; the oldest go first.")
    redact: Redacted | None = Field(
        None, description="Tensors and columns (tensor.column) that are left out."
    )


class Traffic(Part):
    """Who answers, declared; live traffic may differ since."""

    champion: VersionName = Field(description="The version that takes all traffic not given away.")
    weights: dict[VersionName, Weight] = Field(
        default_factory=dict,
        description="Shares of other versions, in steps of 0.01%, with the percent sign.",
    )
    sticky: Header | None = Field(None, description="What keeps a caller on one version: header.<name>.")
    rules: Annotated[tuple[Rule, ...], Field(max_length=MAX_RULES)] = Field(
        (), description="Who answers certain requests, before weights; the first rule that matches wins."
    )
    shadow: Annotated[tuple[Shadow, ...], Field(max_length=MAX_SHADOWS)] = Field(
        (), description="Versions that get copies of requests, whose answers are compared and never returned."
    )
    fallback: (
        Annotated[
            Annotated[Fallback, Tag(FORMS[0])] | Annotated[Literal["none"], Tag(FORMS[1])],
            Discriminator(form),
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

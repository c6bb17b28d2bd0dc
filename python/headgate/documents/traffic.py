"""The fields of an endpoint's ``traffic``.

Not here: checks between fields (``checks``). Next: ``model``.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
    model_validator,
)

from headgate.documents.fields import (
    Header,
    RuleValue,
    Subject,
    Timeout,
    VersionName,
    Weight,
)
from headgate.documents.part import FORMS, Part, form

MAX_RULES = 256
"""The same as in ``rust/core/src/rules.rs``."""
MAX_RULE_VALUES = 1_000
MAX_CONDITIONS = 16


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


class Traffic(Part):
    """Who answers, declared; live traffic may differ since."""

    not_yet: ClassVar[frozenset[str]] = frozenset({"shadow"})

    champion: VersionName = Field(description="The version that takes all traffic not given away.")
    weights: dict[VersionName, Weight] = Field(
        default_factory=dict,
        description="Shares of other versions, in steps of 0.01%, with the percent sign.",
    )
    sticky: Header | None = Field(None, description="What keeps a caller on one version: header.<name>.")
    rules: Annotated[tuple[Rule, ...], Field(max_length=MAX_RULES)] = Field(
        (), description="Who answers certain requests, before weights; the first rule that matches wins."
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

"""``feedback:`` of an endpoint: what callers may tell of an answer later.

Not here: receipts and what is refused (the data plane). Next: ``model``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema, model_validator

from headgate.documents import values
from headgate.documents.fields import Share
from headgate.documents.nodes import WrittenFloat, WrittenInt, describe
from headgate.documents.part import Part

MAX_FEEDBACKS = 8
MAX_VALUE = 1e9
MIN_WITHIN_MS = 60_000
MAX_WITHIN_MS = 90 * 86_400_000


def _name(value: Any) -> str:
    if isinstance(value, WrittenInt):
        value = value.text
    if not isinstance(value, str):
        raise ValueError(f"must be a string, not {describe(value)}")
    return values.check_name("feedback", value)


def _within(value: Any) -> int:
    if isinstance(value, WrittenInt | WrittenFloat):
        raise ValueError(f'{value.text} needs a unit, such as "{value.text}d"')
    if not isinstance(value, str):
        raise ValueError(f"must be a time such as 7d, not {describe(value)}")
    milliseconds = values.parse_duration(value)
    if not MIN_WITHIN_MS <= milliseconds <= MAX_WITHIN_MS:
        least, most = values.format_duration(MIN_WITHIN_MS), values.format_duration(MAX_WITHIN_MS)
        raise ValueError(f"must be {least} to {most}, not {value}")
    return milliseconds


FeedbackName = Annotated[
    str,
    BeforeValidator(_name),
    WithJsonSchema({"type": "string", "pattern": r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$"}),
]
Within = Annotated[
    int,
    BeforeValidator(_within),
    PlainSerializer(values.format_duration, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(s|m|h|d)$", "examples": ["7d"]}),
]
Bound = Annotated[float, Field(ge=-MAX_VALUE, le=MAX_VALUE, allow_inf_nan=False)]


class Feedback(Part):
    """What callers may tell of an answer: its kind, its range, and which direction is good."""

    kind: Literal["label", "count", "value"] = Field(
        description="true or false (label), a whole number in a range (count), or a number in a range (value)."
    )
    range: tuple[Bound, Bound] | None = Field(
        None, description="The least and the greatest value; what is outside is refused. A label has none."
    )
    good: Literal["high", "low"] = Field(description="Whether a higher or a lower mean is better.")
    within: Within = Field(604_800_000, description="How long after the answer it is taken.")
    coverage: Share | None = Field(
        None,
        description="The share of a version's answers that must have it before a gate decides; none unless written.",
    )

    @model_validator(mode="after")
    def _range_of_the_kind(self) -> Feedback:
        if self.kind == "label":
            if self.range is not None:
                raise ValueError("a label is true or false: remove range")
            return self
        if self.range is None:
            raise ValueError(f"a {self.kind} needs its range, such as [1, 5]: the gate's test rests on it")
        low, high = self.range
        if not low < high:
            raise ValueError(f"range must have the lower end first, not [{low:g}, {high:g}]")
        if self.kind == "count" and not (low.is_integer() and high.is_integer()):
            raise ValueError("the range of a count has whole numbers")
        return self


Feedbacks = Annotated[dict[FeedbackName, Feedback], Field(max_length=MAX_FEEDBACKS)]

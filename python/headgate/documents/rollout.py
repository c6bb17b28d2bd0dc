"""The fields of kind ``RolloutPlan`` and of an endpoint's ``notify``.

Not here: what steps and gates say of each other (``rollout_rules``), how a plan is carried out (``control.domain.rollout``).
Next: ``model``.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    WithJsonSchema,
    model_serializer,
    model_validator,
)

from headgate.documents import values
from headgate.documents.faults import quoted
from headgate.documents.fields import EndpointName, Share
from headgate.documents.hours import Hours, parse_hours
from headgate.documents.part import Part

BUILT_IN = "default"
"""The name of the plan that needs no document."""

STEP_KINDS = ("replay", "shadow", "weight", "approve", "pause", "promote")
JUDGED_IN = {
    "error_rate": ("replay", "shadow", "weight"),
    "availability": ("weight",),
    "latency": ("weight",),
    "feedback": ("weight",),
    "disagreement": ("replay", "shadow"),
    "output_drift": ("shadow", "weight"),
}
"""The kinds of steps in which a family of gates has to pass. A failure counts in every step."""
MAX_STEPS = 20
MAX_GATES = 32
MAX_REQUESTS = 1_000_000_000
MAX_REPLAYED = 1_000_000
MAX_STEP_MS = 30 * 86_400_000
MAX_UNDECIDED_MS = 90 * 86_400_000
MAX_RATIO = 1_000

_RATIO = re.compile(r"([0-9]{1,4}(?:\.[0-9]{1,4})?)x\Z")
_REFERENCE = re.compile(r"\$\{(?:env:[A-Za-z_][A-Za-z0-9_]*|file:/[^\s{}]+)\}\Z")
MAX_NOTIFY_MS = 60_000
_WEBHOOK = re.compile(r"https://[^\s/?#@]+(?:[/?][^\s#]*)?\Z")

Limit = dict[str, float]
"""``{"ratio": 1.5}``, ``{"share": 0.02}`` or ``{"value": 0.1}``."""
Floor = dict[str, float]
"""``{"ns": 5000000}`` or ``{"share": 0.001}``."""


def _limit(value: Any) -> Limit:
    if isinstance(value, str) and (match := _RATIO.match(value)):
        ratio = float(match[1])
        if not 1 <= ratio <= MAX_RATIO:
            raise ValueError(f"must be 1x to {MAX_RATIO}x, not {value}")
        return {"ratio": ratio}
    if isinstance(value, str) and value.endswith("%"):
        return {"share": values.parse_weight(value) / values.SLOTS}
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1e12:
        raise ValueError('must be a ratio such as "1.5x", a share such as "2%", or a number above 0')
    return {"value": float(value)}


def _written_limit(limit: Limit) -> str | float:
    if "ratio" in limit:
        return f"{limit['ratio']:g}x"
    if "share" in limit:
        return values.format_weight(round(limit["share"] * values.SLOTS))
    return limit["value"]


def _floor(value: Any) -> Floor:
    if isinstance(value, str) and value.endswith("%"):
        return {"share": values.parse_weight(value) / values.SLOTS}
    if not isinstance(value, str):
        raise ValueError('must be a duration such as "5ms", or a share such as "0.1%"')
    return {"ns": values.parse_delay(value) * 1_000.0}


def _written_floor(floor: Floor) -> str:
    if "share" in floor:
        return values.format_weight(round(floor["share"] * values.SLOTS))
    return values.format_delay(round(floor["ns"] / 1_000))


def _duration(least: int, most: int) -> Any:
    def read(value: Any) -> int:
        if not isinstance(value, str):
            raise ValueError('must be a duration with its unit, such as "15m" or "1h"')
        milliseconds = values.parse_duration(value)
        if not least <= milliseconds <= most:
            shown = values.format_duration(least), values.format_duration(most)
            raise ValueError(f"must be {shown[0]} to {shown[1]}, not {value}")
        return milliseconds

    return read


def _false_rollbacks(value: Any) -> int:
    if not isinstance(value, str):
        raise ValueError('must be a share such as "1%"')
    share = values.parse_weight(value)
    if not 1 <= share <= 2_000:
        raise ValueError(f"must be 0.01% to 20%, not {value}")
    return share


def _hours(value: Any) -> Hours:
    if not isinstance(value, str):
        raise ValueError('must be hours with a time zone, such as "mon-thu 09:00-16:00 Europe/Berlin"')
    return parse_hours(value)


def _secret(value: Any) -> str:
    if not isinstance(value, str) or not _REFERENCE.match(value):
        raise ValueError('must be taken from elsewhere: write "${env:NAME}" or "${file:/path}"')
    return value


def _webhook(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 2_048:
        raise ValueError('must be an address such as "https://example.com/hook", or "${env:NAME}"')
    if "${" in value:
        return _secret(value)
    if not _WEBHOOK.match(value):
        raise ValueError(
            f'{quoted(value)} is no address of a webhook: write "https://...", "${{env:NAME}}" or "${{file:/path}}"'
        )
    return value


_DURATION_SCHEMA = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d)$", "examples": ["15m"]}

Above = Annotated[
    Limit,
    BeforeValidator(_limit),
    PlainSerializer(_written_limit, when_used="json"),
    WithJsonSchema({"type": ["string", "number"], "examples": ["1.5x", "2%", 0.1]}),
]
IgnoreBelow = Annotated[
    Floor,
    BeforeValidator(_floor),
    PlainSerializer(_written_floor, when_used="json"),
    WithJsonSchema({"type": "string", "examples": ["5ms", "0.1%"]}),
]
StepTime = Annotated[
    int,
    BeforeValidator(_duration(1, MAX_STEP_MS)),
    PlainSerializer(values.format_duration, when_used="json"),
    WithJsonSchema(_DURATION_SCHEMA),
]
NotifyTime = Annotated[
    int,
    BeforeValidator(_duration(100, MAX_NOTIFY_MS)),
    PlainSerializer(values.format_duration, when_used="json"),
    WithJsonSchema(_DURATION_SCHEMA),
]
UndecidedTime = Annotated[
    int,
    BeforeValidator(_duration(1, MAX_UNDECIDED_MS)),
    PlainSerializer(values.format_duration, when_used="json"),
    WithJsonSchema(_DURATION_SCHEMA),
]
FalseRollbacks = Annotated[
    int,
    BeforeValidator(_false_rollbacks),
    PlainSerializer(values.format_weight, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9]{1,2}(\.[0-9]+)? ?%$", "examples": ["1%"]}),
]
WeekHours = Annotated[
    Hours,
    BeforeValidator(_hours),
    PlainSerializer(lambda hours: hours.text, when_used="json"),
    WithJsonSchema({"type": "string", "examples": ["mon-thu 09:00-16:00 Europe/Berlin"]}),
]
Webhook = Annotated[
    str,
    BeforeValidator(_webhook),
    WithJsonSchema({"type": "string", "examples": ["${env:HOOK_URL}", "https://example.com/hook"]}),
]
Secret = Annotated[
    str,
    BeforeValidator(_secret),
    WithJsonSchema({"type": "string", "pattern": _REFERENCE.pattern.replace(r"\Z", "$")}),
]
Requests = Annotated[int, Field(ge=1, le=MAX_REQUESTS)]


class Approve(Part):
    """A person who says yes: not the one who started the rollout."""

    role: Literal["operator", "approver", "admin"] = Field(
        "approver", description="The role that the person's token has; admin may always."
    )


class RolloutStep(Part):
    """One step of a rollout. ``pause`` and ``promote`` are words; the others say what the challenger gets."""

    replay: Annotated[int, Field(ge=1, le=MAX_REPLAYED)] | None = Field(
        None,
        description="How many captured requests are put to the challenger at most; no caller is involved.",
    )
    shadow: Share | None = Field(
        None, description="The share of requests whose copies the challenger gets; it answers none."
    )
    weight: Share | None = Field(None, description="The share of traffic that the challenger answers.")
    approve: Approve | None = Field(None, description="A person of this role has to say yes.")
    pause: Literal[True] | None = Field(None, description="A person has to resume or promote.")
    promote: Literal[True] | None = Field(None, description="The challenger becomes champion.")
    for_: StepTime | None = Field(
        None, alias="for", description="How long the step lasts at least, in time with traffic."
    )
    min_requests: Requests | None = Field(
        None, description="How many requests the challenger gets in the step at least."
    )

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, data: Any) -> Any:
        if isinstance(data, str):
            if data not in ("pause", "promote"):
                raise ValueError(
                    f"{quoted(data)} is no step: write pause, promote or a mapping such as {{weight: 5%}}"
                )
            return {data: True}
        return data

    @model_serializer(mode="wrap", when_used="json")
    def _as_short_as_possible(self, handler: SerializerFunctionWrapHandler) -> Any:
        written = {name: value for name, value in handler(self).items() if value is not None}
        word = next(iter(written), "")
        return word if word in ("pause", "promote") else written

    @property
    def kind(self) -> str:
        """Which of the kinds of steps it is."""
        return next(kind for kind in STEP_KINDS if getattr(self, kind) is not None)


class Gate(Part):
    """A limit that the challenger must not pass. A limit alone is short for ``{above: ...}``."""

    above: Above = Field(
        description="The limit: a ratio to the champion (1.5x), a share beyond the noise floor (2%), or a number: a difference of means "
        "of feedback, a distance below 1 of outputs."
    )
    ignore_below: IgnoreBelow | None = Field(
        None, description="What is smaller than this is no harm: a time, or for error_rate a share."
    )
    strict: bool = Field(
        False,
        description="Whether the limit itself has to be proven; unless written, harm must be proven and the estimate above the limit.",
    )
    measure: Literal["run", "reply"] | None = Field(
        None,
        description="Of latency: the run, or from admission to reply. Unless written both are looked at.",
    )
    distance: Literal["ks", "total_variation"] | None = Field(
        None,
        description="Of output_drift: the greatest difference of the shares up to a number (ks, for scores; so unless written), or of the "
        "shares of any set of values (total_variation, for labels).",
    )

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, data: Any) -> Any:
        return data if isinstance(data, dict) else {"above": data}

    @model_serializer(mode="wrap", when_used="json")
    def _as_short_as_possible(self, handler: SerializerFunctionWrapHandler) -> Any:
        written = {name: value for name, value in handler(self).items() if value not in (None, False)}
        return written["above"] if list(written) == ["above"] else written


class Undecided(Part):
    """How long a step may be undecided, and what happens then."""

    after: UndecidedTime = Field(
        default=86_400_000, description="How long a step may be undecided, in time with traffic."
    )
    then: Literal["pause", "abort"] = Field(
        default="pause",
        description="pause leaves the weight as it is; abort gives everything back, and blocks nothing.",
    )


Gates = Annotated[dict[str, Gate], Field(max_length=MAX_GATES)]


class RolloutPlan(Part):
    """How a challenger becomes champion: steps, and what stops it."""

    api_version: Literal["headgate/v1"] = Field(alias="apiVersion", description="The version of this format.")
    kind: Literal["RolloutPlan"] = Field(description="What this document describes.")
    name: EndpointName = Field(description="What rollout: of an endpoint, and --plan, call it.")
    hours: WeekHours | None = Field(
        None, description="When it may advance, with a time zone. A rollback is always allowed."
    )
    steps: Annotated[tuple[RolloutStep, ...], Field(min_length=1, max_length=MAX_STEPS)] = Field(
        description="The steps in their order. Without promote at the end, a person promotes."
    )
    rollback_if: Gates | None = Field(
        None,
        description="Gates whose failure rolls back, by name; those of the built-in plan unless written.",
    )
    pause_if: Gates = Field(default_factory=dict, description="Gates whose failure pauses, by name.")
    report: Annotated[tuple[str, ...], Field(max_length=MAX_GATES)] = Field(
        (), description="Gates that are shown with their evidence and stop nothing."
    )
    false_rollbacks: FalseRollbacks = Field(
        100,
        description="How often a challenger that is no worse may be rolled back, over all gates but disagreement together, "
        "copies, replays and resumes included.",
    )
    undecided: Undecided = Field(
        default_factory=Undecided,
        description="What happens if the evidence decides nothing.",
    )

    def as_written(self) -> dict[str, Any]:
        """The document as JSON values with units, in normal form: parsing it gives an equal plan."""
        written: dict[str, Any] = self.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
        return written


NotifyEvent = Literal["step", "promote", "rollback", "pause", "abort", "drift", "load_failed", "alarm"]


class Notify(Part):
    """A webhook, and what it is told."""

    webhook: Webhook = Field(
        description="Where messages are posted: an https address, ${env:NAME} or ${file:/path}."
    )
    secret: Secret | None = Field(
        None,
        description="The key that signs them, as Standard Webhooks has it: ${env:NAME} or ${file:/path}. Not signed unless written.",
    )
    events: Annotated[tuple[NotifyEvent, ...], Field(min_length=1, max_length=16)] = Field(
        description="Which events it is told: step, promote, rollback, pause and abort of rollouts and traffic, drift (features begin to "
        "fail), load_failed (a change that failed), alarm."
    )
    timeout: NotifyTime = Field(5_000, description="How long one delivery may take, 60s at most.")

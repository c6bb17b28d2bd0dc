"""The bodies of writes: strict, nothing unknown. A field that is null is as good as absent.

Not here: documents (``documents``). Next: ``admin_request``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Reason = Annotated[str | None, Field(max_length=1000, description="Why; kept in the revision and the audit.")]
Switch = Literal["on", "off"]
VersionName = Annotated[str, Field(min_length=1, max_length=128)]


class Body(BaseModel):
    """What all bodies share."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    reason: Reason = None


class ReasonBody(Body):
    """Only a reason."""


class TrafficPatch(Body):
    """New weights and champion, shadows and the capture switched on or off; what is not named stays as it is."""

    weights: dict[VersionName, str] | None = Field(
        None, description='Shares with a percent sign: {"v8": "5%"}.'
    )
    champion: VersionName | None = Field(None, description="The version to make champion.")
    shadows: dict[VersionName, Switch] | None = Field(
        None, description='Shadows of the document to switch on or off: {"v8": "off"}.'
    )
    capture: Switch | None = Field(None, description="Whether the capture of the document is on or off.")


class Subject(Body):
    """A version by its name, or any digest."""

    version: VersionName | None = None
    digest: Annotated[str, Field(pattern="^sha256:[0-9a-f]{64}$")] | None = None


class RestoreTo(Body):
    """The revision to go back to."""

    revision: Annotated[int, Field(ge=1)]


PlanName = Annotated[str, Field(min_length=1, max_length=128)]


class StartRollout(Body):
    """The challenger, and the plan: that of the document when absent, else the built-in one."""

    version: VersionName
    plan: PlanName | None = Field(None, description='A stored plan, or "default" for the built-in one.')


class RetryRollout(Body):
    """The challenger of the last rollout when no version is named; the plan as at a start."""

    version: VersionName | None = None
    plan: PlanName | None = Field(None, description='A stored plan, or "default" for the built-in one.')


class PromoteRollout(Body):
    """The next step, or with ``full`` the end."""

    full: bool | None = Field(None, description="true: the challenger becomes champion at once.")


class ApproveRollout(Body):
    """What is approved: the digest on trial, or exactly this one."""

    digest: Annotated[str, Field(pattern="^sha256:[0-9a-f]{64}$")] | None = None


class NewReplay(Body):
    """Captured requests that are put to a version; ``against`` is whose requests they are, the champion's when absent."""

    version: VersionName
    against: VersionName | None = None
    since: Annotated[str, Field(max_length=64)] | None = Field(
        None, description='Requests from that time on, such as "2027-03-01T03:12:04Z".'
    )
    until: Annotated[str, Field(max_length=64)] | None = Field(None, description="Requests before that time.")
    max_requests: Annotated[int, Field(ge=1, le=10**12)] | None = Field(
        None, description="At most so many, the oldest first."
    )
    compare: Annotated[dict[str, Any], Field(max_length=1024)] | None = Field(
        None, description="How outputs are compared, by name, as a shadow's in a document."
    )
    timeout: Annotated[str, Field(max_length=64)] | None = Field(
        None, description='How long a run may take, such as "200ms"; as long as a request when absent.'
    )


class ExplainRequest(BaseModel):
    """A hypothetical request: a sticky key, or the headers it would come in, and parameters; at a revision or a time, or now."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    key: Annotated[str, Field(max_length=8192)] | None = None
    headers: Annotated[dict[str, str], Field(max_length=256)] | None = None
    parameters: Annotated[dict[str, str | int | float | bool], Field(max_length=64)] = Field(
        default_factory=dict, description="Parameters of the request, as its body has them."
    )
    version: Annotated[str, Field(max_length=128)] | None = Field(
        None, description="The version that the request names itself."
    )
    revision: Annotated[int, Field(ge=1, le=10**15)] | None = Field(
        None, description="The revision to explain; the present one when absent."
    )
    at: str | None = Field(
        None, description='A time to explain, such as "2027-03-01T03:12:04Z"; now when absent.'
    )


class NewToken(BaseModel):
    """A token to be made."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    name: Annotated[str, Field(min_length=1, max_length=100)]
    role: str
    expires_in: str | None = Field(None, description='A duration with a unit: "90d"; never when absent.')
    reason: Reason = None

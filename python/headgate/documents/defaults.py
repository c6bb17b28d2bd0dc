"""Kind ``Defaults``: what holds for every endpoint that does not say otherwise.

Next: ``checks``.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from headgate.documents.fields import EndpointName
from headgate.documents.model import MAX_NOTIFY, Endpoint, Limits
from headgate.documents.part import Part
from headgate.documents.rollout import Notify


class Defaults(Part):
    """Values for the fields of the same name of all endpoints. One document of this kind is in force at a time."""

    api_version: Literal["headgate/v1"] = Field(alias="apiVersion", description="The version of this format.")
    kind: Literal["Defaults"] = Field(description="What this document describes.")
    rollout: EndpointName | None = Field(None, description="The plan that rollouts use.")
    notify: tuple[Notify, ...] = Field((), max_length=MAX_NOTIFY, description="Who is told of what happens.")
    limits: Limits = Field(default_factory=Limits, description="What a request may take, field by field.")

    def filled(self, endpoint: Endpoint) -> Endpoint:
        """The endpoint with these values where it says nothing. Of ``limits`` each field by itself; what is written always wins."""
        written = endpoint.limits.model_fields_set
        limits = {name: getattr(self.limits, name) for name in self.limits.model_fields_set - written}
        changed = {
            "rollout": endpoint.rollout or self.rollout,
            "notify": endpoint.notify if "notify" in endpoint.model_fields_set else self.notify,
            "limits": endpoint.limits.model_copy(update=limits),
        }
        return endpoint.model_copy(update=changed)

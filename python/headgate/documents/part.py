"""What all parts of a document share.

Next: ``traffic`` and ``model``, the fields.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

FORMS = ("[mapping]", "[word]")
"""The forms of a field that has two, as pydantic's paths name them."""


class Part(BaseModel):
    """A part of a document: frozen, strict, nothing unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, serialize_by_alias=True)

    not_yet: ClassVar[frozenset[str]] = frozenset()
    """Fields of the design that are not built; they are refused as such, never ignored."""


def form(written: Any) -> str:
    """Which of the two forms of a field is written."""
    return FORMS[0] if isinstance(written, dict | BaseModel) else FORMS[1]

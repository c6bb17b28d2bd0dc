"""What a document says of traffic, as far as live traffic may differ from it. A value. Next: ``copies``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Declared:
    """The ``traffic`` of a document, and the share of its ``capture``: shares in slots, zero weights left out."""

    champion: str
    weights: Mapping[str, int] = field(default_factory=dict)
    sticky: str | None = None
    shadows: Mapping[str, int] = field(default_factory=dict)
    """The share of requests that each shadow gets copies of, in the document's order."""
    capture: int | None = None

"""What documents may say and nothing acts on: such fields and kinds are read and checked by this package, and refused as not supported.

This is the one switch. A field that leaves ``FIELDS`` and a kind that leaves ``KINDS`` are accepted by every parser, appear in the
schema, and after ``python tools/reference.py`` in docs/reference/document.md. Next: ``model``.
"""

from __future__ import annotations

FIELDS: frozenset[str] = frozenset({"rollout", "notify"})
"""Fields of kind ``Endpoint``."""

KINDS: frozenset[str] = frozenset({"RolloutPlan", "Defaults"})

"""What documents may say and nothing acts on: such fields, kinds and gates are read and checked by this package, and refused as not
supported.

This is the one switch. A field that leaves ``FIELDS``, a kind that leaves ``KINDS`` and a family of gates that leaves ``GATES`` are
accepted by every parser, appear in the schema, and after ``python tools/reference.py`` in docs/reference/document.md. Next: ``model``.
"""

from __future__ import annotations

FIELDS: frozenset[str] = frozenset()
"""Fields of kinds ``Endpoint`` and ``Defaults``."""

KINDS: frozenset[str] = frozenset()
"""Kinds beside ``Endpoint``."""

GATES: frozenset[str] = frozenset()
"""Families of gates."""

STOPPING_GATES: frozenset[str] = frozenset({"output_drift"})
"""Families of gates that may be reported, and do not roll back or pause."""

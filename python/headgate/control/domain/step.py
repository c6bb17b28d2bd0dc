"""One change of an endpoint as a plan sees it. Values. Next: ``plan``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from headgate.control.domain.plan_facts import PlanFacts
from headgate.control.domain.revision import Kind, Revision


@dataclass(frozen=True)
class Step:
    """From one state of an endpoint to the next; ``before`` is None at creation, ``after`` None at removal.

    ``n`` is the number of the next revision, ``subject`` what the call names (a version, a revision), ``message`` its outcome.
    """

    endpoint: str
    n: int
    before: Revision | None
    after: Revision | None
    kind: Kind = "apply"
    subject: str = ""
    message: str = ""
    loaded: Collection[str] = ()
    notes: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()
    unloadable: Mapping[str, str] = field(default_factory=dict)
    """Versions that are left out before, because they cannot be loaded, with the reason."""
    left_out: Collection[str] = ()
    """Those of them that stay out afterwards: the change does not try to load them again."""
    loads_nothing: bool = False
    """Whether no version is loaded, whatever the state afterwards has."""
    broken: str | None = None
    """Why what should be served before is not known."""
    facts: PlanFacts = field(default_factory=PlanFacts)

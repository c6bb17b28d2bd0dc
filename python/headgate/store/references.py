"""The digests that kept rows name: what is referenced, and so stays in the state folder.

Not here: removing what is not referenced (``registry.collecting``). Next: ``store``.

A body is searched as text and not read as JSON. So a body of a newer Headgate, and one that cannot be read, keep what they name.
"""

from __future__ import annotations

import re

from sqlalchemy import select
from sqlalchemy.orm import Session

from headgate.store.models import PinRecord, RevisionRecord

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ROWS = 200


def digests_in(text: str) -> set[str]:
    """Every digest that a text names."""
    return set(_DIGEST.findall(text))


def referenced_digests(session: Session) -> set[str]:
    """Every digest that a revision or a pin names; reads all of them."""
    found = set(session.scalars(select(PinRecord.digest)))
    for body in session.scalars(select(RevisionRecord.body).execution_options(yield_per=_ROWS)):
        found.update(_DIGEST.findall(body))
    return found

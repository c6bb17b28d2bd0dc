"""Which revisions of a history stay whatever their age. Pure.

Not here: how old rows are dropped (``store.retention``), when (``writes.retention``). Next: ``plan``.

The revision in force names everything that a rollback needs. Beside it stay the newest revision that was served with the last good
champion, and the newest one of each blocked version: what somebody wants to look at, or restore, after an accident.
"""

from __future__ import annotations

from collections.abc import Iterable

from headgate.control.domain.revision import Revision


def notable(current: Revision, earlier: Iterable[Revision]) -> set[int]:
    """The numbers of those of ``earlier`` (that were served, the newest first) which stay. Reads no more of them than it needs."""
    live = current.traffic
    wanted = {block.digest for block in live.blocked}
    good = current.spec.digests().get(live.last_good)
    found: set[int] = set()
    for revision in earlier:
        if not wanted and good is None:
            break
        served = _served(revision)
        if served & wanted or (good is not None and _champion(revision) == good):
            found.add(revision.n)
        wanted -= served
        if _champion(revision) == good:
            good = None
    return found


def _champion(revision: Revision) -> str | None:
    return revision.spec.digests().get(revision.traffic.champion)


def _served(revision: Revision) -> set[str]:
    """The digests that had traffic."""
    digests = revision.spec.digests()
    named = {revision.traffic.champion, *revision.traffic.weights()}
    return {digests[name] for name in named if name in digests}

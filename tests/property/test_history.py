"""Which revisions stay whatever their age: for any history, what a rollback goes to and what was blocked can still be looked at."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from headgate.control.domain.history import notable
from headgate.control.domain.revision import DocumentIdentity, Revision
from headgate.control.domain.shares import EMPTY, Table
from headgate.control.domain.spec import LimitsSpec, Spec, TrafficSpec, VersionSpec
from headgate.control.domain.traffic import Block, LiveTraffic

NAMES = ["v1", "v2", "v3", "v4"]
NOW = "2027-03-01T03:12:04.000000Z"
SPEC = Spec(
    versions={name: VersionSpec(digest=f"sha256:{name}") for name in NAMES},
    traffic=TrafficSpec(champion="v1"),
    limits=LimitsSpec(timeout=1000),
)

served = st.tuples(st.sampled_from(NAMES), st.one_of(st.none(), st.sampled_from(NAMES)))


def revision(n: int, champion: str, challenger: str | None, *more: str) -> Revision:
    """``more`` are the last good version and those that are blocked."""
    table = EMPTY if challenger in (None, champion) else Table("salt", ((str(challenger), 0, 99),))
    good, *blocked = more or (champion,)
    blocks = tuple(Block(f"sha256:{name}", name, NOW, "ann", "") for name in blocked)
    return Revision(
        endpoint="e", n=n, parent=None, kind="traffic", who="ann", when=NOW, reason="", spec=SPEC,
        document=DocumentIdentity(digest="sha256:d"),
        traffic=LiveTraffic(champion, good, NOW, table, 0, None, blocks),
    )  # fmt: skip


@dataclass
class Counted:
    """A history, the newest first, that knows how much of it was read."""

    revisions: list[Revision]
    read: int = 0

    def __iter__(self):  # type: ignore[no-untyped-def]
        for one in self.revisions:
            self.read += 1
            yield one


@given(
    st.lists(served, min_size=1, max_size=20),
    st.sampled_from(NAMES),
    st.sets(st.sampled_from(NAMES), max_size=2),
)
def test_the_newest_of_each_that_somebody_may_look_for_stays(
    history: list[tuple[str, str | None]], good: str, blocked: set[str]
) -> None:
    revisions = [revision(n, *one) for n, one in enumerate(history, 1)]
    last = history[-1]
    current = revision(len(history), *last, good, *sorted(blocked))
    newest_first = Counted(revisions[::-1])
    kept = notable(current, newest_first)
    expected = {max((n for n, (champion, _) in enumerate(history, 1) if champion == good), default=0)}
    for name in blocked:
        expected.add(max((n for n, one in enumerate(history, 1) if name in one), default=0))
    assert kept == expected - {0}
    if len(kept) == len(blocked) + 1:
        assert newest_first.read <= len(history) - min(kept) + 2

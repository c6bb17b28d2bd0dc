"""Live traffic of one endpoint, and what the functions that change it need and answer. Values.

Not here: every way it may change (``traffic``). Next: ``traffic``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from headgate.control.domain.rollout.state import RolloutState, Tried
from headgate.control.domain.shares import EMPTY, Table
from headgate.control.domain.stamp import Stamp

SetWeights = Callable[[Table, Mapping[str, int]], Table]
"""Contract of ``headgate._native.set_weights``: slots per version, absent = 0, salt unchanged, return order kept."""


@dataclass(frozen=True)
class Block:
    """A digest that may get no traffic; ``version`` is the name it had when it was blocked."""

    digest: str
    version: str | None
    since: str
    who: str
    reason: str


@dataclass(frozen=True)
class LiveTraffic:
    """What the table does now.

    ``attempt`` counts how often weight was given while none was given away; ``last_good`` is where a rollback goes;
    ``since`` is when champion or table changed last; ``frozen`` says who froze the endpoint. ``shadows_off`` and ``capture_off``
    are what is switched off of the copies that the document declares (``copies``). ``rollout`` is the present rollout or the last one,
    ``tried`` what is remembered of every digest that was on trial, ``rollouts`` how many there were.
    """

    champion: str
    last_good: str
    since: str
    table: Table = EMPTY
    attempt: int = 0
    frozen: Stamp | None = None
    blocked: tuple[Block, ...] = ()
    shadows_off: tuple[str, ...] = ()
    capture_off: bool = False
    rollout: RolloutState | None = None
    tried: tuple[Tried, ...] = ()
    rollouts: int = 0

    def weights(self) -> dict[str, int]:
        """Slots of each challenger that has some."""
        return self.table.weights()

    def named(self) -> frozenset[str]:
        """The versions that it cannot do without: the champion, the one a rollback goes to, those with weight or on trial."""
        return frozenset({self.champion, self.last_good, *self.weights(), *self.on_trial()})

    def on_trial(self) -> frozenset[str]:
        """The challenger of the rollout, unless that has ended."""
        rollout = self.rollout
        return frozenset() if rollout is None or not rollout.active else frozenset({rollout.challenger.name})

    def block_of(self, digest: str | None) -> Block | None:
        """The block on a digest, if there is one."""
        return next((block for block in self.blocked if block.digest == digest), None)


@dataclass(frozen=True)
class KnownVersions:
    """What the pure functions need to know around live traffic: the endpoint's name, each version's digest, the slot arithmetic.

    ``unloadable`` names the versions that cannot be loaded, with the reason; ``fallback`` those that the document has answer when
    the champion does not, in their order.
    """

    endpoint: str
    digests: Mapping[str, str]
    set_weights: SetWeights
    unloadable: Mapping[str, str] = field(default_factory=dict)
    fallback: tuple[str, ...] = ()
    ruled: tuple[str, ...] = ()
    """The versions that the document's rules send requests to."""
    shadows: tuple[str, ...] = ()
    """The versions that the document has get copies of requests."""

    def usable(self, live: LiveTraffic, version: str) -> bool:
        """Whether a version may get all traffic: it is known, can be loaded, and is not blocked."""
        digest = self.digests.get(version)
        return digest is not None and version not in self.unloadable and live.block_of(digest) is None


@dataclass(frozen=True)
class Change:
    """The outcome: ``live`` is the new state; with ``already`` it is the old one, and ``message`` says so."""

    live: LiveTraffic
    message: str
    already: bool = False
    notes: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()

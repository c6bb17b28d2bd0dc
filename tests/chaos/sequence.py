"""The sequence of a seed: faults, and the writes during each. It depends on the seed alone, and not on what the gateway answers.

Next: ``suite``, which carries it out.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from chaos.model import VERSIONS, Write

ENDPOINTS = ("a", "b", "c")
FAULTS = {
    "none": 3,
    "kill worker": 4,
    "kill supervisor": 3,
    "restart": 1,
    "hang": 4,
    "full": 4,
    "clock": 2,
    "descriptors": 2,
    "damage": 4,
}
"""How often each comes."""
_KINDS = {
    "traffic": 14,
    "apply": 5,
    "rollback": 6,
    "abort": 1,
    "block": 1,
    "unblock": 9,
    "restore": 4,
    "freeze": 1,
    "unfreeze": 4,
    "delete": 1,
    "unpin": 1,
    "token": 1,
    "revoke": 1,
}
_CLOCK_SECONDS = (1.0, 90.0, 3600.0, 86_400.0 * 40, 86_400.0 * 4000)
DAMAGES = ("database", "wal", "applied", "artifact", "baseline", "database lost", "wal lost")


@dataclass(frozen=True)
class Episode:
    """One fault, and the writes while it lasts."""

    number: int
    fault: str
    writes: tuple[Write, ...]
    ending: str
    """How a disk that hangs or is full ends: ``healed``, ``killed`` or ``stopped``."""
    delay_seconds: float
    """From the last write's call to the kill."""
    again_after_seconds: float | None
    """When the next process is killed as well, while it starts."""
    clock_seconds: float
    descriptors: int
    damage: str
    place: float
    """Where in the file a byte is flipped."""
    bits: int
    unclean: bool
    """Whether the gateway was killed before the damage."""


def episodes(seed: int) -> Iterator[Episode]:
    """Without end."""
    rounds = random.Random(seed)
    number = 0
    while True:
        # Every fault comes before one comes more often than its share.
        cards = [fault for fault, count in FAULTS.items() for _ in range(count)]
        rounds.shuffle(cards)
        for fault in cards:
            number += 1
            yield _episode(number, fault, random.Random(f"{seed}/{number}"))


def episode(seed: int, number: int, fault: str) -> Episode:
    """One of a kind."""
    return _episode(number, fault, random.Random(f"{seed}/{number}/{fault}"))


def _episode(number: int, fault: str, draw: random.Random) -> Episode:
    return Episode(
        number=number,
        fault=fault,
        writes=tuple(_write(draw) for _ in range(draw.randint(4, 10))),
        ending=draw.choice(("healed", "healed", "killed", "stopped")),
        delay_seconds=draw.choice((0.0, draw.uniform(0, 0.01), draw.uniform(0, 0.06))),
        again_after_seconds=draw.uniform(0, 2) if draw.random() < 0.4 else None,
        clock_seconds=draw.choice((-1, 1)) * draw.choice(_CLOCK_SECONDS),
        descriptors=draw.randint(0, 6),
        damage=draw.choice(DAMAGES),
        place=draw.random(),
        bits=draw.randint(1, 255),
        unclean=draw.random() < 0.5,
    )


def _write(draw: random.Random) -> Write:
    (kind,) = draw.choices(list(_KINDS), list(_KINDS.values()))
    version, other = draw.sample(VERSIONS, 2)
    slots = draw.choice((0, 1, 50, 500, 2500, 5000, 10_000))
    return Write(kind, draw.choice(ENDPOINTS), version, other, slots, draw.random())

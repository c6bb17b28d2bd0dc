"""What a bench asks of the machine that it runs on, what it found, and whether that holds; a table of them. Read next: ``load``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """One promise."""

    what: str
    asked: str
    found: str
    holds: bool


def table(claims: Iterable[Claim]) -> list[str]:
    """The lines of a table."""
    rows = [
        f"| {one.what} | {one.asked} | {one.found} | {'yes' if one.holds else '**no**'} |" for one in claims
    ]
    return ["| promise | asked | found | holds |", "|---|---|---|---|", *rows, ""]

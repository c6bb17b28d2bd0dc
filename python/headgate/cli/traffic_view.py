"""How live traffic is drawn. Next: endpoint_view.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headgate.cli.output import Lines, Table


def traffic_words(champion: str, weights: Mapping[str, str]) -> str:
    """``v1, 10% to v2``: the champion, then what is given away."""
    return ", ".join([champion, *(f"{share} to {version}" for version, share in weights.items())])


def traffic_view(traffic: Mapping[str, Any]) -> Lines:
    """The live traffic of one endpoint beside what its document says."""
    made = Table("VERSION", "ROLE", "WEIGHT", "OF KEYS", "OF REQUESTS LATELY")
    requests = traffic["share"]["requests"] or {}
    versions = [traffic["champion"], *(name for name in traffic["weights"] if name != traffic["champion"])]
    for version in versions:
        champion = version == traffic["champion"]
        made.row(
            version,
            "champion" if champion else "challenger",
            None if champion else traffic["weights"][version],
            traffic["share"]["keys"].get(version),
            requests.get(version),
        )
    target = traffic["rollback_to"]
    goes = (
        f"a rollback goes to {target}"
        if target
        else "no rollback: no version that it may go to can be loaded"
    )
    return [*made.lines(), goes, *traffic["notes"]]

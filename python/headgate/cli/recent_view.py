"""What the versions of an endpoint did in the last minutes, the others beside the champion. Next: text.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headgate.cli import text
from headgate.cli.output import Lines, Table

Version = Mapping[str, Any]


def recent_view(versions: Mapping[str, Version]) -> Lines:
    """A row for each version that answered requests lately, the champion first; nothing if none did."""
    active = {name: version for name, version in versions.items() if version.get("recent")}
    if not active:
        return []
    champion = next((one["recent"] for one in active.values() if one["role"] == "champion"), None)
    seconds = max(version["recent"]["seconds"] for version in active.values())
    made = Table(
        f"LAST {text.duration(seconds * 1e6)}",
        "REQUESTS",
        "ERRORS",
        "p50/p95",
        "BESIDE CHAMPION",
        "ROWS SEEN",
        "SKETCHED",
    )
    for name, version in sorted(active.items(), key=lambda item: item[1]["role"] != "champion"):
        recent = version["recent"]
        made.row(
            name,
            recent["requests"],
            _errors(recent),
            _times(recent["request_us"]),
            None if version["role"] == "champion" else _beside(recent, champion),
            recent["rows"]["seen"],
            recent["rows"]["sketched"],
        )
    return [*made.lines(), ""]


def _errors(recent: Mapping[str, Any]) -> str:
    """``10 (1.1%): 8 internal, 2 invalid_argument``."""
    if not recent["errors"]:
        return "0"
    codes = sorted(((count, code) for code, count in recent["codes"].items() if code != "ok"), reverse=True)
    said = ", ".join(f"{count} {code}" for count, code in codes)
    return f"{recent['errors']} ({_percent(_share(recent))}): {said}"


def _times(request_us: Mapping[str, float | None]) -> str | None:
    p50, p95 = request_us["p50"], request_us["p95"]
    return None if p50 is None or p95 is None else text.durations(p50, p95)


def _beside(recent: Mapping[str, Any], champion: Mapping[str, Any] | None) -> str | None:
    """``p95 1.4 times, errors 1.1% against 0%``."""
    if champion is None:
        return None
    mine, its = recent["request_us"]["p95"], champion["request_us"]["p95"]
    words = [f"p95 {mine / its:.2g} times"] if mine and its else []
    return ", ".join([*words, f"errors {_percent(_share(recent))} against {_percent(_share(champion))}"])


def _share(recent: Mapping[str, Any]) -> float:
    return float(recent["errors"] / recent["requests"]) if recent["requests"] else 0.0


def _percent(share: float) -> str:
    return f"{share * 100:.2g}%" if share < 0.995 else "100%"

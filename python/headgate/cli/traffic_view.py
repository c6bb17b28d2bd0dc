"""How live traffic is drawn. Next: endpoint_view.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headgate.cli.output import Lines, Table


def traffic_words(live: Mapping[str, Any]) -> str:
    """``v1, 10% to v2, shadow v3 off``: the champion, what is given away, what is switched off."""
    given = [f"{share} to {version}" for version, share in live["weights"].items()]
    off = [f"shadow {version} off" for version in live.get("shadows_off", [])]
    off += ["capture off"] if live.get("capture_off") else []
    return ", ".join([live["champion"], *given, *off])


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
    return [*made.lines(), goes, *_routing(traffic), *traffic["notes"]]


_STATES = {
    "off": "off: switched off",
    "blocked": "off: blocked",
    "left_out": "off: did not load",
    "champion": "off: it is the champion",
}


def _routing(traffic: Mapping[str, Any]) -> Lines:
    """The rules, the shadows and the capture, with what keeps one from taking effect."""
    lines = [
        f"rules[{at}]: {rule['when']}: {rule['to']}{_unless_on(rule)}"
        for at, rule in enumerate(traffic.get("rules", []))
    ]
    lines += [
        f"shadow {shadow['to']}: {shadow['share']} of the champion's requests{_unless_on(shadow)}"
        for shadow in traffic.get("shadows", [])
    ]
    capture = traffic.get("capture")
    return [*lines, f"capture: {capture['share']} of requests{_unless_on(capture)}"] if capture else lines


def _unless_on(part: Mapping[str, Any]) -> str:
    return "" if part["state"] == "on" else f" ({_STATES.get(part['state'], part['state'])})"

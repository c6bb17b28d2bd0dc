"""How endpoints are drawn: a line each, or one with its versions, what they do and why. Next: version_words.py."""

from __future__ import annotations

from typing import Any

from headgate.cli.output import Lines, Table
from headgate.cli.recent_view import recent_view
from headgate.cli.text import size
from headgate.cli.traffic_view import traffic_view, traffic_words
from headgate.cli.trial_view import trial_view
from headgate.cli.version_words import memory_words, optional_inputs, place, place_reason, run_times


def endpoints_view(endpoints: list[dict[str, Any]]) -> Lines:
    """One line for each."""
    made = Table("ENDPOINT", "REVISION", "STATE", "TRAFFIC", "SINCE", "NOTES")
    for one in endpoints:
        flags = ["frozen"] if one["frozen"] else []
        flags += [f"{one['blocked']} blocked"] if one["blocked"] else []
        flags += [one["rollout"]] if one.get("rollout") else []
        made.row(
            one["name"],
            one["revision"],
            one["state"],
            traffic_words(one),
            one["since"],
            "; ".join([*flags, *one["alarms"], *one["notes"]]),
        )
    return made.lines()


def endpoint_view(one: dict[str, Any]) -> Lines:
    """Everything about one."""
    lines = [f"{one['name']}  revision {one['revision']}  {one['state']}"]
    if one["frozen"]:
        lines.append(
            f"frozen since {one['frozen']['since']} by {one['frozen']['who']}: {one['frozen']['reason']}"
        )
    lines += [f"alarm: {alarm}" for alarm in one["alarms"]]
    lines += [one["rollout"]] if one.get("rollout") else []
    versions = one["versions"]
    lines += ["", *traffic_view(one["traffic"]), "", *recent_view(versions), *trial_view(one.get("trial"))]
    lines += _versions(versions)
    lines += [line for name, version in versions.items() if (line := place_reason(name, version))]
    lines += [line for name, version in versions.items() if (line := optional_inputs(name, version))]
    lines += _capture(one["capture"])
    lines += [
        f"blocked since {block['since']}: {block['version'] or block['digest']} ({block['reason']})"
        for block in one["blocks"]
    ]
    return lines


def _capture(capture: dict[str, Any] | None) -> Lines:
    """What is captured of one."""
    if capture is None or (capture["share"] is None and not capture["disk_files"]):
        return []
    share = "off" if capture["share"] is None else f"{capture['share']} of requests"
    dropped = ", ".join(f"{count} {reason}" for reason, count in capture["dropped"].items() if count)
    return [
        f"capture: {share}; {capture['rows']} since the start"
        + (f" (dropped: {dropped})" if dropped else "")
        + f"; {capture['disk_files']} files, {size(capture['disk_bytes'])}"
    ]


def _versions(versions: dict[str, dict[str, Any]]) -> Lines:
    made = Table(
        "VERSION",
        "ROLE",
        "STATE",
        "PLACED",
        "RUN p50/p99",
        "MEMORY",
        "REQUESTS SINCE LOAD",
        "DIGEST",
        "MESSAGE",
    )
    for name, version in versions.items():
        made.row(
            name,
            version["role"],
            version["state"],
            place(version),
            run_times(version["run_us"]),
            memory_words(version["memory"]),
            version["requests"],
            version["digest"][:19],
            version["message"],
        )
    return made.lines()

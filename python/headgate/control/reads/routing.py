"""How rules, shadows and the capture are told: in words, with what keeps one from taking effect.

Not here: which request they concern (``explanation``). Next: ``endpoints``.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from headgate.control.domain.copies import CopyState, capture_state, shadow_shares, shadow_states
from headgate.control.domain.revision import Revision
from headgate.control.domain.spec import loadable
from headgate.control.reads.views import CaptureView, RuleView, ShadowView
from headgate.control.writes.endpoint import EndpointState, present
from headgate.documents.values import format_weight
from headgate.store import seconds

WHY_NOT: Mapping[CopyState, str] = {
    "off": "it is switched off",
    "blocked": "it is blocked",
    "left_out": "it did not load",
    "champion": "it is the champion",
}
"""Why a shadow gets no copies."""


def conditions(when: Mapping[str, Mapping[str, Any]]) -> str:
    """``header.x-tester is "1" and parameter.tier begins with "gold"``."""

    def words(match: Mapping[str, Any]) -> str:
        if "prefix" in match:
            return f"begins with {json.dumps(match['prefix'])}"
        values = [json.dumps(value) for value in match["one_of"]]
        return f"is {values[0]}" if len(values) == 1 else f"is one of {', '.join(values)}"

    return " and ".join(f"{subject} {words(match)}" for subject, match in when.items())


def rule_views(current: Revision, omitted: Collection[str]) -> list[RuleView]:
    """The rules in their order."""
    able = loadable(current.spec, current.traffic, omitted)
    return [
        RuleView(
            when=conditions(rule.when),
            to=rule.to,
            state="on" if rule.to in able else "left_out" if rule.to in omitted else "blocked",
        )
        for rule in current.spec.traffic.rules
    ]


def shadow_views(current: Revision, omitted: Collection[str]) -> list[ShadowView]:
    """The declared shadows in their order."""
    states = shadow_states(current.spec, current.traffic, omitted)
    return [
        ShadowView(to=name, share=format_weight(share), state=states[name])
        for name, share in shadow_shares(current.spec, current.traffic).items()
    ]


def capture_view(current: Revision) -> CaptureView | None:
    """The capture, if the document declares one."""
    state, share = capture_state(current.spec, current.traffic), current.spec.declared.capture
    if state is None or share is None:
        return None
    return CaptureView(share=format_weight(share), state=state)


def unloaded_reason(state: EndpointState, version: str) -> str | None:
    """Why a version is not loaded: it is blocked, or did not load; None: neither."""
    current = present(state)
    entry = current.spec.versions.get(version)
    block = None if entry is None else current.traffic.block_of(entry.digest)
    if block is not None:
        why = f" ({block.reason})" if block.reason else ""
        return f"{version} is blocked since {seconds(block.since)}{why}"
    return f"{version} did not load: {state.omitted[version]}" if version in state.omitted else None

"""Copies of requests: which shadows get some, whether the capture does, and their switches. Pure.

A document declares shadows and the capture; a switch is live traffic, as a weight is: it needs no new document, has its revision,
and a document that is applied keeps it unless it gives another share. Not here: the table (``traffic``). Next: ``merge``.

    on         gets copies
    off        somebody switched it off
    blocked    its digest is blocked: copies are traffic too
    left_out   its version does not load
    champion   it answers in the champion's place, and would be compared with itself
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from headgate.control.domain.declared import Declared
from headgate.control.domain.spec import Spec, answering
from headgate.control.domain.traffic import Change, LiveTraffic, describe, faults
from headgate.documents.values import format_weight

CopyState = Literal["on", "off", "blocked", "left_out", "champion"]


@dataclass(frozen=True)
class Switches:
    """What is switched on (true) or off: shadows by version, and the capture; None leaves it as it is."""

    shadows: Mapping[str, bool] = field(default_factory=dict)
    capture: bool | None = None


def switch(change: Change, switches: Switches, declared: Declared, endpoint: str) -> Change:
    """A change of live traffic, and the switches beside it."""
    live = change.live
    found = _unknown(switches, declared, endpoint) | _of_the_rollout(switches, live, endpoint)
    if found:
        raise faults(found)
    off = {*live.shadows_off, *(name for name, is_on in switches.shadows.items() if not is_on)}
    off -= {name for name, is_on in switches.shadows.items() if is_on}
    capture_off = live.capture_off if switches.capture is None else not switches.capture
    after = replace(live, shadows_off=tuple(sorted(off)), capture_off=capture_off)
    return change if after == live else replace(change, live=after, message=describe(after), already=False)


def _of_the_rollout(switches: Switches, live: LiveTraffic, endpoint: str) -> dict[str, str]:
    """A fault of switching off copies that a rollout's step gives: they would go on."""
    rollout = live.rollout
    if rollout is None or not rollout.active or not rollout.shadow:
        return {}
    name = rollout.challenger.name
    if switches.shadows.get(name, True):
        return {}
    said = (
        f"the copies of {name} are those of rollout {rollout.id} now, and end with it "
        f"(headgate rollout abort {endpoint})"
    )
    return {f"shadows.{name}": said}


def _unknown(switches: Switches, declared: Declared, endpoint: str) -> dict[str, str]:
    """Faults of switches of what the document does not declare."""
    has = ", ".join(declared.shadows) or "none"
    found = {
        f"shadows.{name}": f"{name} is no shadow of {endpoint}; its document declares {has}"
        for name in switches.shadows
        if name not in declared.shadows
    }
    if switches.capture is not None and declared.capture is None:
        found["capture"] = f"the document of {endpoint} declares no capture"
    return found


def merged(live: LiveTraffic, new: Declared, base: Declared, *, take: bool) -> tuple[LiveTraffic, list[str]]:
    """The switches under a document ``new`` after the last applied one (``base``), and what a reader should know.

    A switch stays as it is, unless the document gives the shadow or the capture a share that it had not.
    """
    kept = [name for name in live.shadows_off if name in new.shadows and not take]
    off = tuple(name for name in kept if new.shadows[name] == base.shadows.get(name))
    notes = [_kept(f"shadow {name}", new.shadows[name]) for name in off]
    notes += [
        f"shadow {name} is switched on, because your document changes its share"
        for name in kept
        if name not in off
    ]
    capture_off = live.capture_off and not take and new.capture is not None and new.capture == base.capture
    if capture_off:
        notes.append(_kept("the capture", new.capture))
    elif live.capture_off and not take and new.capture is not None:
        notes.append("the capture is switched on, because your document changes its share")
    return replace(live, shadows_off=off, capture_off=capture_off), notes


def _kept(what: str, share: int | None) -> str:
    return f"{what} is switched off, your document says {format_weight(share or 0)}: kept (--take-traffic to switch it on)"


def differences(live: LiveTraffic, declared: Declared) -> list[str]:
    """Where a switch is not as the document says."""
    notes = [
        f"shadow {name} is switched off, your document says {format_weight(share)}"
        for name, share in declared.shadows.items()
        if name in live.shadows_off
    ]
    if live.capture_off and declared.capture is not None:
        notes.append(f"the capture is switched off, your document says {format_weight(declared.capture)}")
    return notes


def trial_share(live: LiveTraffic) -> dict[str, int]:
    """The challenger of a rollout whose step gives it copies, with their share in slots; empty if there is none."""
    rollout = live.rollout
    if rollout is None or not rollout.active or rollout.shadow <= 0:
        return {}
    return {rollout.challenger.name: rollout.shadow}


def shadow_shares(spec: Spec, live: LiveTraffic) -> dict[str, int]:
    """The share of copies of each shadow in slots: those of the document in its order, and the challenger of a rollout. A version that
    is both gets the greater share, once.
    """
    shares = dict(spec.declared.shadows)
    for name, share in trial_share(live).items():
        declared = 0 if name in live.shadows_off else shares.get(name, 0)
        shares[name] = max(share, declared)
    return shares


def shadow_states(spec: Spec, live: LiveTraffic, omitted: Collection[str]) -> dict[str, CopyState]:
    """Each shadow, in the document's order, and the challenger of a rollout; ``omitted`` versions did not load."""
    champion = answering(spec, live, omitted)

    def state(name: str) -> CopyState:
        return "champion" if name == champion else _state(name, spec, live, omitted)

    return {name: state(name) for name in shadow_shares(spec, live)}


def _state(name: str, spec: Spec, live: LiveTraffic, omitted: Collection[str]) -> CopyState:
    if name in live.shadows_off and name not in trial_share(live):
        return "off"
    if live.block_of(spec.versions[name].digest) is not None:
        return "blocked"
    return "left_out" if name in omitted else "on"


def capture_state(spec: Spec, live: LiveTraffic) -> CopyState | None:
    """Whether something is captured; None: the document declares no capture."""
    if spec.capture is None:
        return None
    return "off" if live.capture_off else "on"


def routing_summary(spec: Spec, live: LiveTraffic, omitted: Collection[str]) -> dict[str, Any]:
    """What an event says beside champion and weights, and nothing of what the document does not have: the number of rules by version,
    and of each shadow and the capture the share, or the state that keeps it from copies.
    """
    found: dict[str, Any] = {}
    if spec.traffic.rules:
        found["rules"] = dict(sorted(Counter(rule.to for rule in spec.traffic.rules).items()))
    shares, states = shadow_shares(spec, live), shadow_states(spec, live, omitted)
    if shares:
        found["shadows"] = {name: _share_or(states[name], share) for name, share in shares.items()}
    state, share = capture_state(spec, live), spec.declared.capture
    if state is not None and share is not None:
        found["capture"] = _share_or(state, share)
    return found


def _share_or(state: CopyState, share: int) -> str:
    return format_weight(share) if state == "on" else state

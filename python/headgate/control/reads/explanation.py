"""Which version a hypothetical request gets, and why. The data plane's own code decides; here it is said in words.

Not here: which revision is asked about (``queries``). Next: ``queries``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from headgate.control.domain.copies import shadow_shares, shadow_states
from headgate.control.domain.revision import Revision
from headgate.control.domain.spec import answering, loadable
from headgate.control.reads.endpoints import key_shares
from headgate.control.reads.routing import WHY_NOT, conditions
from headgate.control.reads.views import CopyView, Explanation
from headgate.control.writes.data_plane import DataPlane
from headgate.control.writes.endpoint import EndpointState, present
from headgate.control.writes.handover import native_route
from headgate.documents.values import SLOTS, format_weight
from headgate.errors import InvalidArgument, ModelLoadFailed, ModelNotReady

_NOT_SHADOWED = {
    "direct": "the request names its version, so that it is in no comparison",
    "rule": "a rule routes the request, so that it is in no comparison",
}


@dataclass(frozen=True)
class HypotheticalRequest:
    """What a request carries: a sticky key or the headers it would come in, parameters, and the version that it names itself."""

    key: str | None = None
    headers: Mapping[str, str] | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    version: str | None = None


def explain(state: EndpointState, plane: DataPlane, request: HypotheticalRequest) -> Explanation:
    """Which version the request gets from the endpoint."""
    current = present(state)
    asked = {
        "version": request.version,
        "headers": _headers(current, request),
        "parameters": dict(request.parameters),
    }
    try:
        route = native_route(current, state.omitted)
    except ModelLoadFailed as error:
        raise ModelNotReady(error.message) from error
    found = json.loads(plane.explain_route(route, json.dumps(asked).encode()))
    by, version, why = _decision(state, current, found)
    sticky = current.spec.declared.sticky
    return Explanation(
        endpoint=state.name,
        revision=current.n,
        sticky=sticky,
        key=found["key"],
        rule=found["rule"],
        slot=found["slot"],
        salt=current.traffic.table.salt,
        version=version,
        by=by,
        why=why,
        notes=_passed_over(state, current),
        shares=key_shares(current),
        shadows=_shadows(state, current, found),
        capture=_capture(current, found),
    )


def _headers(current: Revision, request: HypotheticalRequest) -> dict[str, str]:
    """Names in lower case, values without the blanks around them, as the wire gives them."""
    headers = {name.lower(): value.strip() for name, value in (request.headers or {}).items()}
    if request.key is None or not request.key.strip():
        return headers
    sticky = current.spec.declared.sticky
    if sticky is None:
        raise InvalidArgument(
            f'{current.endpoint} has no sticky key: write traffic.sticky in its document, as "header.x-user-id"'
        )
    return {**headers, sticky: request.key.strip()}


def _decision(
    state: EndpointState, current: Revision, found: Mapping[str, Any]
) -> tuple[Any, str | None, str]:
    """What decides, the version, and the sentence about it."""
    version: str | None = found["version"]
    match found["by"]:
        case "direct":
            return "direct", version, f"the request names {version} itself"
        case "rule":
            rule = current.spec.traffic.rules[found["rule"]]
            return "rule", version, f"rules[{found['rule']}] matches: {conditions(rule.when)}"
        case how:
            return _by_slot(state, current, found["slot"] if how == "slot" else None, drawn=how == "draw")


def _by_slot(
    state: EndpointState, current: Revision, slot: int | None, *, drawn: bool
) -> tuple[Any, str | None, str]:
    live = current.traffic
    champion = answering(current.spec, live, state.omitted) or live.champion
    table = live.table.without(frozenset({*state.omitted, champion}))
    if not table.given:
        left_out = sorted({live.champion, *live.weights()} & set(state.omitted))
        if left_out:
            why = f"{', '.join(left_out)} did not load: {champion} takes every request for the time being"
        else:
            why = f"no weight is given away: {champion} takes every request"
        return "champion", champion, why
    if drawn or slot is None:
        sticky = current.spec.declared.sticky
        name = "" if sticky is None else f" {sticky}"
        return "draw", None, f"without a sticky key{name} each request draws a slot of its own"
    found = table.owner(slot)
    if found is not None:
        version, run = found
        return (
            "slot",
            version,
            f"slot {slot} of {SLOTS} is in the run {run[1]} to {run[2]} given to {version}",
        )
    missing = live.table.owner(slot)
    if missing is not None:
        why = (
            f"slot {slot} belongs to {missing[0]}, which did not load: {champion} answers for the time being"
        )
        return "champion", champion, why
    return "champion", champion, f"slot {slot} of {SLOTS} is not given away"


def _passed_over(state: EndpointState, current: Revision) -> list[str]:
    """The rules that match nothing, because their version may not or cannot answer."""
    able = loadable(current.spec, current.traffic, state.omitted)
    reason = dict.fromkeys(state.omitted, "did not load")
    return [
        f"rules[{at}] is passed over: {rule.to} {reason.get(rule.to, 'is blocked')}"
        for at, rule in enumerate(current.spec.traffic.rules)
        if rule.to not in able
    ]


def _shadows(state: EndpointState, current: Revision, found: Mapping[str, Any]) -> list[CopyView]:
    """All that the document declares. The data plane knows those that get copies of some requests."""
    champion = answering(current.spec, current.traffic, state.omitted) or current.traffic.champion
    drawn = {shadow["version"]: _shadow(shadow, found, champion) for shadow in found["shadows"]}
    states = shadow_states(current.spec, current.traffic, state.omitted)
    return [
        drawn.get(name) or _view({"version": name, "share": share, "chosen": False}, WHY_NOT[states[name]])
        for name, share in shadow_shares(current.spec, current.traffic).items()
    ]


def _capture(current: Revision, found: Mapping[str, Any]) -> CopyView | None:
    share = current.spec.declared.capture
    if found["capture"] is None and share is not None:
        return _view({"version": None, "share": share, "chosen": False}, WHY_NOT["off"])
    return None if share is None else _copy(found["capture"])


def _shadow(shadow: Mapping[str, Any], found: Mapping[str, Any], champion: str) -> CopyView:
    """A shadow gets copies of what the champion answers by slot."""
    if found["by"] in _NOT_SHADOWED:
        return _view(shadow, _NOT_SHADOWED[found["by"]])
    if found["version"] not in (None, champion):
        return _view(shadow, f"{found['version']} answers the request and not the champion")
    return _copy(shadow, "request that slots give to the champion")


def _copy(copied: Mapping[str, Any], request: str = "request") -> CopyView:
    """Whether a request is copied; ``request`` says which ones may be."""
    share = format_weight(copied["share"])
    match copied["chosen"]:
        case None:
            return _view(copied, f"each {request} is drawn for itself: {share} are copied")
        case True if copied["share"] == SLOTS:
            return _view(copied, f"every {request} is copied")
        case True:
            return _view(copied, f"the sticky key is among the {share} that are copied")
        case _:
            return _view(copied, f"the sticky key is not among the {share} that are copied")


def _view(copied: Mapping[str, Any], why: str) -> CopyView:
    share = format_weight(copied["share"])
    return CopyView(version=copied["version"], share=share, chosen=copied["chosen"], why=why)

"""A plan in words: one paragraph that the API answers with and the command line prints. Pure.

It says what moves, who is affected, what the versions need, and how the change is undone. Not here: the facts (``plan_facts``), the
calls of the undo (``undo``), differences between documents (``plan``). Next: ``plan``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from headgate.control.domain.copies import CopyState, capture_state, shadow_shares, shadow_states
from headgate.control.domain.results import Plan, VersionNeeds
from headgate.control.domain.revision import Revision
from headgate.control.domain.spec import answering, loadable
from headgate.control.domain.step import Step
from headgate.control.domain.traffic import describe
from headgate.control.domain.undo import Undo
from headgate.documents.values import SLOTS
from headgate.readable import number, percent, size

_DIGEST_SHOWN = 19
"""``sha256:`` and twelve digits."""


def plan_text(step: Step, plan: Plan, undo: Undo, rollback_before: str | None) -> str:
    """The paragraph. ``plan`` is complete but for it; ``rollback_before`` is where a rollback goes without the change."""
    if not plan["changes"]:
        tried = [f"{version} is tried again." for version in plan["load"]]
        about = "" if step.message.startswith(f"{step.endpoint} ") else f" on {step.endpoint}"
        return " ".join([f"Nothing changes{about}: {step.message}.", *tried])
    sentences = [
        _headline(step),
        *_champion(plan),
        *_moves(step, plan),
        *_new_draw(step),
        *_rules(step, plan),
        *_fallbacks(step),
        *_copies(step),
        *_needs(step, plan),
        *_unloads(step, plan),
        *_blocks(step),
        *(_rollback(step, plan) if plan["rollback_to"] != rollback_before else []),
        _undo(undo),
    ]
    return " ".join(sentences)


def _headline(step: Step) -> str:
    name, after = step.endpoint, step.after
    if after is None:
        return f"Delete {name}; its history stays."
    if step.before is None:
        again = f" again as {step.subject}" if step.kind == "restore" else ""
        return f"Create {name}{again}: {describe(after.traffic)}."
    said: dict[str, str] = {
        "apply": f"Apply a document to {name}.",
        "traffic": f"Change the traffic of {name}: {describe(after.traffic)}.",
        "rollback": f"Roll {name} back to {after.traffic.champion}.",
        "abort": f"Give all slots of {name} back to {after.traffic.champion}.",
        "restore": f"Restore {step.subject} of {name}.",
        "block": f"Block {step.subject} on {name}.",
        "unblock": f"Unblock {step.subject} on {name}.",
        "freeze": f"Freeze {name}: only emergency calls change it until it is unfrozen.",
        "unfreeze": f"Unfreeze {name}.",
    }
    if step.kind.startswith("rollout_"):
        return f"{name}: {step.message.rstrip('.')}."
    return said[step.kind]


def _champion(plan: Plan) -> list[str]:
    old, new = plan["champion"]["from"], plan["champion"]["to"]
    return [f"The champion changes from {old} to {new}."] if old and new and old != new else []


# === slots, keys, requests ===


def _moves(step: Step, plan: Plan) -> list[str]:
    before, after = step.before, step.after
    if before is None or (after is not None and step.kind in ("freeze", "unfreeze")):
        return []
    if after is None:
        return ["All its requests are refused from then on.", *_recently(step)]
    if not plan["moves"]:
        return ["No slot moves."]
    moves = [_move(step, before, pair, slots) for pair, slots in plan["moves"].items()]
    if before.spec.declared.sticky is None:
        moves.append("There is no sticky key: each request draws a slot.")
    return moves if step.facts.recent.total else [*moves, *_recently(step)]


def _move(step: Step, before: Revision, pair: str, slots: int) -> str:
    old, new = pair.split("→")
    keys = "keys" if before.spec.declared.sticky else "draws"
    affected = f"{percent(slots / SLOTS)} of {keys}"
    share = share_of_requests(step, before, old, slots)
    if share is not None:
        exact = "" if slots == _slots_of(before, old) else "about "
        exact = "at most " if _answers_more(step, before, old) else exact
        affected += f", {exact}{percent(share)} of requests in {_window(step)}"
    which = "All" if slots == SLOTS else f"{number(slots)} of"
    moves = f"{which} {number(SLOTS)} slots ({affected}) move from {old} to {new}."
    instead = answering(before.spec, before.traffic, step.unloadable) if old in step.unloadable else None
    return (
        moves
        if instead is None
        else f"{moves} {old} does not load: {instead} answers its requests until then."
    )


def _answers_more(step: Step, before: Revision, old: str) -> bool:
    """Whether a version answers requests that its slots did not bring: those of rules, or those of a version that fails."""
    stands_in = old == answering(before.spec, before.traffic, step.unloadable)
    left_out = any(name in step.unloadable for name in _owners(before))
    return old in before.spec.ruled or old in before.spec.fallback or (stands_in and left_out)


def share_of_requests(step: Step, before: Revision, old: str, slots: int) -> float | None:
    """The part of the newest requests that these slots of a version stand for; None: not known.

    A version that loses some of its slots loses that part of its requests, as far as its keys are alike. Those of one that is left
    out were answered by another, and are not told apart.
    """
    recent = step.facts.recent
    if not recent.seconds or not recent.total or old in step.unloadable:
        return None
    return recent.answered.get(old, 0) / recent.total * slots / _slots_of(before, old)


def _recently(step: Step) -> list[str]:
    """All requests of the endpoint lately."""
    recent = step.facts.recent
    if not recent.seconds:
        return ["Requests lately are not known."]
    count = {0: "no request", 1: "1 request"}.get(recent.total, f"{number(recent.total)} requests")
    return [f"It answered {count} in {_window(step)}."]


def _window(step: Step) -> str:
    seconds = step.facts.recent.seconds
    return f"{seconds} s" if seconds < 120 else f"{seconds / 60:.2g} min"


def _new_draw(step: Step) -> list[str]:
    """With another salt or sticky key every key hashes to another slot, so keys change versions whose slots do not."""
    before, after = step.before, step.after
    if before is None or after is None:
        return []
    old, new = before.traffic.table, after.traffic.table
    sticky, follows = before.spec.declared.sticky, after.spec.declared.sticky
    if sticky is None or follows is None or not (old.given and new.given):
        return []
    if sticky != follows:
        why = f"The sticky key changes from {sticky} to {follows}"
    elif old.salt != new.salt:
        why = f"The salt changes from {old.salt} to {new.salt}"
    else:
        return []
    stays = sum(_slots_of(before, name) * _slots_of(after, name) for name in before.spec.versions) / SLOTS**2
    return [f"{why}: every key draws its slot anew, and {percent(1 - stays)} of keys change their version."]


def _slots_of(revision: Revision, version: str) -> int:
    weights = revision.traffic.weights()
    rest = SLOTS - sum(weights.values())
    return rest if version == revision.traffic.champion else weights.get(version, 0)


# === rules and fallbacks ===


def _rules(step: Step, plan: Plan) -> list[str]:
    """Versions that gain or lose the requests of rules."""
    before, after = _ruled(step.before, step.unloadable), _ruled(step.after, step.left_out)
    if step.before is None or step.after is None:
        return [f"Rules send requests to {_list(sorted(after))}."] if after else []
    lost, gained = sorted(before.keys() - after.keys()), sorted(after.keys() - before.keys())
    changed = sorted(name for name in before.keys() & after.keys() if before[name] != after[name])
    leaving = {pair.split("→")[0] for pair in plan["moves"]}
    staying = sorted(leaving & after.keys() - {*gained, *changed, *_owners(step.after)})
    found = [f"Rules send no more requests to {_list(lost)}."] if lost else []
    found += [f"Rules send requests to {_list(gained)}."] if gained else []
    found += [f"The rules that send requests to {_list(changed)} change."] if changed else []
    return found + ([f"Rules still send requests to {_list(staying)}."] if staying else [])


def _ruled(revision: Revision | None, left_out: Collection[str]) -> dict[str, set[str]]:
    """The rules in effect: conditions by version. A rule whose version is blocked or does not load matches nothing."""
    if revision is None:
        return {}
    able = loadable(revision.spec, revision.traffic, left_out)
    found: dict[str, set[str]] = {}
    for rule in revision.spec.traffic.rules:
        if rule.to in able:
            found.setdefault(rule.to, set()).add(repr(rule.when))
    return found


def _fallbacks(step: Step) -> list[str]:
    if step.before is None or step.after is None:
        return []
    old, new = _fallback(step.before, step.unloadable), _fallback(step.after, step.left_out)
    if old == new:
        return []
    return [f"The fallback changes from {_list(old) or 'none'} to {_list(new) or 'none'}."]


def _fallback(revision: Revision, left_out: Collection[str]) -> list[str]:
    able = loadable(revision.spec, revision.traffic, left_out)
    return [name for name in revision.spec.fallback if name in able]


def _owners(revision: Revision) -> set[str]:
    """The versions that have slots."""
    return {name for name in revision.spec.versions if _slots_of(revision, name)}


# === copies ===

_WHY_NOT = {
    "off": "it is switched off",
    "blocked": "it is blocked",
    "left_out": "it does not load",
    "champion": "it is the champion",
}


def _copies(step: Step) -> list[str]:
    """Shadows that gain or lose copies of requests, or get none for another reason than before, and the capture."""
    if step.after is None:
        return []
    old, new = copies_of(step.before, step.unloadable), copies_of(step.after, step.left_out)
    were, are = _states(step.before, step.unloadable), _states(step.after, step.left_out)
    lost = [_no_copies(name, None) for name in old if name not in are]
    never = [
        _no_copies(name, state) for name, state in are.items() if state != "on" and state != were.get(name)
    ]
    gained = [
        f"Shadow {name} gets copies of {percent(share / SLOTS)} of the requests that slots give to the champion."
        for name, share in new.items()
        if share != old.get(name)
    ]
    return [*lost, *never, *gained, *_capture(step)]


def _no_copies(name: str, state: CopyState | None) -> str:
    why = "it is removed" if state is None else _WHY_NOT[state]
    return f"Shadow {name} gets no copies: {why}."


def _states(revision: Revision | None, left_out: Collection[str]) -> dict[str, CopyState]:
    return {} if revision is None else shadow_states(revision.spec, revision.traffic, left_out)


def copies_of(revision: Revision | None, left_out: Collection[str]) -> dict[str, int]:
    """The share of requests that each shadow gets copies of."""
    if revision is None:
        return {}
    states = _states(revision, left_out)
    shares = shadow_shares(revision.spec, revision.traffic)
    return {name: share for name, share in shares.items() if states[name] == "on"}


def _capture(step: Step) -> list[str]:
    old, new = _captured(step.before), _captured(step.after)
    if old == new:
        return []
    return [
        f"{percent(new / SLOTS)} of requests are captured." if new else "No request is captured any more."
    ]


def _captured(revision: Revision | None) -> int:
    if revision is None or capture_state(revision.spec, revision.traffic) != "on":
        return 0
    return revision.spec.declared.capture or 0


# === memory ===


def _needs(step: Step, plan: Plan) -> list[str]:
    answering = {pair.split("→")[1] for pair in plan["moves"]} | {plan["champion"]["to"]}
    answering |= _ruled(step.after, step.left_out).keys()
    return [
        need_words(version, needs, answers=version in answering) for version, needs in plan["needs"].items()
    ]


def need_words(version: str, needs: VersionNeeds, *, answers: bool) -> str:
    """What a version that gains requests, or is loaded, takes; without ``answers`` it gets copies of requests alone."""
    state, memory, files = needs["state"], needs["memory_bytes"], needs["file_bytes"]
    known = "" if not memory else f" ({size(memory)})"
    if state == "warm":
        return f"{version} is warm{known}."
    if state is not None and state != "unloaded" and not answers:
        return f"{version} is {state}: no copy fetches it into memory, and it gets none until it is there{known}."
    if state is not None and state != "unloaded":
        return f"{version} is {state}: it is fetched into memory before it answers{known}."
    if not needs["sessions"]:
        return f"{version} is a constant and needs no session."
    if state is None:
        return f"{version} is loaded; its memory is not known."
    sessions = "1 session" if needs["sessions"] == 1 else f"{needs['sessions']} sessions"
    read = "model files of unknown size" if files is None else f"{size(files)} of model files"
    return f"{version} is loaded first: {sessions}, {read}; its memory is not known before."


def _unloads(step: Step, plan: Plan) -> list[str]:
    if not plan["unload"]:
        return []
    found = [step.facts.memory.get(version) for version in plan["unload"]]
    freed = sum(one.bytes or 0 for one in found if one is not None and one.state in ("warm", "draining"))
    frees = f"which frees {size(freed)}" if freed else "and how much that frees is not known"
    if all(one is not None and one.state == "cold" for one in found):
        frees = "which frees nothing: no memory is taken while a version is cold"
    verb = "is" if len(plan["unload"]) == 1 else "are"
    return [f"{_list(plan['unload'])} {verb} unloaded, {frees}."]


# === blocks, the next rollback, the undo ===


def _blocks(step: Step) -> list[str]:
    if step.before is None or step.after is None:
        return []
    old = step.before.traffic
    return [
        f"{block.version} ({short(block.digest)}) is blocked until unblocked."
        if block.version
        else f"{short(block.digest)} is blocked until unblocked."
        for block in step.after.traffic.blocked
        if old.block_of(block.digest) is None
    ]


def short(digest: str) -> str:
    """``sha256:1c9e00aa72d4...``."""
    return digest if len(digest) <= _DIGEST_SHOWN else f"{digest[:_DIGEST_SHOWN]}..."


def _rollback(step: Step, plan: Plan) -> list[str]:
    if step.before is None or step.after is None:
        return []
    if plan["rollback_to"] is None:
        return ["No rollback is possible then: no version that it may go to can be loaded."]
    return [f"A rollback then goes to {plan['rollback_to']}."]


def _undo(undo: Undo) -> str:
    if undo.impossible is not None:
        return f"No undo: {undo.impossible}."
    return "; ".join([f"Undo: {', '.join(undo.words)}", *undo.differences]) + "."


def _list(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)

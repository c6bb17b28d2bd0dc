"""Laws of live traffic, for any sequence of changes."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.control.domain import copies, merge, traffic
from headgate.control.domain.declared import Declared
from headgate.control.domain.merge import Merge
from headgate.control.domain.shares import EMPTY, Table, moves, owners
from headgate.control.domain.traffic import KnownVersions, LiveTraffic, Stamp
from headgate.errors import Conflict, PolicyInvalid
from support.tools import need_native
from unit.fake_native import SLOTS, set_weights

VERSIONS = ["v1", "v2", "v3", "v4"]
KNOWN = KnownVersions("e", {name: f"sha256:{name * 20}" for name in VERSIONS}, set_weights)
STAMP = Stamp("ann", "2027-01-01T00:00:01Z", "why")
NOW = STAMP.when

weight = st.one_of(st.integers(0, 40), st.integers(0, 7000))
challengers = st.dictionaries(st.sampled_from(["v2", "v3", "v4"]), weight, max_size=3)


def fresh(champion: str = "v1") -> LiveTraffic:
    return LiveTraffic(champion, champion, "2027-01-01T00:00:00Z")


@st.composite
def declared(draw: st.DrawFn) -> Declared:
    champion = draw(st.sampled_from(VERSIONS))
    names = [name for name in VERSIONS if name != champion]
    weights = draw(st.dictionaries(st.sampled_from(names), st.integers(1, 3000), max_size=3))
    return Declared(champion, weights)


@st.composite
def any_traffic(draw: st.DrawFn) -> LiveTraffic:
    """What a few calls lead to."""
    live = fresh()
    for _ in range(draw(st.integers(0, 4))):
        live = draw_call(draw, live)
    return live


def draw_call(draw: st.DrawFn, live: LiveTraffic) -> LiveTraffic:
    what = draw(st.sampled_from(["patch", "crown", "rollback", "abort", "block", "unblock"]))
    version = draw(st.sampled_from(VERSIONS))
    try:
        return call(live, what, version, draw(challengers))
    except (PolicyInvalid, Conflict):
        return live


def call(live: LiveTraffic, what: str, version: str, weights: Mapping[str, int]) -> LiveTraffic:
    digest = KNOWN.digests[version]
    if what == "patch":
        return traffic.patch(live, None, weights, KNOWN, NOW).live
    if what == "crown":
        return traffic.patch(live, version, {}, KNOWN, NOW).live
    if what == "rollback":
        return traffic.rollback(live, KNOWN, STAMP).live
    if what == "abort":
        return traffic.abort(live, STAMP).live
    if what == "block":
        return traffic.block(live, digest, version, KNOWN, STAMP).live
    return traffic.unblock(live, digest, version).live


def table_owners(live: LiveTraffic) -> list[str]:
    return owners(live.champion, live.table)


def check(live: LiveTraffic) -> None:
    """The invariants at the top of ``control/traffic.py``."""
    given_away = live.weights()
    assert sum(given_away.values()) <= SLOTS
    assert live.champion not in given_away
    blocked = {block.digest for block in live.blocked}
    for version in {live.champion, live.last_good, *given_away}:
        assert KNOWN.digests[version] not in blocked
    assert bool(live.table.salt) == bool(live.table.given)
    slots = [s for _, a, b in live.table.given for s in range(min(a, b), max(a, b) + 1)]
    assert len(slots) == len(set(slots))
    assert len(live.blocked) == len(blocked)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_every_sequence_of_calls_keeps_the_invariants(data: st.DataObject) -> None:
    live = fresh()
    attempt = 0
    for _ in range(data.draw(st.integers(1, 8))):
        live = _next(data, live)
        check(live)
        assert live.attempt >= attempt
        attempt = live.attempt


def _next(data: st.DataObject, live: LiveTraffic) -> LiveTraffic:
    what = data.draw(st.sampled_from(["patch", "crown", "rollback", "abort", "block", "unblock"]))
    try:
        return call(live, what, data.draw(st.sampled_from(VERSIONS)), data.draw(challengers))
    except (PolicyInvalid, Conflict):
        return live


@given(st.integers(1, 9000), st.integers(0, 1000))
@settings(deadline=None)
def test_raising_moves_nobody_off_the_challenger_and_only_what_is_needed(low: int, more: int) -> None:
    before = traffic.patch(fresh(), None, {"v2": low}, KNOWN, NOW).live
    after = traffic.patch(before, None, {"v2": low + more}, KNOWN, NOW).live
    moved = moves(table_owners(before), table_owners(after))
    assert moved == ({"v1→v2": more} if more else {})
    assert after.table.salt == before.table.salt


@given(any_traffic(), challengers)
@settings(max_examples=150, deadline=None)
def test_a_change_of_weights_moves_the_minimum(live: LiveTraffic, weights: dict[str, int]) -> None:
    try:
        after = traffic.patch(live, None, weights, KNOWN, NOW).live
    except PolicyInvalid:
        return
    old, new = live.weights(), after.weights()
    shares = {v: (old.get(v, 0), new.get(v, 0)) for v in VERSIONS if v != live.champion}
    gained = sum(max(0, b - a) for a, b in shares.values())
    lost = sum(max(0, a - b) for a, b in shares.values())
    moved = moves(table_owners(live), table_owners(after))
    assert sum(moved.values()) == max(gained, lost)


@given(st.integers(0, 3000), st.lists(st.integers(1, 3000), min_size=1, max_size=4))
@settings(deadline=None)
def test_lowering_back_restores_table_and_salt_exactly(base: int, raises: list[int]) -> None:
    before = traffic.patch(fresh(), None, {"v2": base}, KNOWN, NOW).live
    live, total = before, base
    for step in raises:
        total = min(SLOTS, total + step)
        live = traffic.patch(live, None, {"v2": total}, KNOWN, NOW).live
    live = traffic.patch(live, None, {"v2": base}, KNOWN, NOW).live
    assert live.table == before.table


@given(any_traffic())
@settings(deadline=None)
def test_abort_restores_the_table_before_the_trial(live: LiveTraffic) -> None:
    start = traffic.abort(live, STAMP).live
    assert start.table == EMPTY
    for version in ("v2", "v3"):
        try:
            trial = traffic.patch(start, None, {version: 500}, KNOWN, NOW).live
        except PolicyInvalid:
            continue
        assert trial.attempt == start.attempt + 1
        assert trial.table.salt == f"e/{KNOWN.digests[version][7:19]}/{trial.attempt}"
        back = traffic.abort(trial, STAMP).live
        assert (back.champion, back.table) == (start.champion, start.table)


@given(any_traffic())
@settings(max_examples=150, deadline=None)
def test_rollback_is_a_statement_about_the_state(live: LiveTraffic) -> None:
    once = traffic.rollback(live, KNOWN, STAMP)
    assert once.live.table == EMPTY
    assert once.live.champion == live.last_good
    losers = ({live.champion} | set(live.weights())) - {live.last_good}
    assert {KNOWN.digests[v] for v in losers} <= {block.digest for block in once.live.blocked}
    again = traffic.rollback(once.live, KNOWN, replace(STAMP, when="2027-01-02T00:00:00Z"))
    assert again.already
    assert again.live == once.live
    assert again.message == f"already 100 % {once.live.champion} since {once.live.since}"


class Suspicion:
    """Which versions somebody moved away from because they were bad: what the state machine of ``traffic`` stands for."""

    def __init__(self, live: LiveTraffic) -> None:
        self.live = live
        self.left: set[str] = set()

    def then(self, what: str, version: str, weights: Mapping[str, int]) -> None:
        before, self.live = self.live, call(self.live, what, version, weights)
        away = before.champion != self.live.champion
        if away and (what in {"rollback", "block"} or self.live.champion == before.last_good):
            self.left.add(before.champion)
        if what == "rollback":
            self.left |= set(before.weights()) - {self.live.champion}
        self.left.discard(self.live.champion)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_rollback_never_goes_to_a_version_that_somebody_moved_away_from(data: st.DataObject) -> None:
    history = Suspicion(fresh())
    for _ in range(data.draw(st.integers(1, 12))):
        what = data.draw(st.sampled_from(["patch", "crown", "rollback", "abort", "block", "unblock"]))
        with contextlib.suppress(PolicyInvalid, Conflict):
            history.then(what, data.draw(st.sampled_from(VERSIONS)), data.draw(challengers))
        assert history.live.last_good not in history.left
        assert traffic.rollback(history.live, KNOWN, STAMP).live.champion not in history.left


@given(any_traffic(), st.sampled_from(VERSIONS), challengers)
@settings(max_examples=150, deadline=None)
def test_a_move_can_be_rolled_back_unless_it_is_a_return(
    live: LiveTraffic, version: str, weights: dict[str, int]
) -> None:
    weights = {name: slots for name, slots in weights.items() if name != version}
    try:
        moved = traffic.patch(live, version, weights, KNOWN, NOW).live
    except PolicyInvalid:
        return
    back = traffic.rollback(moved, KNOWN, STAMP).live.champion
    if version == live.champion:
        assert back in {live.champion, live.last_good}
    else:
        assert back == (version if version == live.last_good else live.champion)


def crowned(*versions: str) -> list[LiveTraffic]:
    """The states of an endpoint that begins with the first version and moves to the others."""
    states = [fresh(versions[0])]
    for version in versions[1:]:
        states.append(traffic.patch(states[-1], version, {}, KNOWN, NOW).live)
    return states


def rolled_back(live: LiveTraffic) -> tuple[str, list[str | None]]:
    after = traffic.rollback(live, KNOWN, STAMP).live
    return after.champion, [block.version for block in after.blocked]


@given(any_traffic(), st.sets(st.sampled_from(VERSIONS)), st.lists(st.sampled_from(VERSIONS), max_size=2))
@settings(max_examples=150, deadline=None)
def test_what_cannot_be_loaded_is_never_gone_back_to(
    live: LiveTraffic, damaged: set[str], fallback: list[str]
) -> None:
    known = replace(KNOWN, unloadable=dict.fromkeys(damaged, "it is damaged"), fallback=tuple(fallback))
    target = traffic.rollback_target(live, known)
    try:
        after = traffic.rollback(live, known, STAMP)
    except Conflict as refused:
        assert target is None
        assert {live.champion, live.last_good} <= damaged
        assert "cannot be loaded (it is damaged)" in refused.message
        return
    check(after.live)
    assert after.live.champion == target
    assert target not in damaged
    assert target not in after.blocks
    with contextlib.suppress(Conflict):
        heir = traffic.block(live, KNOWN.digests[live.champion], live.champion, known, STAMP)
        assert heir.already or heir.live.champion not in damaged


def test_a_return_with_a_share_for_the_suspect_rolls_back_to_the_good_version() -> None:
    live = traffic.patch(crowned("v1", "v2")[-1], "v1", {"v2": 1000}, KNOWN, NOW).live
    assert rolled_back(live) == ("v1", ["v2"])


def test_a_restore_rolls_back_to_where_the_revision_would_have() -> None:
    first, _, last = crowned("v1", "v2", "v3")
    trial = traffic.patch(first, None, {"v2": 1000}, KNOWN, NOW).live
    for then, expected in ((first, ("v1", [])), (trial, ("v1", ["v2"]))):
        assert rolled_back(traffic.restore(last, then, KNOWN, NOW).live) == expected
    # A restore of what a rollback left, after its block was lifted, can be rolled back again.
    second = crowned("v1", "v2")[-1]
    undone = traffic.rollback(second, KNOWN, STAMP).live
    undone = traffic.unblock(undone, KNOWN.digests["v2"], "v2").live
    assert rolled_back(traffic.restore(undone, second, KNOWN, NOW).live) == ("v1", ["v2"])


def test_a_document_that_returns_rolls_back_to_the_good_version() -> None:
    live = crowned("v1", "v2")[-1]
    change = merged(live, Declared("v1", {"v2": 500}), Declared("v2"))
    assert rolled_back(change.live) == ("v1", ["v2"])


def test_the_same_bytes_under_another_name_are_a_return_too() -> None:
    known = replace(KNOWN, digests={**KNOWN.digests, "again": KNOWN.digests["v1"]})
    live = traffic.patch(crowned("v1", "v2")[-1], "again", {"v2": 500}, known, NOW).live
    after = traffic.rollback(live, known, STAMP).live
    assert (after.champion, [block.version for block in after.blocked]) == ("again", ["v2"])


@given(any_traffic(), st.sampled_from(VERSIONS))
@settings(deadline=None)
def test_block_is_idempotent_and_final(live: LiveTraffic, version: str) -> None:
    digest = KNOWN.digests[version]
    try:
        once = traffic.block(live, digest, version, KNOWN, STAMP).live
    except Conflict:
        assert live.champion == version
        assert live.last_good == version
        return
    assert version not in set(table_owners(once))
    assert traffic.block(once, digest, version, KNOWN, STAMP).already
    try:
        traffic.patch(once, None, {version: 1}, KNOWN, NOW)
    except PolicyInvalid as error:
        assert "unblock it first" in error.message
    else:
        raise AssertionError("a blocked version was given traffic")
    unblocked = traffic.unblock(once, digest, version).live
    assert unblocked.table == once.table


# === the three-way merge ===


def merged(live: LiveTraffic, new: Declared, base: Declared, *, take: bool = False) -> traffic.Change:
    everything = frozenset(VERSIONS)
    return merge.apply_document(live, Merge(new, base, everything, everything, take), KNOWN, NOW)


@given(any_traffic(), declared())
@settings(max_examples=150, deadline=None)
def test_the_same_document_again_changes_nothing(live: LiveTraffic, document: Declared) -> None:
    change = merged(live, document, document)
    assert (change.live.champion, change.live.table) == (live.champion, live.table)
    assert change.already


@given(declared(), declared())
@settings(max_examples=150, deadline=None)
def test_without_overrides_a_document_is_taken_as_it_is(base: Declared, new: Declared) -> None:
    live = merge.first(base, None, KNOWN, NOW).live
    change = merged(live, new, base)
    assert change.live.champion == new.champion
    assert change.live.weights() == dict(new.weights)
    assert not change.notes


@given(any_traffic(), declared(), declared())
@settings(max_examples=150, deadline=None)
def test_take_traffic_is_what_the_document_declares(live: LiveTraffic, base: Declared, new: Declared) -> None:
    live = replace(live, blocked=())
    change = merged(live, new, base, take=True)
    assert change.live.champion == new.champion
    assert change.live.weights() == dict(new.weights)


@given(any_traffic(), declared(), st.sampled_from(["v2", "v3"]), st.integers(1, 500))
@settings(max_examples=150, deadline=None)
def test_only_what_differs_is_changed(live: LiveTraffic, base: Declared, version: str, slots: int) -> None:
    if live.champion == version or base.champion == version:
        return
    weights = dict(base.weights)
    weights[version] = slots if weights.get(version) != slots else slots + 1
    try:
        change = merged(live, replace(base, weights=weights), base)
    except PolicyInvalid:
        return
    others = {name: n for name, n in live.weights().items() if name != version}
    assert change.live.champion == live.champion
    assert {name: n for name, n in change.live.weights().items() if name != version} == others
    assert change.live.weights()[version] == weights[version]


@given(any_traffic())
@settings(deadline=None)
def test_a_removed_version_gives_its_slots_to_the_champion(live: LiveTraffic) -> None:
    for gone in live.weights():
        rest = frozenset(VERSIONS) - {gone}
        three = Merge(Declared(live.champion), Declared(live.champion), rest, frozenset(VERSIONS))
        after = merge.apply_document(live, three, KNOWN, NOW).live
        lost = moves(table_owners(live), table_owners(after))
        assert lost == {f"{gone}→{live.champion}": live.weights()[gone]}


@given(any_traffic(), st.booleans())
@settings(deadline=None)
def test_a_version_that_neither_document_names_keeps_its_weight(live: LiveTraffic, take: bool) -> None:
    for kept in live.weights():
        rest = frozenset(VERSIONS) - {kept}
        same = Declared(live.champion, {name: n for name, n in live.weights().items() if name != kept})
        change = merge.apply_document(live, Merge(same, same, rest, rest, take), KNOWN, NOW)
        assert change.live.weights() == (dict(same.weights) if take else live.weights())
        assert any(kept in note for note in change.notes)


shares = st.dictionaries(st.sampled_from(VERSIONS), st.sampled_from([100, 1000]), max_size=3)
captures = st.sampled_from([None, 100, 1000])
documents = st.builds(lambda shadows, capture: Declared("v1", {}, None, shadows, capture), shares, captures)


@given(documents, documents, st.data(), st.booleans())
@settings(max_examples=150, deadline=None)
def test_a_switch_stays_where_the_share_does(
    base: Declared, new: Declared, data: st.DataObject, take: bool
) -> None:
    switches = copies.Switches(
        data.draw(st.dictionaries(st.sampled_from(sorted(base.shadows) or ["v1"]), st.booleans()))
        if base.shadows
        else {},
        data.draw(st.sampled_from([None, True, False])) if base.capture else None,
    )
    change = copies.switch(traffic.Change(fresh(), ""), switches, base, "e")
    off = {name for name, is_on in switches.shadows.items() if not is_on}
    assert (set(change.live.shadows_off), change.live.capture_off) == (off, switches.capture is False)
    assert copies.switch(change, switches, base, "e").live == change.live
    after, notes = copies.merged(change.live, new, base, take=take)
    stay = {name for name in off if not take and new.shadows.get(name) == base.shadows[name]}
    assert set(after.shadows_off) == stay
    assert after.capture_off == (switches.capture is False and not take and new.capture == base.capture)
    assert len([note for note in notes if "kept" in note]) == len(stay) + after.capture_off
    again, _ = copies.merged(after, new, new, take=False)
    assert again == after
    assert len(copies.differences(after, new)) == len(stay) + after.capture_off


@given(st.lists(challengers, min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_the_fake_slot_arithmetic_is_that_of_the_data_plane(changes: list[dict[str, int]]) -> None:
    need_native()
    from headgate import _native

    table = Table("s")
    for weights in changes:
        if sum(weights.values()) > SLOTS:
            continue
        asked = json.dumps({"salt": "s", "given": [list(run) for run in table.given]}).encode()
        answer = json.loads(_native.set_weights(asked, json.dumps(weights).encode()))["table"]
        table = set_weights(table, weights)
        assert answer == {"salt": "s", "given": [list(run) for run in table.given]}


def test_the_fake_slot_arithmetic_is_last_in_first_out() -> None:
    table = set_weights(Table("s"), {"v2": 3})
    assert table.given == (("v2", 0, 2),)
    table = set_weights(table, {"v2": 3, "v3": 2})
    assert table.given == (("v2", 0, 2), ("v3", 3, 4))
    table = set_weights(table, {"v2": 1, "v3": 4})
    assert table.given == (("v2", 0, 0), ("v3", 3, 4), ("v3", 2, 1))

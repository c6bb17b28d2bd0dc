"""What the data plane takes: a revision's spec as it is stored, its traffic, and where what has to be loaded lies.

Not here: the data plane itself (``data_plane``). Next: ``tickets``. The keys: ``docs/design/boundary.md``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headgate.control.domain.copies import shadow_shares, trial_share
from headgate.control.domain.revision import Revision
from headgate.control.domain.spec import Spec, answering, loadable
from headgate.drift import BaselineStore
from headgate.errors import HeadgateError, ModelLoadFailed, from_code


@dataclass(frozen=True)
class Paths:
    """Where loaded things lie: ``model`` gives the model file of an artifact's digest after checking that it is whole, ``place``
    without looking; ``state`` is the state folder, ``baselines`` are those in it.
    """

    model: Callable[[str], Path]
    place: Callable[[str], Path]
    state: Path
    baselines: BaselineStore


@dataclass(frozen=True)
class Load:
    """How a state is handed over: ``loaded`` versions are in memory and their files are not looked at, ``omitted`` ones stay out
    for a reason, an ``urgent`` one overtakes a load in progress, a ``fresh`` one is asked for by a document and has to fit its models.
    ``sources`` are the models of a dry run by digest: they are not taken in, and lie where the document says.
    """

    loaded: Collection[str] = ()
    omitted: Mapping[str, str] = field(default_factory=dict)
    urgent: bool = False
    fresh: bool = False
    sources: Mapping[str, Path] = field(default_factory=dict)


def native_apply(revision: Revision, paths: Paths, load: Load) -> bytes:
    """The argument of ``_native.Gateway.apply``; blocks, because the first use of an artifact hashes it.

    Slots of a version that is left out go to the champion for the time being, those of a champion that is left out to its fallback.
    Raises what keeps a version from being loaded, with its name in ``detail``.
    """
    names = loadable(revision.spec, revision.traffic, load.omitted)
    return _state(revision, load.omitted, _load(revision.spec, names, paths, load))


def native_route(revision: Revision, omitted: Mapping[str, str]) -> bytes:
    """The first argument of ``_native.explain_route``: a state whose models are named and not looked at."""
    names = loadable(revision.spec, revision.traffic, omitted)
    versions = revision.spec.versions
    artifacts = {name: versions[name].digest for name in names if versions[name].constant is None}
    left_out = {name: why for name, why in omitted.items() if name in versions}
    return _state(revision, omitted, {"versions": names, "artifacts": artifacts, "omitted": left_out})


def _state(revision: Revision, omitted: Mapping[str, str], load: Mapping[str, Any]) -> bytes:
    spec, live = revision.spec, revision.traffic
    champion = answering(spec, live, omitted)
    if champion is None:
        raise no_answer(revision, omitted)
    table = live.table.without(frozenset({*omitted, champion}))
    copied = trial_share(live)
    traffic = {
        "champion": champion,
        "last_good": live.last_good,
        "table": {"salt": table.salt, "given": [list(run) for run in table.given]},
        "shadows_off": [name for name in live.shadows_off if name not in copied],
        "capture_off": live.capture_off,
    }
    state = {
        "name": revision.endpoint,
        "revision": revision.n,
        "spec": _with_copies(spec.served(), shadow_shares(spec, live) if copied else {}),
        "traffic": traffic,
        "load": load,
    }
    return json.dumps(state).encode()


def _with_copies(served: dict[str, Any], shares: Mapping[str, int]) -> dict[str, Any]:
    """The spec with the challenger of a rollout as one more shadow: the share of each of them, as :func:`shadow_shares` has it."""
    if not shares:
        return served
    written = {shadow["to"]: shadow for shadow in served["traffic"].get("shadow", [])}
    shadows = [{**written.get(name, {"to": name}), "share": share} for name, share in shares.items()]
    return {**served, "traffic": {**served["traffic"], "shadow": shadows}}


def no_answer(revision: Revision, omitted: Mapping[str, str]) -> ModelLoadFailed:
    """The exception for a state in which nobody would take the champion's slots."""
    champion = revision.traffic.champion
    return ModelLoadFailed(
        f"its champion {champion} did not load: {omitted.get(champion, 'it is blocked')}",
        detail={"version": champion},
    )


def _load(spec: Spec, names: list[str], paths: Paths, load: Load) -> dict[str, Any]:
    def artifact(name: str) -> str:
        digest = spec.versions[name].digest
        if digest in load.sources:
            return str(load.sources[digest])
        find = paths.place if name in load.loaded else paths.model
        try:
            return str(find(digest))
        except HeadgateError as error:
            raise from_code(
                error.code, f"{name}: {error.message}", {**error.detail, "version": name}
            ) from error

    # A dry run keeps no baseline either.
    baseline = None if load.sources else paths.baselines.find(spec.baseline)

    return {
        "versions": names,
        "artifacts": {name: artifact(name) for name in names if spec.versions[name].constant is None},
        "omitted": {name: why for name, why in load.omitted.items() if name in spec.versions},
        "baseline": None if baseline is None else str(baseline),
        "urgent": load.urgent,
        "fresh": load.fresh,
    }

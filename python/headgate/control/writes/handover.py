"""What the data plane takes: a revision's spec as it is stored, its traffic, and where what has to be loaded lies.

Not here: the data plane itself (``data_plane``). Next: ``tickets``. The keys: ``docs/design/boundary.md``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headgate.control.domain.revision import Revision
from headgate.control.domain.spec import Spec, loadable
from headgate.drift import baseline_path


@dataclass(frozen=True)
class Paths:
    """Where loaded things lie: ``model`` gives the model file of an artifact's digest after checking that it is whole, ``place``
    without looking; ``state`` is the state folder.
    """

    model: Callable[[str], Path]
    place: Callable[[str], Path]
    state: Path


@dataclass(frozen=True)
class Load:
    """How a state is handed over: ``loaded`` versions are in memory and their files are not looked at, ``omitted`` ones stay out,
    an ``urgent`` one overtakes a load in progress, a ``fresh`` one is asked for by a document and has to fit its models.
    """

    loaded: Collection[str] = ()
    omitted: Collection[str] = ()
    urgent: bool = False
    fresh: bool = False


def native_apply(revision: Revision, paths: Paths, load: Load) -> bytes:
    """The argument of ``_native.Gateway.apply``; blocks, because the first use of an artifact hashes it.

    Slots of a version that is left out go to the champion for the time being.
    """
    spec, live = revision.spec, revision.traffic
    table = live.table.without(frozenset(load.omitted))
    return json.dumps(
        {
            "name": revision.endpoint,
            "revision": revision.n,
            "spec": spec.dumped(),
            "traffic": {
                "champion": live.champion,
                "last_good": live.last_good,
                "table": {"salt": table.salt, "given": [list(run) for run in table.given]},
            },
            "load": _load(spec, loadable(spec, live, load.omitted), paths, load),
        }
    ).encode()


def _load(spec: Spec, names: list[str], paths: Paths, load: Load) -> dict[str, Any]:
    def artifact(name: str) -> str:
        find = paths.place if name in load.loaded else paths.model
        return str(find(spec.versions[name].digest))

    return {
        "versions": names,
        "artifacts": {name: artifact(name) for name in names if spec.versions[name].constant is None},
        "baseline": None if spec.baseline is None else str(baseline_path(paths.state, spec.baseline)),
        "urgent": load.urgent,
        "fresh": load.fresh,
    }

"""What is done with model files before a write has its turn: hashing what may be loaded, and noting its size for the plan.

Hashing a large model takes a while, and an emergency call must not wait for it. Not here: taking models in (``resolve``), loading
(``transition``). Next: ``service``.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from headgate.control.domain.revision import Revision
from headgate.control.writes import sources
from headgate.control.writes.context import Context
from headgate.control.writes.endpoint import EndpointState, present
from headgate.errors import HeadgateError
from headgate.leases import Lease
from headgate.registry import ArtifactStore


class ModelChecks:
    """Looks at the artifacts of one gateway. Belongs to one event loop."""

    def __init__(self, context: Context, artifacts: ArtifactStore) -> None:
        """The context has the threads."""
        self._context = context
        self._artifacts = artifacts

    async def of_revision(self, state: EndpointState, then: Revision, lease: Lease) -> None:
        """Those of an old revision; raises what is wrong with one that it gives traffic to. ``lease`` holds what it refers to."""
        needed, others = sources.artifacts_of(then)

        def check() -> dict[str, int]:
            self._context.paths.baselines.hold(then.spec.baseline, lease)
            for digest in (*needed, *others):
                self._artifacts.hold(digest, lease)
            for digest in needed:
                self._context.paths.model(digest)
            self._hash(others)
            return self._sizes([*needed, *others])

        state.file_bytes = await self._context.long(check)

    async def of_cold_versions(self, state: EndpointState) -> None:
        """Those that are not loaded and may be now."""
        current = present(state)
        cold = {
            v.digest
            for name, v in current.spec.versions.items()
            if v.constant is None and name not in state.loaded
        }

        def check() -> dict[str, int]:
            self._hash(cold)
            return self._sizes(cold)

        if cold:
            state.file_bytes = await self._context.long(check)

    def _hash(self, digests: Iterable[str]) -> None:
        for digest in digests:
            with suppress(HeadgateError):  # whoever loads it is told
                self._context.paths.model(digest)

    def _sizes(self, digests: Iterable[str]) -> dict[str, int]:
        """The bytes of each artifact's files. One that is missing or damaged has no size."""
        sizes: dict[str, int] = {}
        for digest in digests:
            with suppress(HeadgateError):
                sizes[digest] = self._artifacts.manifest(digest).size
        return sizes

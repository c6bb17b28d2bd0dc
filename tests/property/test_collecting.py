"""What is collected: for any history of rows, pins, leases and time, what is referenced or in use stays, and nothing else."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.leases import Lease
from headgate.registry import ArtifactStore, Entry, Manifest, collect
from headgate.store import (
    AuditRecord,
    Commit,
    Proposal,
    RetentionLimits,
    RevisionRecord,
    Store,
    open_store,
    stamp,
)
from unit.control_harness import Clock

NOW = "2027-03-01T03:12:04Z"
DOCUMENT = "sha256:" + hashlib.sha256(b"document").hexdigest()
MODELS = range(5)
AUDIT = AuditRecord(NOW, "ann", "admin", "unpin", "scale", None, "applied", "")

model = st.sampled_from(MODELS)
step = st.one_of(
    st.tuples(st.just("take in"), model),
    st.tuples(st.just("propose"), model),
    st.tuples(st.just("apply"), model),
    st.tuples(st.just("unpin"), model),
    st.tuples(st.just("use"), model),
    st.tuples(st.just("free"), model),
    st.tuples(st.just("a week passes"), st.just(0)),
    st.tuples(st.just("drop"), st.integers(1, 3)),
    st.tuples(st.just("collect"), st.integers(1, 3)),
)


def content(n: int) -> tuple[Manifest, bytes]:
    # Two models share their file, as copies under other names do.
    data = f"model {n // 2}".encode()
    names = ("model.onnx", f"extra-{n}")
    return Manifest({name: Entry(hashlib.sha256(data).hexdigest(), len(data)) for name in names}), data


class History:
    """A state folder, and beside it what has to be in it."""

    def __init__(self, folder: Path, store: Store, clock: Clock) -> None:
        self.folder = folder
        self.store = store
        self.clock = clock
        self.artifacts = ArtifactStore(folder)
        self.tail = 0
        self.revisions: dict[int, tuple[str, str, bool]] = {}
        """Digest, stamp, and whether it was applied."""
        self.pinned: dict[int, str] = {}
        self.leases: dict[int, Lease] = {}

    def take_in(self, n: int) -> str:
        """As ``ingest`` does, without a model that ONNX would read."""
        manifest, data = content(n)
        with tempfile.TemporaryDirectory(dir=self.folder / "staging") as work, Lease() as publishing:
            publishing.hold(self.folder / "artifacts")
            entry = manifest.files["model.onnx"]
            staged = Path(work) / entry.sha256
            staged.write_bytes(data)
            self.artifacts._publish_blob(staged, entry)
            self.artifacts._publish_artifact(manifest, Path(work) / "artifact", publishing)
        return manifest.digest

    def propose(self, n: int, *, applied: bool) -> None:
        """A row, written while what it references is held."""
        with Lease() as lease:
            digest = self.take_in(n)
            self.artifacts.hold(digest, lease)
            self.tail += 1
            body = json.dumps({"format": 99, "spec": {"versions": {f"v{n}": {"digest": digest}}}})
            now = stamp(self.clock())
            record = RevisionRecord(
                "scale", self.tail, None, "apply", "proposed", "ann", now, "", DOCUMENT, None, body
            )
            self.store.propose(Proposal(record, b"document"))
            pins = {f"v{n}": digest} if applied else {}
            self.store.commit(Commit("scale", self.tail, "applied" if applied else "failed", pins=pins))
            self.revisions[self.tail] = (digest, now, applied)
            if applied:
                self.pinned[n] = digest

    def use(self, n: int) -> None:
        if n not in self.leases:
            self.leases[n] = Lease()
            self.artifacts.hold(self.take_in(n), self.leases[n])

    def free(self, n: int) -> None:
        if n in self.leases:
            self.leases.pop(n).__exit__()

    def drop(self, newest: int) -> None:
        """What is older than a month goes, but the newest, and what is in force with the one before it."""
        since = stamp(self.clock() - timedelta(days=30))
        while self.store.drop_revisions("scale", RetentionLimits(newest, since), ()):
            pass
        applied = max((n for n, one in self.revisions.items() if one[2]), default=1)
        self.revisions = {
            n: one
            for n, one in self.revisions.items()
            if n >= min(applied - 1, self.tail - newest + 1) or one[1] >= since
        }
        assert [one.n for one in self.store.revisions("scale", limit=99)] == sorted(
            self.revisions, reverse=True
        )
        assert self.store.check() == self.store.check_in_force() == []

    def collected(self, most: int) -> None:
        while collect(self.folder, self.store.referenced_digests, most).more:
            pass
        used = {content(n)[0].digest for n in self.leases}
        expected = {one[0] for one in self.revisions.values()} | set(self.pinned.values()) | used
        assert set(self.artifacts.digests()) == expected
        for digest in expected:
            self.artifacts.verify(digest)
        files = {
            entry.sha256 for digest in expected for entry in self.artifacts.manifest(digest).files.values()
        }
        assert {path.name for path in (self.folder / "blobs" / "sha256").iterdir()} == files


@contextmanager
def history() -> Iterator[History]:
    with tempfile.TemporaryDirectory() as folder:
        clock = Clock()
        store = open_store(Path(folder), clock=clock)
        made = History(Path(folder), store, clock)
        try:
            yield made
        finally:
            for n in list(made.leases):
                made.free(n)
            store.close()


@settings(max_examples=40, deadline=None)
@given(st.lists(step, max_size=40))
def test_what_is_referenced_or_in_use_stays_and_nothing_else(steps: list[tuple[str, int]]) -> None:
    with history() as made:
        for what, n in [*steps, ("collect", 1)]:
            if what == "take in":
                made.take_in(n)
            elif what in ("propose", "apply"):
                made.propose(n, applied=what == "apply")
            elif what == "unpin":
                made.store.pins.remove("scale", f"v{n}", AUDIT)
                made.pinned.pop(n, None)
            elif what == "use":
                made.use(n)
            elif what == "free":
                made.free(n)
            elif what == "drop":
                made.drop(n)
            elif what == "a week passes":
                made.clock.forward(7 * 86_400)
            else:
                made.collected(n)

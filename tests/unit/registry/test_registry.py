"""Pins and refusals: a name and version stand for one digest for ever."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pytest

from headgate.registry import ArtifactStore, Refused, Registry, collect

from .conftest import Save


class MemoryPins:
    """Pins in memory, as the durable store keeps them."""

    def __init__(self) -> None:
        self.held: dict[tuple[str, str], str] = {}

    def get(self, endpoint: str, version: str) -> str | None:
        return self.held.get((endpoint, version))

    def snapshot(self, _endpoints: Collection[str]) -> MemoryPins:
        return self

    def pin(self, endpoint: str, version: str, digest: str) -> None:
        """As the durable store does when a revision is applied."""
        self.held.setdefault((endpoint, version), digest)


@pytest.fixture
def pins() -> MemoryPins:
    return MemoryPins()


@pytest.fixture
def registry(tmp_path: Path, pins: MemoryPins) -> Registry:
    return Registry(ArtifactStore(tmp_path / "state"), pins)


def test_bytes_are_held_to_once_they_are_pinned(
    registry: Registry, pins: MemoryPins, save: Save, tmp_path: Path
) -> None:
    folder = save(tmp_path / "1")
    digest = registry.admit("digits", "1", folder)
    assert registry.pinned("digits", "1") is None
    other = registry.admit("digits", "1", save(tmp_path / "2", 3.0))
    assert other != digest
    pins.pin("digits", "1", other)
    assert registry.pinned("digits", "1") == other
    assert registry.admit("digits", "1", tmp_path / "2") == other
    with pytest.raises(Refused):
        registry.admit("digits", "1", folder)
    assert registry.admit("other", "1", folder) == digest


def test_other_bytes_are_refused_counted_and_listed(
    registry: Registry, pins: MemoryPins, save: Save, tmp_path: Path
) -> None:
    folder = save(tmp_path / "1", 2.0)
    digest = registry.admit("digits", "1", folder)
    pins.pin("digits", "1", digest)
    save(folder, 3.0)
    for count in (1, 2):
        with pytest.raises(Refused, match="give the new model a new version") as caught:
            registry.admit("digits", "1", folder)
        refused = caught.value
        assert (refused.endpoint, refused.version, refused.pinned) == ("digits", "1", digest)
        assert refused.found == registry.store.fingerprint(folder).digest
        [listed] = registry.refusals()
        assert (listed.pinned, listed.found, listed.count) == (digest, refused.found, count)
    assert registry.store.digests() == [digest]
    registry.store.verify(digest)
    save(folder, 2.0)
    assert registry.admit("digits", "1", folder) == digest
    assert registry.refusals() == []


def test_a_lost_artifact_is_taken_in_again(
    registry: Registry, pins: MemoryPins, save: Save, tmp_path: Path
) -> None:
    folder = save(tmp_path / "1")
    digest = registry.admit("digits", "1", folder)
    pins.pin("digits", "1", digest)
    collect(tmp_path / "state", set, 9)
    assert registry.admit("digits", "1", folder) == digest
    registry.store.verify(digest)
    path = registry.store.model_path(digest)
    path.chmod(0o644)
    path.write_bytes(b"damage")
    assert registry.admit("digits", "1", folder) == digest
    registry.store.verify(digest)

"""The two databases that a store may lie in. A test that asks for a ``place``, a ``store`` or an ``empty_place`` runs on both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from headgate.store import Store
from unit.control_harness import Clock
from unit.store_harness import Databases, Kind, Place


@pytest.fixture(scope="session")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Databases]:
    made = Databases(tmp_path_factory.mktemp("databases"))
    yield made
    made.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture
def empty_place(kind: Kind, tmp_path: Path, databases: Databases) -> Iterator[Place]:
    place = Place(tmp_path, databases.empty(kind, tmp_path))
    yield place
    place.close()


@pytest.fixture
def place(kind: Kind, tmp_path: Path, databases: Databases) -> Iterator[Place]:
    place = Place(tmp_path, databases.migrated(kind, tmp_path))
    yield place
    place.close()


@pytest.fixture
def store(place: Place) -> Store:
    """A store whose time a test moves."""
    return place.open(clock=Clock())

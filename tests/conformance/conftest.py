"""Fixtures of the conformance tests: the gateway that gives back what it gets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support import identities, models
from support.gateway import GatewayProcess
from support.tools import need_native


def place_scales(folder: Path) -> None:
    """The endpoint ``scale``, whose version 1 doubles and whose version 2 trebles."""
    for version in (1, 2):
        models.place(models.scale(version + 1.0), folder, "scale", str(version))


@pytest.fixture(scope="session")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """A gateway with an identity model for every datatype and rank, and ``scale``; it takes bodies of 256 MiB."""
    need_native()
    folder = tmp_path_factory.mktemp("mirror")
    identities.place_all(folder / "models")
    place_scales(folder / "models")
    arguments = ["--models", str(folder / "models"), "--max-body", "256MiB"]
    with GatewayProcess(folder / "state", arguments) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def controlled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """A gateway with ``scale`` whose clients may load and unload."""
    need_native()
    folder = tmp_path_factory.mktemp("controlled")
    place_scales(folder / "models")
    arguments = ["--models", str(folder / "models"), "--allow-repository-control"]
    with GatewayProcess(folder / "state", arguments) as gateway:
        yield gateway

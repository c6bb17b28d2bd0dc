"""Fixtures of all test folders, and the rule that ``.ci/run`` accepts no skipped test."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import hypothesis
import pytest

from headgate.gateway.settings_table import SETTINGS
from support import models
from support.gateway import GatewayProcess
from support.tools import need_digits, need_native

# Set before anything imports ONNX Runtime, which would otherwise report to its maker.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
# What somebody has set for a gateway of their own, such as its state folder, is not the tests'.
for _variable in ("HEADGATE_CONFIG", "HEADGATE_TOKEN", *(setting.variable for setting in SETTINGS)):
    os.environ.pop(_variable, None)

# httpx gives an answer five seconds, which a busy machine may need. Its functions and clients all have this one object as default.
vars(inspect.signature(httpx.get).parameters["timeout"].default).update(
    dict.fromkeys(("connect", "read", "write", "pool"), 60.0)
)

# How long an example takes says nothing here: other tests, builds and gateways run beside this one.
hypothesis.settings.register_profile(
    "beside-others", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("beside-others")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fails the run when a test was skipped although ``HEADGATE_NO_SKIP`` is set."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("HEADGATE_NO_SKIP") and reporter is not None and reporter.stats.get("skipped"):
        reporter.write_line("HEADGATE_NO_SKIP is set and tests were skipped: that fails the run", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture
def digits(tmp_path: Path) -> Iterator[GatewayProcess]:
    """A gateway on the digits example, as ``make serve`` starts it, with a state of its own."""
    need_native()
    folder = need_digits()
    with GatewayProcess(tmp_path / "state", [str(folder / "digits.yaml")]) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def shared_digits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """The same for all tests of a file that change nothing."""
    need_native()
    folder = need_digits()
    with GatewayProcess(
        tmp_path_factory.mktemp("digits") / "state", [str(folder / "digits.yaml")]
    ) as gateway:
        yield gateway


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """One gateway for all conformance tests: identity models of every datatype, ``pair``, ``scale`` and ``digits``."""
    need_native()
    folder = tmp_path_factory.mktemp("zoo")
    models.identities(folder / "models")
    models.place(models.pair(), folder / "models", "pair")
    models.place(models.scale(2.0), folder / "models", "scale", "1")
    models.place(models.scale(3.0), folder / "models", "scale", "2")
    for version in ("1", "2"):
        source = need_digits() / "models" / "digits" / version / "model.onnx"
        models.place(source, folder / "models", "digits", version)
    with GatewayProcess(folder / "state", ["--models", str(folder / "models")]) as gateway:
        yield gateway

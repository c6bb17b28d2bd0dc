"""Rollout plans, defaults and ``rollout:`` of an endpoint as if ``documents/later.py`` did not hold them back."""

from __future__ import annotations

import pytest

from headgate.documents import later
from headgate.documents.defaults import Defaults
from headgate.documents.model import Endpoint


def read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has every parser accept them until the end of the test."""
    monkeypatch.setattr(later, "KINDS", frozenset())
    for model in (Endpoint, Defaults):
        monkeypatch.setattr(model, "not_yet", model.not_yet - {"rollout"})

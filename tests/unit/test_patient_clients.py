"""What ``conftest`` changes of httpx, whose default time-out is too short for a busy machine."""

from __future__ import annotations

import inspect

import httpx
import pytest

PATIENT = httpx.Timeout(60.0)


@pytest.mark.parametrize("ask", [httpx.get, httpx.post, httpx.put, httpx.request, httpx.stream])
def test_functions_wait_for_a_minute(ask: object) -> None:
    assert inspect.signature(ask).parameters["timeout"].default == PATIENT  # type: ignore[arg-type]


def test_clients_wait_for_a_minute() -> None:
    with httpx.Client() as client:
        assert client.timeout == PATIENT
    assert httpx.AsyncClient().timeout == PATIENT

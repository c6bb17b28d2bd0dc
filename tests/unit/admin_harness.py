"""The admin app over httpx without sockets, on the control harness, with one token per role."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from starlette.applications import Starlette

from headgate.admin import Tokens, create_app
from unit.control_harness import Gate, gateway

BASE = "http://127.0.0.1:8003"


@dataclass
class Port:
    """``viewer``, ``operator`` and ``admin`` are clients with tokens of these roles; ``nobody`` has none."""

    gate: Gate
    app: Starlette
    tokens: Tokens
    viewer: httpx.AsyncClient
    operator: httpx.AsyncClient
    admin: httpx.AsyncClient
    nobody: httpx.AsyncClient


@asynccontextmanager
async def port(folder: Path, **settings: Any) -> AsyncIterator[Port]:
    async with gateway(folder, **settings) as gate:
        tokens = Tokens(gate.store)
        app = create_app(gate.control, tokens, hosts=["gw.example.com"])
        clients = {}
        for role in ("viewer", "operator", "admin"):
            _, secret = tokens.create(name=f"the {role}", role=role)
            clients[role] = client(app, {"authorization": f"Bearer {secret}"})
        found = Port(gate, app, tokens, nobody=client(app, {}), **clients)
        try:
            yield found
        finally:
            for one in (found.viewer, found.operator, found.admin, found.nobody):
                await one.aclose()


def client(app: Starlette, headers: dict[str, str]) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=BASE, headers=headers)


def problem(response: httpx.Response) -> tuple[int, str]:
    """Status and code of a refusal, after checking its form."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    body = response.json()
    assert set(body) >= {"type", "title", "status", "code", "detail", "facts"}
    assert body["status"] == response.status_code
    return response.status_code, body["code"]

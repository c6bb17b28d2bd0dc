"""Shadows of a real gateway as an operator meets them: the report, the switch, a block, a restart, and undos over HTTP.

Not here: what is counted (``test_shadows``), what a document keeps of a switch (``unit/control/test_copies``).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter

from headgate.control.reads.shadow_views import ShadowsView
from support import models
from support.gateway import AdminClient, GatewayProcess, checked
from support.tools import need_native

DOCUMENT = """\
apiVersion: headgate/v1
kind: Endpoint
name: scale
versions: {v1: "file:scale/1", v2: "file:scale/2"}
traffic:
  champion: v1
  sticky: header.x-user-id
  weights: {v2: 5%}
  shadow: [{to: v2, share: 100%, timeout: 5m, slices: [header.x-region], keep_examples: 1}]
"""
SECONDS = 300.0
E = "/v1/endpoints/scale"
CHAMPIONS = {"x-user-id": "ann"}
"""A key whose slot is the champion's: only these requests are copied."""


class Operator:
    """One who calls a gateway."""

    def __init__(self, gateway: GatewayProcess, admin: AdminClient) -> None:
        self.gateway = gateway
        self.admin = admin

    def infer(self, count: int) -> None:
        """So many requests to the champion."""
        body = {"inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP32", "data": [1.0, 2.0, 3.0, 4.0]}]}
        for _ in range(count):
            url = f"http://{self.gateway.http}/v2/models/scale/infer"
            answer = checked(httpx.post(url, json=body, headers=CHAMPIONS | {"x-region": "eu"}))
            assert answer["model_version"] == "v1"

    def report(self) -> Any:
        """The shadow's part of the report; the whole has the shape that ``/openapi.json`` says."""
        found = self.admin.get(f"{E}/shadows")
        TypeAdapter(ShadowsView).validate_python(found, extra="forbid")
        [shadow] = found["shadows"]
        return shadow

    def counted(self, drawn: int) -> Any:
        """The report once each of so many copies is counted."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            found = self.report()
            if found["drawn"] == drawn == found["pairs"] + sum(found["dropped"].values()):
                return found
        raise AssertionError(f"not all copies were counted: {found}")

    def switch(self, state: str, **params: str) -> Any:
        """Switches the shadow."""
        headers = {"If-Match": f'"{self.admin.revision("scale")}"'}
        body = {"shadows": {"v2": state}}
        return checked(self.admin.http.patch(f"{E}/traffic", json=body, headers=headers, params=params))


@contextmanager
def operated(gateway: GatewayProcess) -> Iterator[Operator]:
    with gateway, gateway.admin() as admin:
        yield Operator(gateway, admin)


@pytest.fixture
def gateway(tmp_path: Path) -> GatewayProcess:
    need_native()
    for version, factor in (("1", 2.0), ("2", 3.0)):
        models.place(models.scale(factor), tmp_path, "scale", version)
    (tmp_path / "scale.yaml").write_text(DOCUMENT)
    return GatewayProcess(tmp_path / "state", [str(tmp_path / "scale.yaml")])


def test_a_shadow_is_switched_off_and_on_and_a_restart_keeps_the_switch(gateway: GatewayProcess) -> None:
    with operated(gateway) as operator:
        operator.infer(20)
        found = operator.counted(20)
        assert (found["state"], found["disagreement"]["share"]) == ("running", 1.0)
        assert found["slices"][0]["values"][0]["value"] == "eu"
        assert found["examples"]["kept"][0]["shadow"]["Y"]["data"] == [3.0, 6.0, 9.0, 12.0]
        planned = operator.switch("off", dry_run="true")
        assert "Shadow v2 gets no copies: it is switched off." in planned["text"]
        assert operator.report()["state"] == "running"
        assert operator.switch("off")["traffic"]["shadows_off"] == ["v2"]
        operator.infer(5)
        off = operator.report()
        assert (off["state"], off["drawn"]) == ("off", 20), "what was counted stays"
    with operated(gateway) as operator:
        assert operator.admin.traffic("scale")["shadows"] == [{"to": "v2", "share": "100%", "state": "off"}]
        operator.infer(5)
        assert (operator.report()["state"], operator.report().get("drawn", 0)) == ("off", 0)
        operator.switch("on")
        operator.infer(3)
        assert operator.counted(3)["state"] == "running"


def test_a_blocked_version_gets_no_copies(gateway: GatewayProcess) -> None:
    with operated(gateway) as operator:
        operator.infer(1)
        operator.counted(1)
        operator.admin.act("scale", "block", version="v2")
        operator.infer(5)
        blocked = operator.report()
        assert (blocked["state"], blocked["drawn"]) == ("not_loaded", 1)
        assert "blocked" in blocked["reason"]
        operator.admin.act("scale", "unblock", version="v2")
        operator.infer(2)
        assert operator.counted(operator.report()["drawn"])["state"] == "running"


def live(admin: AdminClient) -> dict[str, Any]:
    """What an undo promises to bring back."""
    traffic, endpoint = admin.traffic("scale"), admin.get(E)
    names = ("champion", "weights", "table", "salt", "shadows", "rules")
    blocks = [block["digest"] for block in endpoint["blocks"]]
    return {name: traffic[name] for name in names} | {"blocks": blocks, "document": endpoint["document"]}


def test_undos_over_http_bring_back_what_was(gateway: GatewayProcess) -> None:
    with operated(gateway) as operator:
        admin = operator.admin
        before = live(admin)
        for method, path, body, params in (
            ("POST", f"{E}:rollback", {}, {}),
            ("POST", f"{E}:block", {"version": "v2"}, {}),
            ("PATCH", f"{E}/traffic", {"champion": "v2", "shadows": {"v2": "off"}}, {}),
            ("DELETE", E, None, {"force": "true"}),
        ):
            star = {"If-Match": "*"}
            plan = checked(
                admin.http.request(
                    method, path, json=body, params={**params, "dry_run": "true"}, headers=star
                )
            )
            assert plan["needs"].keys() <= {"v1", "v2"}
            assert all(need["memory_bytes"] for need in plan["needs"].values()), "both are in memory"
            assert live(admin) == before
            checked(admin.http.request(method, path, json=body, params=params, headers=star))
            for call in plan["undo"]:
                headers = {"If-None-Match": "*"} if method == "DELETE" else star
                undone = admin.http.request(
                    call["method"], call["path"], json=call["body"], params=call["query"], headers=headers
                )
                checked(undone)
            assert live(admin) == before, plan["text"]

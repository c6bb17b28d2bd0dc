from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from headgate import observe
from headgate.background import Background
from headgate.control.reads.rollout_figures import RolloutFigures
from headgate.control.writes.notifications import WebhookFigures
from headgate.errors import StorageFailed
from headgate.observe import triton
from headgate.observe.declared import DECLARED

ENDPOINT = {
    "name": "digits",
    "revision": 41,
    "state": "ready",
    "champion": "v1",
    "weights": {},
    "frozen": False,
    "blocked": 2,
    "since": "then",
    "notes": [],
    "alarms": ["one"],
}
REFUSAL = {
    "endpoint": "digits",
    "version": "2",
    "pinned": "a",
    "found": "b",
    "count": 3,
    "message": "other bytes",
}


class Native:
    def exposition(self, open_metrics: bool, compact: bool) -> bytes:
        name = "headgate_requests" if open_metrics else "headgate_requests_total"
        form = "compact" if compact else "full"
        return f"# HELP {name} In {form} form.\n# TYPE {name} counter\nheadgate_requests_total 7.0\n".encode()

    def metrics(self) -> bytes:
        return json.dumps(_merged()).encode()


class Webhooks:
    def figures(self) -> WebhookFigures:
        pair = ("digits", "example.com")
        return WebhookFigures({pair: 3}, {pair: 2}, {pair: 1}, {pair: 4.5}, {(*pair, "full"): 7})


class Verdicts:
    def verdicts(self) -> dict[tuple[str, str, str], int]:
        return {("digits", "v1", "fail"): 2, ("digits", "v1", "pass"): 62}


class Control:
    def __init__(self, *, broken: bool = False) -> None:
        self.broken = broken

    async def list(self) -> list[dict[str, Any]]:
        if self.broken:
            raise StorageFailed("disk gone")
        return [ENDPOINT]

    @property
    def notifications(self) -> Webhooks:
        return Webhooks()

    @property
    def drift_watch(self) -> Verdicts:
        return Verdicts()

    @property
    def background(self) -> Background:
        return Background(lambda: 0.0)

    async def rollout_figures(self) -> RolloutFigures:
        return RolloutFigures({}, {("digits", "rolled_back", "error_rate"): 1}, {})

    def audit_lost(self) -> int:
        return 2

    def removed(self) -> dict[str, int]:
        return {"artifact": 2, "blob": 3, "bytes": 100, "revision": 4}

    def damage(self) -> list[str]:
        return ["the database is damaged"]

    def refusals(self) -> list[dict[str, Any]]:
        return [REFUSAL, REFUSAL]


class Port:
    """The app, called without a socket."""

    def __init__(self, sources: observe.Sources) -> None:
        self._app = observe.create_app(sources)

    def request(self, method: str, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
        async def once() -> httpx.Response:
            transport = httpx.ASGITransport(self._app)
            async with httpx.AsyncClient(transport=transport, base_url="http://observe") as http:
                return await http.request(method, path, headers=headers)

        return asyncio.run(once())

    def get(self, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
        return self.request("GET", path, headers)


def client(*, reasons: list[str] | None = None, broken: bool = False) -> Port:
    return Port(observe.Sources(Native(), Control(broken=broken), lambda: reasons or [], age_seconds=0.0))


def samples(text: str) -> dict[str, float]:
    return {
        sample.name + "".join(f" {k}={v}" for k, v in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_joins_data_plane_control_plane_and_process() -> None:
    answer = client().get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    found = samples(answer.text)
    assert found["headgate_requests_total"] == 7
    assert found["headgate_endpoint_revision endpoint=digits"] == 41
    assert found["headgate_endpoint_blocked_versions endpoint=digits"] == 2
    assert found["headgate_endpoint_alarms endpoint=digits"] == 1
    assert found["headgate_models_refused endpoint=digits version=2"] == 3
    assert found["headgate_ready"] == 1
    ended = "headgate_rollouts_ended_total endpoint=digits phase=rolled_back reason=error_rate"
    assert found[ended] == 1
    assert found["headgate_webhook_oldest_age_seconds endpoint=digits receiver=example.com"] == 4.5
    assert found["headgate_webhook_dropped_total endpoint=digits reason=full receiver=example.com"] == 7
    assert found["headgate_drift_features endpoint=digits verdict=fail version=v1"] == 2
    assert found["process_resident_memory_bytes"] > 0


def test_every_declared_metric_is_on_the_page() -> None:
    text = client().get("/metrics").text
    for declared in DECLARED:
        assert f"# TYPE {declared.name} {declared.kind}" in text


def test_a_scraper_that_wants_openmetrics_gets_it() -> None:
    answer = client().get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert "headgate_requests" in {
        family.name for family in openmetrics.text_string_to_metric_families(answer.text)
    }


def test_the_compact_form_is_asked_for_by_name() -> None:
    assert "In full form." in client().get("/metrics").text
    assert "In full form." in client().get("/metrics?form=full").text
    assert "In compact form." in client().get("/metrics?form=compact").text
    refused = client().get("/metrics?form=short")
    assert (refused.status_code, "full or compact" in refused.text) == (400, True)


def test_the_data_planes_counters_stay_readable_when_the_store_is_not() -> None:
    port = client(broken=True)
    port.get("/metrics")
    found = samples(port.get("/metrics").text)
    assert found["headgate_requests_total"] == 7
    assert found["headgate_control_read_failures_total"] == 2
    assert "headgate_endpoint_revision endpoint=digits" not in found
    assert found["headgate_models_refused endpoint=digits version=2"] == 3


def test_health_is_always_200_and_readiness_says_why_not() -> None:
    port = client(reasons=["endpoint digits: champion v1 is loading"])
    assert port.get("/healthz").status_code == 200
    answer = port.get("/readyz")
    assert answer.status_code == 503
    assert answer.json() == {"ready": False, "reasons": ["endpoint digits: champion v1 is loading"]}
    assert samples(port.get("/metrics").text)["headgate_ready"] == 0
    ready = client().get("/readyz")
    assert (ready.status_code, ready.json()) == (200, {"ready": True, "reasons": []})


def test_the_port_is_read_only() -> None:
    for path in ("/metrics", "/healthz", "/readyz"):
        assert client().request("POST", path).status_code == 405
    assert client().get("/v1/endpoints").status_code == 404


def _merged() -> list[dict[str, Any]]:
    """What the data plane says of one version with three good answers and two bad ones."""
    who = {"endpoint": "digits", "version": "v1"}
    histograms = ["request", "queue", "decode", "run", "reply"]
    codes = [("ok", 3), ("invalid_argument", 1), ("model_not_found", 1)]
    return [
        {"name": "headgate_requests_total", "samples": [[{**who, "code": c}, n] for c, n in codes]},
        {"name": "headgate_rows_total", "samples": [[who, 12]]},
        {"name": "headgate_runs_total", "samples": [[who, 2]]},
        {"name": "headgate_request_success_seconds_total", "samples": [[who, 0.001]]},
        *(
            {"name": f"headgate_{name}_duration_seconds", "samples": [[who, {"sum": 0.0015, "count": 3}]]}
            for name in histograms
        ),
    ]


def test_tritons_names_have_the_same_numbers() -> None:
    families = {family.name: family for family in triton.families(_merged())}
    who = {"model": "digits", "version": "v1"}
    samples = {name: [(s.labels, s.value) for s in family.samples] for name, family in families.items()}
    assert samples["nv_inference_request_success"] == [(who, 3)]
    assert samples["nv_inference_request_failure"] == [({**who, "reason": "OTHER"}, 2)]
    assert samples["nv_inference_count"] == [(who, 12)]
    assert samples["nv_inference_exec_count"] == [(who, 2)]
    assert samples["nv_inference_request_duration_us"] == [(who, 1000)]
    for phase in ("queue", "compute_input", "compute_infer", "compute_output"):
        assert samples[f"nv_inference_{phase}_duration_us"] == [(who, 1500)]

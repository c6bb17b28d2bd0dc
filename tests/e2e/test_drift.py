"""The drift report stays quiet on images like those of the baseline and speaks up on inverted ones."""

from __future__ import annotations

import time
from typing import Any

import httpx
import numpy as np

from support.gateway import AdminClient, GatewayProcess
from support.models import DIGITS

ROWS_PER_REQUEST = 50
REPORT_SECONDS = 30.0


def send(gateway: GatewayProcess, images: Any) -> None:
    """Sends images [rows, 64], each user on the version that the traffic gives them."""
    with httpx.Client(base_url=f"http://{gateway.http}") as client:
        for start in range(0, len(images), ROWS_PER_REQUEST):
            rows = images[start : start + ROWS_PER_REQUEST]
            tensor = {
                "name": "X",
                "shape": list(rows.shape),
                "datatype": "FP32",
                "data": rows.ravel().tolist(),
            }
            answer = client.post(
                "/v2/models/digits/infer", json={"inputs": [tensor]}, headers={"x-user-id": f"user-{start}"}
            )
            assert answer.is_success, answer.text


def report(admin: AdminClient, offered: int) -> list[dict[str, Any]]:
    """The features of the inputs, once the report has seen so many rows. Taps run after the answer, so it may lag."""
    deadline = time.monotonic() + REPORT_SECONDS
    while True:
        features = admin.get("/v1/endpoints/digits/drift?window=1h")["features"]
        inputs = [feature for feature in features if feature["direction"] == "input"]
        first = [feature["offered"] for feature in inputs if feature["column"] == inputs[0]["column"]]
        if sum(first) == offered:
            return inputs
        assert time.monotonic() < deadline, f"{sum(first)} of {offered} rows arrived"


def largest(features: list[dict[str, Any]], measure: str) -> float:
    return max(float(feature[measure]) for feature in features if feature["version"] == "1")


def test_drift_is_reported_after_shifted_traffic_and_not_before(digits: GatewayProcess) -> None:
    images = np.load(DIGITS / "baseline" / "digits.npz")["X"]
    with digits.admin() as admin:
        send(digits, images)
        quiet = report(admin, len(images))
        assert len({feature["column"] for feature in quiet}) == 64
        assert largest(quiet, "psi") < 0.1
        assert not [feature for feature in quiet if feature["verdict"] == "fail"]

        for _ in range(3):
            send(digits, 16 - images)
        loud = report(admin, 4 * len(images))
        assert largest(loud, "psi") > 0.25
        assert [feature for feature in loud if feature["verdict"] == "fail"]
        middle = next(f for f in loud if f["version"] == "1" and f["psi"] == largest(loud, "psi"))
        assert middle["ks"]["lower"] <= middle["ks"]["upper"]
        assert middle["live"]["n"] > 0


def test_requests_at_a_version_by_name_stay_out_of_the_report(digits: GatewayProcess) -> None:
    images = np.load(DIGITS / "baseline" / "digits.npz")["X"][:50]
    body = {"inputs": [{"name": "X", "shape": [50, 64], "datatype": "FP32", "data": images.ravel().tolist()}]}
    url = f"http://{digits.http}/v2/models/digits/versions/1/infer"
    with digits.admin() as admin:
        for _ in range(5):
            assert httpx.post(url, json=body).is_success
        send(digits, images)
        report(admin, len(images))


def test_without_traffic_the_report_is_undecided(digits: GatewayProcess) -> None:
    with digits.admin() as admin:
        features = admin.get("/v1/endpoints/digits/drift")["features"]
    assert {feature["verdict"] for feature in features} <= {"undecided"}

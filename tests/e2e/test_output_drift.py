"""Output drift on the real gateway: answers are counted on the bins of the baseline, once for each user, a restart changes nothing, and a
challenger whose answers are distributed otherwise is rolled back.

Not here: what the gate promises (``docs/design/gates.md``), every output that has no bins (``rust/server``).
"""

from __future__ import annotations

from pathlib import Path

import httpx
import numpy as np
import pytest

from support import models
from support.gateway import GatewayProcess, checked
from support.tools import need_native
from support.waiting import until

DOCUMENT = """\
apiVersion: headgate/v1
kind: Endpoint
name: scale
versions: {v1: "file:scale/1", v2: "file:scale/2"}
traffic:
  champion: v1
  weights: {v2: 50%}
  sticky: header.x-user-id
drift: {baseline: "file:sample.npz"}
"""
PLAN = """\
apiVersion: headgate/v1
kind: RolloutPlan
name: near
steps:
  - {weight: 50%, for: 10m, min_requests: 20}
  - promote
rollback_if: {output_drift.Y: 0.2}
report: [output_drift]
"""
ANY = {"if-match": "*"}
NEW = {"content-type": "application/yaml", "if-none-match": "*"}
ROLLOUT = "/v1/endpoints/scale/rollout"


def started(tmp_path: Path, document: str) -> GatewayProcess:
    need_native()
    models.place(models.scale(2.0), tmp_path, "scale", "1")
    models.place(models.scale(10.0), tmp_path, "scale", "2")
    sample = np.linspace(0.0, 1.0, 400, dtype=np.float32)[:, None].repeat(4, axis=1)
    np.savez(tmp_path / "sample.npz", X=sample, Y=2.0 * sample)
    (tmp_path / "scale.yaml").write_text(document)
    return GatewayProcess(tmp_path / "state", [str(tmp_path / "scale.yaml")])


def infer(client: httpx.Client, user: int) -> str:
    """The version that answers a user, who always asks the same."""
    data = [(user * 37 % 101) / 101] * 4
    inputs = [{"name": "X", "datatype": "FP32", "shape": [1, 4], "data": data}]
    answer = client.post(
        "/v2/models/scale/infer", json={"inputs": inputs}, headers={"x-user-id": f"user-{user}"}
    )
    assert answer.status_code == 200, answer.text
    return answer.headers["x-headgate-version"]


def counted(gateway: GatewayProcess) -> list[dict[str, int]]:
    """The values of each version that are compared, of each element of the output."""
    with gateway.admin() as admin:
        outputs = admin.get("/v1/endpoints/scale/trial")["trial"]["outputs"]
    assert {one["output"] for one in outputs} <= {"Y"}
    return [one["values"] for one in outputs]


def test_a_user_counts_once_also_after_a_restart(tmp_path: Path) -> None:
    with started(tmp_path, DOCUMENT) as gateway:

        def ask(users: range) -> dict[str, int]:
            with httpx.Client(base_url=f"http://{gateway.http}") as client:
                versions = [infer(client, user) for user in users]
            return {version: versions.count(version) for version in ("v1", "v2")}

        of = ask(range(30))
        ask(range(30))
        until(lambda: counted(gateway) == [of] * 4)
        gateway.stop()
        gateway.start()
        assert counted(gateway) == [of] * 4
        # The first thirty are known from before.
        both = ask(range(60))
        until(lambda: counted(gateway) == [both] * 4)


def test_answers_that_are_distributed_otherwise_roll_a_challenger_back(tmp_path: Path) -> None:
    quiet = DOCUMENT.replace("  weights: {v2: 50%}\n", "")
    with started(tmp_path, quiet) as gateway, gateway.admin() as admin:
        unknown = PLAN.replace("name: near", "name: other").replace("output_drift.Y", "output_drift.score")
        for name, text in [("near", PLAN), ("other", unknown)]:
            checked(admin.http.put(f"/v1/plans/{name}", content=text, headers=NEW))
        asked = {"version": "v2", "reason": "test"}
        refused = admin.http.post(ROLLOUT, json={**asked, "plan": "other"}, headers=ANY)
        assert refused.status_code == 422, refused.text
        assert 'the baseline of the endpoint has no output \\"score\\"' in refused.text
        dry = admin.http.post(f"{ROLLOUT}?dry_run=true", json={**asked, "plan": "near"}, headers=ANY)
        assert dry.status_code == 200, dry.text
        checked(admin.http.post(ROLLOUT, json={**asked, "plan": "near"}, headers=ANY))
        users = iter(range(1_000_000))
        with httpx.Client(base_url=f"http://{gateway.http}") as client:

            def is_rolled_back() -> bool:
                for _ in range(20):
                    infer(client, next(users))
                return bool(admin.get(ROLLOUT)["phase"] == "rolled_back")

            until(is_rolled_back, 120.0)
        found = admin.get(ROLLOUT)
    assert found["end"]["reason"] == "output_drift.Y"
    (failed,) = found["gates"]
    assert failed["gate"] == "output_drift.Y"
    assert (failed["verdict"], failed["features"]) == ("fail", 4)
    # 2x and 10x of the same numbers differ in four of five.
    assert failed["e_value"] >= failed["threshold"] == 100.0
    assert 0.0 < failed["interval"][0] <= 0.8 <= failed["interval"][1]
    assert failed["distance"] == pytest.approx(0.8, abs=0.25)


def test_without_a_baseline_a_gate_on_outputs_is_refused(tmp_path: Path) -> None:
    bare = DOCUMENT.replace("  weights: {v2: 50%}\n", "").replace(
        'drift: {baseline: "file:sample.npz"}\n', ""
    )
    with started(tmp_path, bare) as gateway, gateway.admin() as admin:
        checked(admin.http.put("/v1/plans/near", content=PLAN, headers=NEW))
        refused = admin.http.post(
            ROLLOUT, json={"version": "v2", "plan": "near", "reason": "test"}, headers=ANY
        )
        assert refused.status_code == 422, refused.text
        assert "write drift: with a baseline" in refused.text


def test_the_baseline_that_a_gate_counts_on_is_not_taken_away(tmp_path: Path) -> None:
    quiet = DOCUMENT.replace("  weights: {v2: 50%}\n", "")
    bare = quiet.replace('drift: {baseline: "file:sample.npz"}\n', "")
    with started(tmp_path, quiet) as gateway, gateway.admin() as admin:
        asked = {"version": "v2", "plan": "near", "reason": "test"}
        checked(admin.http.put("/v1/plans/near", content=PLAN, headers=NEW))
        checked(admin.http.post(ROLLOUT, json=asked, headers=ANY))

        def put(text: str) -> httpx.Response:
            headers = {"content-type": "application/yaml", **ANY}
            source = {"source": str(tmp_path / "scale.yaml")}
            return admin.http.put("/v1/endpoints/scale", content=text, params=source, headers=headers)

        sample = np.linspace(0.0, 1.0, 300, dtype=np.float32)[:, None].repeat(4, axis=1)
        np.savez(tmp_path / "sample.npz", X=sample, Y=3.0 * sample)
        for text in (bare, quiet):
            refused = put(text)
            assert refused.status_code == 422, refused.text
            assert [fault["path"] for fault in refused.json()["faults"]] == ["drift.baseline"]
        checked(admin.http.post(f"{ROLLOUT}:abort", json={"reason": "test"}, headers=ANY))
        checked(put(bare))

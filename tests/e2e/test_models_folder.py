"""A ``--models`` folder in which some of everything does not load: the rest is served, and each reason is seen everywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from support import models
from support.client import Connection
from support.gateway import GatewayProcess
from support.tools import need_native

BODY = {"inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
DOCUMENT = """\
apiVersion: headgate/v1
kind: Endpoint
name: {name}
versions: {{v1: "file:scale/1"}}
traffic: {{champion: {champion}}}
"""


def broken_tree(folder: Path) -> dict[tuple[str | None, str | None], str]:
    """Models of which two are served; the reason for each of the others, by endpoint and version."""
    models.place(models.scale(2.0), folder, "good", "1")
    models.place(models.scale(3.0), folder, "good", "latest")
    models.place(models.TESTS / "models" / "unknown_operator.onnx", folder, "operator")
    cut = models.place(models.scale(2.0), folder, "cut")
    cut.write_bytes(cut.read_bytes()[:60])
    warm = models.place(models.scale(2.0), folder, "warm").with_name("warmup.json")
    warm.write_text(
        json.dumps({"inputs": [{"name": "X", "shape": [1, 5], "datatype": "FP32", "data": [1] * 5}]})
    )
    models.place(models.scale(2.0), folder, "loose", ".").rename(folder / "loose" / "model.onnx")
    (folder / "empty").mkdir()
    for word in ("old", "new"):
        models.place(models.scale(2.0), folder, "words", word)
    return {
        ("operator", None): "No Op registered",
        ("cut", "1"): "not whole",
        ("warm", None): "warmup.json",
        ("loose", None): "move it to loose/1/model.onnx",
        ("empty", None): "holds no version",
        ("words", None): "none of new, old is a number",
    }


def refusals(gateway: GatewayProcess) -> dict[tuple[str | None, str | None], Any]:
    with gateway.admin() as admin:
        listed = admin.get("/v1/models")["refusals"]
    return {(one["endpoint"], one["version"]): one for one in listed}


def test_what_does_not_load_is_listed_logged_and_counted(tmp_path: Path) -> None:
    need_native()
    reasons = broken_tree(tmp_path / "models")
    with GatewayProcess(tmp_path / "state", ["--models", str(tmp_path / "models")]) as gateway:
        with Connection(gateway.http) as connection:
            assert connection.infer("good", BODY).json["outputs"][0]["data"] == [2, 4, 6, 8]
            assert connection.send("GET", "/v2/models/good/versions/latest/ready").status == 200
            assert connection.infer("words", BODY).status in {404, 503}
        listed = refusals(gateway)
        assert listed.keys() == reasons.keys()
        page = gateway.observe("/metrics").text
        log = [json.loads(line) for line in gateway.log.read_text().splitlines()]
        for (endpoint, version), reason in reasons.items():
            assert reason in listed[endpoint, version]["message"]
            labels = f'endpoint="{endpoint}",version="{version or ""}"'
            assert f"headgate_models_refused{{{labels}}} 1.0" in page
            told = [line for line in log if line["level"] == "warning" and line.get("endpoint") == endpoint]
            assert any(reason in line["message"] for line in told)
        assert any("latest is no number: it is loaded" in line["message"] for line in log)


def test_a_folder_that_cannot_be_reached_is_listed_beside_what_is_served(tmp_path: Path) -> None:
    need_native()
    path = tmp_path / "good.yaml"
    path.write_text(DOCUMENT.format(name="good", champion="v1"))
    models.place(models.scale(2.0), tmp_path, "scale")
    arguments = [str(path), "--models", str(tmp_path / "away")]
    with GatewayProcess(tmp_path / "state", arguments) as gateway:
        (refusal,) = refusals(gateway).values()
        assert "does not exist" in refusal["message"]
        assert refusal["folder"] == str(tmp_path / "away")
        assert 'headgate_models_refused{endpoint="",version=""} 1.0' in gateway.observe("/metrics").text
        assert gateway.observe("/readyz").status_code == 200


def test_every_document_that_is_refused_is_said_and_hides_no_other(tmp_path: Path) -> None:
    need_native()
    files = []
    models.place(models.scale(2.0), tmp_path, "scale")
    for name, champion in (("bad", "v8"), ("good", "v1"), ("worse", "v9")):
        files.append(tmp_path / f"{name}.yaml")
        files[-1].write_text(DOCUMENT.format(name=name, champion=champion))
    together = tmp_path / "together.yaml"
    together.write_text(
        DOCUMENT.format(name="sound", champion="v1") + "---\n" + DOCUMENT.format(name="wrong", champion="v7")
    )
    with GatewayProcess(tmp_path / "state", [*map(str, files), str(together)]) as gateway:
        with Connection(gateway.http) as connection:
            for name in ("good", "sound"):
                assert connection.send("GET", f"/v2/models/{name}/ready").status == 200
        said = gateway.log.read_text()
        for file in (files[0], files[2], together):
            assert f"{file} was not applied" in said

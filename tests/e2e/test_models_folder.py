"""A ``--models`` folder in which some of everything does not load: the rest is served, and each reason is seen everywhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from support import models
from support.client import Connection
from support.gateway import GatewayProcess
from support.tools import need_native
from support.waiting import until

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
        unavailable = index(gateway)
        assert unavailable.keys() == {(endpoint, version or "") for endpoint, version in reasons}
        for (endpoint, version), reason in reasons.items():
            assert reason in unavailable[str(endpoint), version or ""]
        with gateway.admin() as admin, Connection(gateway.http) as connection:
            shown = {one["name"]: one for one in admin.get("/v1/endpoints")["endpoints"]}
            assert shown["good"]["state"] == "ready"
            assert shown["good"]["alarms"] == []
            for (endpoint, _), reason in reasons.items():
                assert shown[str(endpoint)]["state"] == "failed"
                assert reason in shown[str(endpoint)]["alarms"][0]
                one = admin.http.get(f"/v1/endpoints/{endpoint}")
                assert (one.status_code, one.json()["code"]) == (503, "model_not_ready")
                answer = connection.infer(str(endpoint), BODY)
                assert (answer.status, answer.code) == (503, "model_not_ready")
                assert reason in answer.json["error"]
                assert connection.send("GET", f"/v2/models/{endpoint}/ready").status == 503
            assert connection.infer("nobody", BODY).status == 404
            assert admin.http.get("/v1/endpoints/nobody").status_code == 404


def index(gateway: GatewayProcess) -> dict[tuple[str, str], str]:
    """The reason for each that the repository's index lists as unavailable, over REST; gRPC says the same."""
    with Connection(gateway.http) as connection:
        listed = connection.send("POST", "/v2/repository/index", b"{}").json
        ready = connection.send("POST", "/v2/repository/index", b'{"ready": true}').json
    assert ready == [one for one in listed if one["state"] == "READY"]
    names = [(one["name"], one["version"]) for one in listed]
    assert len(names) == len(set(names))
    return {(one["name"], one["version"]): one["reason"] for one in listed if one["state"] == "UNAVAILABLE"}


def test_the_index_follows_what_comes_and_goes(tmp_path: Path) -> None:
    need_native()
    tree = tmp_path / "models"
    models.place(models.scale(2.0), tree, "good", "1")
    models.place(models.TESTS / "models" / "unknown_operator.onnx", tree, "good", "old")
    (tree / "empty").mkdir()
    path = tmp_path / "many.yaml"
    models.place(models.scale(2.0), tmp_path, "scale")
    names = ("a", "b", "c")
    parts = [DOCUMENT.format(name=name, champion="v9" if name == "b" else "v1") for name in names]
    path.write_text(
        "---\n".join(parts) + "---\n" + parts[0].replace("name: a", "name: d").replace("scale", "no")
    )
    with GatewayProcess(tmp_path / "state", [str(path), "--models", str(tree)]) as gateway:
        found = index(gateway)
        assert found.keys() == {("good", "old"), ("empty", ""), ("b", ""), ("d", "")}
        assert "No Op registered" in found["good", "old"]
        assert f"{path} was not applied" in found["b", ""]
        assert "v9" in found["b", ""]
        assert "does not exist" in found["d", ""]
        with gateway.admin() as admin:
            listed = {one["name"]: one for one in admin.get("/v1/endpoints")["endpoints"]}
            assert {name: one["state"] for name, one in listed.items()} == {
                **dict.fromkeys("ac", "ready"),
                **dict.fromkeys(("b", "d", "empty"), "failed"),
                "good": "ready",
            }
            assert any("refused: old: " in alarm for alarm in listed["good"]["alarms"])
            refused = {(one["endpoint"], one["folder"]) for one in admin.get("/v1/models")["refusals"]}
            assert {("b", str(path)), ("d", str(path))} <= refused
            assert 'headgate_models_refused{endpoint="b",version=""} 1.0' in gateway.observe("/metrics").text
            # Mended: by a document of the same endpoint, and by what comes into the folder or goes.
            headers = {"content-type": "application/yaml", "if-none-match": "*"}
            mended = admin.http.put(
                f"/v1/endpoints/b?source={path}",
                content=DOCUMENT.format(name="b", champion="v1"),
                headers=headers,
            )
            assert mended.status_code == 201, mended.text
            shutil.rmtree(tree / "empty")
            shutil.rmtree(tree / "good" / "old")
            until(lambda: index(gateway).keys() == {("d", "")})
            assert "headgate_models_refused" in gateway.observe("/metrics").text


def test_a_version_that_was_left_out_is_in_the_index(tmp_path: Path) -> None:
    need_native()
    path = tmp_path / "good.yaml"
    for version, factor in (("1", 2.0), ("2", 3.0)):
        models.place(models.scale(factor), tmp_path, "scale", version)
    text = DOCUMENT.replace("{{v1: ", '{{v2: "file:scale/2", v1: ')
    path.write_text(text.format(name="good", champion="v1"))
    state = tmp_path / "state"
    with GatewayProcess(state, [str(path)]):
        pass
    whole = (tmp_path / "scale" / "2" / "model.onnx").read_bytes()
    shutil.rmtree(tmp_path / "scale" / "2")
    [damaged] = [one for one in state.glob("artifacts/*/model.onnx") if one.read_bytes() == whole]
    damaged.chmod(0o600)
    damaged.write_bytes(whole[:-1])
    with GatewayProcess(state) as gateway:
        assert "is damaged" in index(gateway)["good", "v2"]


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

"""Every GET route of the Open Inference Protocol, and pipelining."""

from __future__ import annotations

import json

from conformance.cases import GOOD, request
from support.client import Answer, Connection, infer_bytes, pipelined
from support.gateway import GatewayProcess

DIGITS = {
    "inputs": [{"name": "X", "datatype": "FP32", "shape": [-1, 64]}],
    "outputs": [
        {"name": "label", "datatype": "INT64", "shape": [-1]},
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]},
    ],
}


def get(gateway: GatewayProcess, path: str) -> Answer:
    with Connection(gateway.http) as connection:
        return connection.send("GET", path)


def test_the_server_names_itself_and_only_the_extensions_that_it_has(zoo: GatewayProcess) -> None:
    answer = get(zoo, "/v2")
    assert answer.status == 200
    assert answer.json["name"] == "headgate"
    assert answer.json["version"]
    assert answer.json["extensions"] == [
        "binary_tensor_data",
        "classification",
        "model_configuration",
        "model_repository",
        "parameters",
        "statistics",
    ]


def test_the_server_is_live_and_ready(zoo: GatewayProcess) -> None:
    assert get(zoo, "/v2/health/live").status == 200
    assert get(zoo, "/v2/health/ready").status == 200


def test_an_endpoint_describes_itself(zoo: GatewayProcess) -> None:
    answer = get(zoo, "/v2/models/digits")
    assert answer.status == 200
    assert answer.json["name"] == "digits"
    assert sorted(answer.json["versions"]) == ["1", "2"]
    assert answer.json["platform"]
    assert {key: answer.json[key] for key in DIGITS} == DIGITS


def test_a_version_describes_itself(zoo: GatewayProcess) -> None:
    for version in ("1", "2"):
        answer = get(zoo, f"/v2/models/digits/versions/{version}")
        assert answer.status == 200
        assert answer.json["name"] == "digits"
        assert {key: answer.json[key] for key in DIGITS} == DIGITS


def test_an_endpoint_and_its_versions_are_ready(zoo: GatewayProcess) -> None:
    assert get(zoo, "/v2/models/digits/ready").status == 200
    assert get(zoo, "/v2/models/digits/versions/1/ready").status == 200
    assert get(zoo, "/v2/models/digits/versions/2/ready").status == 200


def test_a_version_is_answered_by_itself_when_it_is_addressed(zoo: GatewayProcess) -> None:
    body = json.dumps({"inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]})
    for version, factor in (("1", 2), ("2", 3)):
        with Connection(zoo.http) as connection:
            answer = connection.send("POST", f"/v2/models/scale/versions/{version}/infer", body.encode())
        assert answer.status == 200, answer.body
        assert answer.version == version
        assert answer.json["model_version"] == version
        assert answer.json["outputs"][0]["data"] == [factor * value for value in (1, 2, 3, 4)]


def test_the_highest_version_of_a_folder_is_champion_at_first_sight(zoo: GatewayProcess) -> None:
    body = {"inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
    with Connection(zoo.http) as connection:
        assert connection.infer("scale", body).version == "2"


def test_an_answer_says_who_gave_it(zoo: GatewayProcess) -> None:
    with Connection(zoo.http) as connection:
        answer = connection.infer("pair", request(id="abc"))
    assert answer.json["id"] == "abc"
    assert answer.json["model_name"] == "pair"
    assert answer.json["model_version"] == answer.version == "1"
    assert int(answer.headers["x-headgate-revision"]) >= 1
    assert answer.headers["content-type"] == "application/json"


def test_the_content_type_never_refuses_a_request(zoo: GatewayProcess) -> None:
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "application/octet-stream"):
        with Connection(zoo.http) as connection:
            answer = connection.send("POST", "/v2/models/pair/infer", GOOD, {"Content-Type": content_type})
        assert answer.status == 200, answer.body


def test_only_the_outputs_asked_for_come_back(zoo: GatewayProcess) -> None:
    with Connection(zoo.http) as connection:
        answer = connection.infer("pair", request(outputs=[{"name": "B2"}]))
    assert [output["name"] for output in answer.json["outputs"]] == ["B2"]


def test_pipelined_answers_come_in_the_order_of_their_requests(zoo: GatewayProcess) -> None:
    requests = [
        infer_bytes("pair", json.dumps(request(id=f"number {number}")).encode())
        if number % 3
        else infer_bytes("none", b"{}")
        for number in range(300)
    ]
    answers = pipelined(zoo.http, requests, batch=300)
    for number, answer in enumerate(answers):
        if number % 3:
            assert answer.json["id"] == f"number {number}"
        else:
            assert answer.code == "model_not_found"


def test_the_data_port_takes_http_2_without_tls(zoo: GatewayProcess) -> None:
    import subprocess

    from support.tools import need_program

    program = need_program("nghttp", "nghttp2-client")
    done = subprocess.run(
        [program, "--no-verify-peer", f"http://{zoo.http}/v2"], capture_output=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["name"] == "headgate"

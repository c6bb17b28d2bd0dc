from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from headgate.cli import main
from unit.cli.fake_admin import PLAN, RESULT, TRAFFIC, FakeAdmin, call, ok, problem

DOCUMENT = """apiVersion: headgate/v1
kind: Endpoint
name: digits
versions: {v1: {constant: {score: 0.5}}, v2: {constant: {score: 0.6}}}
traffic: {champion: v1, weights: {v2: 10%}}
"""
PATH = "/v1/endpoints/digits"


IDENTITY = Path(__file__).resolve().parents[2] / "models" / "identity_fp32.onnx"
MODEL = DOCUMENT.replace("{constant: {score: 0.5}}", "'file:models/1'")
"""One that a gateway would take: with a model that lies beside it."""


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "digits.yaml"
    path.write_text(DOCUMENT)
    return path


@pytest.fixture
def valid(document: Path) -> Path:
    (document.parent / "models" / "1").mkdir(parents=True)
    shutil.copy(IDENTITY, document.parent / "models" / "1" / "model.onnx")
    document.write_text(MODEL)
    return document


def test_validate_names_each_endpoint_of_each_file(valid: Path) -> None:
    valid.write_text(MODEL + "---\n" + MODEL.replace("digits", "other"))
    result = CliRunner().invoke(main, ["validate", str(valid)])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [f"{valid}: digits: ok", f"{valid}: other: ok"]


def test_validate_lists_every_fault_of_every_file_on_stderr(valid: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(MODEL.replace("10%", "10").replace("champion: v1", "champion: v9"))
    result = CliRunner().invoke(main, ["validate", str(bad), str(valid)])
    assert result.exit_code == 2
    assert "traffic.weights.v2" in result.stderr
    assert "traffic.champion" in result.stderr
    assert f"{valid}: digits: ok" in result.stdout


def test_validate_as_json_tells_faults_with_path_and_line(valid: Path) -> None:
    valid.write_text(MODEL.replace("10%", "10"))
    result = CliRunner().invoke(main, ["validate", str(valid), "--json"])
    assert result.exit_code == 2
    (report,) = json.loads(result.stdout)["files"]
    assert report["endpoints"] == []
    assert report["faults"][0]["path"] == "traffic.weights.v2"
    assert report["faults"][0]["line"] == 5


def test_validate_refuses_models_and_samples_that_no_gateway_could_read(valid: Path) -> None:
    valid.write_text(MODEL + 'drift: {baseline: "file:sample.npz"}\n')
    model, sample = valid.parent / "models" / "1" / "model.onnx", valid.parent / "sample.npz"

    def faults() -> dict[str, str]:
        result = CliRunner().invoke(main, ["validate", str(valid), "--json"])
        assert result.exit_code == 2, result.output
        (report,) = json.loads(result.stdout)["files"]
        return {fault["path"]: fault["message"] for fault in report["faults"]}

    assert "does not exist" in faults()["drift.baseline"]
    os.mkfifo(sample)
    assert "it is a pipe" in faults()["drift.baseline"]
    sample.unlink()
    sample.write_bytes(b"")
    os.mkfifo(model.with_name("warmup.json"))
    assert "warmup.json" in faults()["versions.v1.model"]
    model.with_name("warmup.json").unlink()
    for wrong, says in ((b"hello", "not an ONNX model"), (None, "holds no model.onnx")):
        model.unlink()
        if wrong is None:
            os.mkfifo(model)
        else:
            model.write_bytes(wrong)
        assert says in faults()["versions.v1.model"]
    shutil.rmtree(model.parent)
    assert "does not exist" in faults()["versions.v1.model"]
    valid.write_text(valid.read_text().replace("sample.npz", "sample.parquet"))
    (valid.parent / "sample.parquet").touch()
    model.parent.mkdir()
    shutil.copy(IDENTITY, model)
    assert "write an .npz, .npy or .csv" in faults()["drift.baseline"]


def test_validate_prints_the_schema_and_wants_either_that_or_files(document: Path) -> None:
    result = CliRunner().invoke(main, ["validate", "--schema"])
    assert json.loads(result.stdout)["$schema"].startswith("https://json-schema.org/")
    assert CliRunner().invoke(main, ["validate"]).exit_code == 2
    assert CliRunner().invoke(main, ["validate", "--schema", str(document)]).exit_code == 2


def test_a_file_that_is_not_there_is_exit_code_2(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["validate", str(tmp_path / "no.yaml")])
    assert result.exit_code == 2
    assert "no.yaml" in result.stderr


def test_plan_is_a_dry_run_and_check_fails_when_anything_would_change(document: Path) -> None:
    fake = FakeAdmin({f"PUT {PATH}": ok(PLAN)})
    result = call(fake, "plan", str(document), "--take-traffic")
    assert result.exit_code == 0, result.output
    assert "kept (--take-traffic to move)" in result.stdout
    assert dict(fake.last.url.params) == {"take_traffic": "true", "dry_run": "true"}
    assert call(fake, "plan", "--check", str(document)).exit_code == 1
    unchanged = FakeAdmin({f"PUT {PATH}": ok({**PLAN, "changes": False})})
    assert call(unchanged, "plan", "--check", str(document)).exit_code == 0


def test_plan_and_a_dry_apply_send_the_revision_they_are_based_on(document: Path) -> None:
    fake = FakeAdmin({f"PUT {PATH}": ok(PLAN)})
    assert call(fake, "plan", str(document), "--if-revision", "7").exit_code == 0
    assert fake.last.headers["if-match"] == '"7"'
    fake = FakeAdmin({f"GET {PATH}/traffic": ok(TRAFFIC, 41), f"PUT {PATH}": ok(PLAN)})
    result = call(fake, "apply", str(document), "--dry-run")
    assert "kept (--take-traffic to move)" in result.stdout
    assert fake.last.headers["if-match"] == '"41"'
    assert fake.last.url.params["dry_run"] == "true"


def test_apply_sends_the_exact_bytes_at_the_revision_it_read(document: Path) -> None:
    fake = FakeAdmin({f"GET {PATH}/traffic": ok(TRAFFIC, 41), f"PUT {PATH}": ok(RESULT, 42)})
    result = call(fake, "apply", str(document), "--reason", "why")
    assert result.exit_code == 0, result.output
    assert fake.last.content == DOCUMENT.encode()
    assert fake.last.headers["content-type"] == "application/yaml"
    assert fake.last.headers["if-match"] == '"41"'
    assert fake.last.url.params["reason"] == "why"


def test_apply_creates_what_does_not_exist(document: Path) -> None:
    missing = problem(404, "model_not_found", "no endpoint is named 'digits'")
    fake = FakeAdmin({f"GET {PATH}/traffic": missing, f"PUT {PATH}": ok(RESULT, 1)})
    assert call(fake, "apply", str(document)).exit_code == 0
    assert fake.last.headers["if-none-match"] == "*"
    assert "if-match" not in fake.last.headers


def test_apply_at_a_named_revision_reads_nothing_first(document: Path) -> None:
    fake = FakeAdmin({f"PUT {PATH}": ok(RESULT, 42)})
    assert call(fake, "apply", str(document), "--if-revision", "7").exit_code == 0
    assert fake.last.headers["if-match"] == '"7"'


def test_apply_sends_nothing_when_any_file_has_a_fault(document: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("name: x\n")
    fake = FakeAdmin()
    result = call(fake, "apply", str(document), str(bad))
    assert result.exit_code == 2
    assert fake.requests == []


def test_faults_that_the_gateway_found_are_listed(document: Path) -> None:
    faults = [{"path": "versions.v1", "message": "pinned to other bytes"}]
    refused = problem(422, "policy_invalid", "1 fault", faults=faults)
    fake = FakeAdmin({f"GET {PATH}/traffic": ok(TRAFFIC, 41), f"PUT {PATH}": refused})
    result = call(fake, "apply", str(document))
    assert result.exit_code == 2
    assert "versions.v1: pinned to other bytes" in result.stderr


def test_apply_as_json_gives_one_object_for_all_files(document: Path) -> None:
    fake = FakeAdmin({f"GET {PATH}/traffic": ok(TRAFFIC, 41), f"PUT {PATH}": ok(RESULT, 42)})
    result = call(fake, "apply", str(document), "--json")
    assert json.loads(result.stdout) == {"documents": [], "results": [RESULT]}


def test_the_gateway_learns_the_path_of_a_document_with_files_only(document: Path) -> None:
    fake = FakeAdmin({f"PUT {PATH}": ok(PLAN)})
    assert call(fake, "plan", str(document)).exit_code == 0
    assert "source" not in fake.last.url.params
    document.write_text(DOCUMENT.replace("{constant: {score: 0.5}}", "'file:models/1'"))
    assert call(fake, "plan", str(document)).exit_code == 0
    assert fake.last.url.params["source"] == str(document)
    assert call(fake, "plan", "--remote", str(document)).exit_code == 0
    assert "source" not in fake.last.url.params


def test_documents_come_from_stdin_and_from_an_option_as_well(document: Path) -> None:
    missing = problem(404, "model_not_found", "no endpoint is named 'digits'")
    answers = {f"GET {PATH}/traffic": missing, f"PUT {PATH}": ok(RESULT, 1)}
    for arguments in (["-"], ["-f", "-"], ["--file", str(document)]):
        fake = FakeAdmin(answers)
        result = call(fake, "apply", *arguments, stdin=DOCUMENT.encode())
        assert result.exit_code == 0, result.output
        assert fake.last.content == DOCUMENT.encode()
        assert "source" not in fake.last.url.params
    assert call(FakeAdmin(), "apply").exit_code == 2
    assert call(FakeAdmin(), "apply", "-", stdin=b"name: x\n").exit_code == 2
    checked = call(FakeAdmin(), "validate", "--remote", "-", stdin=MODEL.encode())
    assert (checked.exit_code, checked.stdout) == (0, "-: digits: ok\n")


def test_what_was_applied_before_a_refusal_is_told(document: Path) -> None:
    document.write_text(DOCUMENT + "---\n" + DOCUMENT.replace("digits", "other"))
    missing = problem(404, "model_not_found", "no")
    answers = {
        f"GET {PATH}/traffic": missing,
        f"PUT {PATH}": ok(RESULT, 1),
        "GET /v1/endpoints/other/traffic": missing,
        "PUT /v1/endpoints/other": problem(409, "conflict", "other is frozen"),
    }
    result = call(FakeAdmin(answers), "apply", str(document), "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (5, {"documents": [], "results": [RESULT]})
    assert "digits" in call(FakeAdmin(answers), "apply", str(document)).stdout


def test_validate_names_every_model_and_baseline_that_is_not_there(valid: Path, tmp_path: Path) -> None:
    (tmp_path / "models" / "1").rename(tmp_path / "models" / "2")
    other = MODEL.replace("digits", "other").replace("models/1", "models/2")
    valid.write_text(MODEL + "drift: {baseline: 'file:base.npz'}\n---\n" + other)
    result = CliRunner().invoke(main, ["validate", str(valid)])
    assert (result.exit_code, result.stdout) == (2, f"{valid}: other: ok\n")
    assert "versions.v1" in result.stderr
    assert "drift.baseline" in result.stderr
    assert CliRunner().invoke(main, ["validate", "--remote", str(valid)]).exit_code == 0
    shutil.copytree(tmp_path / "models" / "2", tmp_path / "models" / "1")
    (tmp_path / "base.npz").touch()
    assert CliRunner().invoke(main, ["validate", str(valid)]).exit_code == 0


@pytest.mark.parametrize("options", [[], ["--remote"]])
def test_validate_refuses_constants_alone_as_a_gateway_does(document: Path, options: list[str]) -> None:
    result = CliRunner().invoke(main, ["validate", *options, str(document)])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "versions: digits has constants alone" in result.stderr

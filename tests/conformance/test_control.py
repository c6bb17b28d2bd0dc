"""What Triton's clients ask besides inference, over both transports: metadata, statistics, the repository, settings.

The client's side is ``clients/tritonclient_control``. One table says the outcome for both transports, since the gateway
has one table of errors.
"""

from __future__ import annotations

from typing import Any

import pytest

from conformance import ways
from support import environments
from support.gateway import GatewayProcess

STATUS = {
    "not_found": {"http": "404", "grpc": "StatusCode.NOT_FOUND"},
    "unavailable": {"http": "503", "grpc": "StatusCode.UNAVAILABLE"},
    "unimplemented": {"http": "501", "grpc": "StatusCode.UNIMPLEMENTED"},
    "denied": {"http": "403", "grpc": "StatusCode.PERMISSION_DENIED"},
}


def look(gateway: GatewayProcess, transport: str) -> dict[str, Any]:
    arguments = ["--http", gateway.http, "--grpc", gateway.grpc, "--task", transport]
    seen = environments.run("triton", "conformance.clients.tritonclient_control", arguments)
    return {"transport": transport, **seen}


@pytest.fixture(scope="module")
def both(controlled: GatewayProcess) -> dict[str, dict[str, Any]]:
    return {transport: look(controlled, transport) for transport in ("grpc", "http")}


@pytest.fixture
def seen(both: dict[str, dict[str, Any]], request: pytest.FixtureRequest) -> dict[str, Any]:
    return both[request.param]


over_both = pytest.mark.parametrize("seen", ["grpc", "http"], indirect=True)


def assert_failed(seen: dict[str, Any], answer: Any, status: str, mentions: str) -> None:
    assert isinstance(answer, list), answer
    assert answer[0] == STATUS[status][seen["transport"]]
    assert mentions in answer[1]


@over_both
def test_metadata_of_the_server_and_a_model(seen: dict[str, Any]) -> None:
    described = seen["described"]
    assert described["server"]["name"] == "headgate"
    assert "binary_tensor_data" in described["server"]["extensions"]
    model = described["model"]
    assert (model["name"], model["versions"], model["platform"]) == ("scale", ["1", "2"], "onnxruntime_onnx")
    for tensor, name in ((model["inputs"], "X"), (model["outputs"], "Y")):
        assert [(one["name"], one["datatype"]) for one in tensor] == [(name, "FP32")]
        assert [int(size) for size in tensor[0]["shape"]] == [-1, 4]
    assert_failed(seen, described["unknown_model"], "not_found", "none")


@over_both
def test_configuration_names_what_load_generators_read(seen: dict[str, Any]) -> None:
    described = seen["described"]
    config = described["config"]["config"] if seen["transport"] == "grpc" else described["config"]
    assert (config["name"], config["platform"], config["backend"]) == (
        "scale",
        "onnxruntime_onnx",
        "onnxruntime",
    )
    assert int(config.get("max_batch_size", 0)) == 0
    for tensors, name in ((config["input"], "X"), (config["output"], "Y")):
        assert [(one["name"], one["data_type"]) for one in tensors] == [(name, "TYPE_FP32")]
        assert [int(size) for size in tensors[0]["dims"]] == [-1, 4]
    assert config["instance_group"][0]["kind"] == "KIND_CPU"
    assert_failed(seen, described["unknown_config"], "not_found", "none")


@over_both
def test_statistics_count_requests_rows_and_time(seen: dict[str, Any]) -> None:
    counted = seen["counted"]
    assert counted["answers"] == [[[2.0] * 4] * rows for rows in (1, 3)]
    (before,), (after,) = counted["before"]["model_stats"], counted["after"]["model_stats"]
    assert (after["name"], after["version"]) == ("scale", "1")

    def grown(*path: str) -> int:
        return number(after, *path) - number(before, *path)

    assert grown("inference_count") == 4
    assert grown("execution_count") == 2
    assert number(after, "last_inference") > 1_700_000_000_000
    for phase in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        assert grown("inference_stats", phase, "count") == 2, phase
        assert phase == "queue" or grown("inference_stats", phase, "ns") > 0, phase
    assert grown("inference_stats", "fail", "count") == 0
    listed = [(one["name"], one["version"]) for one in counted["all"]["model_stats"]]
    assert listed == [("scale", "1"), ("scale", "2")]
    assert_failed(seen, counted["unknown"], "not_found", "none")


@over_both
def test_an_output_that_does_not_exist_is_refused_before_the_run(seen: dict[str, Any]) -> None:
    counted = seen["counted"]
    (before,), (after,) = counted["after"]["model_stats"], counted["after_refused"]["model_stats"]
    assert "none" in counted["refused"][1]
    assert number(after, "inference_stats", "fail", "count") == 1 + number(
        before, "inference_stats", "fail", "count"
    )
    assert number(after, "execution_count") == number(before, "execution_count")


def number(statistics: dict[str, Any], *path: str) -> int:
    """A number of the statistics; protobuf's JSON leaves zeros out and writes large ones as strings."""
    found: Any = statistics
    for name in path:
        found = found.get(name, {})
    return int(found or 0)


@over_both
def test_a_model_is_unloaded_and_loaded_again(seen: dict[str, Any]) -> None:
    repository = seen["repository"]
    ready = [("scale", "1", "READY", ""), ("scale", "2", "READY", "")]
    gone = [("scale", "1", "UNAVAILABLE", "unloaded"), ("scale", "2", "UNAVAILABLE", "unloaded")]
    assert [indexed(seen, repository[when]) for when in ("index", "index_unloaded", "index_loaded")] == [
        ready,
        gone,
        ready,
    ]
    assert (repository["unload"], repository["load"]) == (None, None)
    assert (repository["ready_unloaded"], repository["ready_loaded"]) == (False, True)
    # Who gets traffic is not the clients' business, and one model that is not there does not stop the others.
    assert repository["server_unloaded"] is True
    assert_failed(seen, repository["infer_unloaded"], "unavailable", "scale")
    assert repository["infer_loaded"] == [[2.0] * 4]


@over_both
def test_what_is_not_there_cannot_be_loaded_and_what_is_cannot_be_changed(seen: dict[str, Any]) -> None:
    repository = seen["repository"]
    assert_failed(seen, repository["load_unknown"], "not_found", "none")
    assert_failed(seen, repository["unload_unknown"], "not_found", "none")
    assert_failed(seen, repository["load_config"], "unimplemented", "config")


def indexed(seen: dict[str, Any], index: Any) -> list[tuple[str, str, str, str]]:
    models = index["models"] if seen["transport"] == "grpc" else index
    found = [(one["name"], one["version"], one["state"], one.get("reason", "")) for one in models]
    return sorted(found)


@over_both
def test_trace_and_log_settings_are_told_and_not_changed(seen: dict[str, Any]) -> None:
    settings = seen["settings"]
    for name in ("trace", "trace_of_model"):
        told = settings[name]
        level = (
            told["settings"]["trace_level"]["value"] if seen["transport"] == "grpc" else told["trace_level"]
        )
        assert level == ["OFF"]
    log = settings["log"]
    info = log["settings"]["log_info"]["bool_param"] if seen["transport"] == "grpc" else log["log_info"]
    assert info is True
    assert_failed(seen, settings["trace_changed"], "unimplemented", "trace_level")
    assert_failed(seen, settings["log_changed"], "unimplemented", "log_verbose_level")


@over_both
def test_trace_settings_of_an_unknown_model_are_an_error(seen: dict[str, Any]) -> None:
    assert_failed(seen, seen["settings"]["trace_of_unknown"], "not_found", "none")


@over_both
@pytest.mark.parametrize("kind", ["system", "cuda"])
def test_there_is_no_shared_memory(seen: dict[str, Any], kind: str) -> None:
    settings = seen["settings"]
    assert not settings[f"{kind}_memory"]
    assert_failed(seen, settings[f"{kind}_registered"], "unimplemented", "shared memory")
    assert settings[f"{kind}_unregistered"] is None


@pytest.mark.parametrize("transport", ["grpc", "http"])
def test_loading_and_unloading_are_off_unless_allowed(mirror: GatewayProcess, transport: str) -> None:
    seen = look(mirror, transport)
    repository = seen["repository"]
    for attempt in ("load", "unload", "load_unknown", "unload_unknown"):
        assert_failed(seen, repository[attempt], "denied", "--allow-repository-control")
    assert repository["ready_unloaded"] is True


def test_health_follows_a_model_that_is_unloaded_and_loaded(controlled: GatewayProcess) -> None:
    assert ways.task("reflection", controlled, "scale") == ["SERVING", "SERVICE_UNKNOWN", "SERVING"]

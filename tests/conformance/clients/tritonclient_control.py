"""What Triton's clients ask besides inference: metadata, configuration, statistics, the repository, settings.

Runs in the environment ``triton``. The task names the transport, ``http`` or ``grpc``; what is printed is what the client
returned, a failure as ``[status, message]``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from conformance.clients import exchange

MODEL = "scale"


def connect(told: Any) -> tuple[Any, Any, dict[str, Any]]:
    """The module of a transport, its client, and what makes the client return dictionaries."""
    if told.task == "http":
        return tritonclient.http, tritonclient.http.InferenceServerClient(told.http), {}
    return tritonclient.grpc, tritonclient.grpc.InferenceServerClient(told.grpc), {"as_json": True}


def attempt(call: Callable[[], Any]) -> Any:
    """What a call returns, or how it failed."""
    try:
        return call()
    except InferenceServerException as error:
        return [error.status(), error.message()]


def infer(module: Any, client: Any, version: str, rows: int, output: str = "Y") -> Any:
    x = module.InferInput("X", [rows, 4], "FP32")
    x.set_data_from_numpy(np.ones((rows, 4), np.float32))
    wanted = [module.InferRequestedOutput(output)]
    return client.infer(MODEL, [x], model_version=version, outputs=wanted).as_numpy(output).tolist()


def described(client: Any, form: dict[str, Any]) -> dict[str, Any]:
    return {
        "server": client.get_server_metadata(**form),
        "model": client.get_model_metadata(MODEL, **form),
        "unknown_model": attempt(lambda: client.get_model_metadata("none", **form)),
        "config": attempt(lambda: client.get_model_config(MODEL, **form)),
        "unknown_config": attempt(lambda: client.get_model_config("none", **form)),
    }


def counted(module: Any, client: Any, form: dict[str, Any]) -> dict[str, Any]:
    before = attempt(lambda: client.get_inference_statistics(MODEL, "1", **form))
    answers = [infer(module, client, "1", rows) for rows in (1, 3)]
    after = attempt(lambda: client.get_inference_statistics(MODEL, "1", **form))
    return {
        "answers": answers,
        "before": before,
        "after": after,
        "refused": attempt(lambda: infer(module, client, "1", 1, output="none")),
        "after_refused": attempt(lambda: client.get_inference_statistics(MODEL, "1", **form)),
        "all": attempt(lambda: client.get_inference_statistics(**form)),
        "unknown": attempt(lambda: client.get_inference_statistics("none", **form)),
    }


def repository(module: Any, client: Any, form: dict[str, Any]) -> dict[str, Any]:
    seen = {"index": attempt(lambda: client.get_model_repository_index(**form))}
    seen["unload"] = attempt(lambda: client.unload_model(MODEL))
    seen["ready_unloaded"] = client.is_model_ready(MODEL)
    seen["index_unloaded"] = attempt(lambda: client.get_model_repository_index(**form))
    seen["infer_unloaded"] = attempt(lambda: infer(module, client, "", 1))
    seen["server_unloaded"] = client.is_server_ready()
    seen["load"] = attempt(lambda: client.load_model(MODEL))
    seen["ready_loaded"] = client.is_model_ready(MODEL)
    seen["infer_loaded"] = attempt(lambda: infer(module, client, "1", 1))
    seen["index_loaded"] = attempt(lambda: client.get_model_repository_index(**form))
    seen["load_unknown"] = attempt(lambda: client.load_model("none"))
    seen["unload_unknown"] = attempt(lambda: client.unload_model("none"))
    seen["load_config"] = attempt(lambda: client.load_model(MODEL, config="{}"))
    return seen


def settings(client: Any, form: dict[str, Any]) -> dict[str, Any]:
    return {
        "trace": attempt(lambda: client.get_trace_settings(**form)),
        "trace_of_model": attempt(lambda: client.get_trace_settings(MODEL, **form)),
        "trace_of_unknown": attempt(lambda: client.get_trace_settings("none", **form)),
        "trace_changed": attempt(
            lambda: client.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]})
        ),
        "log": attempt(lambda: client.get_log_settings(**form)),
        "log_changed": attempt(lambda: client.update_log_settings({"log_verbose_level": 1})),
        "system_memory": attempt(lambda: client.get_system_shared_memory_status(**form)),
        "system_registered": attempt(lambda: client.register_system_shared_memory("r", "/r", 64)),
        "system_unregistered": attempt(client.unregister_system_shared_memory),
        "cuda_memory": attempt(lambda: client.get_cuda_shared_memory_status(**form)),
        "cuda_registered": attempt(lambda: client.register_cuda_shared_memory("r", b"aGFuZGxl", 0, 64)),
        "cuda_unregistered": attempt(client.unregister_cuda_shared_memory),
    }


def main() -> None:
    told = exchange.arguments()
    module, client, form = connect(told)
    seen = {
        "described": described(client, form),
        "counted": counted(module, client, form),
        "repository": repository(module, client, form),
        "settings": settings(client, form),
    }
    print(json.dumps(seen))
    client.close()


if __name__ == "__main__":
    main()

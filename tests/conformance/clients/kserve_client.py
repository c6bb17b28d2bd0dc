"""KServe's client: REST with elements in JSON and as binary data, gRPC with raw and with typed contents, and health.

Runs in the environment ``kserve``. That package's own ``__init__`` imports a model server and a Kubernetes client; it is
passed over, the client modules themselves are as installed.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import sys
from collections.abc import Callable, Coroutine
from types import ModuleType
from typing import Any

from conformance.clients import exchange
from conformance.clients.arrays import to_array, to_tensor
from conformance.clients.exchange import Case, Tensor

SECONDS = 120.0


def without_init(name: str) -> None:
    """Makes a package importable without running its ``__init__``."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    module = ModuleType(name)
    module.__path__ = list(spec.submodule_search_locations or [])
    sys.modules[name] = module


without_init("kserve")
kserve: Any = importlib.import_module("kserve.inference_client")
kinds: Any = importlib.import_module("kserve.protocol.infer_type")
logging.getLogger("kserve").setLevel(logging.CRITICAL)


def elements(tensor: Tensor) -> list[Any]:
    """A tensor as the list that typed contents hold."""
    return [item.item() if hasattr(item, "item") else item for item in to_array(tensor).reshape(-1)]


def asked(case: Case, raw: bool, typed: bool = False) -> Any:
    """A request; ``raw`` sends and asks for binary data, ``typed`` sends lists of elements over gRPC."""
    inputs = []
    for tensor in case.inputs:
        shape = list(tensor.shape)
        if typed:
            inputs.append(kinds.InferInput(tensor.name, shape, tensor.datatype, data=elements(tensor)))
        else:
            inputs.append(kinds.InferInput(tensor.name, shape, tensor.datatype))
            inputs[-1].set_data_from_numpy(to_array(tensor), binary_data=raw)
    outputs = [kinds.RequestedOutput(name, parameters={"binary_data": raw}) for name in case.outputs]
    return kinds.InferRequest(case.model, inputs, request_id=case.id, request_outputs=outputs)


def answered(case: Case, response: Any) -> list[Tensor]:
    """An answer's outputs; an answer to something else is an error."""
    assert (response.id, response.model_name) == (case.id, case.model), response
    return [to_tensor(output.name, output.datatype, output.as_numpy()) for output in response.outputs]


async def health(rest: Any, grpc: Any, base: str) -> dict[str, Any]:
    """What both clients say of the server and of models."""
    return {
        "rest": {
            "live": await rest.is_server_live(base),
            "ready": await rest.is_server_ready(base),
            "model": await rest.is_model_ready(base, "identity-fp32-r1"),
            "unknown": await rest.is_model_ready(base, "none"),
        },
        "grpc": {
            "live": await grpc.is_server_live(),
            "ready": await grpc.is_server_ready(),
            "model": await grpc.is_model_ready("identity-fp32-r1"),
            "unknown": await grpc.is_model_ready("none"),
        },
    }


def main() -> None:
    told = exchange.arguments()
    base = f"http://{told.http}"
    with asyncio.Runner() as loop:

        async def connect() -> tuple[Any, Any]:
            config = kserve.RESTConfig(protocol="v2", timeout=SECONDS)
            return kserve.InferenceRESTClient(config), kserve.InferenceGRPCClient(told.grpc, timeout=SECONDS)

        rest, grpc = loop.run(connect())
        if told.task == "health":
            print(json.dumps(loop.run(health(rest, grpc, base))))
            return

        def mode(ask: Callable[[Case], Coroutine[Any, Any, Any]]) -> exchange.Mode:
            return exchange.one_by_one(lambda case: answered(case, loop.run(ask(case))))

        modes = {
            "rest_json": mode(lambda case: rest.infer(base, asked(case, raw=False), model_name=case.model)),
            "rest_binary": mode(lambda case: rest.infer(base, asked(case, raw=True), model_name=case.model)),
            "grpc_raw": mode(lambda case: grpc.infer(asked(case, raw=True))),
            "grpc_typed": mode(lambda case: grpc.infer(asked(case, raw=True, typed=True))),
        }
        exchange.answer(told.folder, modes)
        loop.run(rest.close())
        loop.run(grpc.close())


if __name__ == "__main__":
    main()

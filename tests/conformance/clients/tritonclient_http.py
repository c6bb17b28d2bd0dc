"""Triton's HTTP client: elements in JSON, binary data, several requests at once, and compressed bodies.

Runs in the environment ``triton``; ``exchange`` says how it is told what to ask. Its asyncio twin is in
``tritonclient_http_aio``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tritonclient.http as triton

from conformance.clients import exchange
from conformance.clients.arrays import to_array, to_tensor
from conformance.clients.exchange import Case, Results, Tensor


def asked(case: Case, binary: bool) -> dict[str, Any]:
    """What ``infer`` takes for a case; the same for the asyncio client."""
    inputs = []
    for tensor in case.inputs:
        inputs.append(triton.InferInput(tensor.name, list(tensor.shape), tensor.datatype))
        # The client itself refuses BF16 in JSON.
        inputs[-1].set_data_from_numpy(to_array(tensor), binary_data=binary or tensor.datatype == "BF16")
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in case.outputs]
    return {"model_name": case.model, "inputs": inputs, "outputs": outputs or None, "request_id": case.id}


def answered(case: Case, result: Any) -> list[Tensor]:
    """An answer's outputs; an answer to something else is an error."""
    response = result.get_response()
    assert (response["id"], response["model_name"]) == (case.id, case.model), response
    return [
        to_tensor(output["name"], output["datatype"], result.as_numpy(output["name"]))
        for output in response["outputs"]
    ]


def main() -> None:
    told = exchange.arguments()
    client = triton.InferenceServerClient(told.http, concurrency=8, network_timeout=120.0)

    def infer(binary: bool, **more: Any) -> exchange.Mode:
        return exchange.one_by_one(
            lambda case: answered(case, client.infer(**asked(case, binary=binary), **more))
        )

    def async_infer(cases: Sequence[Case]) -> Results:
        begun = [(case, client.async_infer(**asked(case, binary=True))) for case in cases]
        results = {case.id: result for case, result in begun}
        return exchange.one_by_one(lambda case: answered(case, results[case.id].get_result()))(cases)

    modes = {
        "json": infer(binary=False),
        "binary": infer(binary=True),
        "async_infer": async_infer,
        "gzip": infer(
            binary=True, request_compression_algorithm="gzip", response_compression_algorithm="gzip"
        ),
        "deflate": infer(
            binary=False, request_compression_algorithm="deflate", response_compression_algorithm="deflate"
        ),
    }
    exchange.answer(told.folder, modes)
    client.close()


if __name__ == "__main__":
    main()

"""Triton's gRPC client: one call for each request, many calls at once, and one stream for all of them.

Runs in the environment ``triton``; ``exchange`` says how it is told what to ask. Its asyncio twin is in
``tritonclient_grpc_aio``.
"""

from __future__ import annotations

import queue
from collections.abc import Sequence
from typing import Any

import tritonclient.grpc as triton

from conformance.clients import exchange
from conformance.clients.arrays import to_array, to_tensor
from conformance.clients.exchange import Case, Results, Tensor

SECONDS = 120.0


def asked(case: Case) -> dict[str, Any]:
    """What ``infer`` takes for a case; the same for the asyncio client and in streams."""
    inputs = []
    for tensor in case.inputs:
        inputs.append(triton.InferInput(tensor.name, list(tensor.shape), tensor.datatype))
        inputs[-1].set_data_from_numpy(to_array(tensor))
    outputs = [triton.InferRequestedOutput(name) for name in case.outputs]
    return {"model_name": case.model, "inputs": inputs, "outputs": outputs or None, "request_id": case.id}


def answered(case: Case, result: Any, error: Any = None) -> list[Tensor]:
    """An answer's outputs; an answer to something else is an error."""
    if error is not None:
        raise error
    response = result.get_response()
    assert (response.id, response.model_name) == (case.id, case.model), response
    return [
        to_tensor(output.name, output.datatype, result.as_numpy(output.name)) for output in response.outputs
    ]


def collected(cases: Sequence[Case], results: Any) -> Results:
    """The answers that come in the order of the cases."""
    return exchange.one_by_one(lambda case: answered(case, *results.get(timeout=SECONDS)))(cases)


def main() -> None:
    told = exchange.arguments()
    client = triton.InferenceServerClient(told.grpc)

    def infer(**more: Any) -> exchange.Mode:
        return exchange.one_by_one(
            lambda case: answered(case, client.infer(**asked(case), client_timeout=SECONDS, **more))
        )

    def async_infer(cases: Sequence[Case]) -> Results:
        results: dict[str, queue.Queue[tuple[Any, Any]]] = {case.id: queue.Queue() for case in cases}
        for case in cases:
            done = results[case.id]
            client.async_infer(
                **asked(case), callback=lambda result, error, done=done: done.put((result, error))
            )
        return exchange.one_by_one(lambda case: answered(case, *results[case.id].get(timeout=SECONDS)))(cases)

    def stream(cases: Sequence[Case]) -> Results:
        results: queue.Queue[tuple[Any, Any]] = queue.Queue()
        client.start_stream(lambda result, error: results.put((result, error)), stream_timeout=SECONDS)
        for case in cases:
            client.async_stream_infer(**asked(case))
        yield from collected(cases, results)
        client.stop_stream()

    modes = {"infer": infer(), "async_infer": async_infer, "stream": stream}
    modes |= {"gzip": infer(compression_algorithm="gzip"), "deflate": infer(compression_algorithm="deflate")}
    exchange.answer(told.folder, modes)
    client.close()


if __name__ == "__main__":
    main()

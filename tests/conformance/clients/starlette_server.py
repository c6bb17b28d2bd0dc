"""A hand-written server of the Open Inference Protocol on Starlette, in MLServer's environment: what a team has of its own.

It has the metadata and the inference of one model, in JSON, and nothing else. Prints its port, then serves until it is ended.
"""

from __future__ import annotations

import socket
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


async def metadata(_: Request) -> JSONResponse:
    """One tensor in, one out."""
    tensors: dict[str, Any] = {
        name: [{"name": tensor, "datatype": "FP32", "shape": [-1, 4]}]
        for name, tensor in (("inputs", "X"), ("outputs", "Y"))
    }
    return JSONResponse({"name": "double", "platform": "other", **tensors})


async def infer(request: Request) -> JSONResponse:
    """Twice the first input."""
    given = (await request.json())["inputs"][0]
    output = {**given, "name": "Y", "data": [2 * value for value in given["data"]]}
    return JSONResponse({"model_name": "double", "outputs": [output]})


async def ready(_: Request) -> JSONResponse:
    """Always."""
    return JSONResponse({})


if __name__ == "__main__":
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    routes = [
        Route("/v2/health/ready", ready),
        Route("/v2/models/double", metadata),
        Route("/v2/models/double/infer", infer, methods=["POST"]),
    ]
    config = uvicorn.Config(Starlette(routes=routes), log_level="warning", access_log=False)
    uvicorn.Server(config).run(sockets=[listener])

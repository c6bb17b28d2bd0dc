"""The peer: the inference server that people write by hand, with uvicorn, Starlette and onnxruntime.

Written as well as it usually is: uvloop, httptools, one session, one intra-op thread, the body read once, the answer in
the form of the Open Inference Protocol. It has no routing, no drift, no drain, and that is the point of comparing.
"""

from __future__ import annotations

import argparse
import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import json

import numpy as np
import onnxruntime
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


def create_app(model: str) -> Starlette:
    """The application for one model file with one FP32 input."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    names = [output.name for output in session.get_outputs()]
    datatypes = {"float32": "FP32", "int64": "INT64"}

    async def infer(request: Request) -> Response:
        tensor = json.loads(await request.body())["inputs"][0]
        values = np.array(tensor["data"], np.float32).reshape(tensor["shape"])
        outputs = [
            {
                "name": name,
                "datatype": datatypes[value.dtype.name],
                "shape": list(value.shape),
                "data": value.ravel().tolist(),
            }
            for name, value in zip(names, session.run(names, {given.name: values}), strict=True)
        ]
        body = {"model_name": "digits", "model_version": "1", "outputs": outputs}
        return Response(json.dumps(body), media_type="application/json")

    return Starlette(routes=[Route("/v2/models/digits/infer", infer, methods=["POST"])])


def main() -> None:
    """The command line: ``starlette_server.py --model FILE --port N``."""
    parser = argparse.ArgumentParser(description="A hand-written inference server.")
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    uvicorn.run(
        create_app(arguments.model),
        host="127.0.0.1",
        port=arguments.port,
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
    )


if __name__ == "__main__":
    main()
